r"""Min-SNR: small noise counts no more than ``gamma`` (Hang et al. 2023, arXiv 2303.09556, section 3.4).

    min(snr, gamma) |x_0 - x_0^|^2  =  min(1, gamma / snr) |eps - eps^|^2  =  min(snr, gamma) / (snr + 1) |v - v^|^2

For ``pred_eps`` this takes weight away from small noise, where ``snr`` is large, and leaves the rest alone; for
``pred_x0`` it is the loss of ``pred_eps`` at large noise, cut off at small noise.

What is known: it speeds up training in latent space several times over; on ADM's CIFAR-10 network FID is 3.43 against
3.47 without, on FFHQ-128 12.46 against 14.07 (the table of "Bidirectional Noise Injection", AAAI 2026). Small noise is
where fine detail is learned, which the FID of 32 x 32 images rewards.
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
class MinSNR:
    """``min(snr, gamma)`` for the error of ``x_0``.

    Args:
        gamma: the largest weight, > 0. (It has nothing to do with the strength of a perturbation.)
    """

    name: Literal["min_snr"] = field(default="min_snr", kw_only=True)
    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.gamma < math.inf:
            raise ValueError(f"gamma must be above 0, got {self.gamma}")

    def __call__(self, schedule: Schedule, t: Tensor, prediction_type: PredictionType) -> Tensor:
        """See :meth:`ddpm_ip.weighting.base.Weighting.__call__`."""
        ratio = snr(schedule, t)
        if prediction_type == "pred_eps":
            return (self.gamma / ratio).clamp(max=1)
        weight = ratio.clamp(max=self.gamma)
        return weight if prediction_type == "pred_x0" else weight / (ratio + 1)
