r"""Dynamic thresholding: a prediction that leaves [-1, 1] is scaled back into it instead of being cut off there.

    s = the quantile of |x_0| over an image, at least 1 and at most ``most``
    x_0 <- clip(x_0, -s, s) / s,        eps <- (x_t - alpha x_0) / sigma

Saharia et al. 2022, "Imagen" (arXiv 2205.11487, section 2.3). The paper's static thresholding is
``clip(x_0, -1, 1)``: that is ``sampling.clip``, the last of all corrections, and no correction of its own.
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
class DynamicThresholding(Correction):
    """Clips each predicted image to a quantile of its own size, and scales it back to [-1, 1].

    Args:
        quantile: in [0, 1], of the absolute values of an image; Imagen's 99.5th percentile by default.
        most: the largest limit, at least 1; null for none, as in the paper. (diffusers' ``sample_max_value``, which is
            1 there unless it is set, so that nothing is dynamic.)
    """

    name: Literal["dynamic_thresholding"] = field(default="dynamic_thresholding", kw_only=True)
    quantile: float = 0.995
    most: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile must lie in [0, 1], such as 0.995, got {self.quantile}")
        if self.most is not None and not self.most >= 1:
            raise ValueError(f"most must be at least 1, or null for no limit, got {self.most}")

    def numbers(self, plan: Plan, schedule: Schedule) -> Tensor:
        """(V, 2): the quantile, and the largest limit."""
        most = math.inf if self.most is None else self.most
        return torch.tensor([[self.quantile, most]], dtype=torch.float64).expand(plan.visits, 2)

    def wrap(self, denoise: Denoise) -> Denoise:
        def thresholded(xt: Tensor, row: Row) -> Prediction:
            seen = denoise(xt, row)
            quantile, most = row.numbers[self.name].unbind()
            limit = _quantile(seen.x0.abs().flatten(1), quantile).clamp(min=1).minimum(most).reshape(-1, 1, 1, 1)
            x0 = seen.x0.clamp(-limit, limit) / limit
            alpha, sigma = row.level_of(seen)
            return seen._replace(x0=x0, eps=(xt - alpha * x0) / sigma)

        return thresholded


def _quantile(values: Tensor, quantile: Tensor) -> Tensor:
    """Of each row, linear between two values; ``torch.quantile`` takes 2^24 numbers at most.

    Args:
        values: (B, N).
        quantile: a scalar in [0, 1] on the same device.
    """
    ordered = values.sort(dim=1).values
    place = quantile * (values.shape[1] - 1)
    below = place.floor()
    ends = torch.stack((below, place.ceil())).long()
    low, high = ordered.index_select(1, ends).unbind(1)
    return torch.lerp(low, high, place - below)
