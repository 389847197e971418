"""How long judging 50,000 images of CIFAR-10's size takes, in all metrics or in some, sampling not counted.

    python benchmarks/inception_speed.py --out benchmarks/results/NAME.json [--images 50000] [--metrics fid kid]
    torchrun --nproc_per_node 2 benchmarks/inception_speed.py ...                             # on two GPUs

The weights are random, in the format of the real file: the work is the same, the numbers mean nothing. The images are
random, too, and in memory. Two rounds: the features of the reference, which are kept, and then the samples.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_ip.data.imageset import from_arrays
from ddpm_ip.engine import start_engine, stop_engine
from ddpm_ip.evaluate.collect import reference_features
from ddpm_ip.evaluate.evaluate import Comparison, Evaluator
from ddpm_ip.evaluate.extractors import inception, weights
from ddpm_ip.evaluate.images import open_samples
from ddpm_ip.images import UInt8
from ddpm_ip.metric import METRICS
from ddpm_ip.run.provenance import provenance

BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--metrics", nargs="+", choices=METRICS, default=[*METRICS], metavar="M", help="default: all")
    parser.add_argument(
        "--out", type=Path, default=Path(f"{Path(__file__).stem}.json"), help="default: %(default)s here"
    )
    args = parser.parse_args()
    engine = start_engine("no")
    device = engine.device
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DDPM_IP_CACHE"] = folder
        extractor = random_inception(Path(folder), device)
        reference = from_arrays(pictures(args.images, 1), None, "random", 32, progress=False)
        fake = pictures(args.images, 0)
        extractor(torch.zeros(BATCH, 3, 32, 32, dtype=torch.uint8, device=device))  # starts cuDNN
        evaluator = Evaluator(extractor, args.metrics, device, BATCH)
        seconds = {}
        engine.wait_for_everyone()
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            reference_features(reference, evaluator.over_reference, Path(scratch))
        engine.wait_for_everyone()
        seconds["features of the reference"] = round(time.perf_counter() - start, 1)
        start = time.perf_counter()
        own = range(engine.process_index * BATCH, len(fake), engine.num_processes * BATCH)
        comparison = evaluator.compare(open_samples(fake[i : i + BATCH] for i in own), reference)
        engine.wait_for_everyone()
        seconds["features of the samples"] = round(time.perf_counter() - start, 1)
        if comparison is not None:
            conclude(comparison, seconds, device)
            write(args, seconds)
    stop_engine()


def conclude(comparison: Comparison, seconds: dict[str, float], device: torch.device) -> None:
    """The numbers, on one process; the seconds of each are added."""
    for name in comparison.names:
        start = time.perf_counter()
        dataclasses.replace(comparison, names={name: comparison.names[name]}).conclude(device)
        seconds[name] = round(time.perf_counter() - start, 1)
        print(json.dumps(seconds), flush=True)
    seconds["samples, all metrics"] = round(sum(list(seconds.values())[1:]), 1)


def write(args: argparse.Namespace, seconds: dict[str, float]) -> None:
    here = provenance()
    record = {
        "date": date.today().isoformat(),
        **{key: here[key] for key in ("hardware", "versions", "git")},
        "made_by": f"benchmarks/inception_speed.py --images {args.images} --metrics {' '.join(args.metrics)}",
        "weights": "random, in the format of the real file",
        "images": args.images,
        "seconds": seconds,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n")


class RandomInception:
    """The Inception network with random weights as an extractor of one's own: what it costs is the real one's."""

    name = "random-inception"

    def __init__(self, device: torch.device) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self._network = random_inception(Path(folder), device)

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        return self._network(images)

    def identity(self) -> Mapping[str, Any]:
        return {"weights": "random, seed 0"}


def random_inception(folder: Path, device: torch.device) -> inception.Inception:
    """The extractor, of a file of random weights whose hash the loader is told."""
    network = inception.import_torch_fidelity().feature_extractor_inceptionv3.FeatureExtractorInceptionV3
    load, network.load_state_dict = network.load_state_dict, lambda self, state: None
    torch.manual_seed(0)
    try:
        module = inception._build({})
    finally:
        network.load_state_dict = load
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    path = folder / weights.INCEPTION.name
    torch.save(module.state_dict(), path)
    weights.INCEPTION = dataclasses.replace(weights.INCEPTION, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    return inception.Inception(device, path)


def pictures(n: int, seed: int) -> UInt8:
    """Blocks of colour and some noise, ``uint8`` (N, 3, 32, 32)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 235, size=(n, 3, 2, 2), dtype=np.uint8).repeat(16, axis=2).repeat(16, axis=3)
    return coarse + rng.integers(0, 20, size=(n, 3, 32, 32), dtype=np.uint8)


if __name__ == "__main__":
    main()
