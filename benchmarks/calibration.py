"""What ``--corrections auto`` brings on trained CIFAR-10 networks, in FD-C56: with it, without, and constant scales.

    python benchmarks/calibration.py --config cifar10.yaml --data FOLDER --classifier resnet56-4bfd9763.th \
        --statistics c56_train_stats.npz --out FOLDER --network ip=ip.safetensors --network plain=twin.safetensors \
        --images 10000 --seeds 0 1 --scan 2000

Each cell (network, sampler, evaluations) is calibrated by ``ddpm-ip calibrate``'s own code with its defaults, then
sampled without a correction and with ``auto``, each seed with the same noise for both, and, with ``--scan N``, with ten
constant epsilon scales on N images. Several processes (one a GPU, ``CUDA_VISIBLE_DEVICES``) share the cells through
``--out``, which gets a file a cell; ``join`` makes one of them. FD-C56 is NOT FID.

    python benchmarks/calibration.py join FOLDER benchmarks/results/h200_calibration.json
    python benchmarks/calibration.py scales benchmarks/results/h200_calibration.json   # the best constant scale of each
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from samplers import Score, here

from ddpm_ip import texts
from ddpm_ip.config import Config, from_dict, load
from ddpm_ip.exposure.calibrate import CalibrateOptions, calibrate
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.weights import Weights, find_weights
from ddpm_ip.sample.filled import filled
from ddpm_ip.sample.generator import Model
from ddpm_ip.sample.program import load_model, sampling_engine
from ddpm_ip.sampler.correction import Auto, EpsilonScaling
from ddpm_ip.sampler.sampling import Sampling

SAMPLERS = ("ddim", "dpm_solver", "ipndm", "fixed_small")
STEPS = (50, 20, 10)
SCALES = (0.97, 0.98, 0.985, 0.99, 0.995, 1.005, 1.01, 1.02, 1.03, 1.05)
WHOLE = (("ddim", 20), ("fixed_small", 20))  # whose scan is of as many images as the cell itself
PART = 2000  # images of which a distance is taken again, for its spread
BLOCK = 1000


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network, ready to be sampled."""

    name: str
    config: Config
    weights: Weights
    model: Model


def cell(network: Network, sampler: str, steps: int, args: argparse.Namespace, score: Score) -> dict[str, Any]:
    """Everything about one cell."""
    config = from_dict(
        network.config.to_dict(), "calibration.py", {**texts.sampler_overrides(sampler), "sampling.steps": steps}
    )
    base = config.sampling
    start = time.monotonic()
    calibration = calibrate(config, network.weights, base, CalibrateOptions())
    seconds = time.monotonic() - start
    auto = replace(base, corrections=(Auto(),))
    found: dict[str, Any] = {
        "network": network.name, "sampler": sampler, "steps": steps, "calibration_seconds": round(seconds, 1),
        "chosen": calibration.found["chosen"], "suggestions": dict(calibration.found["suggestions"]),
        "candidates": [{k: c[k] for k in ("name", "mismatch", "share", "n")} for c in calibration.found["candidates"]],
        "curves": calibration.found["curves"],
    }  # fmt: skip
    rows: dict[str, list[float]] = {"none": [], "auto": []}
    parts: list[float] = []
    for seed in args.seeds:
        taken = {}
        for name, sampling in (("none", base), ("auto", auto)):
            taken[name] = features(network, replace(sampling, seed=seed), args.images, score)
            rows[name].append(score.distance(taken[name]))
        for first in range(0, args.images - PART + 1, PART):
            pair = [score.distance(taken[name][first : first + PART]) for name in ("auto", "none")]
            parts.append(pair[0] - pair[1])
    found |= rows
    found["paired_difference"] = {
        "mean": float(np.mean(parts)), "parts": len(parts), "images": PART,
        "standard_error": float(np.std(parts, ddof=1) / len(parts) ** 0.5) if len(parts) > 1 else None,
    }  # fmt: skip
    if args.scan:
        found["scan"] = {"images": args.scan, "rows": scan(network, base, args.scan, score)}
        found["scan"]["none"] = score.distance(features(network, base, args.scan, score))
        found["scan"]["auto"] = score.distance(features(network, auto, args.scan, score))
    if args.scan and (sampler, steps) in WHOLE:
        found["whole_scan"] = {"images": args.images, "rows": scan(network, base, args.images, score)}
    return found


