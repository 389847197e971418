r"""Clipping the predicted ``x_0`` to [-1, 1], the range of images; the last of all corrections.

rederive:  x_0 <- clip(x_0),  eps <- (x_t - alpha x_0) / sigma     (guided-diffusion's DDIM; diffusers with
           ``use_clipped_model_output=True``)
keep_eps:  x_0 <- clip(x_0),  eps as it was                        (diffusers' default)
none:      both as they were
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.denoiser import Prediction
from ddpm_ip.sampler.base import Plan
from ddpm_ip.sampler.correction.base import Correction, Denoise, Row
from ddpm_ip.schedule import Schedule

ClipMode = Literal["rederive", "keep_eps", "none"]


@dataclass(frozen=True)
class Clip(Correction):
    """``sampling.clip``: what is done to a predicted ``x_0`` outside [-1, 1]."""

    name: Literal["clip"] = field(default="clip", kw_only=True)
    mode: ClipMode = "rederive"

    def numbers(self, plan: Plan, schedule: Schedule) -> Tensor:
        """(V, 2): the limit, and whether eps is derived again."""
        limit = torch.inf if self.mode == "none" else 1.0
        return torch.tensor([[limit, float(self.mode == "rederive")]], dtype=torch.float64).expand(plan.visits, 2)

    def wrap(self, denoise: Denoise) -> Denoise:
        def clipped(xt: Tensor, row: Row) -> Prediction:
            seen = denoise(xt, row)
            limit, rederive = row.numbers[self.name]
            x0 = seen.x0.clamp(-limit, limit)
            alpha, sigma = row.level_of(seen)
            eps = torch.where(rederive > 0, (xt - alpha * x0) / sigma, seen.eps)
            return seen._replace(x0=x0, eps=eps)

        return clipped
