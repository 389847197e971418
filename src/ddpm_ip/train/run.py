"""What the functions of a training run share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from accelerate import Accelerator

from ddpm_ip.config import Config
from ddpm_ip.data import ImageSet
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.train.state import TrainState


@dataclass(frozen=True)
class Hooks:
    """Where a test can look in, or let something fail."""

    on_step: Callable[[int], None] = lambda step: None
    on_write: Callable[[str], None] = lambda name: None


NO_HOOKS = Hooks()


@dataclass(frozen=True)
class Run:
    """A run in this process.

    Attributes:
        config: everything that it is made of.
        folder: where its results go.
        images: the training set.
        engine: device, processes and precision.
        state: what a step changes.
        hooks: for tests.
    """

    config: Config
    folder: RunFolder
    images: ImageSet
    engine: Accelerator
    state: TrainState
    hooks: Hooks = NO_HOOKS

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.engine.is_main_process)

    @property
    def is_done(self) -> bool:
        """Whether all steps are taken."""
        return self.state.step >= self.config.train.n_steps
