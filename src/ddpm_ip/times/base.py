"""What a time sampler is, and how times are drawn from probabilities.

A time sampler may draw some times more often than others. The importance weight that comes with each time,
``1 / (T p(t))``, keeps the expectation of the loss what it is for uniform times; where the weight is 1 instead, drawing
a time more often means giving it more weight.

A variant of ``train.times`` is a frozen dataclass with its settings, whose ``start(schedule, device)`` gives the
:class:`TimeSampler` of a run: itself if nothing is remembered, else an object that is an :class:`Observer`, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ddpm_ip.draws import Draws, Stream
from ddpm_ip.precise import place

LARGE = 1e4  # importance weight; of 1000 times such a one is drawn once in 80,000 steps of 128 images
_UNIT = 2.0**52  # of cumulative probabilities as whole numbers


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


def cumulative(p: Tensor) -> Tensor:
    """Running sums of probabilities, in units of 2^-52.

    Whole numbers add up to the same in any order, and a GPU may sum in any order.

    Args:
        p: float64 (T,), >= 0, of sum 1.

    Returns:
        int64 (T,), not falling.
    """
    return (p * _UNIT).round().long().cumsum(0)


def drawn(draws: Draws, sums: Tensor) -> Tensor:
    """Times with the probabilities whose :func:`cumulative` sums are given, int64 (B,) in [0, T).

    A time is the number of sums that a uniform number reaches (inversion of the distribution function). The number has
    52 bits, of two words: of 32 alone a time of probability 10^-9 would come too often or never.
    """
    words = draws.bits(Stream.TIME, 2)
    high, low = words.to(place(words.device)).unbind(1)
    sums = sums.to(high.device)
    uniform = ((high << 20) + (low >> 12)).double() * (sums[-1].double() / _UNIT)
    return torch.searchsorted(sums, uniform.long(), right=True).to(words.device)


@dataclass(frozen=True, eq=False)
class Table:
    """Times whose probabilities never change.

    Attributes:
        sums: :func:`cumulative` probabilities, int64 (T,), on the device.
        importance: what the loss at each time is multiplied by, float32 (T,), on the device.
    """

    sums: Tensor
    importance: Tensor

    @classmethod
    def of(cls, p: Tensor, reweigh: bool, device: torch.device) -> Table:
        """The sampler of probabilities float64 (T,) on the CPU, with weights ``1 / (T p)`` if ``reweigh``, else 1."""
        importance = 1 / (len(p) * p) if reweigh else torch.ones_like(p)
        return cls(cumulative(p).to(device), importance.float().to(device))

    def draw(self, draws: Draws, total_steps: int) -> tuple[Tensor, Tensor]:
        """See :meth:`TimeSampler.draw`."""
        t = drawn(draws, self.sums)
        return t, self.importance[t]

    def leaps(self) -> str:
        """What there is to say of weights beyond :data:`LARGE`; empty if there are none."""
        most, t = self.importance.max(dim=0)
        if most <= LARGE:
            return ""
        seldom = int((self.importance > LARGE).sum())
        return (
            f"train.times with reweigh: the loss at time {int(t)} counts {float(most):.1g} times, and is drawn as "
            f"rarely ({seldom} of {len(self.importance)} times count more than {LARGE:.0f} times). The loss will leap "
            "there: leave train.times.reweigh false, or choose a wider distribution"
        )
