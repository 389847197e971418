r"""Variance normalisation: each state is scaled to the variance that the grid says it has.

    x_s <- x_s sqrt((1 - alpha_bar_s) / v),    v the unbiased variance of x_s over all dimensions of a sample

An option of the program of Li et al. 2024 (arXiv 2305.15583; Mingxiao-Li/TS-DPM, ``--nor_var``), the plain alternative
to shifting the time (:mod:`ddpm_ip.sampler.correction.time_shift`): there before every visit, here after each finished
step that leads to a time of at least ``cutoff``; ``x_T`` is left as it was drawn. ``1 - alpha_bar`` leaves out how much
the image itself varies, ``alpha_bar`` times its variance. That is little where there is much noise; below, contrast is
lost, and at ``cutoff`` 0, which is the program's own way, nearly all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.sampler.base import Plan
from ddpm_ip.sampler.correction.base import Correction, Row
from ddpm_ip.schedule import Schedule

PER = 1000  # cutoffs are in thousandths of T
SMALLEST = 1e-12  # variance that is divided by


@dataclass(frozen=True)
class VarianceNormalisation(Correction):
    """Scales states to the variance of their time.

    Args:
        cutoff: in thousandths of T, 0 to 1000: the least time at which a state is scaled.
    """

    name: Literal["variance_normalisation"] = field(default="variance_normalisation", kw_only=True)
    cutoff: float = 500.0

    def __post_init__(self) -> None:
        if not 0 <= self.cutoff <= PER:
            raise ValueError(f"cutoff must lie in 0..{PER} thousandths of T, got {self.cutoff}")

    def numbers(self, plan: Plan, schedule: Schedule) -> Tensor:
        """(V, 2): the variance wanted of the state afterwards, and whether it is scaled."""
        later = torch.tensor(plan.times()[1:], dtype=torch.float64)
        scaled = plan.state & (later >= self.cutoff * schedule.total_steps / PER)
        return torch.stack((plan.after[:, 1] ** 2, scaled.double()), dim=1)

    def after(self, x: Tensor, x0: Tensor, row: Row) -> Tensor:
        variance, scaled = row.numbers[self.name]
        present = x.flatten(1).var(dim=1).clamp(min=SMALLEST).reshape(-1, 1, 1, 1)
        change: Tensor = scaled * ((variance / present).sqrt() - 1) * x
        return change
