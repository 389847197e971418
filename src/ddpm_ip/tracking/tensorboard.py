"""TensorBoard: files in the folder of the run, in which steps that are done again replace those of before."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from accelerate.tracking import TensorBoardTracker
from PIL import Image

from ddpm_ip.tracking.base import Alert, Begun, Tracker, flat


class TensorBoard(Tracker):
    """Curves in groups, grids, alerts and settings as text, and the settings as hyperparameters.

    (A thread of TensorBoard's writes. When it fails it ends, the next call raises what it met, and Python would print
    its traceback.)
    """

    name: ClassVar[str] = "tensorboard"
    own_thread: ClassVar[bool] = False
    one_failure_ends_it: ClassVar[bool] = True

    def __init__(self) -> None:
        self._hook = threading.excepthook

    def start(self, begun: Begun, known: str | None) -> None:
        threading.excepthook = self._quietly
        self._tracker = TensorBoardTracker("", str(begun.folder.tensorboard), purge_step=begun.step + 1)
        self._tracker.start()
        self._writer.add_text("config", _as_code(begun.text), begun.step)
        self._hyperparameters(flat(begun.config))
        self._writer.flush()

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        self._tracker.log(dict(numbers), step)

    def image(self, step: int, name: str, path: Path) -> None:
        with Image.open(path) as image:
            self._writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
        self._writer.flush()

    def alert(self, alert: Alert) -> None:
        self._tracker.log({f"alerts/{alert.kind}": alert.text}, alert.step)

    def close(self) -> None:
        try:
            if hasattr(self, "_tracker"):
                self._tracker.finish()
        finally:
            if threading.excepthook == self._quietly:
                threading.excepthook = self._hook

    @property
    def _writer(self) -> Any:
        return self._tracker.tracker

    def _hyperparameters(self, values: Mapping[str, bool | int | float | str]) -> None:
        """In the file of the curves. (Accelerate's own way begins another run for them, each time.)"""
        from torch.utils.tensorboard.summary import hparams

        experiment, session, _ = hparams(dict(values), {"train/loss": 0})  # type: ignore[no-untyped-call]
        self._writer.file_writer.add_summary(experiment)
        self._writer.file_writer.add_summary(session)

    def _quietly(self, args: threading.ExceptHookArgs) -> None:
        if not type(args.thread).__module__.startswith("tensorboard."):
            self._hook(args)


def _as_code(text: str) -> str:
    """A text as it is, where Markdown is expected."""
    return "".join(f"    {line}\n" for line in text.splitlines())
