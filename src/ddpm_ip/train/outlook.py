"""What a training will take, told before its first step, and what the first steps have taken."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ddpm_ip.errors import UserError
from ddpm_ip.estimate import Disk, Sizes, disk_of_run, kept, line, most_memory, size, used
from ddpm_ip.files import NUMBER, read_json, read_lines, read_yaml
from ddpm_ip.plain import UNREADABLE, shown
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.log import clock
from ddpm_ip.run.provenance import hardware
from ddpm_ip.sample.generator import image_bytes
from ddpm_ip.train.feed import RESIDENT_BYTES
from ddpm_ip.train.run import Run
from ddpm_ip.train.step import at_once

log = logging.getLogger("ddpm_ip.train")

AFTER = 50  # steps after which the time is told, the first of them, which compiles, left out
LOOKED_AT = 20  # log lines of an earlier process
MOST_BESIDE, LOOKED_INTO = 1000, 5  # folders beside a run that are found, and the newest that are read
COSTS = ("batch_size", "micro_batch", "mixed_precision", "fast", "deterministic", "gradient_checkpointing", "loss")


class Outlook:
    """Tells of time, memory and disk, on the main process.

    Args:
        run: that begins or continues.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._begun = run, 0.0
        left = run.config.train.n_steps - run.state.step
        self._measures = run.is_main and min(left, run.config.train.print_freq) > AFTER
        if not run.is_main or left <= 0:
            return
        disk = _disk(run)
        log.info("%s", line(_time(run, left), _memory(run), disk))
        if said := disk.warning("lower train.keep_last, raise train.keep_every, or choose another disk with -e"):
            log.warning("%s", said)

    def look(self, step: int) -> None:
        """To be called after each step; tells once. (Where log lines come sooner, they tell the time.)"""
        done = step - self._run.start
        if not self._measures or done not in (1, AFTER):
            return
        device = self._run.engine.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.monotonic()
        if done == 1:
            self._begun = now
            return
        train = self._run.config.train
        seconds = (now - self._begun) / (AFTER - 1)
        memory = most_memory(device)
        log.info(
            "estimate: time about %s for the %d steps that are left, as the first %d went (%.0f images/s)%s",
            clock(seconds * (train.n_steps - step)), train.n_steps - step, AFTER, train.batch_size / max(seconds, 1e-9),
            "" if memory is None else f"; memory so far {size(memory)} at most",
        )  # fmt: skip


def _time(run: Run, left: int) -> str:
    """That of an earlier process, or when it will be known."""
    t, found = run.config.train, _earlier(run)
    if found is not None:
        whose, rate = found
        return (
            f"time about {clock(left * t.batch_size / rate)} at the {rate:,.0f} images/s that {whose} had here before"
        )
    first = min(left, t.print_freq, AFTER)
    return f"time told after the first {first} step{'s' * (first != 1)}"


def _earlier(run: Run) -> tuple[str, float] | None:
    """Whose training is known to cost the same, this run's or that of one beside it, and its images a second."""
    own = run.folder.path
    if rate := _rate(run, run.folder):
        return "it", rate
    there = (path for path in islice(own.parent.glob("*/metrics.jsonl"), MOST_BESIDE) if path.parent != own)
    for file in sorted(there, key=_changed, reverse=True)[:LOOKED_INTO]:
        if rate := _rate(run, RunFolder(file.parent)):
            return shown(file.parent.name), rate
    return None


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _rate(run: Run, folder: RunFolder) -> float | None:
    """Images a second in the last lines of a run; None if it computed something else, elsewhere or otherwise."""
    engine = run.engine
    now = {"precision": engine.mixed_precision, "processes": engine.num_processes, "device": engine.device.type}
    try:
        record = read_json(folder.provenance, {"hardware": str, "computed": dict})
        if record["hardware"] != hardware() or not now.items() <= record["computed"].items():
            return None
        if _costs(read_yaml(folder.config)) != _costs(run.config.to_dict()):
            return None
        rows = read_lines(folder.metrics, {"step": NUMBER, "images_per_s": NUMBER}).rows
    except (UserError, *UNREADABLE):  # whoever needs these files says what is wrong with them
        return None
    rates = [float(row["images_per_s"]) for row in rows[-LOOKED_AT:]]
    return median(rates) if rates and math.isfinite(sum(rates)) and min(rates) > 0 else None


def _costs(tree: Mapping[str, Any]) -> str:
    """What of the settings a step's cost depends on, as one text."""
    sections = {key: tree.get(key) for key in ("model", "data", "classes", "diffusion")}
    return json.dumps([sections, {key: tree["train"].get(key) for key in COSTS}], sort_keys=True)


def _memory(run: Run) -> str:
    """What is surely in memory at one time, on each device. What the backward pass keeps comes on top."""
    config, engine = run.config, run.engine
    sizes, images = Sizes.of(config, run.state.network), run.images.pixels.nbytes
    batch = at_once(config, engine)
    parts = {
        "weights, averages, moments and gradients": sizes.checkpoint + sizes.gradients,
        "data": images if images <= RESIDENT_BYTES else 0,
        f"a batch of {batch} in the network": batch * image_bytes(config, engine.mixed_precision) // 4,
    }
    told = ", ".join(f"{what} {size(count)}" for what, count in parts.items() if count)
    return f"tensors in memory at least {size(sum(parts.values()))} ({told})"


def _disk(run: Run) -> Disk:
    """What is still to be written of what stays."""
    config, folder = run.config, run.folder
    sizes = Sizes.of(config, run.state.network)
    there = used(folder.checkpoints, folder.best, folder.snapshots, folder.samples)
    needed, many = max(0, disk_of_run(config, sizes) - there), kept(config)
    what = f"at the end {many} checkpoint{'s' * (many != 1)} of {size(sizes.checkpoint)}"
    return Disk(folder.path, needed, sizes.checkpoint, what)
