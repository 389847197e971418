"""A run's log: to the terminal and a text file; what training can do without; the clock."""

from __future__ import annotations

import copy
import logging
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from ddpm_ip.errors import UserError
from ddpm_ip.files import NUMBER, Shape, append_text, mend_lines
from ddpm_ip.plain import reason, visible
from ddpm_ip.run.folder import RunFolder

log = logging.getLogger("ddpm_ip")


class Spare:
    """What a run can do without: if the disk is full, it is reported once for each kind, and training continues."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """A block that may fail to write such a thing; ``what`` is its kind, for the warning."""
        try:
            yield
        except (UserError, OSError) as error:
            self.tell(what, error)

    def tell(self, what: str, error: Exception) -> None:
        """Warns of a failure, unless one of this kind was reported already."""
        if what not in self._told:
            self._told.add(what)
            said = str(error if isinstance(error, UserError) else reason(error)).rstrip(".")
            log.warning("%s cannot be written: %s. Training continues; this is not told again", what, said)


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
    """Sends the package's log to the terminal and, given a folder, to its ``log.txt``; other processes only warn.

    What was logged since it was called without a folder goes to ``log.txt``, too.
    """
    early = [record for handler in log.handlers if isinstance(handler, _Early) for record in handler.records]
    for old in log.handlers[:]:
        old.close()
        log.removeHandler(old)
    log.propagate = False
    log.setLevel(logging.INFO if is_main else logging.WARNING)
    handlers: list[logging.Handler] = [_Terminal()]
    if is_main:
        handlers.append(_Early() if folder is None else _TextLog(folder.text_log))
    for handler in handlers:
        handler.setFormatter(_Lines("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(handler)
    if folder is not None and is_main:
        for record in early:
            handlers[-1].handle(record)


@contextmanager
def as_before() -> Iterator[None]:
    """Leaves the package's log as it was found: a notebook continues after a run, and the run's log must not."""
    handlers, level, propagate = log.handlers[:], log.level, log.propagate
    try:
        yield
    finally:
        for new in set(log.handlers) - set(handlers):
            new.close()
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)


class _Lines(logging.Formatter):
    """Records as text in which names from outside begin no line and steer no terminal."""

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.args, tuple):
            record = copy.copy(record)
            record.args = tuple(map(_in_one_line, record.args or ()))
        return visible(super().format(record))


def _in_one_line(value: object) -> object:
    return str(value).replace("\n", "\\n") if isinstance(value, (str, PurePath)) else value


class _Terminal(logging.Handler):
    """Prints to stderr without tearing a progress bar, as long as somebody listens there."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with suppress(OSError, ValueError):  # closed, full, gone, or unable to show a letter
            tqdm.write(self.format(record), file=sys.stderr)


class _Early(logging.Handler):
    """Keeps what is logged before it is known where it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.records: deque[logging.LogRecord] = deque(maxlen=1000)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class _TextLog(logging.Handler):
    """Appends to a file, never through a link; a failure is reported once, and the next line may be written again."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self._spare = path, Spare()

    def emit(self, record: logging.LogRecord) -> None:
        with self._spare("a line of the log"):
            append_text(self._path, self.format(record) + "\n")


def clock(seconds: float) -> str:
    """``3:02:11``."""
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{s:02d}"


def drop_after(path: Path, step: int, needs: Shape | None = None) -> None:
    """Removes from a file of JSON lines those of later steps, and a line that a kill cut off.

    A damaged file is set aside with a warning; its whole lines stay.

    Args:
        path: the file; it may be absent.
        step: the last that stays.
        needs: what a line must have besides its ``step``.
    """
    mend_lines(path, lambda row: bool(row["step"] <= step), {"step": NUMBER, **(needs or {})})
