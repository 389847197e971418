r"""Epsilon scaling: the predicted noise divided by a factor a little above 1.

    eps <- eps / scale,        x_0 <- (x_t - sigma eps) / alpha

In sampling the network's noise is too large, since its input drifts away from the true ``x_t`` (exposure bias). Ning et
al. 2024, "Elucidating the exposure bias in diffusion models" (arXiv 2308.15321), equation 8, with a uniform ``scale``.
The scaling comes before ``x_0`` is computed and clipped. A network trained with input perturbation of strength gamma
has a scale of ``sqrt(1 + gamma^2)`` built in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.denoiser import Prediction
from ddpm_ip.sampler.base import Plan
from ddpm_ip.sampler.correction.base import Correction, Denoise, Row
from ddpm_ip.schedule import Schedule


@dataclass(frozen=True)
class EpsilonScaling(Correction):
    """Divides the predicted noise.

    Args:
        scale: > 0; the paper's CIFAR-10 values lie between 1.005 and 1.02, the more steps the smaller.
    """

    name: Literal["epsilon_scaling"] = field(default="epsilon_scaling", kw_only=True)
    scale: float = 1.005

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be a positive number, got {self.scale}")

    def numbers(self, plan: Plan, schedule: Schedule) -> Tensor:
        """(V, 1): the scale."""
        return torch.full((plan.visits, 1), self.scale, dtype=torch.float64)

    def wrap(self, denoise: Denoise) -> Denoise:
        def scaled(xt: Tensor, row: Row) -> Prediction:
            seen = denoise(xt, row)
            eps = seen.eps / row.numbers[self.name]
            return seen._replace(eps=eps, x0=(xt - row.sigma * eps) / row.alpha)

        return scaled
