"""What classes, adaptive times and several averages cost a captured training step: alternating, in one process.

    python benchmarks/training_extras.py --out benchmarks/results/NAME.json

Each variant is the network of configs/ddpm_ip_cifar10.yaml on random images with one thing added. All are built first;
then rounds of steps go through them in turn, so that the clock of the card is the same for all. A ratio is that of the
medians of a variant's rounds and the plain one's. It needs one GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm_ip.bench import ours
from ddpm_ip.config import from_dict
from ddpm_ip.data.imageset import from_arrays
from ddpm_ip.engine import start_engine
from ddpm_ip.run.provenance import provenance

PLAIN = {"data": {"name": "cifar10"}, "perturbation": {"name": "input"}}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "classes": {"classes.count": 10},
    "loss_second_moment": {"train.times.name": "loss_second_moment"},
    "min_snr": {"train.weighting.name": "min_snr"},
    "gamma by t, random, with a probability": {
        "perturbation.gamma": [0.05, 0.15], "perturbation.random": True, "perturbation.probability": 0.8,
    },
    "three averages": {"train.ema_decay": [0.9999, 0.999, 0.99]},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=50, help="of a round")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--commit", help="of the tree that is measured, where there is no repository")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    engine = start_engine("bf16", fast=True)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (8192, 3, 32, 32), dtype=np.uint8)
    images = from_arrays(pixels, generator.integers(0, 10, 8192), "random", 32, progress=False)
    steps = {}
    for name, overrides in VARIANTS.items():
        config = from_dict(PLAIN, "training_extras.py", {"train.batch_size": args.batch, **overrides})
        steps[name] = ours.train(config, images, engine)
        for _ in range(10):
            steps[name]()
    ms: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(args.rounds):
        for name in list(steps) if number % 2 == 0 else list(steps)[::-1]:
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(args.steps):
                steps[name]()
            torch.cuda.synchronize()
            ms[name].append(1000 * (time.perf_counter() - start) / args.steps)
    median = {name: statistics.median(each) for name, each in ms.items()}
    here = provenance()
    result = {
        "date": date.today().isoformat(),
        "hardware": here["hardware"],
        "versions": here["versions"],
        "git": {"commit": args.commit} if args.commit else here["git"],
        "command": here["command"],
        "batch": args.batch,
        "ms": median,
        "times_plain": {name: round(each / median["plain"], 4) for name, each in median.items()},
        "rounds_ms": ms,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in ("ms", "times_plain")}, indent=1))


if __name__ == "__main__":
    main()
