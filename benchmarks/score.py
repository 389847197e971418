"""Scores folders of CIFAR-10 samples in FD-C56 / CS-C56 and keeps the numbers with all that they depend on.

    python benchmarks/score.py --real data/cifar10 --classifier resnet56-4bfd9763.th --run runs/cifar10 \
        --out benchmarks/results/NAME.json SAMPLES [SAMPLES ...]

FD-C56 and CS-C56 (benchmarks/cifar_features.py) are NOT comparable with FID and IS. ``--real`` holds the Parquet
shards; ``--classifier`` is the published CIFAR-10 ResNet-56 of akamaster/pytorch_resnet_cifar10.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any

import torch
from cifar_features import Reference, load_extractor, read_cifar, read_images

from ddpm_ip.run.provenance import provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", nargs="+", type=Path)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--classifier", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="the run's folder: its speed and provenance are copied")
    parser.add_argument(
        "--out", type=Path, default=Path(f"{Path(__file__).stem}.json"), help="default: %(default)s here"
    )
    args = parser.parse_args()
    net = load_extractor("cuda" if torch.cuda.is_available() else "cpu", args.classifier)
    reference = Reference(read_cifar(args.real), net)
    rows = [{"samples": "real test set", **reference.score(read_cifar(args.real, "test"))}]
    for folder in args.samples:
        made_of = json.loads((folder / "sampling.json").read_text())
        rows.append({"samples": folder.name, **reference.score(read_images(folder)), "sampling": made_of})
        print(json.dumps(rows[-1]))
    here = provenance()
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "hardware": here["hardware"],
        "versions": here["versions"],
        "git": here["git"],
        "metric": "FD-C56 and CS-C56 against the 50,000 training images (not FID, not IS)",
        "classifier_sha256": hashlib.sha256(args.classifier.read_bytes()).hexdigest(),
        "training": training(args.run),
        "rows": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")


def training(run: Path) -> dict[str, Any]:
    """Steps, losses and speeds of a run; the seconds of each process that trained on it are added up."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seconds, before = 0.0, 0.0
    for line in lines:
        if line["seconds"] < before:  # a new process counts from 0
            seconds += before
        before = line["seconds"]
    record = json.loads((run / "provenance.json").read_text())
    speeds = sorted(line["images_per_s"] for line in lines)
    return {
        "steps": lines[-1]["step"],
        "last_loss": lines[-1]["loss"],
        "seconds_logged": round(seconds + before, 1),
        "images_per_s_median": speeds[len(speeds) // 2],
        "resumed": sum(1 for _ in _chain(record)) - 1,
        "parameters": record["parameters"],
        "data_fingerprint": record["data"]["fingerprint"],
        "git": record["git"],
        "versions": record["versions"],
        "hardware": record["hardware"],
    }


def _chain(record: dict[str, Any] | None) -> Any:
    while record is not None:
        yield record
        record = record.get("earlier")


if __name__ == "__main__":
    main()
