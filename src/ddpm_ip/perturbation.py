r"""What the network is fed in training instead of the true ``x_t``.

Sampling feeds the network its own, slightly wrong states; training feeds it exact ones. This gap is exposure bias.
DDPM-IP (Ning et al. 2023, arXiv 2301.11706, equation 8 and algorithm 3) closes part of it by *input perturbation*:

    y_t = alpha_t x_0 + sigma_t (eps + gamma xi),        xi ~ N(0, I)

The network sees ``(y_t, t)``, and its target stays the *clean* ``eps``. Sampling is unchanged. (Adding ``gamma xi``
without the factor ``sigma_t``, or to the target too, is another method and works worse.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ddpm_ip.draws import Draws


@dataclass(frozen=True)
class NoPerturbation:
    """Plain DDPM: the network is fed ``x_t = alpha_t x_0 + sigma_t eps``."""

    name: Literal["none"] = field(default="none", kw_only=True)

    def __call__(self, eps: Tensor, draws: Draws) -> Tensor:
        """Returns ``eps`` (B, ...) itself."""
        return eps


@dataclass(frozen=True)
class InputPerturbation:
    """DDPM-IP: ``eps`` becomes ``eps + gamma xi`` in the input, not in the target.

    Args:
        gamma: strength, >= 0. The paper's CIFAR-10 study finds 0.1 best (its released checkpoint uses 0.15); above 0.2
            it over-regularises. At 0 every number is bit-identical to plain DDPM.
    """

    name: Literal["input"] = field(default="input", kw_only=True)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < math.inf:
            raise ValueError(f"gamma must be >= 0, got {self.gamma}")

    def __call__(self, eps: Tensor, draws: Draws) -> Tensor:
        """Returns ``eps + gamma xi``, float32, of the shape of ``eps`` (B, ...)."""
        if self.gamma == 0:
            return eps
        return eps + self.gamma * draws.xi(eps.shape[1:])


Perturbation = NoPerturbation | InputPerturbation


def label(perturbation: Perturbation) -> str:
    """What a method is called: ``DDPM``, ``DDPM-IP, gamma 0.1``, or the name of another perturbation."""
    if isinstance(perturbation, NoPerturbation):
        return "DDPM"
    if isinstance(perturbation, InputPerturbation):
        return f"DDPM-IP, gamma {perturbation.gamma:g}" if perturbation.gamma > 0 else "DDPM"
    return f"DDPM with perturbation {perturbation.name}"
