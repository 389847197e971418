"""FD-C56 of real images against the 50,000 training images, by their number: what the number itself adds to a distance.

    python benchmarks/c56_spread.py --real data/cifar10 --classifier resnet56-4bfd9763.th \
        --out benchmarks/results/c56_spread.json

The test set whole (10,000), and as five parts of 2,000.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path

from cifar_features import Reference, load_extractor, read_cifar

from ddpm_ip.run.provenance import provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="CIFAR-10 as Parquet shards")
    parser.add_argument("--classifier", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, default=Path(f"{Path(__file__).stem}.json"), help="default: %(default)s here"
    )
    args = parser.parse_args()
    reference = Reference(read_cifar(args.real), load_extractor("cpu", args.classifier))
    test = read_cifar(args.real, "test")
    here = provenance()
    result = {
        "date": date.today().isoformat(),
        **{key: here[key] for key in ("hardware", "versions", "git")},
        "made_by": "benchmarks/c56_spread.py",
        "real test images": {
            str(n): [reference.score(test[i : i + n]) for i in range(0, len(test), n)] for n in (10_000, 2_000)
        },
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