def scan(network: Network, base: Sampling, images: int, score: Score) -> dict[str, float]:
    """Constant epsilon scales."""
    rows = {}
    for scale in SCALES:
        sampling = replace(base, corrections=(EpsilonScaling(scale),))
        rows[str(scale)] = score.distance(features(network, sampling, images, score))
    return rows


def features(network: Network, sampling: Sampling, images: int, score: Score) -> np.ndarray:
    """Of images of a sampling."""
    model, config = network.model, network.config
    store = Measured.of(network.weights.sha256, Path(network.weights.origin))
    sampling = filled(replace(sampling, block=BLOCK).filled(config.diffusion.var_type), config, store, model)
    return score.seen(model.generator(sampling).mine(images), model.device)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("config", "data", "classifier", "statistics", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--network", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--scan", type=int, default=0)
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--commit", default="")
    args = parser.parse_args()
    begin = time.monotonic()
    config = load(args.config, {"data.root": str(args.data), "data.download": False})
    engine = sampling_engine(config, config.sampling)
    score = Score(args.classifier, args.statistics, engine.device)
    args.out.mkdir(parents=True, exist_ok=True)
    models: dict[str, Network] = {}
    for name, path in (text.split("=", 1) for text in args.network):
        gamma = {} if name == "ip" else {"perturbation.gamma": 0.0}
        own = from_dict(config.to_dict(), "calibration.py", gamma)
        weights = find_weights(Path(path))
        models[name] = Network(name, own, weights, load_model(own, weights.tensors, engine, path))
    for steps in args.steps:
        for sampler in args.samplers:
            for network in models.values():
                claim = args.out / f"{network.name}-{sampler}-{steps}"
                if time.monotonic() - begin > args.seconds or not claimed(claim):
                    continue
                found = cell(network, sampler, steps, args, score)
                known = {"weights_sha256": network.weights.sha256, "images": args.images, "seeds": args.seeds}
                claim.with_suffix(".json").write_text(json.dumps({**about(args), **known, **found}) + "\n")
                print(name_and_numbers(found), flush=True)


def claimed(path: Path) -> bool:
    """Whether a cell is this process's."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


def name_and_numbers(found: dict[str, Any]) -> str:
    none, auto = (np.mean(found[k]) for k in ("none", "auto"))
    best = min(found["scan"]["rows"].items(), key=lambda p: p[1]) if "scan" in found else ("", 0.0)
    extra = f" best scale {best[0]} {best[1] / found['scan']['none']:.2f}" if "scan" in found else ""
    return (
        f"{found['network']} {found['sampler']}@{found['steps']}: {none:.2f} -> {auto:.2f} ({auto / none:.2f}) "
        f"{found['chosen']} in {found['calibration_seconds']} s{extra}"
    )


def about(args: argparse.Namespace) -> dict[str, Any]:
    """What all cells have in common."""
    return {**here(args.commit), "metric": "FD-C56 against the 50,000 training images (not FID)"}


def join(folder: Path, out: Path) -> None:
    """One file of all cells."""
    cells = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    common = {key: cells[0][key] for key in ("date", "hardware", "versions", "git", "metric", "command", "images")}
    left_out = {*common, "curves"}
    rows = [{key: value for key, value in one.items() if key not in left_out} for one in cells]
    out.write_text(json.dumps({**common, "rows": rows}, indent=1) + "\n")


def scales(file: Path) -> None:
    """The best constant scale of each cell, by a parabola through the three scales around the best, and the ratios."""
    best: dict[tuple[str, str, int], float] = {}
    for row in json.loads(file.read_text())["rows"]:
        found = {1.0: row["scan"]["none"], **{float(k): v for k, v in row["scan"]["rows"].items()}}
        x = sorted(found)
        at = min(max(x.index(min(x, key=found.__getitem__)), 1), len(x) - 2)
        square, linear, _ = np.polyfit(x[at - 1 : at + 2], [found[k] for k in x[at - 1 : at + 2]], 2)
        best[row["network"], row["sampler"], row["steps"]] = float(-linear / 2 / square)
    for sampler in SAMPLERS:
        for steps in sorted(STEPS):
            ours, plain = best["ip", sampler, steps], best["plain", sampler, steps]
            print(f"{sampler} {steps}: gamma 0.1 {ours:.4f}, gamma 0 {plain:.4f}, ratio {ours / plain:.4f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["join"]:
        join(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:2] == ["scales"]:
        scales(Path(sys.argv[2]))
    else:
        main()
