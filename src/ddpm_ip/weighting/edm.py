r"""EDM's weights (Karras et al. 2022, arXiv 2206.00364, table 1), with ``sigma' = sigma_t / alpha_t``:

    (sigma'^2 + s_d^2) / (sigma' s_d)^2 |x_0 - x_0^|^2,        s_d = 0.5, the standard deviation of the data

At the start of training the paper's preconditioned network then has a loss of one at every level. Here the network
predicts what ``diffusion.objective`` says, and the weight becomes, in ``alpha`` and ``sigma`` of the schedule,

    pred_x0:  (sigma^2 + s_d^2 alpha^2) / (s_d sigma)^2
    pred_v:   (sigma^2 + s_d^2 alpha^2) / s_d^2                    from 1 at the image to 1 / s_d^2 at noise
    pred_eps: (sigma^2 + s_d^2 alpha^2) / (s_d alpha)^2            without bound at large noise

What is known: it belongs to ``train.times.name: lognormal``, which keeps away from both ends. ``pred_v`` with s_d = 1
is the simple loss. With ``pred_eps`` the last times of a schedule get weights of 10^5 (linear) or 10^9 (cosine): use
``pred_v``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ddpm_ip.denoiser import PredictionType
from ddpm_ip.schedule import Schedule


@dataclass(frozen=True)
class EDM:
    """``(sigma'^2 + s_d^2) / (sigma' s_d)^2`` for the error of ``x_0``.

    Args:
        sigma_data: standard deviation of the images in [-1, 1], > 0.
    """

    name: Literal["edm"] = field(default="edm", kw_only=True)
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(f"sigma_data must be above 0, got {self.sigma_data}")

    def __call__(self, schedule: Schedule, t: Tensor, prediction_type: PredictionType) -> Tensor:
        """See :meth:`ddpm_ip.weighting.base.Weighting.__call__`."""
        alpha, sigma = schedule.alpha(t, t.float()), schedule.sigma(t, t.float())
        weight = (sigma**2 + (self.sigma_data * alpha) ** 2) / self.sigma_data**2
        if prediction_type == "pred_v":
            return weight
        return weight / (sigma if prediction_type == "pred_x0" else alpha) ** 2
