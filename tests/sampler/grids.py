"""Times of all kinds: a plan must be finite along each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import get_args

from ddpm_ip.sampler import Heun, Sampler, respace
from ddpm_ip.schedule import BetaSchedule, Schedule

MIXED = [999, 998.5, 900, 700.25, 500, 499, 100, 3, 0.5, 0]
CLOSE = [999, 999 - 1e-6, 500, 500 - 1e-6, 500 - 2e-6, 500 - 3e-6, 1e-3, 0]


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
        ends = [schedule.half_log_snr(999), schedule.half_log_snr(0)]
        yield schedule, [schedule.time(ends[0] + i / 9 * (ends[1] - ends[0])) for i in range(10)]
        yield schedule, uniform_rho(schedule, 10, rho(schedule, 999), rho(schedule, 0))
        yield schedule, [999.0, 0.0]
        yield schedule, [0.0]
        yield schedule, MIXED
        yield schedule, CLOSE


def assert_finite(sampler: Sampler) -> None:
    """Along all grids: one evaluation a time, but for Heun two; at last the clean image, which is the prediction."""
    for schedule, times in grids():
        plan = sampler.plan(schedule, times)
        columns = (plan.t, plan.alpha, plan.sigma, plan.after, plan.update, plan.carry)
        assert all(column.isfinite().all() for column in columns), (sampler, schedule, times)
        assert plan.visits == (2 * len(times) - 1 if isinstance(sampler, Heun) else len(times))
        assert plan.after[-1].tolist() == [1, 0]
        clean = [0.0] * (4 + plan.memories)
        clean[1 + plan.memories] = 1.0
        assert plan.update[-1, 0].tolist() == clean
        assert plan.t.max() <= 999
        assert math.isfinite(plan.start)
