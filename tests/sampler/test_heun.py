"""Heun's method against algorithm 2 of the paper, diffusers, and Gaussian data."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import HeunDiscreteScheduler
from tests.sampler import edm
from tests.sampler.grids import MIXED
from tests.sampler.oracle import ROWS, SHAPE, TYPES, gaussian_moments, network
from tests.sampler.tables import numbers, slopes, states, theirs
from tests.sampler.test_walk import Pull

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.sampler import Euler, Heun, respace, walk
from ddpm_ip.sampler.correction import Clip
from ddpm_ip.schedule import Schedule

EVEN = respace(1000, 12)


@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0", "pred_v"])
@pytest.mark.parametrize("times", [EVEN, MIXED, [700, 20], [300]], ids=["even", "mixed", "two", "one"])
def test_without_churn_it_is_diffusers_heun(times: list[float], kind: str) -> None:
    """Row for row: it is asked at each time but the first and the last twice."""
    schedule, x = Schedule(), numbers(2, 3)
    scheduler = HeunDiscreteScheduler(1000, 1e-4, 0.02, "linear", prediction_type=TYPES[kind])
    asked = [times[0], *(t for t in times[1:] for _ in range(2))]
    found = theirs(scheduler, schedule, asked, x, kind=kind, variance_exploding=True)
    plan = Heun().plan(schedule, times)
    for a, b in zip(states(plan, x, kind=kind), found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)
    assert plan.t.tolist() == asked
    assert plan.state.tolist() == [False, True] * (len(times) - 1) + [True]


@pytest.mark.parametrize("churn", [(0.0,), (3.0,), (40.0, 0.05, 50.0, 1.003), (1.0, 0.3, 0.3)], ids=str)
@pytest.mark.parametrize("times", [EVEN, MIXED, [700, 20], [300]], ids=["even", "mixed", "two", "one"])
def test_with_churn_it_is_the_paper_s_algorithm_2(times: list[float], churn: tuple[float, ...]) -> None:
    plan = edm.assert_equal(Heun(*churn), Schedule(), times)
    assert plan.visits == 2 * len(times) - 1
    assert not plan.update[~plan.state, :, -1].any(), "noise ends a step; a stage adds none"
    assert len(set(plan.word.tolist())) == plan.visits


def test_a_step_is_not_carried_away_on_cosine() -> None:
    """sigma / alpha falls from 2e4 in one step, where rounding of 1e-16 is 1e-12 of the state."""
    edm.assert_equal(Heun(3.0), Schedule(1000, "cosine"), [999, 990, 800, 400, 100, 0], "pred_v")


@pytest.mark.parametrize("variance", [0.05, 0.4])
def test_the_order_is_2(variance: float) -> None:
    """It has no history, so its own start is as good: 2.03, 2.01."""
    assert slopes(Heun(), variance=variance) == pytest.approx([2, 2], abs=0.05)


def test_a_change_after_the_stage_moves_where_the_slope_is_taken_and_nothing_else() -> None:
    """Each state takes the correction of its own visit once. Were the stage's change carried into the step's end, that
    would take two."""
    schedule, times, strength = Schedule(), respace(1000, 5), 0.1
    denoiser, pull = Denoiser(network, schedule, "pred_v"), Pull(strength)
    found = list(walk(Heun().plan(schedule, times), denoiser, 3, ROWS, SHAPE, [pull, Clip("none")]))

    def slope(x_bar: torch.Tensor, t: int) -> tuple[torch.Tensor, torch.Tensor]:
        alpha, sigma = schedule.level(t)
        x0 = denoiser(alpha * x_bar, torch.full((4,), t)).x0
        return (x_bar - x0) / (sigma / alpha), x0

    def changed(x_bar: torch.Tensor, x0: torch.Tensor, t: int) -> torch.Tensor:
        alpha = schedule.level(t).alpha
        x = alpha * x_bar
        return (x + strength * (x0 - x)) / alpha

    x = found[0].xt / schedule.level(times[0]).alpha
    for t, s in pairwise([*times, -1]):
        (alpha, sigma), (alpha_s, sigma_s) = schedule.level(t), schedule.level(s)
        h = sigma_s / alpha_s - sigma / alpha
        d, x0 = slope(x, t)
        stage = changed(x + h * d, x0, s)
        if s < 0:
            x = stage
        else:
            d_s, x0 = slope(stage, s)
            x = changed(x + h * (d + d_s) / 2, x0, s)
        (state,) = [state for state in found[1:] if state.finished and state.t == s]
        torch.testing.assert_close(state.xt, alpha_s * x, atol=2e-4, rtol=1e-4)


def test_cosine_is_to_be_begun_below_its_last_time() -> None:
    """What Heun's docstring says: from rho = 2e4 even the exact denoiser misses the variance by far."""
    schedule, data = Schedule(1000, "cosine"), 0.25
    from_the_last = gaussian_moments(Heun().plan(schedule, respace(1000, 10, "uniform-linspace")), 0.0, data)[1]
    leading = gaussian_moments(Heun().plan(schedule, respace(1000, 10, "uniform-leading")), 0.0, data)[1]
    assert from_the_last > 100 * data
    assert leading == pytest.approx(data, rel=0.1)


def test_its_first_visits_are_euler_s() -> None:
    ours, euler = (sampler.plan(Schedule(), EVEN) for sampler in (Heun(), Euler()))
    torch.testing.assert_close(ours.update[::2, 0][:, [0, 2, 3, 4]], euler.update[:, 0])
