"""Today's speed beside version 0.1's on one GPU: pairs of processes, alternating, in one call.

    git worktree add --detach /tmp/v0.1 5888e00       # version 0.1
    python benchmarks/against_0_1.py --old /tmp/v0.1 --out benchmarks/results/NAME.json

For each pair a process of each version trains and samples the CIFAR-10 network on random images: milliseconds a step,
the median of the steps, and images a second; the ratio of each pair, and the median of the ratios. Then both make the
same images of the same random weights, which are compared; and each makes a results table of 8 cells (fixed-large and
fixed-small; 10, 20, 50, 100 steps) of a network that it has trained for a few steps: seconds of the whole program (most
of it are distances in 3,072 pixels), and of capturing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
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
    parser.add_argument(
        "--old_commit", default="5888e00", help="of that checkout, which may be any (default: version 0.1)"
    )
    parser.add_argument("--pairs", type=int, default=5, help="pairs of processes (default: %(default)s); 0 for none")
    parser.add_argument(
        "--table_images", type=int, default=1024, help="images a cell (default: %(default)s); 0 for no table"
    )
    parser.add_argument("--commit", help="of the tree that is measured, where there is no repository")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", action="store_true", help="measure the version on PYTHONPATH, and print it")
    parser.add_argument("--images", type=Path, help="write images of the version on PYTHONPATH to this .npz")
    args = parser.parse_args()
    if args.worker or args.images:
        print(json.dumps(write_images(args.images) if args.images else worker()))
        return
    homes = {"0.1": args.old, "today": HERE}
    pairs = []
    for number in range(args.pairs):
        order = list(homes) if number % 2 == 0 else list(homes)[::-1]
        pairs.append({name: run(homes[name], __file__, "--worker") for name in order})
        print(json.dumps(pairs[-1]), flush=True)
        write(args, pairs, {})
    more: dict[str, Any] = {"same_images": compare_images(homes)}
    write(args, pairs, more)
    if args.table_images:
        more["table_of_8_cells"] = {name: eight_cells(home, args.table_images) for name, home in homes.items()}
    print(json.dumps(write(args, pairs, more), indent=1))


def write(args: argparse.Namespace, pairs: list[dict[str, Any]], more: dict[str, Any]) -> dict[str, Any]:
    from ddpm_ip.run.provenance import provenance

    here = provenance()
    ratios = {
        what: [pair["today"][what]["rate"] / pair["0.1"][what]["rate"] for pair in pairs]
        for what in (pairs[0]["today"] if pairs else ())
    }
    result = {
        "date": date.today().isoformat(),
        "hardware": here["hardware"],
        "versions": here["versions"],
        "git": {"commit": args.commit, "old": args.old_commit} if args.commit else here["git"],
        "made_by": "benchmarks/against_0_1.py",
        "median_ratio": {what: statistics.median(values) for what, values in ratios.items()},
        "ratios": ratios,
        "pairs": pairs,
        **more,
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


def compare_images(homes: dict[str, Path]) -> dict[str, Any]:
    """How far the images of the two versions are apart, in gray levels."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name, home in homes.items():
            run(home, __file__, "--images", f"{folder}/{name}.npz")
            with np.load(f"{folder}/{name}.npz", allow_pickle=False) as arrays:
                found[name] = {key: arrays[key].astype(int) for key in arrays.files}
    gaps = {key: np.abs(found["0.1"][key] - found["today"][key]) for key in found["0.1"]}
    return {
        key: {"values": gap.size, "different": int((gap > 0).sum()), "most": int(gap.max())}
        for key, gap in gaps.items()
    }


def write_images(path: Path) -> str:
    """256 images of random weights by the version on PYTHONPATH, at 20 steps of either variance."""
    import numpy as np

    from ddpm_ip.bench import ours
    from ddpm_ip.config import from_dict
    from ddpm_ip.engine import start_engine

    accelerator, config = start_engine("bf16", fast=True), from_dict(CONFIG)
    images = {}
    for var_type in ("fixed_large", "fixed_small"):
        weights = ours._weights(config)
        try:
            from ddpm_ip.sampling import SampleOptions, make_generator  # version 0.1
        except ImportError:
            from ddpm_ip.sample.program import load_model
            from ddpm_ip.sampler import Ancestral
            from ddpm_ip.sampler.sampling import Sampling

            wanted = Sampling(Ancestral(var_type), steps=20, seed=7, block=256)
            generator = load_model(config, weights, accelerator).generator(wanted)
        else:
            options = SampleOptions(256, 7, var_type, 256, respace_steps=20)
            generator = make_generator(config, weights, options, accelerator)
        images[var_type] = generator.images(0)
    np.savez(path, **images)
    return str(path)


def eight_cells(home: Path, images: int) -> dict[str, float]:
    """Seconds of a results table of 8 cells, and of what its log calls being ready: compiling and capturing."""
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
        start = time.perf_counter()
        done = subprocess.run(table, env=environment, check=True, stderr=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - start
    ready = [float(found) for found in re.findall(r"ready in ([\d.]+) s", done.stderr)]
    return {"seconds": seconds, "captures": len(ready), "capturing_s": sum(ready)}


if __name__ == "__main__":
    main()
