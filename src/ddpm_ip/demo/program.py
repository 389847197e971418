"""DDPM and DDPM-IP on the same digits with the same seed: trained side by side, calibrated, judged, and reported.

Both runs see the same images, times and noise; they differ in ``perturbation.gamma`` alone. Each is calibrated for two
samplings, whose exposure bias is measured with and without the correction. Ctrl-C stops; the same command continues,
and reuses what is there.
"""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch

from ddpm_ip.config import load
from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.evaluate.features import Pixels
from ddpm_ip.evaluate.floor import floor
from ddpm_ip.exposure.calibrate import CalibrateOptions, calibrate
from ddpm_ip.exposure.program import ExposureOptions, exposures
from ddpm_ip.extras import how_to_install
from ddpm_ip.images import grid
from ddpm_ip.metric import usual
from ddpm_ip.output import complain, say
from ddpm_ip.presets import find
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

CONFIG = "ddpm_ip_demo"
STOPPED = 130  # exit code
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


@dataclass(frozen=True)
class DemoOptions:
    """How much is made.

    Args:
        n_steps: training steps of each run.
        n_samples: samples behind each number.
        n_walks: walks behind each curve and calibration.
    """

    n_steps: int = 3000
    n_samples: int = 1024
    n_walks: int = 500

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"--{name} must be at least 1, got {value}")


def demo(out: Path, options: DemoOptions) -> int:
    """Makes both runs, or what is missing of them, and the page ``report.html`` that compares them.

    Without matplotlib there is no page; the numbers are printed, and a line says how to get it.

    Args:
        out: the folder of the runs and the page; made if need be.
        options: how much is made.

    Returns:
        The exit code: 0; 130 if it was stopped; that of a run which could not be made, which is told.

    Raises:
        UserError: the page cannot be written.
    """
    start, drawn = time.monotonic(), importlib.util.find_spec("matplotlib") is not None
    say(f"training two small networks on handwritten digits, in {out}: about two minutes on two cores")
    if not drawn:
        say(f"without matplotlib there will be numbers and pictures, but no page: {how_to_install('plot')}")
    if code := side_by_side(out, options):
        why = "stopped; give" if code == STOPPED else "not finished, for the error above; once that is put right, give"
        say(f"{why} the same command again to continue in {out}")
        return code
    runs = [out / name for name in RUNS]
    say(f"\n{markdown_table(runs)}\n{NOTE}\n\nfinished in {clock(time.monotonic() - start)}.")
    if not drawn:
        say(f"pictures: {out.resolve()}/*/samples. For the page: {how_to_install('plot')}, then the same command again")
        return 0
    say(f"The report:\n{page(out, runs).resolve()}")
    return 0


def page(out: Path, runs: Sequence[Path]) -> Path:
    """Writes the page."""
    images, device = load(find(CONFIG)).data.open(), torch.device("cpu")
    return write_report(
        runs,
        out / "report.html",
        title="DDPM and DDPM-IP on handwritten digits",
        notes=[NOTE],
        real=grid(images.pixels[:64]),
        floors=floor(images, Pixels(device), usual(Pixels.name), device),
    )


def side_by_side(out: Path, options: DemoOptions) -> int:
    """Makes the runs at the same time, each in a process of its own; the exit code of the first that is not finished.

    (Threads that share the steps of so small a network wait for each other, which takes several times as long beside
    another busy program.)
    """
    os.environ["LOCAL_WORLD_SIZE"] = str(len(RUNS))  # the processes share the cores evenly
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the processes inherit: Ctrl-C reaches them through this one
    processes = [get_context("spawn").Process(target=make, args=(name, out, options)) for name in RUNS]
    start, waiting = time.monotonic(), not pictures(out)
    for process in processes:
        process.start()

    def stop(number: int, frame: object) -> None:
        for process in processes:
            process.terminate()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    while any(process.is_alive() for process in processes):
        time.sleep(0.2)
        if waiting and (found := pictures(out)):
            say(f"\nthe first picture, after {time.monotonic() - start:.0f} s: {found[0].resolve()}\n")
            waiting = False
    codes = [process.exitcode or 0 for process in processes]
    return next((STOPPED if code < 0 else code for code in codes if code), 0)  # below 0: ended by a signal


def pictures(out: Path) -> list[Path]:
    """The grids of samples that have been made during training."""
    return sorted(out.glob("*/samples/step*.png"))


def make(name: str, out: Path, asked: DemoOptions) -> None:
    """Trains a run and measures it; a process of its own, which ends with an exit code."""
    sys.stderr = Labelled(name)
    try:
        config = load(find(CONFIG), {"perturbation.gamma": RUNS[name], "train.n_steps": asked.n_steps})
        if train(config, out / name, "latest").signal is not None:
            sys.exit(STOPPED)
        small, block = Ancestral("fixed_small"), min(256, asked.n_samples)
        two = [Sampling(sampler, steps=MEASURED) for sampler in (small, DDIM(eta=0.0))]
        study(out / name, two, asked.n_walks)
        scaled = Sampling(small, corrections=(EpsilonScaling(scale=SCALE),), block=block)
        rows = [scaled, *(Sampling(sampler, block=block) for sampler in (small, DDIM(eta=0.0), DPMSolver(order=2)))]
        options = TableOptions(
            rows, STEPS, n_samples=asked.n_samples, extractor="pixels", sampling=Sampling(block=block)
        )
        with_auto = [replace(corrected(sampling), block=block) for sampling in two]
        table(config, out / name, replace(options, rows=with_auto, steps=(MEASURED,)))
        table(config, out / name, options)  # the last call is what table.md shows; the report has all
    except UserError as error:
        complain(str(error))
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
