"""Today's speed beside version 0.1's on one GPU: pairs of processes, alternating, in one call.

    git worktree add --detach /tmp/v0.1 5888e00       # version 0.1
    python benchmarks/against_0_1.py --old /tmp/v0.1 --out benchmarks/results/NAME.json

For each pair a process of each version trains and samples the CIFAR-10 network on random images: milliseconds a training
step and images a second, the median of the steps; the ratio of each pair, and the median of the ratios. Then each version
makes a results table of 8 cells (fixed-large and fixed-small; 10, 20, 50, 100 steps) of a network that it has trained for
a few steps, in pixels: seconds of the whole program, twice.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
BATCHES, BLOCKS, EVALUATIONS = (128, 512), (256, 1024), 20
CONFIG = {"data": {"name": "cifar10"}, "perturbation": {"name": "input"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="a checkout of version 0.1")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of processes (default: %(default)s)")
    parser.add_argument("--table_images", type=int, default=1024, help="images a cell (default: %(default)s)")
    parser.add_argument("--commit", help="of the tree that is measured, where there is no repository")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", action="store_true", help="measure the version on PYTHONPATH, and print it")
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(worker()))
        return
    homes = {"0.1": args.old, "today": HERE}
    pairs = []
    for number in range(args.pairs):
        order = list(homes) if number % 2 == 0 else list(homes)[::-1]
        pairs.append({name: run(homes[name], __file__, "--worker") for name in order})
        print(json.dumps(pairs[-1]), flush=True)
        write(args, pairs, {})
    tables = {name: eight_cells(home, args.table_images) for name, home in homes.items()}
    print(json.dumps(write(args, pairs, tables), indent=1))


def write(args: argparse.Namespace, pairs: list[dict[str, Any]], tables: dict[str, Any]) -> dict[str, Any]:
    from ddpm_ip.run.provenance import provenance

    here = provenance()
    ratios = {
        what: [pair["today"][what]["rate"] / pair["0.1"][what]["rate"] for pair in pairs] for what in pairs[0]["today"]
    }
    result = {
        "date": date.today().isoformat(),
        "hardware": here["hardware"],
        "versions": here["versions"],
        "git": {"commit": args.commit, "old": "5888e00"} if args.commit else here["git"],
        "made_by": "benchmarks/against_0_1.py",
        "median_ratio": {what: statistics.median(values) for what, values in ratios.items()},
        "ratios": ratios,
        "pairs": pairs,
        "table_of_8_cells": tables,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    return result


def run(home: Path, *command: str) -> Any:
    """The last line of what a program of one version prints, from JSON."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(home / "src"), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, env=environment, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def worker() -> dict[str, Any]:
    """Rates of training and sampling; through `bench`, which both versions have."""
    import dataclasses

    import numpy as np

    from ddpm_ip.bench import ours
    from ddpm_ip.bench.measure import Plan, measure
    from ddpm_ip.config import from_dict
    from ddpm_ip.data.imageset import from_arrays
    from ddpm_ip.engine import start_engine

    accelerator = start_engine("bf16", fast=True)
    pixels = np.random.default_rng(0).integers(0, 256, (4096, 3, 32, 32), dtype=np.uint8)
    images, config = from_arrays(pixels, None, "random", 32, progress=False), from_dict(CONFIG)
    found = {}
    for batch in (*BATCHES, *BLOCKS):
        settings = dataclasses.replace(config.train, batch_size=batch, mixed_precision="bf16")
        wanted = dataclasses.replace(config, train=settings)
        if batch in BATCHES:
            timing = measure(
                lambda wanted=wanted: ours.train(wanted, images, accelerator), Plan(10, 150 if batch < 512 else 60),
                accelerator.device,
            )  # fmt: skip
            what, ms = f"training, batch {batch}", statistics.median(timing.ms)
        else:
            timing = measure(
                lambda wanted=wanted: ours.sample(wanted, EVALUATIONS, accelerator), Plan(2, 12 if batch < 512 else 5),
                accelerator.device,
            )  # fmt: skip
            what, ms = f"sampling, block {batch}", statistics.median(timing.ms) / EVALUATIONS
        found[what] = {"ms": ms, "rate": 1000 * batch / ms, "ready_s": timing.warmup_s}
    return found


def eight_cells(home: Path, images: int) -> dict[str, float]:
    """Seconds of a results table of 8 cells, once with whatever is still to be compiled and once without."""
    import numpy as np

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(home / "src"), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryDirectory() as folder:
        environment["DDPM_IP_CACHE"] = f"{folder}/cache"
        np.savez(f"{folder}/random.npz", images=np.random.default_rng(0).integers(0, 256, (2048, 32, 32, 3), np.uint8))
        Path(f"{folder}/config.yaml").write_text(
            f"data: {{name: npz, root: {folder}/random.npz, image_size: 32}}\n"
            "train: {n_steps: 20, batch_size: 64, sample_freq: 0, save_freq: 20, print_freq: 20, lr_warmup: 100}\n"
        )
        script = [sys.executable, str(home / "scripts/train_ddpm_ip.py"), "-c", f"{folder}/config.yaml"]
        subprocess.run([*script, "-e", f"{folder}/run"], env=environment, check=True)
        table = [sys.executable, str(home / "scripts/table.py"), "-e", f"{folder}/run", "--extractor", "pixels"]
        table += ["--steps", "100", "50", "20", "10", "--n_samples", str(images), "--batch_size", "256"]
        seconds = []
        for _ in range(2):  # the first compiles what is not in Triton's cache yet
            subprocess.run(["rm", "-rf", f"{folder}/run/table"], check=True)
            start = time.perf_counter()
            subprocess.run(table, env=environment, check=True)
            seconds.append(time.perf_counter() - start)
    return {"first_s": seconds[0], "second_s": seconds[1]}


if __name__ == "__main__":
    main()
