"""What a run tells: a text log, one JSON line of numbers per log line, TensorBoard."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddpm_ip.extras import how_to_install
from ddpm_ip.files import NUMBER, append_line, keep_lines
from ddpm_ip.run.folder import RunFolder

log = logging.getLogger("ddpm_ip")
_FORMAT = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")


class Metrics:
    """Numbers by step, to ``metrics.jsonl`` and TensorBoard.

    Args:
        folder: of the run.
        step: where the run (re)starts; lines of later steps, written by an earlier process, are dropped, since those
            steps are done again.
    """

    def __init__(self, folder: RunFolder, step: int) -> None:
        self._path = folder.metrics
        drop_after(self._path, step)
        self._board = _tensorboard(folder.tensorboard, step)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Appends one line. (Without a schema: each of its keys is a quantity that can be plotted.)"""
        append_line(self._path, {"step": step, **numbers}, schema=None)
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Shows evaluations in TensorBoard."""
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"eval/{name}", value, step)
            self._board.flush()

    def image(self, step: int, path: Path) -> None:
        """Shows a PNG in TensorBoard."""
        if self._board is not None:
            import numpy as np
            from PIL import Image

            self._board.add_image("samples", np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC")
            self._board.flush()

    def close(self) -> None:
        """Ends the TensorBoard file."""
        if self._board is not None:
            self._board.close()


class Rate:
    """Images a second and the time that is left, over the time since the last look."""

    def __init__(self, n_steps: int, batch_size: int, step: int) -> None:
        self._n_steps, self._batch_size, self._step = n_steps, batch_size, step
        self._start = self._last = time.monotonic()

    def look(self, step: int) -> tuple[float, float, float]:
        """Images a second, seconds left, seconds since the start of this process."""
        now = time.monotonic()
        rate = max(step - self._step, 1) / max(now - self._last, 1e-9)
        self._step, self._last = step, now
        return rate * self._batch_size, (self._n_steps - step) / rate, now - self._start


def setup(folder: RunFolder | None, is_main: bool) -> None:
    """Sends the package's log to the terminal and, given a folder, to its ``log.txt``; other processes only warn."""
    for old in log.handlers[:]:
        old.close()
        log.removeHandler(old)
    log.propagate = False
    log.setLevel(logging.INFO if is_main else logging.WARNING)
    handlers: list[logging.Handler] = [_Terminal()]
    if folder is not None and is_main:
        handlers.append(logging.FileHandler(folder.text_log, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(_FORMAT)
        log.addHandler(handler)


@contextmanager
def as_before() -> Iterator[None]:
    """Leaves the package's log as it was found: a notebook goes on after a run, and its log must not."""
    handlers, level, propagate = log.handlers[:], log.level, log.propagate
    try:
        yield
    finally:
        for new in set(log.handlers) - set(handlers):
            new.close()
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)


class _Terminal(logging.Handler):
    """Prints to stderr without tearing a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def clock(seconds: float) -> str:
    """``3:02:11``."""
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{s:02d}"


def drop_after(path: Path, step: int) -> None:
    """Takes the lines of later steps, and lines that a kill cut off, out of a file of JSON lines."""
    if not path.exists():
        return
    keep_lines(path, lambda row: bool(row["step"] <= step), {"step": NUMBER})


def _tensorboard(path: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info("TensorBoard is not installed (%s); the numbers go to metrics.jsonl only", how_to_install("log"))
        return None
    return SummaryWriter(str(path), purge_step=step + 1)
