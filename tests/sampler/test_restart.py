"""Restart against the paper's algorithm, computed here with ``z = x / alpha`` as a function of ``rho``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from tests.sampler.oracle import deviation, gaussian_moments
from tests.sampler.tables import end, function, numbers, predicted, states, uniform_lambda
from torch import Tensor

from ddpm_ip.sampler import Restart, respace
from ddpm_ip.schedule import Schedule

SCHEDULE = Schedule()


def time(rho: float, schedule: Schedule = SCHEDULE) -> float:
    return schedule.time(-math.log(rho))


def algorithm(sampler: Restart, rhos: Sequence[float], x: Tensor, noises: Sequence[Tensor]) -> tuple[Tensor, int]:
    """Algorithm 1: the image, and how often the network was asked. ``rhos`` holds the lower end of the interval."""
    asked = 0

    def slope(z: Tensor, rho: float) -> Tensor:
        nonlocal asked
        asked += 1
        alpha, sigma = SCHEDULE.level(time(rho))
        return (z - predicted(function(alpha * z, time(rho)), alpha * z, alpha, sigma, "pred_v")[0]) / rho

    def heun(z: Tensor, start: float, stop: float) -> Tensor:
        d = slope(z, start)
        euler = z + (stop - start) * d
        return euler if stop == 0 else z + (stop - start) * (d + slope(euler, stop)) / 2

    z, left = x / SCHEDULE.level(time(rhos[0])).alpha, list(noises)
    for start, stop in zip(rhos, [*rhos[1:], 0.0], strict=True):
        z = heun(z, start, stop)
        if stop == sampler.rho_low:
            for _ in range(sampler.restarts):
                z = z + math.sqrt(sampler.rho_high**2 - sampler.rho_low**2) * left.pop(0)
                roots = [sampler.rho_high ** (1 / 7), sampler.rho_low ** (1 / 7)]
                n = sampler.restart_steps
                levels = [(roots[0] + i / n * (roots[1] - roots[0])) ** 7 for i in range(n + 1)]
                for above, below in pairwise(levels):
                    z = heun(z, above, below)
    return z, asked


@pytest.mark.parametrize(("restarts", "restart_steps"), [(1, 1), (2, 2), (3, 1), (1, 4)])
@pytest.mark.parametrize("rhos", [[100, 10, 2, 0.5, 0.1, 0.06, 0.02], [20, 0.2, 0.06], [0.2, 0.06, 0.03]], ids=str)
def test_the_walk_follows_the_algorithm(rhos: list[float], restarts: int, restart_steps: int) -> None:
    sampler = Restart(restarts, restart_steps)
    plan = sampler.plan(SCHEDULE, [time(rho) for rho in rhos])
    x, noises = numbers(2, 3), numbers(plan.visits, 2, 3, seed=1)
    noisy = plan.update[:, 0, -1].nonzero().flatten()
    assert len(noisy) == restarts
    expected, asked = algorithm(sampler, rhos, x, list(noises[noisy]))
    torch.testing.assert_close(states(plan, x, noises, kind="pred_v")[-1], expected, atol=1e-9, rtol=1e-9)
    assert plan.visits == asked == 2 * len(rhos) - 1 + 2 * restarts * restart_steps


def test_the_papers_setting_has_43_evaluations_for_18_times() -> None:
    grid = [(80 ** (1 / 7) + i / 17 * (0.0101 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    nearest = min(grid, key=lambda rho: abs(rho - 0.06))
    times = [time(rho) for rho in grid]
    assert Restart(rho_low=nearest).plan(SCHEDULE, times).visits == 43
    assert Restart().plan(SCHEDULE, times).visits == 45, "the time of 0.06 is added"


def test_noise_brings_the_exact_marginal_back_to_the_upper_level() -> None:
    """Whatever comes to the lower level with the right variance leaves it with that of the upper one."""
    plan = Restart().plan(SCHEDULE, respace(1000, 20))
    for i in plan.update[:, 0, -1].nonzero().flatten().tolist():
        after = plan.after[i].tolist()
        assert math.log(after[1] / after[0]) == pytest.approx(math.log(0.30), abs=1e-6)
        alpha, sigma = SCHEDULE.level(time(0.06))
        noise = float(plan.update[i, 0, -1])
        for variance in (0.05, 0.4):
            made = (after[0] / alpha * deviation(alpha, sigma, variance)) ** 2 + noise**2
            assert made == pytest.approx(deviation(*after, variance) ** 2, rel=1e-9)
    assert plan.times()[-1] == -1
    assert len(set(plan.word.tolist())) == plan.visits, "each return has noise of its own"


@pytest.mark.parametrize("variance", [0.05, 0.4])
def test_the_order_is_2(variance: float) -> None:
    """From the exact marginal to rho = exp(-3), all steps of the grid and of the returns halved together."""
    errors = []
    for n in (32, 64, 128):
        sampler = Restart(2, n // 4, rho_low=math.exp(-1.5), rho_high=1.0)
        plan = sampler.plan(SCHEDULE, uniform_lambda(SCHEDULE, n))
        made, exact = end(plan, variance, plan.visits - 1)
        errors.append(abs(made - exact))
    assert all(1.8 < math.log2(a / b) < 2.3 for a, b in pairwise(errors))


def test_gaussian_moments_follow_from_the_algorithm() -> None:
    rhos, sampler, variance = [100, 10, 2, 0.5, 0.1, 0.06, 0.02], Restart(2, 3), 0.3
    plan = sampler.plan(SCHEDULE, [time(rho) for rho in rhos])

    def along(levels: Sequence[float]) -> float:
        """What Heun's steps multiply z by; the slope is z rho / (variance + rho^2)."""
        factor = 1.0
        for a, b in pairwise(levels):
            first = a / (variance + a**2)
            second = b / (variance + b**2) * (1 + (b - a) * first)
            factor *= 1 + (b - a) * (first + second) / 2
        return factor

    made = along(rhos[:6]) ** 2 / SCHEDULE.level(time(100)).alpha ** 2
    roots = 0.30 ** (1 / 7), 0.06 ** (1 / 7)
    back = along([(roots[0] + i / 3 * (roots[1] - roots[0])) ** 7 for i in range(4)])
    for _ in range(2):
        made = (made + 0.30**2 - 0.06**2) * back**2
    made *= (along([0.06, 0.02]) * variance / (variance + 0.02**2)) ** 2
    assert gaussian_moments(plan, 0.0, variance)[1] == pytest.approx(made, rel=1e-9)


def test_the_interval_is_cut_to_the_times_that_there_are() -> None:
    short = Schedule(3)  # rho from 0.01 to 0.18
    plan = Restart().plan(short, [2, 1, 0])
    assert plan.update.isfinite().all()
    assert plan.t.max() == 2
    assert (plan.update[:, 0, -1] != 0).sum() == 2
    assert Restart(rho_low=0.5, rho_high=0.9).plan(short, [2, 1, 0]).visits == 5, "no room, no restart"
    assert Restart().plan(SCHEDULE, [3, 0]).visits == 3, "the walk begins below the interval"
    noisy = Schedule(1000, "const")  # rho at time 0 is 0.14
    plan = Restart().plan(noisy, [999, 500])
    assert plan.t.min() == 0
    assert (plan.update[:, 0, -1] != 0).sum() == 2


@pytest.mark.parametrize("setting", [("restarts", 0), ("restart_steps", 0), ("rho_low", 0.5), ("rho_low", 0.0)])
def test_settings_that_cannot_be(setting: tuple[str, float]) -> None:
    with pytest.raises(ValueError, match=setting[0]):
        Restart(**dict([setting]))  # type: ignore[arg-type]
