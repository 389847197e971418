"""What training and tables will take: disk and memory from what is known before they begin, time once it was measured.

A checkpoint holds the network, each of its averages and two moments of Adam, all in float32, so its size follows from
the number of parameters. No time is guessed: it is that of an earlier process on the same hardware, or of the first
steps of this one.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import Module

from ddpm_ip.config import Config
from ddpm_ip.plain import shown

PICTURED = 64  # images of a cell that its picture shows


@dataclass(frozen=True)
class Sizes:
    """Bytes of the tensors of a run.

    Attributes:
        weights: of the network, and so of each of its averages.
        gradients: of its parameters.
        checkpoint: of all that a checkpoint holds, but for some thousand bytes of what time samplers remember.
    """

    weights: int
    gradients: int
    checkpoint: int

    @classmethod
    def of(cls, config: Config, network: Module | None = None) -> Sizes:
        """Of a run.

        Args:
            config: of the run.
            network: its network, if there is one already; else one without data is made, in a fraction of a second.
        """
        if network is None:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                network = config.build_network()
        weights = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
        gradients = sum(p.numel() * p.element_size() for p in network.parameters())
        averages = len(config.train.ema_decays) + len(config.train.ema_power or ())
        return cls(weights, gradients, (1 + averages) * weights + 2 * gradients)


def kept(config: Config) -> int:
    """How many checkpoints are there at the end of a run, in ``ckpt/``."""
    t = config.train
    before = (t.n_steps - 1) // t.save_freq  # the last step has one, too
    newest = [t.n_steps, *(t.save_freq * (before - i) for i in range(min(before, t.keep_last - 1)))]
    if not t.keep_every:
        return len(newest)
    every = math.lcm(t.save_freq, t.keep_every)
    return len(newest) + sum(1 for step in range(every, t.n_steps, every) if step not in newest)


def disk_of_run(config: Config, sizes: Sizes) -> int:
    """Bytes that the folder of a run takes at the end; while the last checkpoint is written it is one checkpoint more.

    Logs, which are small, are left out; pictures count as if PNG saved nothing.
    """
    t = config.train
    best = int(t.eval.every > 0)
    snapshots = _times(t.n_steps, t.ema_snapshot_freq) * len(t.ema_power or ())
    pictures = _times(t.n_steps, t.sample_freq) * t.n_samples * math.prod(config.shape)
    return (kept(config) + best) * sizes.checkpoint + snapshots * sizes.weights + pictures


def _times(steps: int, every: int) -> int:
    """How often something is done that is done every so many steps (0: never) and after the last."""
    return -(-steps // every) if every else 0


def disk_of_table(shape: Sequence[int], cells: int, images: int, keep_images: bool) -> int:
    """Bytes that the cells of a table take, as if PNG saved nothing.

    Args:
        shape: (C, H, W) of an image.
        cells: how many are made.
        images: of each.
        keep_images: whether all of them are written, or a picture of some.
    """
    return cells * (images * keep_images + min(images, PICTURED)) * math.prod(shape)


def used(*folders: Path) -> int:
    """Bytes of the files in folders and below; of what cannot be looked at, none."""
    total = 0
    for folder in folders:
        for path in folder.rglob("*") if folder.is_dir() else ():
            try:
                total += path.lstat().st_size
            except OSError:  # removed meanwhile
                continue
    return total


def free(path: Path) -> int | None:
    """Bytes that the disk of a path has left, which need not be there yet; None if nobody says."""
    there = path.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return None


@dataclass(frozen=True)
class Disk:
    """What is written, and whether there is room.

    Attributes:
        path: where.
        needed: bytes still to be written that stay.
        at_once: bytes more that are needed on the way.
        what: of which most of it is made, in words.
    """

    path: Path
    needed: int
    at_once: int = 0
    what: str = ""

    def text(self) -> str:
        """``disk 5.15 GB (9 checkpoints of 572 MB) of 812 GB that are free``."""
        there = free(self.path)
        room = "" if there is None else f" of {size(there)} that are free"
        needed = size(self.needed) if self.needed else "no more"
        return f"disk {needed}{f' ({self.what})' if self.what else ''}{room}"

    def warning(self, advice: str) -> str | None:
        """What to tell a person if the disk has less; ``advice`` is what can be done about it."""
        there = free(self.path)
        wanted = self.needed + self.at_once
        if there is None or there >= wanted:
            return None
        return (
            f"the disk of {shown(self.path)} has {size(there)} free, and this takes up to {size(wanted)}: make room, "
            f"{advice}"
        )


def line(time: str, memory: str, disk: Disk) -> str:
    """The line that is told before a command begins."""
    return f"estimate: {time}; {memory}; {disk.text()}"


def most_memory(device: torch.device) -> int | None:
    """Bytes that this process has had at most so far: of the GPU that it computes on, else of main memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def size(count: int) -> str:
    """Bytes in words: ``143 MB``, ``5.15 GB``."""
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if count >= unit:
            return f"{count / unit:.{_digits(count / unit)}f} {name}"
    return f"{-(-count // 1000)} kB"


def _digits(number: float) -> int:
    return max(0, 2 - int(math.log10(number)))
