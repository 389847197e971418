"""Euler's method and churn against algorithm 2 of the paper, diffusers, and Gaussian data."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from tests.sampler import edm
from tests.sampler.grids import MIXED, assert_finite, rho
from tests.sampler.oracle import TYPES, gaussian_moments
from tests.sampler.tables import numbers, slopes, states, theirs
from torch import Tensor

from ddpm_ip.sampler import DDIM, Euler, Heun, Sampler, respace
from ddpm_ip.schedule import Schedule

EVEN = respace(1000, 12)
CHURNS = [(0.0, 0.0, None, 1.0), (3.0, 0.0, None, 1.0), (40.0, 0.05, 50.0, 1.003), (1.0, 0.3, 0.3, 1.0)]


@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0", "pred_v"])
@pytest.mark.parametrize("times", [EVEN, MIXED, [700, 20], [300]], ids=["even", "mixed", "two", "one"])
def test_without_churn_it_is_diffusers_euler(times: list[float], kind: str) -> None:
    schedule, x = Schedule(), numbers(2, 3)
    scheduler = EulerDiscreteScheduler(1000, 1e-4, 0.02, "linear", prediction_type=TYPES[kind])
    found = theirs(scheduler, schedule, times, x, kind=kind, variance_exploding=True)
    for a, b in zip(states(Euler().plan(schedule, times), x, kind=kind), found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_without_churn_it_is_ddim() -> None:
    x = numbers(2, 3)
    for a, b in zip(*(states(s.plan(Schedule(), EVEN), x) for s in (Euler(), DDIM())), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
    assert Euler(s_churn=3, s_tmin=1e6).plan(Schedule(), EVEN).start == Euler().plan(Schedule(), EVEN).start == 1


@pytest.mark.parametrize("churn", CHURNS, ids=str)
@pytest.mark.parametrize("times", [EVEN, MIXED, [700, 20], [300]], ids=["even", "mixed", "two", "one"])
def test_with_churn_it_is_the_paper_s_algorithm_2(
    times: list[float], churn: tuple[float, float, float | None, float]
) -> None:
    plan = edm.assert_equal(Euler(*churn), Schedule(), times)
    assert plan.visits == len(times)
    edm.assert_equal(Euler(*churn), Schedule(1000, "cosine"), times, "pred_v")


def test_the_raised_level_is_at_most_that_of_the_noisiest_time() -> None:
    """gamma is sqrt(2) - 1 at most; from 990 even that leads to a level that has no time."""
    schedule = Schedule()
    plan = Euler(s_churn=1e6).plan(schedule, [990, 600, 0])
    assert plan.t.tolist()[0] == 999
    assert plan.start == 1
    assert (plan.sigma / plan.alpha)[1] == pytest.approx(math.sqrt(2) * rho(schedule, 600), rel=1e-9)
    assert plan.after.tolist()[0] == [float(plan.alpha[1]), float(plan.sigma[1])]
    assert plan.times()[1] == plan.t[1] > 600
    assert len(set(plan.word.tolist())) == 3


def test_the_start_holds_the_noise_of_the_first_step() -> None:
    """No row is before the first. ``x_T`` is N(0, 1); the churn's noise is independent of it, so both are one."""
    schedule, sampler = Schedule(), Euler(s_churn=0.6, s_noise=1.1)
    (_, t_hat), *_ = edm.levels(schedule, sampler, [700, 300, 0])
    t = rho(schedule, 700)
    variance = (1 + t**2 + 1.1**2 * (t_hat**2 - t**2)) / (1 + t_hat**2)  # x_bar has 1 / alpha^2 = 1 + t^2
    assert sampler.plan(schedule, [700, 300, 0]).start == pytest.approx(math.sqrt(variance), rel=1e-12)
    assert variance > 1.05
    assert Euler(s_churn=0.6).plan(schedule, [700, 300, 0]).start == 1


@pytest.mark.parametrize("data", [0.05, 0.4])
@pytest.mark.parametrize("churn", CHURNS, ids=str)
@pytest.mark.parametrize("kind", [Euler, Heun])
def test_gaussian_data_have_the_algorithm_s_variance(
    kind: type[Euler | Heun], churn: tuple[float, float, float | None, float], data: float
) -> None:
    schedule, sampler = Schedule(), kind(*churn)
    for times in (EVEN, MIXED, [300]):
        found = gaussian_moments(sampler.plan(schedule, times), 0.0, data)[1]
        assert found == pytest.approx(edm.variance_of(schedule, sampler, times, data), rel=1e-10)


@pytest.mark.parametrize("variance", [0.05, 0.4])
def test_the_order_is_1(variance: float) -> None:
    assert slopes(Euler(), variance=variance) == pytest.approx([1, 1], abs=0.05)


def test_diffusers_asks_the_network_before_the_churn_and_ours_does_not() -> None:
    """Its step is given what the network said of the state without the noise, at the level without the noise, and goes
    on from the state with it: that noise is never predicted, so never removed. Data that are one image show it: a
    network that knows this leads to it from anywhere, but diffusers' churn leaves its last noise in the image. The
    paper asks at the raised state and level (algorithm 2, line 7)."""
    schedule, times, x, noises = Schedule(), [700, 400, 100], numbers(2, 3), numbers(3, 2, 3, seed=1)
    sampler = Euler(s_churn=0.9)
    scheduler = EulerDiscreteScheduler(1000, 1e-4, 0.02, "linear")
    scheduler.step = partial(scheduler.step, s_churn=sampler.s_churn)

    def exact(x: Tensor, t: float) -> Tensor:
        return x / schedule.level(t).sigma  # the image is 0, and all the rest is noise

    ours = states(sampler.plan(schedule, times), x, noises, network=exact)
    torch.testing.assert_close(ours[-1], torch.zeros_like(x), atol=1e-12, rtol=0)
    found = theirs(scheduler, schedule, times, x, noises, network=exact, variance_exploding=True)
    *_, (t, t_hat), _ = edm.levels(schedule, sampler, times)
    clean = found[-2] / schedule.level(100).alpha * (1 - t_hat / t)  # less than nothing of the state is left
    torch.testing.assert_close(found[-1], clean + math.sqrt(t_hat**2 - t**2) * noises[-1], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("sampler", [Euler(), Euler(40, 0.05, 50, 1.003), Heun(), Heun(40, 0.05, 50, 1.003)], ids=str)
def test_every_plan_is_finite(sampler: Sampler) -> None:
    assert_finite(sampler)


@pytest.mark.parametrize("kind", [Euler, Heun])
def test_churn_that_means_nothing_is_refused(kind: type[Euler | Heun]) -> None:
    for name in ("s_churn", "s_tmin", "s_noise"):
        for value in (-0.1, math.inf, math.nan):
            with pytest.raises(ValueError, match=f"{name} must be a number of at least 0"):
                kind(**{name: value})
    with pytest.raises(ValueError, match="s_tmax must be at least s_tmin"):
        kind(s_tmin=2, s_tmax=1)
