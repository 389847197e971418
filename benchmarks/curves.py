"""Loss curves of the first steps of the CIFAR-10 network on both paths: do they learn the same?

    python benchmarks/curves.py --data data/cifar10 --out benchmarks/results/NAME.json [--steps 500] [--key value ...]

The same seed gives the same images, times and noise on every path; the masks of dropout differ. As a measure of noise
the fast path is run with another seed, too. Differences are of means over 50 steps, relative to the plain path in
float32. Each run is written when it is done, and a call that was ended goes on with the next.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate.state import AcceleratorState

from ddpm_ip.config import load, parse_overrides
from ddpm_ip.run.provenance import provenance
from ddpm_ip.train.loop import train

EVERY = 10  # steps a point of the curve
MEAN_OVER = 50
RUNS: dict[str, dict[str, Any]] = {
    "plain, float32": {"train.fast": "off", "train.mixed_precision": "no"},
    "plain, bf16 (autocast)": {"train.fast": "off", "train.mixed_precision": "bf16"},
    "fast, bf16": {"train.fast": "auto"},
    "fast, bf16, another seed": {"train.fast": "auto", "seed": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10")
    parser.add_argument("--config", default="configs/ddpm_ip_cifar10.yaml")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument(
        "--out", type=Path, default=Path(f"{Path(__file__).stem}.json"), help="default: %(default)s here"
    )
    args, rest = parser.parse_known_args()
    always = {"data.root": args.data, "train.n_steps": args.steps, "train.print_freq": EVERY, "train.sample_freq": 0}
    always |= parse_overrides(rest)
    curves = {name: np.array(losses) for name, losses in read(args.out).items() if name in RUNS}
    for name in [name for name in RUNS if name not in curves]:
        curves[name] = curve(args.config, {**always, **RUNS[name]})
        write(args.out, curves, " ".join(["--config", args.config, "--steps", str(args.steps), *rest]))


def read(path: Path) -> dict[str, Any]:
    """The curves that an earlier call has left."""
    return dict(json.loads(path.read_text())["losses"]) if path.exists() else {}


def write(path: Path, curves: dict[str, npt.NDArray[np.float64]], settings: str) -> None:
    """The curves so far, and how far they are from the first."""
    plain, *others = (name for name in RUNS if name in curves)
    here = provenance()
    result = {
        "date": date.today().isoformat(),
        **{key: here[key] for key in ("hardware", "versions", "git")},
        "made_by": f"benchmarks/curves.py {settings}",
        "differences": {f"{name} - {plain}": difference(curves[name], curves[plain]) for name in others},
        "losses": {"every": EVERY, **{name: c.round(6).tolist() for name, c in curves.items()}},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["differences"], indent=1))


def curve(config: str, overrides: dict[str, Any]) -> npt.NDArray[np.float64]:
    """The mean loss of every few steps."""
    AcceleratorState._reset_state(True)  # Accelerate refuses another precision in the same process
    with tempfile.TemporaryDirectory() as folder:
        outcome = train(load(Path(config), overrides), Path(folder) / "run")
        lines = (outcome.folder / "metrics.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["loss"] for line in lines])


def difference(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> dict[str, float]:
    """Of means over some steps, relative to ``b``: root mean square, largest, and of the last one with its sign."""
    n = MEAN_OVER // EVERY
    means = [c[: len(c) // n * n].reshape(-1, n).mean(1) for c in (a, b)]
    d = means[0] / means[1] - 1
    found = {"rms": np.sqrt(np.mean(d**2)), "largest": np.abs(d).max(), "last": d[-1]}
    return {name: round(float(value), 4) for name, value in found.items()}


if __name__ == "__main__":
    main()
