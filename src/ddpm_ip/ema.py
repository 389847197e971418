"""The averaged network that samples are drawn from.

``ema <- decay ema + (1 - decay) network`` after every step, with a constant decay from the first step on, as in DDPM,
guided-diffusion and DDPM-IP. (Beware when comparing: diffusers' ``EMAModel`` hides a warm-up in its decay.)
"""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class EMA(Generic[Network]):
    """An exponential moving average of a network's parameters.

    Args:
        network: what to average; it is copied, and the copy is what ``ema.network`` holds: a module like any other.
        decay: in [0, 1).
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._average: list[torch.Tensor] = list(self.network.parameters())
        self._buffers = list(self.network.buffers())

    @torch.no_grad()
    def update(self, network: Network) -> None:
        """Moves the average towards ``network``, in one operation for all parameters; buffers are copied."""
        current: list[torch.Tensor] = list(network.parameters())
        torch._foreach_lerp_(self._average, current, 1.0 - self.decay)
        for mine, theirs in zip(self._buffers, network.buffers(), strict=True):
            mine.copy_(theirs)
