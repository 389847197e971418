r"""Temporal score rescaling: epsilon scaling that sets in smoothly, where there is little noise.

    eps <- r eps,    r = (snr sigma^2 + 1) / (snr sigma^2 / k + 1),    snr = (alpha_t / sigma_t)^2

Xu et al. 2025, "Temporal score rescaling for temperature sampling in diffusion and flow models" (arXiv 2510.01184).
``r`` is 1 where there is much noise, and ``k`` where there is little: for data ``N(mu, sigma^2)`` it turns the exact
score into that of ``N(mu, sigma^2 / k)``. So ``k < 1`` flattens a distribution, which gives images more detail, and
``k > 1`` does the opposite. It is epsilon scaling by ``1 / r``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ddpm_ip.sampler.base import Plan
from ddpm_ip.sampler.correction.base import Correction, Denoise
from ddpm_ip.sampler.correction.epsilon_scaling import divided
from ddpm_ip.schedule import Schedule


@dataclass(frozen=True)
class TSR(Correction):
    """Rescales the score over time.

    Args:
        k: > 0, the strength near the data: ``1 / k`` is epsilon scaling's factor there. By default the factor 1.02 at
            its end; other programs use 0.95 in the latent spaces of large models, and 1 changes nothing.
        sigma: > 0, how early it acts: the deviation of the data around its modes. By default that of the pixels of
            natural images in [-1, 1].
    """

    name: Literal["tsr"] = field(default="tsr", kw_only=True)
    k: float = 0.98
    sigma: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("k", self.k), ("sigma", self.sigma)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be a positive number, got {value}")

    def numbers(self, plan: Plan, schedule: Schedule) -> Tensor:
        """(V, 1): ``1 / r``."""
        signal, noise = (plan.alpha * self.sigma) ** 2, plan.sigma**2
        return ((signal / self.k + noise) / (signal + noise))[:, None]

    def wrap(self, denoise: Denoise) -> Denoise:
        return divided(denoise, self.name)
