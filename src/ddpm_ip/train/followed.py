"""How a run is followed while it trains: its trackers, its alerts, and the speed in operations."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass

from ddpm_ip.ema import remaining
from ddpm_ip.extras import how_to_install
from ddpm_ip.flops import gflop_per_image, peak_tflops
from ddpm_ip.plain import reason, shown
from ddpm_ip.run.log import Spare
from ddpm_ip.tracking.base import Begun
from ddpm_ip.tracking.command import AlertCommand
from ddpm_ip.tracking.metrics import Metrics
from ddpm_ip.tracking.trackers import Trackers, chosen, is_installed
from ddpm_ip.train.run import Run

log = logging.getLogger("ddpm_ip.train")

UNTRAINED = 0.01  # share of the initial weights in the average that does no harm
BESIDES = 1e8  # bytes for logs, grids and evaluations


def follow(run: Run, command: str | None) -> Metrics:
    """Opens the trackers of a run, on the main process; ``command`` is run at alerts."""
    config, spare = run.config, Spare()
    if config.train.trackers is None and not is_installed("tensorboard"):
        log.info("TensorBoard is not installed (%s); the numbers go to metrics.jsonl only", how_to_install("log"))
    begun = Begun(run.folder, run.start, config.to_dict(), config.to_yaml())
    trackers = Trackers(chosen(config.train.trackers), begun, spare)
    at_alerts = None if command is None else AlertCommand(command, run.folder)
    return Metrics(run.folder, run.start, trackers, at_alerts, spare)


def check_average(run: Run, metrics: Metrics) -> None:
    """Alerts if the average is longer than the run, so that its samples will be noise; later starts only log it."""
    train = run.config.train
    if {"imported", "init_from"} & run.state.meta.keys():
        return
    for decay in train.ema_decays:
        untrained = remaining(decay, train.ema_warmup, train.n_steps)
        if untrained > UNTRAINED:
            text = (
                f"after {train.n_steps} steps {100 * untrained:.0f} % of the averaged network will still be its "
                f"initial weights, which shows as noise in samples: lower train.ema_decay ({decay})"
            )
            log.warning("%s", text) if run.start else metrics.alert("average", 0, text)


def check_disk(run: Run, metrics: Metrics) -> None:
    """Alerts if the disk hardly has room for two more checkpoints."""
    with metrics.spare("how full the disk is"):
        free = shutil.disk_usage(run.folder.path).free
        tensors = (tensor for part in run.state.tensors().values() for tensor in part.values())
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if free >= 2 * size + BESIDES:
            metrics.over("disk")
            return
        metrics.alert(
            "disk", run.state.step,
            f"the disk of {shown(run.folder.path)} is nearly full: {free / 1e9:.2f} GB are free, and a checkpoint "
            f"takes {size / 1e9:.2f} GB. Make room, or lower train.keep_last or raise train.keep_every",
        )  # fmt: skip


@dataclass(frozen=True)
class Pace:
    """The work of a training step, and what the cards can do.

    Attributes:
        gflop: 10^9 operations of a training step for one image, counted on the plain network: a forward and a backward
            pass. What is computed twice to save memory is not counted twice.
        peak: 10^12 operations a second of all cards together, as :func:`ddpm_ip.flops.peak_tflops` measured it of one;
            None where it could not be.
    """

    gflop: float
    peak: float | None

    @classmethod
    def of(cls, run: Run) -> Pace | None:
        """Of a run on CUDA GPUs, for the main process, which tells of it; else None: a CPU's peak is not known.

        A network that cannot be counted costs a line of the log.
        """
        device = run.engine.device
        if device.type != "cuda" or not run.is_main:
            return None
        try:
            gflop = gflop_per_image(run.config)[1]
        except Exception as error:  # a network of somebody's own may need data to run
            log.info("operations a second are not shown, since they cannot be counted: %s", reason(error))
            return None
        peak = peak_tflops(device)
        return cls(gflop, None if peak is None else peak * run.engine.num_processes)

    def numbers(self, images_per_s: float) -> dict[str, float]:
        """For ``metrics.jsonl``: ``tflops``, 10^12 operations a second, and ``share_of_peak``."""
        found = {"tflops": images_per_s * self.gflop / 1e3}
        if self.peak is not None:
            found["share_of_peak"] = found["tflops"] / self.peak
        return {name: float(f"{value:.4g}") for name, value in found.items()}

    def text(self, images_per_s: float) -> str:
        """For a log line: ``  346 TFLOP/s (46 % of the peak)``."""
        found = self.numbers(images_per_s)
        percent = 100 * found.get("share_of_peak", 0.0)
        share = f" ({percent:.{0 if percent >= 1 else 3}f} % of the peak)" if self.peak is not None else ""
        return f"  {found['tflops']:.3g} TFLOP/s{share}"
