"""A thread that does one tracker's work, in order: a network that is slow or gone holds up no step."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger("ddpm_ip.train")

Work = Callable[[], None]

MOST = 1000  # things that may wait; with a log line every 5 seconds more than an hour of them
START_SECONDS = 100.0  # that the first thing is waited for: wandb gives up earlier, and may ask for a key
CLOSE_SECONDS = 30.0  # that what still waits at the end of the run may take


class Lane:
    """The thread. It is no reason for the process to stay alive.

    Args:
        name: of the tracker.
        start: the first thing to do; waited for, since it may ask a person something.
    """

    def __init__(self, name: str, start: Work) -> None:
        self._name, self._waiting = name, queue.Queue[Work | None](MOST)
        self._full = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()
        started = threading.Event()
        self(start)
        self(started.set)
        if not started.wait(START_SECONDS):
            log.warning("%s has not started after %.0f s: training begins without waiting", name, START_SECONDS)

    def __call__(self, work: Work) -> None:
        """Has something done after all that waits; left out, with one warning, where too much waits."""
        try:
            self._waiting.put_nowait(work)
        except queue.Full:
            if not self._full:
                log.warning("%s is too slow or cannot be reached: it will lack numbers of this run", self._name)
            self._full = True

    def close(self, work: Work) -> None:
        """Has the last thing done, and waits for it for :data:`CLOSE_SECONDS`; what takes longer is given up."""
        self(work)
        try:
            self._waiting.put(None, timeout=CLOSE_SECONDS)
            self._thread.join(CLOSE_SECONDS)
        except queue.Full:
            pass
        if self._thread.is_alive():
            log.warning("%s did not take everything within %.0f s: the rest is given up", self._name, CLOSE_SECONDS)

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            work()
