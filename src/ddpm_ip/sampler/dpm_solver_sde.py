r"""SDE-DPM-Solver++ (multistep): the reverse diffusion with fresh noise in each step, in terms of ``x_0``.

With ``h = lambda_s - lambda_t`` one step from ``t`` to ``s < t`` is (Lu et al. 2022, arXiv 2211.01095, the solvers of
diffusion SDEs)

    x_s = sigma_s / sigma_t exp(-h) x_t + alpha_s (1 - exp(-2 h)) D + sigma_s sqrt(1 - exp(-2 h)) noise

    order 1:  D = x_0                                             (ancestral with fixed_small)
    order 2:  D = x_0 + D_1 / 2                                   (SDE-2M: "midpoint")
              or  x_s += alpha_s ((1 - exp(-2 h)) / (-2 h) + 1) D_1 on order 1  ("heun")
    order 3:  x_s += that, and alpha_s ((1 - exp(-2 h) - 2 h) / (2 h)^2 + 1 / 2) D_2  (SDE-3M)

with ``D_1``, ``D_2`` of :mod:`ddpm_ip.sampler.dpm_solver`. The weights are those of the ODE with ``2 h`` for ``h``.

SDE-3M is in no paper. diffusers has ``- 1 / 2`` in the weight of ``D_2``, which is then near -1 for small h and leaves
order 1; the integral ``int_0^h exp(-2 (h - u)) u^2 du / h^2`` has ``+ 1 / 2``, as k-diffusion's ``dpmpp_3m_sde``. Its
variance is then of order 2, as that of SDE-2M: the noise within a step limits it.

The first step has no step before it, the second only one, and the last, to the clean image, is of order 1 and adds no
noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.sampler.dpm_solver import SolverType, differences, orders, remembered, taylor_weights
from ddpm_ip.schedule import Schedule
from ddpm_ip.variants import settle


@dataclass(frozen=True)
class DPMSolverSDE:
    """SDE-DPM-Solver++ of order 1 to 3, multistep.

    Settings that play no part (``solver_type`` for order 1, ``lower_order_final`` unless the order is 3) become None.

    Args:
        order: 1, which is ancestral sampling with ``fixed_small``; 2, which is known as SDE-2M; or 3, SDE-3M.
        solver_type: how order 2 is reached, see above; diffusers' words. With order 3, that of its steps of order 2.
        lower_order_final: with fewer than 15 steps, the last but one is of order 2 at most. As in diffusers.
    """

    name: Literal["dpm_solver_sde"] = field(default="dpm_solver_sde", kw_only=True)
    order: Literal[1, 2, 3] = 2
    solver_type: SolverType | None = "midpoint"
    lower_order_final: bool | None = True

    def __post_init__(self) -> None:
        settle(self, solver_type=self.order > 1, lower_order_final=self.order == 3)

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a step; order 2 remembers the prediction before, order 3 the two before."""
        rows = Rows(schedule, memories=self.order - 1)
        before: list[float] = []  # h of the steps before, the latest first
        lower_order_final = self.lower_order_final and len(times) < 15
        for (t, s), order in zip(
            steps(times, schedule), orders(self.order, len(times), lower_order_final), strict=True
        ):
            sigma_t, (alpha_s, sigma_s) = schedule.level(t).sigma, schedule.level(s)
            h = schedule.half_log_snr(s) - schedule.half_log_snr(t)
            kept = sigma_s / sigma_t * math.exp(-h)  # 0 for the clean image
            fresh = -math.expm1(-2 * h)
            x = kept * rows.x + alpha_s * fresh * rows.x0 + sigma_s * math.sqrt(fresh) * rows.noise
            weights = taylor_weights(alpha_s * fresh, alpha_s, 2 * h, self.solver_type if order == 2 else "heun")
            for weight, difference in zip(weights, differences(rows, h, before[: order - 1]), strict=False):
                x = x + weight * difference
            rows.add(t, s, x, m=remembered(rows.x0, rows.m, first=not before))
            before = [h, *before]
        return rows.plan()
