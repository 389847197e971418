"""Signals that ask a program to stop: Ctrl-C, and what schedulers send before they take a machine away."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

PREEMPTION = [
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP") if hasattr(signal, name)
]  # Windows has the first alone

Handler = Callable[[int, FrameType | None], object]


@contextmanager
def handled(numbers: Iterable[int], handler: Handler) -> Iterator[None]:
    """While entered, a handler takes these signals; afterwards who took them before does.

    What was ignored stays ignored, such as SIGHUP under ``nohup``; but not SIGTERM and SIGINT, which a shell ignores
    for its background programs. Outside the main thread nothing is changed: whoever runs us there handles signals.
    """
    before: dict[int, object] = {}
    try:
        for number in numbers:
            if signal.getsignal(number) == signal.SIG_IGN and number not in (signal.SIGTERM, signal.SIGINT):
                continue
            try:
                before[number] = signal.signal(number, handler)
            except ValueError:
                break
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)  # type: ignore[arg-type]
