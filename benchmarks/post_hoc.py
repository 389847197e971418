"""How near an average of any length comes to its profile, by the number of snapshots: arithmetic, no training.

    python benchmarks/post_hoc.py --out benchmarks/results/NAME.json

The snapshots are evenly spaced and of the lengths 0.05 and 0.10, the average is taken at the last one. A number is what
``ddpm-ip ema`` tells: the distance of the two profiles in the mean square, as a share of the wanted one.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path

from ddpm_ip.power import Profile, combination
from ddpm_ip.run.provenance import provenance

KEPT, STEPS = (0.05, 0.10), 4000
SNAPSHOTS, LENGTHS = (5, 20, 160), (0.02, 0.03, 0.08, 0.13, 0.20, 0.25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    here = provenance()
    result = {
        "date": date.today().isoformat(),
        **{key: here[key] for key in ("hardware", "versions", "git")},
        "made_by": "benchmarks/post_hoc.py",
        "kept": KEPT,
        "distance_of_the_profiles": {n: {length: distance(n, length) for length in LENGTHS} for n in SNAPSHOTS},
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")


def distance(snapshots: int, length: float) -> float:
    """Of the profile that so many snapshots make from that of this length."""
    there = [Profile(kept, STEPS * (i + 1) // snapshots) for i in range(snapshots) for kept in KEPT]
    return combination(there, Profile(length, STEPS))[1]


if __name__ == "__main__":
    main()
