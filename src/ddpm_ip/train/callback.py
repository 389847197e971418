"""What training reports to Python after each log line, and how it is asked to stop there.

A callback runs on the main process, between two steps; what it asks for reaches all processes. It sees numbers and
files and no tensor of the run, so that it cannot change what is learned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ddpm_ip.engine import from_main, in_one_line
from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.files import NUMBER, read_lines
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.train.run import NO_HOOKS, Hooks, Run

log = logging.getLogger("ddpm_ip.train")


@dataclass
class Progress:
    """Where training stands: what a callback of :meth:`ddpm_ip.notebook.Run.train` is given after each log line.

    Attributes:
        step: optimizer steps done, 1 to ``n_steps``.
        n_steps: the last step (``train.n_steps``).
        numbers: what the log line says, as ``metrics.jsonl`` has it: ``loss`` and ``grad_norm`` (means since the line
            before, over all processes), ``lr``, ``images_per_s``, ``seconds`` since the start.
        folder: of the run.
        stopping: whether :meth:`stop` was called.
    """

    step: int
    n_steps: int
    numbers: Mapping[str, float]
    folder: Path
    stopping: bool = False

    @property
    def loss(self) -> float:
        """The mean training loss since the log line before."""
        return self.numbers["loss"]

    @property
    def grid(self) -> Path | None:
        """The newest picture of samples (``train.sample_freq``), a PNG; None if there is none yet."""
        return max(RunFolder(self.folder).samples.glob("step*.png"), default=None)

    @property
    def evaluations(self) -> dict[int, dict[str, float]]:
        """What ``train.eval`` has measured so far, by step: ``{1000: {"FD-pixels": 0.31}, ...}``; read from its file.

        Numbers are computed while training continues, and appear once they are there.
        """
        file = RunFolder(self.folder).evaluations
        rows = read_lines(file, {"step": NUMBER, "values": dict}).rows if file.exists() else []
        return {int(row["step"]): row["values"] for row in rows}

    def stop(self) -> None:
        """Ends training after this step, once its state is saved; :meth:`ddpm_ip.notebook.Run.train` then returns."""
        self.stopping = True


Callback = Callable[[Progress], object]


def calling(callback: Callback | None) -> Hooks:
    """Hooks that call it, if there is one.

    Raises:
        ConfigError: it cannot be called.
    """
    if callback is None:
        return NO_HOOKS
    if not callable(callback):
        raise ConfigError(f"callback must be a function of a Progress, not {type(callback).__name__}")
    return Hooks(on_log=callback)


class Asked(NamedTuple):
    """What a callback asked for.

    Attributes:
        stop: that training ends after this step; also because the callback failed.
        error: what it raised.
    """

    stop: bool = False
    error: Exception | None = None


NOTHING = Asked()


def tell(run: Run, numbers: Mapping[str, float] | None) -> Asked:
    """Calls the callback of a run, if it has one; what it asked for, on every process, which call this together.

    Args:
        run: where it stands.
        numbers: of the log line, on the main process; None on the others.
    """
    callback, error = run.hooks.on_log, None
    if callback is None:
        return NOTHING
    progress = Progress(run.state.step, run.config.train.n_steps, dict(numbers or {}), run.folder.path)
    if numbers is not None:
        try:
            callback(progress)
        except Exception as raised:  # whatever somebody's own code raises: the state is whole, and is saved first
            error = raised
            log.error("the callback failed at step %d (%s): training ends here", progress.step, in_one_line(raised))
    stop, said = from_main(run.engine, (progress.stopping, None if error is None else in_one_line(error)))
    if said is None:
        return Asked(stop)
    return Asked(True, error or UserError(f"the callback failed on the main process: {said}"))
