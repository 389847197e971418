r"""P2, perception prioritised: small noise counts less (Choi et al. 2022, arXiv 2204.00227, equation 8).

    w |eps - eps^|^2  =  snr w |x_0 - x_0^|^2  =  snr / (snr + 1) w |v - v^|^2,        w = (k + snr)^-gamma

with k = 1, gamma = 1 (the paper's choice; 0.5 is its other). At gamma = 0 it is the simple loss of ``pred_eps``.

What is known: with k = gamma = 1 the weight is ``sigma^2``. On ADM's CIFAR-10 network FID is 3.42 against 3.47 without,
on FFHQ-128 11.96 against 14.07 (the table of "Bidirectional Noise Injection", AAAI 2026).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ddpm_ip.denoiser import PredictionType
from ddpm_ip.schedule import Schedule
from ddpm_ip.weighting.base import snr


@dataclass(frozen=True)
class P2:
    """``(k + snr)^-gamma`` for the error of ``eps``.

    Args:
        gamma: how fast small noise loses weight, >= 0. (It has nothing to do with the strength of a perturbation.)
        k: > 0; below ``snr = k`` weights are level.
    """

    name: Literal["p2"] = field(default="p2", kw_only=True)
    gamma: float = 1.0
    k: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < math.inf:
            raise ValueError(f"gamma must be >= 0, got {self.gamma}")
        if not 0 < self.k < math.inf:
            raise ValueError(f"k must be above 0, got {self.k}")

    def __call__(self, schedule: Schedule, t: Tensor, prediction_type: PredictionType) -> Tensor:
        """See :meth:`ddpm_ip.weighting.base.Weighting.__call__`."""
        ratio = snr(schedule, t)
        weight = (self.k + ratio) ** -self.gamma
        if prediction_type == "pred_eps":
            return weight
        return ratio * weight if prediction_type == "pred_x0" else ratio / (ratio + 1) * weight
