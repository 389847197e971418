"""The simple loss: every time counts the same (Ho et al. 2020, arXiv 2006.11239, equation 14)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.denoiser import PredictionType
from ddpm_ip.schedule import Schedule


@dataclass(frozen=True)
class Constant:
    """A weight of one for the error of the network's output, whatever it predicts."""

    name: Literal["constant"] = field(default="constant", kw_only=True)

    def __call__(self, schedule: Schedule, t: Tensor, prediction_type: PredictionType) -> Tensor:
        """Ones, float32 (B,)."""
        return torch.ones(len(t), device=t.device)
