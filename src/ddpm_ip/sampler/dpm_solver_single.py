r"""DPM-Solver++ (single-step): each step asks at inner times of its own, and remembers nothing of the step before.

With ``h = lambda_s - lambda_t`` a step from ``t`` to ``s < t`` is (Lu et al. 2022, arXiv 2211.01095, algorithm 1; of
order 3 it is DPM-Solver-3 of arXiv 2206.00927, in terms of ``x_0``)

    x_s = sigma_s / sigma_t x_t + alpha_s (F x_0 + S D_1 + T D_2)
    F = 1 - exp(-h),    S = 1 - F / h,    T = 1 / 2 - S / h

    order 1:  D_1 = D_2 = 0
    order 2:  D_1 = (x_0(r) - x_0) / r, and D_2 = 0; "midpoint" has F / 2 for S, "heun" has S
    order 3:  "midpoint": D_1 = (x_0(r_2) - x_0) / r_2, and D_2 = 0; it takes r_2 = 2 / 3 to be of order 3
              "heun": slope and second derivative of the parabola through x_0, x_0(r_1) and x_0(r_2)

where ``x_0(r)`` is asked at ``lambda_t + r h``, of a state that the next lower order makes: of order 2, by "heun" in
the papers, and by the same type in diffusers.

The network is asked at each of the given times once. They are cut into steps of ``order`` evaluations, what is left
over is one shorter step, and the last time alone is the step to the clean image, of order 1. Inner times are those of
the grid, as in diffusers, or lie evenly in lambda, as in the papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal

from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.sampler.dpm_solver import SolverType, taylor_weights
from ddpm_ip.schedule import Schedule
from ddpm_ip.variants import settle


@dataclass(frozen=True)
class DPMSolverSingle:
    """DPM-Solver++ of order 2 or 3, single-step; as many evaluations as times.

    Args:
        order: 2, which is known as 2S, or 3, which is known as 3S.
        solver_type: how the differences of predictions are weighed, see above; diffusers' words.
        inner: ``grid``, diffusers' form; ``even``, the papers': a step's inner times are moved to lie evenly in lambda,
            and are fractional.
    """

    name: Literal["dpm_solver_single"] = field(default="dpm_solver_single", kw_only=True)
    order: Literal[2, 3] = 2
    solver_type: SolverType = "midpoint"
    inner: Literal["grid", "even"] = "grid"

    def __post_init__(self) -> None:
        settle(self)

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a time; what is known of the states at the ends of order 2 and 3 are the memories."""
        grid = [*(t for t, _ in steps(times, schedule)), -1.0]
        evaluations = self.evaluations(len(times))
        rows = Rows(schedule, memories=max(evaluations) - 1)
        for count, first in zip(evaluations, accumulate(evaluations, initial=0), strict=False):
            between = grid[first : first + count + 1]
            self._add_step(rows, _even(schedule, between) if self.inner == "even" else between)
        return rows.plan()

    def evaluations(self, count: int) -> list[int]:
        """How many of ``count`` evaluations each step has, which is its order."""
        whole, left = divmod(count - 1, self.order)
        return [*[self.order] * whole, *([left] if left else []), 1]

    def _add_step(self, rows: Rows, times: Sequence[float]) -> None:
        """A step from the first of the times to the last, asked at all but the last."""
        alpha_t, sigma_t = rows.schedule.level(times[0])
        hs = [rows.schedule.half_log_snr(s) - rows.schedule.half_log_snr(times[0]) for s in times[1:]]
        ratios, weights = {}, {}  # of the state at the i-th time, as a sum of x and the predictions before
        for i, s in enumerate(times[1:], 1):
            alpha_s, sigma_s = rows.schedule.level(s)
            ratios[i] = sigma_s / sigma_t
            published = self.inner == "even" and i < len(hs)
            solver_type = "heun" if published else self.solver_type
            weights[i] = _weights(alpha_s - alpha_t * ratios[i], alpha_s, hs[:i], solver_type)
        for k, (t, s) in enumerate(pairwise(times)):
            known = {i: ratios[i] * rows.x if k == 0 else rows.m[i - 2] for i in range(k + 1, len(times))}
            sums = {i: form + weights[i][k] * rows.x0 for i, form in known.items()}
            x = sums.pop(k + 1)
            m = [sums.get(i, kept) for i, kept in enumerate(rows.m, 2)]
            (rows.stage if sums else rows.add)(t, s, x, m)


def _weights(factor: float, alpha: float, hs: Sequence[float], solver_type: SolverType) -> list[float]:
    """What each prediction weighs in a state of order ``len(hs)``; hs: lambda there and before it, from the start."""
    if len(hs) == 1:
        return [factor]
    r, *others = (h / hs[-1] for h in hs[:-1])
    of_slope, of_bend = taylor_weights(factor, alpha, hs[-1], "heun" if others else solver_type)
    if not others:
        return [factor - of_slope / r, of_slope / r]
    (later,) = others
    if solver_type == "midpoint":
        return [factor - of_slope / later, 0.0, of_slope / later]
    first = (of_slope * later - 2 * of_bend) / (r * (later - r))
    second = (2 * of_bend - of_slope * r) / (later * (later - r))
    return [factor - first - second, first, second]


def _even(schedule: Schedule, times: Sequence[float]) -> list[float]:
    """The same ends, and between them as many times, evenly in lambda."""
    begin, end, n = schedule.half_log_snr(times[0]), schedule.half_log_snr(times[-1]), len(times) - 1
    return [times[0], *(schedule.time(begin + i / n * (end - begin)) for i in range(1, n)), times[-1]]
