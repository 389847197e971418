"""Times of all kinds: a plan must be finite along each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import get_args

from ddpm_ip.sampler import Sampler, respace
from ddpm_ip.schedule import BetaSchedule, Schedule

MIXED = [999, 998.5, 900, 700.25, 500, 499, 100, 3, 0.5, 0]


def rho(schedule: Schedule, t: float) -> float:
    """``sigma / alpha``."""
    alpha, sigma = schedule.level(t)
    return sigma / alpha


def uniform_rho(schedule: Schedule, steps: int, begin: float = 2.0, end: float = 0.2) -> list[float]:
    """``steps + 1`` times, evenly spaced in ``sigma / alpha``."""
    return [schedule.time(-math.log(begin + i * (end - begin) / steps)) for i in range(steps + 1)]


def grids() -> Iterator[tuple[Schedule, list[float]]]:
    """Every schedule, with few and many times, whole and fractional, evenly spaced and not."""
    for shape in get_args(BetaSchedule):
        schedule = Schedule(1000, shape)
        for steps in (1, 2, 3, 5, 10, 50):
            yield schedule, [float(t) for t in respace(1000, steps, "uniform-linspace")]
            yield schedule, [float(t) for t in respace(1000, steps, "uniform-leading")]
        yield schedule, uniform_rho(schedule, 10, rho(schedule, 999), rho(schedule, 0))
        yield schedule, [999.0, 0.0]
        yield schedule, [0.0]
        yield schedule, MIXED


def assert_finite(sampler: Sampler) -> None:
    """Along all grids; and each ends in the clean image, by a step that is the prediction itself."""
    for schedule, times in grids():
        plan = sampler.plan(schedule, times)
        columns = (plan.t, plan.alpha, plan.sigma, plan.after, plan.update, plan.carry)
        assert all(column.isfinite().all() for column in columns), (sampler, schedule, times)
        assert plan.after[-1].tolist() == [1, 0]
        clean = [0.0] * (4 + plan.memories)
        clean[1 + plan.memories] = 1.0
        assert plan.update[-1, 0].tolist() == clean
        assert plan.t.max() <= 999
        assert math.isfinite(plan.start)
