"""The averaged network that samples are drawn from.

``ema <- decay ema + (1 - decay) network`` after every step, with a constant decay from the first step on, as in DDPM,
guided-diffusion and DDPM-IP. A warm-up is an option: ``min(decay, (1 + n) / (10 + n))`` in update ``n``, counted from
1, as xyfJASON's ``ema_gradual`` has it (after TensorFlow's ``ExponentialMovingAverage``), so that a short run does not
average its start. (Beware when comparing: diffusers' ``EMAModel`` hides another warm-up in its decay.)

A run may keep several, and averages by power functions as well (:mod:`ddpm_ip.power`).
"""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ddpm_ip.power import gamma_of, weight_at

Network = TypeVar("Network", bound=nn.Module)


class EMA(Generic[Network]):
    """An exponential moving average of a network's parameters.

    Args:
        network: what to average; it is copied, and the copy is what ``ema.network`` holds: a module like any other.
        decay: in [0, 1).
        warmup: whether the decay rises from 2/11; see :func:`decay_at`.
    """

    def __init__(self, network: Network, decay: float, warmup: bool = False) -> None:
        self.decay, self.warmup = decay, warmup
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._average: list[Tensor] = list(self.network.parameters())
        self._buffers = list(self.network.buffers())

    @property
    def varies(self) -> bool:
        """Whether the weight of the network differs between steps."""
        return self.warmup

    def weight(self, step: int) -> float:
        """How much the network counts in the update that follows ``step`` finished steps, in (0, 1]."""
        return 1.0 - decay_at(self.decay, self.warmup, step + 1)

    @torch.no_grad()
    def update(self, network: Network, weight: float | Tensor | None = None) -> None:
        """Moves the average towards ``network``, in few operations for all parameters; buffers are copied.

        Args:
            network: of the same parameters.
            weight: how much it counts: a number; or a tensor () on its device, read when the operations run, so that a
                captured graph follows it; None for ``1 - decay``.
        """
        current: list[Tensor] = list(network.parameters())
        if isinstance(weight, Tensor):  # torch's lerp takes no such weight for many tensors
            towards = torch._foreach_sub(current, self._average)
            torch._foreach_mul_(towards, weight)
            torch._foreach_add_(self._average, towards)
        else:
            torch._foreach_lerp_(self._average, current, 1.0 - self.decay if weight is None else weight)
        for mine, theirs in zip(self._buffers, network.buffers(), strict=True):
            mine.copy_(theirs)


class PowerEMA(EMA[Network]):
    """An average with the profile of a power function, whose length is a share of the steps so far.

    Args:
        network: see :class:`EMA`.
        sigma_rel: the length, in (0, 0.288).

    Raises:
        ValueError: there is no such length.
    """

    def __init__(self, network: Network, sigma_rel: float) -> None:
        super().__init__(network, 0.0)
        self.gamma = gamma_of(sigma_rel)

    @property
    def varies(self) -> bool:
        return True

    def weight(self, step: int) -> float:
        return weight_at(self.gamma, step + 1)


def decay_at(decay: float, warmup: bool, n: int) -> float:
    """The decay of the n-th update, n >= 1: ``decay``, or with a warm-up ``min(decay, (1 + n) / (10 + n))``."""
    return min(decay, (1 + n) / (10 + n)) if warmup else decay


def remaining(decay: float, warmup: bool, updates: int) -> float:
    """The share of the initial weights that is left in the average after this many updates, in [0, 1]."""
    if not warmup:
        return decay**updates
    rising = min(
        updates, max(0, math.ceil((10 * decay - 1) / (1 - decay)) - 1)
    )  # updates whose decay is below ``decay``
    # The product of (1 + n) / (10 + n) for n = 1 ... m is 10! / 1! (m + 1)! / (m + 10)!.
    share = math.factorial(10) / math.prod(range(rising + 2, rising + 11)) if rising else 1.0
    return share * decay ** (updates - rising)
