"""DDPM and DDPM-IP on the same digits with the same seed: trained side by side, calibrated, judged, and reported.

    python examples/demo.py [--out runs/demo] [--n_steps 3000] [--n_samples 1024]

Both runs see the same images, times and noise; they differ in `perturbation.gamma` alone. Each is calibrated for two
samplings, whose exposure bias is measured with and without the correction. Ctrl-C stops; the same command continues,
and reuses what is there.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch

from ddpm_ip.config import load
from ddpm_ip.errors import UserError
from ddpm_ip.evaluate.features import Pixels
from ddpm_ip.evaluate.floor import floor
from ddpm_ip.exposure.calibrate import CalibrateOptions, calibrate
from ddpm_ip.exposure.program import ExposureOptions, exposures
from ddpm_ip.images import grid
from ddpm_ip.report.page import markdown_table, write_report
from ddpm_ip.run.log import clock
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.weights import find_weights
from ddpm_ip.sample.calibrated import there
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver
from ddpm_ip.sampler.correction import Auto, EpsilonScaling
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.table.program import table
from ddpm_ip.table.rows import TableOptions
from ddpm_ip.train.loop import train

CONFIG = Path(__file__).parent.parent / "configs" / "ddpm_ip_demo.yaml"
RUNS = {"ddpm": 0.0, "ddpm-ip": 0.1}  # gamma of each
STEPS = (20, 10, 5)
MEASURED = 10  # steps of the samplings that are calibrated, and whose exposure bias is measured
MEASURES = ("eps_norm", "delta", "energy")
SCALE = 1.005  # sqrt(1 + 0.1^2): what gamma 0.1 builds into a network, epsilon scaling does in sampling
NOTE = (
    "One training seed and one sampling seed: this shows that the whole chain works, not which method is better. "
    "Differences of some percent may be chance; networks, data, times and noise are the same in both runs. "
    "Calibrations are chosen by FD-pixels of other images than the table's, with the same real ones."
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder (default: %(default)s)")
    parser.add_argument("--n_steps", type=int, default=3000, help="training steps of each run (default: %(default)s)")
    parser.add_argument("--n_samples", type=int, default=1024, help="samples behind each number (default: %(default)s)")
    parser.add_argument(
        "--n_walks", type=int, default=500, help="walks behind each curve and calibration (default: %(default)s)"
    )
    args = parser.parse_args()
    start = time.monotonic()
    if not side_by_side(args):
        print(f"stopped; run the same command again to continue in {args.out}")
        return 130
    images = load(CONFIG).data.open()
    device = torch.device("cpu")
    runs = [args.out / name for name in RUNS]
    page = write_report(
        runs,
        args.out / "report.html",
        title="DDPM and DDPM-IP on handwritten digits",
        notes=[NOTE],
        real=grid(images.pixels[:64]),
        floors=floor(images, Pixels(device), ["fid"], device),
    )
    print(f"\n{markdown_table(runs)}\n{NOTE}\n\nfinished in {clock(time.monotonic() - start)}. The report:")
    print(page.resolve())
    return 0


def side_by_side(args: argparse.Namespace) -> bool:
    """Makes the runs at the same time, each in a process of its own; whether all are finished.

    (Threads that share the steps of so small a network wait for each other, which takes several times as long beside
    another busy program.)
    """
    os.environ["LOCAL_WORLD_SIZE"] = str(len(RUNS))  # the processes share the cores evenly
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the processes inherit: Ctrl-C reaches them through this one
    processes = [get_context("spawn").Process(target=make, args=(name, args)) for name in RUNS]
    start, waiting = time.monotonic(), not pictures(args.out)
    for process in processes:
        process.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: [process.terminate() for process in processes])
    while any(process.is_alive() for process in processes):
        time.sleep(0.2)
        if waiting and (found := pictures(args.out)):
            print(f"\nthe first picture, after {time.monotonic() - start:.0f} s: {found[0].resolve()}\n", flush=True)
            waiting = False
    return all(process.exitcode == 0 for process in processes)


def pictures(out: Path) -> list[Path]:
    """The grids of samples that have been made during training."""
    return sorted(out.glob("*/samples/step*.png"))


def make(name: str, args: argparse.Namespace) -> None:
    """Trains a run and measures it."""
    sys.stderr = Labelled(name)
    try:
        config = load(CONFIG, {"perturbation.gamma": RUNS[name], "train.n_steps": args.n_steps})
        if train(config, args.out / name, "latest").signal is not None:
            sys.exit(130)
        small, block = Ancestral("fixed_small"), min(256, args.n_samples)
        two = [Sampling(sampler, steps=MEASURED) for sampler in (small, DDIM(eta=0.0))]
        study(args.out / name, two, args.n_walks)
        scaled = Sampling(small, corrections=(EpsilonScaling(scale=SCALE),), block=block)
        rows = [scaled, *(Sampling(sampler, block=block) for sampler in (small, DDIM(eta=0.0), DPMSolver(order=2)))]
        options = TableOptions(
            rows, STEPS, n_samples=args.n_samples, extractor="pixels", sampling=Sampling(block=block)
        )
        with_auto = [replace(corrected(sampling), block=block) for sampling in two]
        table(config, args.out / name, replace(options, rows=with_auto, steps=(MEASURED,)))
        table(config, args.out / name, options)  # the last call is what table.md shows; the report has all
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def study(run: Path, samplings: Sequence[Sampling], n: int) -> None:
    """Calibrates samplings of a run, and measures exposure bias with and without what was found."""
    weights, config = find_weights(run), load(run / "config.yaml")
    store = Measured.beside(weights.sha256, Path(weights.origin))
    for sampling in samplings:
        if there(store, sampling, config.diffusion.schedule) is None:
            calibrate(config, weights, replace(sampling, block=min(100, n)), CalibrateOptions(n, extractor="pixels"))
    block = min(256, n)
    both = [replace(s, block=block) for sampling in samplings for s in (sampling, corrected(sampling))]
    exposures(config, weights, both, ExposureOptions(n, MEASURES))


def corrected(sampling: Sampling) -> Sampling:
    """The same with what a calibration found."""
    return replace(sampling, corrections=(Auto(),))


class Labelled(io.TextIOBase):
    """The terminal with the name of a run before each line; it is no terminal to progress bars."""

    def __init__(self, name: str) -> None:
        self.name = name

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                print(f"{self.name:>7} | {line}", file=sys.__stderr__, flush=True)
        return len(text)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
