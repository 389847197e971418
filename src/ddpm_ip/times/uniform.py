"""Every time as often as any other (Ho et al. 2020, arXiv 2006.11239, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.draws import Draws
from ddpm_ip.schedule import Schedule
from ddpm_ip.times.base import TimeSampler


@dataclass(frozen=True)
class Uniform:
    """``p(t) = 1/T``."""

    name: Literal["uniform"] = field(default="uniform", kw_only=True)

    def start(self, schedule: Schedule, device: torch.device) -> TimeSampler:
        """The sampler of a training run; this one remembers nothing."""
        return self

    def draw(self, draws: Draws, total_steps: int) -> tuple[Tensor, Tensor]:
        """Uniform times int64 (B,) in [0, T), weights of one."""
        t = draws.times(total_steps)
        return t, torch.ones(len(t), device=t.device)
