"""Makes the weights that come with the package (``--weights digits``) of a trained run, and measures them.

    ddpm-ip train -c benchmarks/digits_weights.yaml -e runs/digits-weights    # 49 minutes beside other work on its core
    python benchmarks/digits_weights.py runs/digits-weights

Writes src/ddpm_ip/weights/digits, where an earlier one must have been removed: the newest checkpoint's average in bf16,
with the settings of the run, its losses, and in provenance.json how it was made and its FD-pixels. Of the averages that
the run kept that one is taken whose images are nearest to the real ones.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import ddpm_ip as ip
from ddpm_ip.files import read_json, write_json, write_yaml
from ddpm_ip.run import checkpoint
from ddpm_ip.run.weights import find_weights

ROOT = Path(__file__).parents[1]
OUT = ROOT / "src/ddpm_ip/weights/digits"
RECORD = ROOT / "benchmarks/results/digits_weights.json"
COMMAND = "ddpm-ip train -c benchmarks/digits_weights.yaml -e runs/digits-weights"
# How they are sampled where nobody says. (Of SAMPLINGS below, dpm_solver has the smallest distance, and images that are
# farther from the training images than these are from each other, and look so.)
SAMPLING = {"sampler": {"name": "ddim", "eta": 0.5}, "steps": 50, "spacing": "uniform-linspace"}
N, CHOOSING_N, CHOOSING_SEED = 1024, 512, 1  # images behind a number, and behind the choice of the average; its seed
SAMPLINGS = {
    "dpm_solver_sde@logsnr, 50 steps": (ip.DPMSolverSDE(), 50, "logsnr"),
    "ddim,eta=0.5, 50 steps": (ip.DDIM(eta=0.5), 50, "uniform-linspace"),
    "fixed_small, 50 steps": (ip.Ancestral("fixed_small"), 50, "uniform-linspace"),
    "dpm_solver@logsnr, 20 steps": (ip.DPMSolver(order=2), 20, "logsnr"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of the run")
    run = parser.parse_args().run
    if OUT.exists():
        parser.error(f"{OUT} exists already: remove it")
    decays = ip.load(run).config.train.ema_decay
    averages = [str(decay) for decay in (decays if isinstance(decays, (list, tuple)) else [decays])]
    chosen_by = {decay: distance(ip.load(run, ema=decay), CHOOSING_SEED, n=CHOOSING_N) for decay in averages}
    best = min(averages, key=lambda decay: chosen_by[decay])
    pack(run, best)
    packed = ip.load(OUT)
    numbers = {name: distance(packed, 0, *settings) for name, settings in SAMPLINGS.items()}
    numbers["as trained, float32, dpm_solver_sde@logsnr, 50 steps"] = distance(ip.load(run, ema=best), 0)
    about: dict[str, Any] = {
        "command": "python benchmarks/digits_weights.py runs/digits-weights",
        "average": f"train.ema_decay {best}, in bfloat16",
        "FD-pixels": {"images": N, "seed": 0, "reference": "the 1,797 digits", **numbers},
        "chosen by FD-pixels": {"images": CHOOSING_N, "seed": CHOOSING_SEED, **chosen_by},
        "nearest training image": nearest(packed),
    }
    trained = {**read_json(run / "provenance.json"), "command": COMMAND}
    write_json(OUT / "provenance.json", {**trained, "weights": about})
    write_json(RECORD, {"trained": trained, **about})
    print(about)
    return 0


def distance(
    run: ip.Run, seed: int, sampler: Any = None, steps: int = 50, spacing: str = "logsnr", n: int = N
) -> float:
    """FD in pixels of images to the real ones."""
    walk = run.sample(n, sampler=sampler or ip.DPMSolverSDE(), steps=steps, spacing=spacing, seed=seed, block=256)
    return ip.measure(walk, reference="digits", features="pixels", metrics=["fid"]).values["FD-pixels"]


def nearest(run: ip.Run) -> dict[str, float]:
    """Whether images are copies: the median distance to the nearest training image, and that among training images.

    In root mean square levels of 255.
    """
    real = torch.from_numpy(run.config.data.open().pixels.copy()).float().flatten(1)
    made = run.sample(N, block=256)
    fast = run.sample(N, sampler=ip.DPMSolver(order=2), steps=20, spacing="logsnr", block=256)
    among = torch.cdist(real, real).fill_diagonal_(torch.inf)
    found = {
        name: torch.cdist(torch.from_numpy(walk.images).float().flatten(1), real)
        for name, walk in {"samples": made, "samples of dpm_solver, 20 steps": fast}.items()
    }
    found["real images"] = among
    return {name: float(d.min(1).values.median()) / real.shape[1] ** 0.5 for name, d in found.items()}


def pack(run: Path, decay: str) -> None:
    """Writes the folder of the package but for its provenance."""
    weights = find_weights(run, decay)
    assert weights.checkpoint is not None
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in weights.tensors.items()}
    meta = dict(weights.checkpoint.meta)
    meta["config"] = settings(meta["config"], float(decay))
    with tempfile.TemporaryDirectory(dir=OUT.parent.parent) as folder:
        place = Path(folder) / "digits"
        checkpoint.save(place / "ckpt", weights.checkpoint.step, {"ema": tensors}, meta)
        write_yaml(place / "config.yaml", meta["config"])
        shutil.copy(run / "metrics.jsonl", place)
        for path in place.rglob("*.safetensors"):
            path.chmod(0o644)
        OUT.parent.mkdir(exist_ok=True)
        shutil.move(place, OUT)


def settings(config: Mapping[str, Any], decay: float) -> dict[str, Any]:
    """The settings of the run with one average, and with how it is sampled where nobody says."""
    train, sampling = {**config["train"], "ema_decay": decay}, {**config["sampling"], **SAMPLING}
    return {**config, "train": train, "sampling": sampling}


if __name__ == "__main__":
    sys.exit(main())
