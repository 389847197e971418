"""What ``ddpm-ip sample --weights RUN`` makes where nothing else is said: 64 images beside the run, in 50 steps.

The samplers are those that were best with 50 network evaluations (docs/choosing.md). They hold only where no folder is
named: a call with ``--save_dir`` makes what the configuration says, as it always did.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ddpm_ip.config import Config
from ddpm_ip.run import builtin
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.weights import Weights
from ddpm_ip.sample.program import SampleOptions
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolverSDE
from ddpm_ip.sampler.facts import canonical
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.sampler.spacing import listed

STEPS = 50
DIGITS = 8  # of the hash, in the name of a folder
DETERMINISTIC = ("interpolate", "reconstruction")  # modes that need a sampler without noise, as --afs does


def usual(sampling: Sampling, config: Config, overrides: Collection[str], mode: str) -> Sampling:
    """The same, with a good sampler and 50 steps in place of what neither a configuration nor an option says.

    Args:
        sampling: of the configuration and the options.
        config: of the model.
        overrides: the dotted paths of what options say.
        mode: what is made, see :class:`ddpm_ip.sample.program.SampleOptions`.
    """
    said = {key.split(".")[1] for key in overrides if key.startswith("sampling.")}
    fields = (field.name for field in dataclasses.fields(Sampling))
    said |= {name for name in fields if getattr(sampling, name) != getattr(Sampling(), name)}
    if "steps" not in said and listed(sampling.spacing) is None:
        sampling = dataclasses.replace(sampling, steps=min(STEPS, config.diffusion.total_steps))
    if "sampler" in said:
        return sampling
    if mode in DETERMINISTIC or sampling.afs:
        found: dict[str, Any] = {"sampler": DDIM(eta=0.0)}
    elif config.diffusion.learned_variance:
        found = {"sampler": Ancestral(), "spacing": "uniform-leading"}
    else:
        found = {"sampler": DPMSolverSDE(), "spacing": "logsnr"}
    return dataclasses.replace(sampling, **{key: value for key, value in found.items() if key not in said})


def place(weights: Weights, path: Path, options: SampleOptions) -> Path:
    """The folder of samples beside the run: another for other weights, another sampling or other pictures.

    ``RUN/samples/dpm_solver_sde-50-1a2b3c4d``; of weights from the hub ``samples/...`` in the current folder.

    Args:
        weights: of the network.
        path: where they were looked for.
        options: what is to be made; neither the number of images nor the block plays a part.
    """
    sampling, given = options.sampling, options.input_dir
    said = {
        **dataclasses.asdict(dataclasses.replace(sampling, block=None)),
        **{"weights": weights.sha256, "mode": options.mode, "frames": options.frames},
        "input": None if given is None else os.path.abspath(given),
    }
    digest = hashlib.sha256(canonical(said).encode()).hexdigest()[:DIGITS]
    times = listed(sampling.spacing)
    count = sampling.steps or ("all" if times is None else len(times))
    name = "-".join(re.sub("[^a-z0-9]+", "_", str(part).lower()) for part in (sampling.sampler.name, count, digest))
    here = path.exists() or builtin.is_one(Path(weights.origin))
    home = Measured.beside(weights.sha256, Path(weights.origin)).folder if here else Path.cwd()
    folder = home / "samples" / name
    return Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder
