r"""Restart: an ODE that goes back to more noise and comes down again, several times, in the middle of the way.

With ``z = x / alpha``, ``rho = sigma / alpha`` and the slope ``d = (z - x_0) / rho`` a step from ``t`` to ``s < t`` is
Heun's (Karras et al. 2022, arXiv 2206.00364, algorithm 1)

    z' = z + (rho_s - rho_t) d,       z_s = z + (rho_s - rho_t) (d + d') / 2,       d' asked at (z', s)

and each time that the walk comes to ``rho_low``, but for the last, it goes back with fresh noise (Xu et al. 2023, arXiv
2306.14878, algorithm 1)

    z_high = z_low + sqrt(rho_high^2 - rho_low^2) noise,       then Heun's steps from rho_high to rho_low

at levels evenly spaced in ``rho^(1/7)`` (:func:`ddpm_ip.sampler.levels.karras`). The step to the clean image is
Euler's, and so are steps from levels where the slope at the end says nothing of the beginning: ``rho > 1000``, the
first times of a cosine schedule.

n times on the grid cost ``2 n - 1`` evaluations, a restart ``2 restart_steps``, and ``rho_low``, where the grid does
not have its time, 2 more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.sampler.edm import euler, heun, noised, rho
from ddpm_ip.sampler.levels import karras
from ddpm_ip.schedule import Schedule

EULER_ABOVE = 1000.0


@dataclass(frozen=True)
class Restart:
    """Heun's method with restarts.

    The interval is cut to what the times have: from time 0 to T - 1. A walk that begins at or below it has no restart.

    Args:
        restarts: how often the walk goes back, K.
        restart_steps: Heun's steps of each return. The published number counts levels, one more: 3 of them and 2
            restarts are the paper's CIFAR-10 setting, 43 evaluations for 18 times.
        rho_low: the level ``sigma / alpha`` at which the walk goes back.
        rho_high: the level to which it goes back.
    """

    name: Literal["restart"] = field(default="restart", kw_only=True)
    restarts: int = 2
    restart_steps: int = 2
    rho_low: float = 0.06
    rho_high: float = 0.30

    def __post_init__(self) -> None:
        if self.restarts < 1 or self.restart_steps < 1:
            raise ValueError(
                f"restarts and restart_steps must be at least 1, got {self.restarts} and {self.restart_steps}; "
                "for none choose the sampler heun"
            )
        if not 0 < self.rho_low < self.rho_high < math.inf:
            raise ValueError(f"0 < rho_low < rho_high must hold, got {self.rho_low} and {self.rho_high}")

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """Two rows a step, one where it is Euler's; the memory is of :func:`ddpm_ip.sampler.edm.heun`."""
        rows = Rows(schedule, memories=1)
        way = self._way(schedule, [t for t, _ in steps(times, schedule)])
        for (t, s), (following, _) in pairwise([*way, (-1.0, -1.0)]):
            if s >= 0 and rho(schedule, t) <= EULER_ABOVE:
                x, t = heun(rows, t, s), s
            else:
                x = euler(rows, t, s)
            rows.add(t, following, noised(rows, x, s, following))
        return rows.plan()

    def _way(self, schedule: Schedule, grid: list[float]) -> list[tuple[float, float]]:
        """The steps, with the restarts, which begin above the end of the step before."""
        low, *levels = self._levels(schedule)
        if not levels or grid[0] <= low:
            return list(steps(grid))
        way = []
        for t, s in steps(grid if low in grid else sorted([*grid, low], reverse=True)):
            way.append((t, s))
            if s == low:
                way += list(pairwise([*levels, low])) * self.restarts
        return way

    def _levels(self, schedule: Schedule) -> list[float]:
        """The time of ``rho_low``, then those from ``rho_high`` down towards it; none where there is no room."""
        low, high = (max(schedule.time(-math.log(level)), 0.0) for level in (self.rho_low, self.rho_high))
        if high <= low:
            return [low]
        ends = {"sigma_min": rho(schedule, low), "sigma_max": rho(schedule, high)}
        return [low, high, *karras(schedule, self.restart_steps + 1, **ends)[1:-1]]
