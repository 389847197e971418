r"""DPM-Solver++ (multistep): the probability-flow ODE in terms of ``x_0``, over ``lambda = log(alpha / sigma)``.

With ``h = lambda_s - lambda_t`` one step from ``t`` to ``s < t`` is (Lu et al. 2022, arXiv 2211.01095, equation 9)

    x_s = sigma_s / sigma_t x_t - alpha_s (exp(-h) - 1) D

where ``D`` stands for ``x_0`` along the way:

    order 1:  D = x_0                                             (DDIM with eta 0)
    order 2:  D = x_0 + 1 / (2 r) (x_0 - x_0'),   r = h' / h      (2M, algorithm 2: "midpoint")
              or, with ``D_1 = (x_0 - x_0') / r``,  x_s += alpha_s ((exp(-h) - 1) / h + 1) D_1 on order 1  ("heun")
    order 3:  x_s += alpha_s ((exp(-h) - 1) / h + 1) D_1 - alpha_s ((exp(-h) - 1 + h) / h^2 - 1 / 2) D_2   (3M)

with ``x_0'`` and ``h'`` of the step before. Of order 3, ``D_1`` and ``D_2`` are ``h`` times the slope and ``h^2`` times
the second divided difference of the parabola through the last three predictions. The integral asks for the second
*derivative*, which is twice that: so 3M as published (and in diffusers) is of order 2; ``corrected`` takes it twice,
and is of order 3.

The first step has no step before it, the second only one, and the last, to the clean image, has an infinite ``h`` and
is of order 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.schedule import Schedule
from ddpm_ip.variants import settle

SolverType = Literal["midpoint", "heun"]


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++ of order 1 to 3, multistep.

    Settings that play no part (``solver_type`` for order 1, the last two unless the order is 3) become None.

    Args:
        order: 1, which is DDIM with ``eta = 0``; 2, which is known as 2M; or 3, which is known as 3M.
        solver_type: how order 2 is reached, see above; diffusers' words. With order 3, that of its steps of order 2.
        lower_order_final: with fewer than 15 steps, the last but one is of order 2 at most. As in diffusers.
        corrected: the weight of ``D_2`` that order 3 needs, twice the published one.
    """

    name: Literal["dpm_solver"] = field(default="dpm_solver", kw_only=True)
    order: Literal[1, 2, 3] = 2
    solver_type: SolverType | None = "midpoint"
    lower_order_final: bool | None = True
    corrected: bool | None = False

    def __post_init__(self) -> None:
        third = self.order == 3
        settle(self, solver_type=self.order > 1, lower_order_final=third, corrected=third)

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a step; order 2 remembers the prediction before, order 3 the two before."""
        rows = Rows(schedule, memories=self.order - 1)
        before: list[float] = []  # h of the steps before, the latest first
        lower_order_final = self.lower_order_final and len(times) < 15
        for (t, s), order in zip(
            steps(times, schedule), orders(self.order, len(times), lower_order_final), strict=True
        ):
            (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.level(t), schedule.level(s)
            factor = alpha_s - alpha_t * sigma_s / sigma_t  # - alpha_s (exp(-h) - 1), finite for the clean image, too
            h = schedule.half_log_snr(s) - schedule.half_log_snr(t)
            x = sigma_s / sigma_t * rows.x + factor * rows.x0
            weights = taylor_weights(factor, alpha_s, h, self.solver_type if order == 2 else "heun")
            weights[1] *= 2 if self.corrected else 1
            for weight, difference in zip(weights, differences(rows, h, before[: order - 1]), strict=False):
                x = x + weight * difference
            rows.add(t, s, x, m=remembered(rows.x0, rows.m, first=not before))
            before = [h, *before]
        return rows.plan()


def orders(order: int, count: int, lower_order_final: bool | None) -> list[int]:
    """The order of each of ``count`` steps: the first ones have too little to look back on, the last is of order 1.

    With ``lower_order_final`` the k-th from the end is of order k at most.
    """
    ends = [count - i if lower_order_final or i == count - 1 else order for i in range(count)]
    return [min(order, i + 1, end) for i, end in enumerate(ends)]


def differences(rows: Rows, h: float, before: Sequence[float]) -> list[Tensor]:
    """``D_1``, or ``D_1`` and ``D_2``, from the predictions that ``rows.m`` holds, the latest first.

    Args:
        rows: whose first memories are predictions.
        h: of this step.
        before: h of the steps before, the latest first: as many as predictions are looked at.
    """
    if not before:
        return []
    latest = h / before[0] * (rows.x0 - rows.m[0])
    if len(before) == 1:
        return [latest]
    earlier = h / before[1] * (rows.m[0] - rows.m[1])
    bend = h / (before[0] + before[1]) * (latest - earlier)
    return [latest + before[0] / h * bend, bend]


def taylor_weights(factor: float, alpha: float, z: float, solver_type: SolverType | None) -> list[float]:
    """What ``D_1`` and ``D_2`` weigh, where ``x_0`` weighs ``factor = alpha (1 - exp(-z))``; ``z`` may be infinite."""
    second = alpha - factor / z
    return [factor / 2 if solver_type == "midpoint" else second, alpha / 2 - second / z]


def remembered(x0: Tensor, m: Sequence[Tensor], first: bool) -> list[Tensor]:
    """The last predictions, the latest first; after the first step its prediction, in all places."""
    return [x0] * len(m) if first else [x0, *m][: len(m)]
