"""Single-step DPM-Solver++ against diffusers, the papers' formulas, and on Gaussian data."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise, product

import pytest
import torch
from diffusers import DPMSolverSinglestepScheduler
from tests.sampler.exponential import COSINE, LINEAR, assert_same, grids, missed, on_parabola
from tests.sampler.grids import assert_finite
from tests.sampler.oracle import TYPES
from tests.sampler.tables import end, function, numbers, states, theirs, uniform_lambda

from ddpm_ip.sampler import DPMSolverSingle, respace
from ddpm_ip.schedule import Schedule

SAMPLERS = [DPMSolverSingle(o, t, i) for o in (2, 3) for t in ("midpoint", "heun") for i in ("grid", "even")]  # type: ignore[arg-type]


def slopes(sampler: DPMSolverSingle, variance: float, grid: Callable[[Schedule, int], list[float]]) -> list[float]:
    """See :func:`tests.sampler.tables.slopes`; what is counted are evaluations."""
    found = []
    for n in (48, 96, 192):
        made, exact = end(sampler.plan(LINEAR, grid(LINEAR, n)), variance, n)
        found.append(abs(made - exact))
    return [math.log2(a / b) for a, b in pairwise(found)]


def uniform_time(schedule: Schedule, n: int) -> list[float]:
    return [900 - 800 * i / n for i in range(n + 1)]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("order", [2, 3])
def test_it_is_diffusers_in_float64(order: int, kind: str) -> None:
    """What is left over of a full step is a shorter one: 2 to 21 times see every remainder."""
    x = numbers(2, 3)
    remainders: list[list[float]] = [[900, 500, 100], [900, 700, 500, 300, 100, 50, 20]]
    for times, schedule, solver_type in product([*grids(kind), *remainders], (LINEAR, COSINE), ("midpoint", "heun")):
        sampler = DPMSolverSingle(order, solver_type)  # type: ignore[arg-type]
        others = DPMSolverSinglestepScheduler(
            solver_order=order, prediction_type=TYPES[kind], solver_type=solver_type, lower_order_final=True
        )
        made = states(sampler.plan(schedule, times), x, kind=kind)
        assert_same(made, theirs(others, schedule, times, x, kind=kind))


@pytest.mark.parametrize("variance", [0.05, 0.4])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_orders_are_seen(sampler: DPMSolverSingle, variance: float) -> None:
    """A step has no history, so this is both exact and its own start; also where lambda is not uniform."""
    for grid in (uniform_lambda, uniform_time):
        found = slopes(sampler, variance, grid)
        assert all(sampler.order - 0.2 < s < sampler.order + 0.3 for s in found[1:]), found


def test_inner_times_of_a_rough_grid() -> None:
    """A parabola for x_0 is met by ``heun``; by ``midpoint``, which looks at two points, only if it is straight."""
    smooth = uniform_lambda(LINEAR, 12)
    rough = [0.7 * t + 0.3 * smooth[i - 1] if i % 3 == 2 else t for i, t in enumerate(smooth)]

    def found(sampler: DPMSolverSingle, c: float = -0.7) -> float:
        plan = sampler.plan(LINEAR, rough)
        assert plan.t[::3].tolist() == rough[::3]
        return max(map(abs, missed(on_parabola(plan, LINEAR, c)[:-1:3], LINEAR, rough[::3], c=c)))

    assert found(DPMSolverSingle(3, "heun")) < 1e-11
    assert found(DPMSolverSingle(3, "heun", "even")) < 1e-11
    assert found(DPMSolverSingle(3, "midpoint")) > 1e-3
    assert found(DPMSolverSingle(3, "midpoint"), c=0) < 1e-11


def test_even_inner_times_are_the_papers() -> None:
    """DPM-Solver++(2S) with r = 1/2 and DPM-Solver-3 in terms of x_0 with r = 1/3, 2/3, step by step as printed."""
    times: list[float] = [900, 850, 600, 500, 380, 150, 60]
    lambdas = [LINEAR.half_log_snr(t) for t in times]
    x = numbers(4)

    def x0(x: torch.Tensor, half_log_snr: float) -> torch.Tensor:
        t = LINEAR.time(half_log_snr)
        alpha, sigma = LINEAR.level(t)
        return (x - sigma * function(x, t)) / alpha

    def step(x: torch.Tensor, begin: float, end: float, d: torch.Tensor) -> torch.Tensor:
        alpha, sigma = LINEAR.level(LINEAR.time(end))
        return sigma / LINEAR.level(LINEAR.time(begin)).sigma * x - alpha * math.expm1(begin - end) * d

    second = [x]
    for a, b in pairwise(lambdas[::2]):
        m = x0(second[-1], a)
        inner = step(second[-1], a, (a + b) / 2, m)
        second.append(step(second[-1], a, b, x0(inner, (a + b) / 2)))  # r = 1/2: (1 - 1 / (2 r)) m is 0
    made = [x, *states(DPMSolverSingle(2, "midpoint", "even").plan(LINEAR, times), x)]
    assert_same(made[:-1:2], second)

    third = [x]
    for a, b in pairwise(lambdas[::3]):
        h, u = b - a, third[-1]
        m = x0(u, a)
        first = x0(step(u, a, a + h / 3, m), a + h / 3)
        h2, alpha_2 = 2 * h / 3, LINEAR.level(LINEAR.time(a + 2 * h / 3)).alpha
        u2 = step(u, a, a + h2, m) + 2 * (math.expm1(-h2) / h2 + 1) * alpha_2 * (first - m)
        d = x0(u2, a + h2) - m
        alpha_b = LINEAR.level(LINEAR.time(b)).alpha
        third.append(step(u, a, b, m) + 1.5 * (math.expm1(-h) / h + 1) * alpha_b * d)
    made = [x, *states(DPMSolverSingle(3, "midpoint", "even").plan(LINEAR, times), x)]
    assert_same(made[:-1:3], third)


def test_the_inner_stages_are_marked_and_evaluations_are_the_number_of_times() -> None:
    plan = DPMSolverSingle(3).plan(LINEAR, respace(1000, 9))
    assert plan.state.tolist() == [False, False, True, False, False, True, False, True, True]
    assert (plan.visits, plan.memories) == (9, 2)
    assert [DPMSolverSingle(2).plan(LINEAR, respace(1000, n)).memories for n in (1, 2, 3)] == [0, 0, 1]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_plans_are_finite(sampler: DPMSolverSingle) -> None:
    assert_finite(sampler)


def test_what_is_no_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="order must be one of 2, 3, got 1"):
        DPMSolverSingle(1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="inner must be one of grid, even"):
        DPMSolverSingle(inner="odd")  # type: ignore[arg-type]
