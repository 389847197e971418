"""Synthetic run folders: the files that training and evaluation write, without training anything."""

import json
from pathlib import Path

import numpy as np
import yaml

from ddpm_ip.images import grid, save_png

VALUES = {("fixed_large", 10): 6.5, ("fixed_large", 100): 0.8125, ("fixed_small", 10): 4.25, ("fixed_small", 100): 0.75}


def result(value: float, var_type: str = "fixed_large", steps: int = 10, **changes) -> dict:
    """One row of ``results.json``."""
    row = {
        "metric": "FD-pixels", "value": value, "spread": None, "var_type": var_type, "respace_type": "uniform-linspace",
        "steps": steps, "n_samples": 1797, "seed": 0, "sampler": "ancestral", "weights": "ab" * 32,
        "reference": "digits", "reference_sha256": "cd" * 32, "n_reference": 1797,
        "protocol": "FD-pixels, rounded to 256 levels", "grid": f"eval/{var_type}-{steps}.png",
    }  # fmt: skip
    return row | changes


def config(gamma: float) -> dict:
    return {
        "seed": 0,
        "data": {"name": "digits"},
        "diffusion": {"total_steps": 1000, "objective": "pred_eps", "var_type": "fixed_large"},
        "perturbation": {"name": "input", "gamma": gamma} if gamma else {"name": "none", "gamma": 0},
        "train": {"n_steps": 1000, "batch_size": 128},
    }


def make_run(folder: Path, gamma: float = 0.0, factor: float = 1.0) -> Path:
    """A complete run folder; ``factor`` scales its results."""
    (folder / "samples").mkdir(parents=True)
    (folder / "eval").mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config(gamma)))
    lines = [
        {
            "step": s,
            "loss": 1 / s,
            "grad_norm": 0.5,
            "lr": 2e-4,
            "images_per_s": 4000.0,
            "seconds": s / 10,
            "ema_gap": s,
        }
        for s in range(100, 1001, 100)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [result(value * factor, *setting) for setting, value in VALUES.items()]
    (folder / "results.json").write_text(json.dumps(rows))
    provenance = {
        "command": f"ddpm-ip train --perturbation.gamma {gamma}",
        "started": "2026-01-02T03:04:05+00:00",
        "versions": {"torch": "2.9.0"},
        "hardware": "a machine",
        "git": {"commit": "0123456789", "dirty": False},
        "parameters": 12345,
        "data": {"name": "digits", "fingerprint": "ef" * 8, "count": 1797, "channels": 1, "size": 8},
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    picture = grid(np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8)).astype(np.uint8))
    for setting in VALUES:
        save_png(picture, folder / "eval" / "{}-{}.png".format(*setting))
    for step in range(100, 1001, 100):
        save_png(picture, folder / "samples" / f"step{step:06d}.png")
    return folder
