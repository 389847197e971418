"""The program ``calibrate``: the corrections that weights, a sampler and its times need, fitted to what is measured.

No trained network compares the images, unless somebody names one: states are compared with what follows from the
training images alone (:mod:`ddpm_ip.exposure.fit`), finished images by a distance that a few thousand of them determine
(:mod:`ddpm_ip.exposure.mismatch`). The corrections are kept next to the weights, for ``--corrections auto``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm_ip.config import Config
from ddpm_ip.data import DataConfig, ImageSet
from ddpm_ip.engine import from_main
from ddpm_ip.errors import ConfigError
from ddpm_ip.evaluate.evaluate import Evaluator
from ddpm_ip.evaluate.features import find_extractor
from ddpm_ip.exposure.bands import haar_energy
from ddpm_ip.exposure.candidates import Trial, candidates
from ddpm_ip.exposure.choice import by_features, by_mismatch
from ddpm_ip.exposure.curves import HAAR
from ddpm_ip.exposure.fit import Target
from ddpm_ip.exposure.mismatch import Mismatch, statistics
from ddpm_ip.exposure.program import chosen_images, of_classes, real_images
from ddpm_ip.exposure.sentences import as_text, told
from ddpm_ip.exposure.truth import Truth, truth
from ddpm_ip.images import to_unit
from ddpm_ip.memory import enough_memory
from ddpm_ip.metric import usual as usual_metrics
from ddpm_ip.perturbation import InputPerturbation, NoPerturbation
from ddpm_ip.precise import place
from ddpm_ip.run.log import setup
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.weights import Weights
from ddpm_ip.sample import calibrated
from ddpm_ip.sample.analytic import chosen
from ddpm_ip.sample.filled import filled, together
from ddpm_ip.sample.generator import Generator, Model
from ddpm_ip.sample.program import default_block, load_model, sampling_engine
from ddpm_ip.sampler.correction import Auto
from ddpm_ip.sampler.sampling import Sampling

log = logging.getLogger("ddpm_ip.exposure")

LEAST = 10  # walks
BLOCKS = 5  # that the images are made in, at least
REAL = 10_000  # images behind the statistics of real ones
MOST_NUMBERS = 2**30  # of real images that are looked at


@dataclass(frozen=True)
class CalibrateOptions:
    """How a calibration is made.

    Args:
        n: walks behind each fit.
        seed: of their noise, and of the choice of real images; another than images are made with.
        extractor: of features that decide instead of the mismatch (:func:`ddpm_ip.evaluate.features.find_extractor`);
            None for none.
        reference: the real images; None for those that the run was trained on.
    """

    n: int = 2000
    seed: int = 1
    extractor: str | None = None
    reference: DataConfig | None = None

    def __post_init__(self) -> None:
        if self.n < LEAST:
            raise ConfigError(f"--n {self.n}: a fit needs some hundreds of walks; at least {LEAST}")


@dataclass(frozen=True, repr=False)
class Calibration:
    """What was found.

    Attributes:
        file: where it is kept.
        found: what it holds; see :func:`ddpm_ip.sample.calibrated.keep`.
    """

    file: Path
    found: Mapping[str, Any]

    @property
    def mismatch(self) -> float:
        """Of the images with what was chosen."""
        return next(float(c["mismatch"]) for c in self.found["candidates"] if c["name"] == self.found["chosen"])

    def as_text(self) -> str:
        """The candidates as a table, and the sentences."""
        return as_text(self.found, str(self.file))

    __str__ = as_text

    def __repr__(self) -> str:
        held = "+".join(item["name"] for item in self.found["corrections"]) or "no correction"
        return f"<calibration {self.file.name}: {held}. {self.found['why']}>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.as_text())}</pre>"


def calibrate(config: Config, weights: Weights, sampling: Sampling, options: CalibrateOptions) -> Calibration:
    """Fits corrections and keeps them; all processes call this together.

    Args:
        config: of the model.
        weights: of it.
        sampling: how it is sampled; ``auto`` in it is where the corrections will stand, else they come last.
        options: how.

    Raises:
        UserError: anything that the user can put right; an earlier calibration stays.
    """
    engine = sampling_engine(config, sampling)
    setup(None, engine.is_main_process)
    source = real_images(config, engine, options.reference)
    evaluator = None
    if options.extractor is not None:
        evaluator = Evaluator(find_extractor(options.extractor, engine.device), usual_metrics(""), engine.device)
        evaluator.check(source, options.n)
    usual = min(default_block(config, engine), max(1, options.n // max(BLOCKS, engine.num_processes)))
    block = from_main(engine, sampling.block or usual)
    with enough_memory(lambda: f"there is too little memory: take --batch_size {max(1, block // 2)} or a smaller --n"):
        model = load_model(config, weights.tensors, engine, weights.origin)
        store = Measured.of(weights.sha256, Path(weights.origin))
        together(engine, lambda: store.at_home().refuse_unwritable("calibration"))
        whole = _filled(replace(sampling, block=block, seed=options.seed), config, store, model)
        trial, known = _measured(model.generator(calibrated.placed(whole, ())), whole, source, options)
        gamma = undoable(config)
        tried = [*candidates(trial, known, gamma)]
        best = by_mismatch(trial, tried) if evaluator is None else by_features(trial, tried, evaluator, source)
        found = told(trial, known, best, gamma)
    found["settings"] = {
        "n": options.n, "seed": options.seed, "block": block, "extractor": options.extractor, "data": source.name,
        "data_sha256": source.fingerprint, "precision": engine.mixed_precision, "device": engine.device.type,
    }  # fmt: skip
    file = together(engine, lambda: calibrated.keep(whole, config, weights.sha256, Path(weights.origin), found))
    return Calibration(file, found)


def _filled(sampling: Sampling, config: Config, store: Measured, model: Model) -> Sampling:
    """The same with everything filled in except ``auto``, which is there."""
    plain = calibrated.base(sampling).filled(config.diffusion.var_type)
    return replace(filled(plain, config, store, model), corrections=with_auto(sampling).corrections)


def with_auto(sampling: Sampling) -> Sampling:
    """The same with ``auto`` as the last correction, if it is not among them yet."""
    there = any(isinstance(c, Auto) for c in sampling.corrections)
    return sampling if there else replace(sampling, corrections=(*sampling.corrections, Auto()))


def _measured(
    generator: Generator, sampling: Sampling, source: ImageSet, options: CalibrateOptions
) -> tuple[Trial, Truth]:
    """What candidates are compared with, and what the network says of true states.

    Args:
        generator: of the sampling without a correction.
        sampling: with ``auto``.
        source: real images.
        options: how.
    """
    real = chosen_images(source, generator, options.n)
    asked = torch.arange(max(generator.block, len(real.pixels) // 2)) % len(real.pixels)
    labels = None if real.labels is None else real.labels[asked]
    known = truth(generator, real.pixels[asked], labels, options.seed)
    target, judge = _real(source, generator, options)
    return Trial(generator.model, sampling, target, judge, options.n), known


def undoable(config: Config) -> float | None:
    """The strength of the perturbation behind the weights, as ``ip_emulator`` has it; None if it is no single number.

    It is 0 where nothing was perturbed. A strength by time, step, image or chance, and clean targets of ``pred_x0`` and
    ``pred_v``, have no such number: what they did to a network, its slope says (:mod:`ddpm_ip.exposure.truth`).
    """
    p = config.perturbation
    if isinstance(p, NoPerturbation):
        return 0.0
    if not isinstance(p, InputPerturbation):
        return None
    if p.is_off:
        return 0.0
    always = isinstance(p.gamma, float | int) and p.until is None and not p.random and p.probability == 1
    same = config.diffusion.objective == "pred_eps" or p.target == "consistent"
    return float(p.gamma) if always and same else None  # type: ignore[arg-type]  # no list


def _real(source: ImageSet, generator: Generator, options: CalibrateOptions) -> tuple[Target, Mismatch]:
    """What candidates are compared with: the energies of all real images, and statistics of some."""
    most = max(options.n, MOST_NUMBERS // math.prod(source.shape))
    which = chosen(of_classes(source, generator), most, options.seed)
    device = generator.model.device
    sums, seen, rows = torch.zeros(HAAR, dtype=torch.float64, device=place(device)), 0, []
    for start in range(0, len(which), 512):
        images = to_unit(torch.from_numpy(np.array(source.pixels[which[start : start + 512]])).to(device))
        sums += haar_energy(images).sum(dim=0)
        if seen < REAL:
            rows.append(statistics(images))
        seen += len(images)
    _, height, width = source.shape
    return Target.of(sums / seen, height, width), Mismatch.to(torch.cat(rows))
