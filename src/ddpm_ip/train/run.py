"""What the functions of a training run share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelerate import Accelerator

from ddpm_ip.config import Config
from ddpm_ip.data import ImageSet
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.sample.generator import Model
from ddpm_ip.train.state import TrainState

if TYPE_CHECKING:
    from ddpm_ip.train.callback import Callback


@dataclass(frozen=True)
class Hooks:
    """Where others can look in: tests, which may make something fail, and Python's callback after a log line."""

    on_step: Callable[[int], None] = lambda step: None
    on_write: Callable[[str], None] = lambda name: None
    on_log: Callback | None = None


NO_HOOKS = Hooks()


@dataclass(frozen=True)
class Run:
    """A run in this process.

    Attributes:
        config: everything that it is made of.
        folder: where its results go.
        images: the training set.
        state: what a step changes.
        averaged: the averaged network as it is sampled.
        start: the step that this process starts from.
        hooks: for tests, and for a callback.
    """

    config: Config
    folder: RunFolder
    images: ImageSet
    state: TrainState
    averaged: Model
    start: int = 0
    hooks: Hooks = NO_HOOKS

    @property
    def engine(self) -> Accelerator:
        """Device, processes and precision."""
        return self.averaged.engine

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.engine.is_main_process)

    @property
    def is_done(self) -> bool:
        """Whether all steps are taken."""
        return self.state.step >= self.config.train.n_steps
