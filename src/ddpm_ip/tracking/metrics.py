"""What a run tells besides its log: a JSON line of numbers per log line, its trackers, and alerts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ddpm_ip.files import append_line
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.log import Spare, drop_after
from ddpm_ip.tracking.base import Alert, Kind
from ddpm_ip.tracking.command import AlertCommand

log = logging.getLogger("ddpm_ip.train")

SYSTEM = ("images_per_s", "seconds", "tflops", "share_of_peak")  # what is of the machine, and not of what is learned
SAMPLES = "samples"


class Told(Protocol):
    """What takes numbers, pictures and alerts: :class:`ddpm_ip.tracking.trackers.Trackers`."""

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def image(self, step: int, name: str, path: Path) -> None: ...

    def alert(self, alert: Alert) -> None: ...

    def close(self) -> None: ...


class Metrics:
    """Numbers by step, to ``metrics.jsonl`` and trackers, and alerts. What cannot be written costs a warning.

    Args:
        folder: of the run.
        step: where the run (re)starts; lines of later steps, written by an earlier process, are dropped, since those
            steps are done again.
        trackers: are told the same, in groups: ``train/``, ``system/``, ``eval/``.
        command: is run at alerts; None for none.
        spare: for what else is written during training.
    """

    def __init__(
        self, folder: RunFolder, step: int, trackers: Told, command: AlertCommand | None = None,
        spare: Spare | None = None,
    ) -> None:  # fmt: skip
        self._path, self._trackers, self._command = folder.metrics, trackers, command
        self.spare = Spare() if spare is None else spare
        self._raised: set[Kind] = set()
        drop_after(self._path, step)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Appends one line. (Without a schema: each of its keys is a quantity that can be plotted.)"""
        with self.spare("a line of numbers"):
            append_line(self._path, {"step": step, **numbers}, schema=None)
        group = {name: "system" if name in SYSTEM else "train" for name in numbers}
        self._trackers.scalars(step, {f"{group[name]}/{name}": value for name, value in numbers.items()})

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Shows evaluations in the trackers; they may be of an earlier step than what was told last."""
        self._trackers.scalars(step, {f"eval/{name}": value for name, value in values.items()})

    def image(self, step: int, path: Path) -> None:
        """Shows a PNG in the trackers."""
        self._trackers.image(step, SAMPLES, path)

    def alert(self, kind: Kind, step: int, text: str) -> None:
        """Warns in the log; the first time, or again after :meth:`over`, also in the trackers and by the command."""
        log.warning("%s", text)
        if kind not in self._raised:
            self._raised.add(kind)
            alert = Alert(kind, step, text)
            self._trackers.alert(alert)
            if self._command is not None:
                self._command(alert)

    def over(self, kind: Kind) -> None:
        """What an alert of this kind was about has passed."""
        self._raised.discard(kind)

    def close(self) -> None:
        """Ends the trackers, and waits for the command."""
        self._trackers.close()
        if self._command is not None:
            self._command.close()
