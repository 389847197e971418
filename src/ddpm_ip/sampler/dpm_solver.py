r"""DPM-Solver++ (multistep): the probability-flow ODE in terms of ``x_0``, over ``lambda = log(alpha / sigma)``.

With ``h = lambda_s - lambda_t`` one step from ``t`` to ``s < t`` is (Lu et al. 2022, arXiv 2211.01095, equation 9)

    x_s = sigma_s / sigma_t x_t - alpha_s (exp(-h) - 1) D

where ``D`` stands for ``x_0`` along the way:

    order 1:  D = x_0                                             (DDIM with eta 0)
    order 2:  D = x_0 + 1 / (2 r) (x_0 - x_0'),   r = h' / h      (2M, algorithm 2: "midpoint")
              or, with ``D_1 = (x_0 - x_0') / r``,  x_s += alpha_s ((exp(-h) - 1) / h + 1) D_1 on order 1  ("heun")

with ``x_0'`` and ``h'`` of the step before. The first step has no step before it, and the last, to the clean image, an
infinite ``h``: both are of order 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.schedule import Schedule


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++ of order 1 or 2.

    Args:
        order: 1, which is DDIM with ``eta = 0``, or 2, which is known as 2M.
        solver_type: how order 2 is reached, see above; diffusers' words.
    """

    name: Literal["dpm_solver"] = field(default="dpm_solver", kw_only=True)
    order: Literal[1, 2] = 2
    solver_type: Literal["midpoint", "heun"] = "midpoint"

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a step; order 2 remembers the prediction before."""
        rows = Rows(schedule, memories=self.order - 1)
        h_before: float | None = None
        for t, s in steps(times):
            (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.level(t), schedule.level(s)
            factor = alpha_s - alpha_t * sigma_s / sigma_t  # - alpha_s (exp(-h) - 1), finite for the clean image, too
            first = sigma_s / sigma_t * rows.x + factor * rows.x0
            if self.order == 1:
                rows.add(t, s, first)
            elif s < 0 or h_before is None:
                rows.add(t, s, first, m=[rows.x0])
            else:
                h = math.log(alpha_s / sigma_s) - math.log(alpha_t / sigma_t)
                d1 = h / h_before * (rows.x0 - rows.m[0])
                weight = factor / 2 if self.solver_type == "midpoint" else alpha_s - factor / h
                rows.add(t, s, first + weight * d1, m=[rows.x0])
            if s >= 0:
                h_before = math.log(alpha_s / sigma_s) - math.log(alpha_t / sigma_t)
        return rows.plan()
