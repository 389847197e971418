"""The main job on a laptop: DDPM and DDPM-IP on the same digits with the same seed, sampled, judged, and reported.

    python examples/demo.py [--out runs/demo] [--n_steps 1200]

Both runs see the same images, times and noise; they differ in `perturbation.gamma` alone. What is there is reused.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from ddpm_ip.config import load
from ddpm_ip.errors import UserError
from ddpm_ip.evaluate.features import Pixels
from ddpm_ip.evaluate.floor import floor
from ddpm_ip.images import grid
from ddpm_ip.report.page import markdown_table, write_report
from ddpm_ip.run.log import clock
from ddpm_ip.sampler import Ancestral
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.table.program import TableOptions, table
from ddpm_ip.train.loop import train

CONFIG = Path(__file__).parent.parent / "configs" / "ddpm_ip_digits.yaml"
RUNS = {"ddpm": 0.0, "ddpm-ip": 0.1}
VAR_TYPES = ("fixed_large", "fixed_small")
STEPS = (50, 20, 10)
N_SAMPLES = 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder (default: %(default)s)")
    parser.add_argument("--n_steps", type=int, default=1200, help="training steps of each run (default: %(default)s)")
    args = parser.parse_args()
    start = time.monotonic()
    for name, gamma in RUNS.items():
        config = load(CONFIG, {"perturbation.gamma": gamma, "train.n_steps": args.n_steps})
        print(f"\n=== {name}: gamma {gamma}, {args.n_steps} steps ===", flush=True)
        if train(config, args.out / name, "latest").signal is not None:
            print(f"stopped; run the same command again to continue in {args.out}")
            return 130
    images = config.data.open()
    options = TableOptions(
        [Ancestral(v) for v in VAR_TYPES], STEPS, n_samples=N_SAMPLES, extractor="pixels", sampling=Sampling(block=256)
    )
    for name in RUNS:
        print(f"\n=== measuring {name} ===", flush=True)
        table(load(args.out / name / "config.yaml"), args.out / name, options)
    device = torch.device("cpu")
    runs = [args.out / name for name in RUNS]
    page = write_report(
        runs,
        args.out / "report.html",
        title="DDPM and DDPM-IP on handwritten digits",
        notes=[
            "One training seed and one sampling seed: small differences may be chance. Networks, data, times and noise "
            "are the same in both runs."
        ],
        real=grid(images.pixels[:64]),
        floors=floor(images, Pixels(device), ["fid"], device),
    )
    print(f"\n{markdown_table(runs)}\n\nfinished in {clock(time.monotonic() - start)}. The report:\n{page.resolve()}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
