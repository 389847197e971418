"""Where training takes its times from.

A time sampler may draw some times more often than others; the importance weight that comes with each time,
``1 / (T p(t))``, keeps the expectation of the loss what it is for uniform times.

A variant of ``train.times`` is a frozen dataclass with its settings, whose ``start(total_steps, device)`` gives the
:class:`TimeSampler` of a run: itself where nothing is remembered, else an object that is an :class:`Observer`, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from ddpm_ip.draws import Draws


class TimeSampler(Protocol):
    """Draws times of training."""

    def draw(self, draws: Draws, total_steps: int) -> tuple[Tensor, Tensor]:
        """Times and their importance weights; device work only, so that a CUDA graph can hold it.

        Args:
            draws: of the rows.
            total_steps: T.

        Returns:
            ``t`` int64 (B,) in [0, T), and what its loss is multiplied by, float32 (B,).
        """
        ...


@runtime_checkable
class Observer(Protocol):
    """A time sampler that learns from the losses.

    What it remembers is part of the training state: it has ``tensors()`` and ``load()``
    (:class:`ddpm_ip.train.state.Part`), and checkpoints hold it under the name ``times``.
    """

    def observe(self, t: Tensor, loss: Tensor) -> None:
        """Takes note of a step, before the next; device work on tensors that stay where they are (see ``draw``).

        Args:
            t: times of the rows of the global batch, int64 (B,).
            loss: their losses before importance weighting, float32 (B,).
        """
        ...


@dataclass(frozen=True)
class Uniform:
    """Every time as often as any other (Ho et al. 2020, arXiv 2006.11239, algorithm 1)."""

    name: Literal["uniform"] = field(default="uniform", kw_only=True)

    def start(self, total_steps: int, device: torch.device) -> TimeSampler:
        """The sampler of a training run; this one remembers nothing."""
        return self

    def draw(self, draws: Draws, total_steps: int) -> tuple[Tensor, Tensor]:
        """Uniform times int64 (B,) in [0, T), weights of one."""
        t = draws.times(total_steps)
        return t, torch.ones(len(t), device=t.device)


TimesConfig = Uniform  # what `train.times` can be, told apart by `name`: A | B | ...
