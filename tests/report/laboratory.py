"""What ``ddpm-ip exposure`` and ``ddpm-ip calibrate`` leave, made without them."""

import json
from pathlib import Path

from ddpm_ip.exposure.curves import Curve, Exposure

OURS = "ab" * 32  # the weights of the rows of synthetic runs


def curve(*values: float, se: float = 0.01) -> Curve:
    """Values at t = 0, 100, ... with a 95 % interval of two standard errors."""
    n, low, high = len(values), [v - 2 * se for v in values], [v + 2 * se for v in values]
    return Curve(tuple(100.0 * i for i in range(n)), values, (se,) * n, tuple(low), tuple(high))


def exposure(label: str = "ddim, 10 steps", weights: str = OURS, **curves: Curve) -> Exposure:
    """Norms of predicted noise that are 5 % too long at t = 0, and whatever other curves are given."""
    known = {
        "eps_norm.sampling": curve(8.4, 8.0, 8.0),
        "eps_norm.training": curve(8.0, 8.0, 8.0),
        "eps_norm.ratio": curve(1.05, 1.0, 1.0, se=0.004),
        "delta": curve(0.002, 0.001, 0.0, se=0.0001),
    }
    data = {"name": "digits", "sha256": "cd" * 32}
    return Exposure(label, weights, {"sampler": {"name": "ddim"}, "seed": 0}, 200, data, known | curves)


def put_exposure(run: Path, found: Exposure, name: str = "ddim-10-01234567") -> Path:
    path = run / "exposure" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"schema": 1, **found.to_dict(), "settings": {}, "measured": "2026-01-02"}))
    return path


def calibration(**changes: object) -> dict:
    """What `calibrate` writes."""
    scaled = [{"name": "epsilon_scaling", "scale": 1.01}]
    return {
        "weights": OURS,
        "measured": "2026-01-02T03:04:05+00:00",
        "versions": {},
        "settings": {"n": 1000, "seed": 0, "sampling": {"sampler": {"name": "ddim", "eta": 0.0}, "steps": 10}},
        "corrections": scaled,
        "chosen": "constant scale",
        "why": "It leaves the least.",
        "candidates": [
            {"name": "none", "corrections": [], "mismatch": 0.5, "distance": 9.0},
            {"name": "constant scale", "corrections": scaled, "mismatch": 0.125, "distance": None},
        ],
        "expects": "A shorter distance.",
        "cannot_know": ["What your features see."],
        "suggestions": {"perturbation.gamma": "0.05 is enough."},
        "curves": {},
        **changes,
    }  # fmt: skip


def put_calibration(run: Path, found: dict, name: str = "calibration-ddim-10-01234567") -> Path:
    path = run / f"{name}.json"
    path.write_text(json.dumps(found))
    return path
