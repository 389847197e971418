"""Plans with an evaluation less, against the walk that they shorten."""

from __future__ import annotations

import pytest
import torch
from tests.sampler.oracle import heun
from tests.sampler.tables import numbers, states

from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver, Euler, Heun, Plan
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.sampler.shorter import without_clean_step, without_first_evaluation
from ddpm_ip.schedule import Schedule

SCHEDULE, TIMES = Schedule(), [999, 800, 500, 300, 100, 0]
PLANS = {"ddim": DDIM().plan(SCHEDULE, TIMES), "dpm": DPMSolver().plan(SCHEDULE, TIMES), "heun": heun(SCHEDULE, TIMES)}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_without_the_clean_step_the_walk_ends_at_the_last_time(plan: Plan) -> None:
    shorter, x = without_clean_step(plan, SCHEDULE, 0), numbers(2, 3)
    assert (shorter.visits, shorter.end) == (plan.visits - 1, 0)
    assert shorter.times() == plan.times()[:-1]
    torch.testing.assert_close(states(shorter, x)[-1], states(plan, x)[-2], rtol=0, atol=0)


@pytest.mark.parametrize("kind", [Euler, Heun])
def test_the_churn_of_the_step_that_is_left_out_is_left_out_too(kind: type[Euler | Heun]) -> None:
    """It would raise the last state above its time: the same walk without churn at that time ends there."""
    x, last = numbers(2, 3), 100
    times, level = (999.0, 600.0, 300.0, float(last)), SCHEDULE.level(last)
    made = Sampling(kind(9.0, 0, None, 1.1), spacing=times, denoise_to_zero=False).plan(SCHEDULE)
    above = 1.01 * level.sigma / level.alpha
    expected = kind(9.0, above, None, 1.1).plan(SCHEDULE, times)
    noises = numbers(expected.visits, 2, 3, seed=1)
    assert (made.end, made.after[-1].tolist()) == (last, list(level))
    assert made.visits == expected.visits - 1
    ends = states(made, x, noises)[-1], states(expected, x, noises)[-2]
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)
    assert not made.update[-1, :, -1].any()
    assert made.update[:-1, 0, -1].any()


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_afs_is_the_walk_with_a_network_that_says_x_at_first(plan: Plan) -> None:
    def network(x: torch.Tensor, t: float) -> torch.Tensor:
        return x if t == 999 else torch.tanh(1.3 * x)

    shorter, x = without_first_evaluation(plan), numbers(2, 3)
    assert shorter.visits == plan.visits - 1
    assert shorter.t.tolist() == plan.t.tolist()[1:]
    for a, b in zip(states(shorter, x, network=network), states(plan, x, network=network)[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_afs_is_nearly_right_where_there_is_nothing_but_noise() -> None:
    """In Karras' coordinates the slope is x / sqrt(1 + sigma^2), and the state goes to x + (sigma_s - sigma) slope."""
    shorter = without_first_evaluation(DDIM().plan(SCHEDULE, [999, 900]))
    (alpha, sigma), (alpha_s, sigma_s) = SCHEDULE.level(999), SCHEDULE.level(900)
    ratio = sigma / alpha
    ve = (1 / alpha) * (1 + (sigma_s / alpha_s - ratio) / (1 + ratio**2) ** 0.5)
    assert shorter.start == pytest.approx(alpha_s * ve, rel=1e-12)


def test_both_at_once_and_what_is_refused() -> None:
    sampling = Sampling(DDIM(), steps=10, afs=True, denoise_to_zero=False)
    plan = sampling.plan(SCHEDULE)
    assert (plan.visits, plan.end) == (8, 0)
    for cannot, words in (
        (Sampling(DDIM(), steps=1, afs=True), "here is one"),
        (Sampling(DDIM(), steps=1, denoise_to_zero=False), "at least two times"),
        (Sampling(Ancestral("fixed_small"), steps=5, afs=True), "a first step without noise"),
        (Sampling(DDIM(eta=0.5), steps=5, afs=True), "choose a deterministic one"),
    ):
        with pytest.raises(ConfigError, match=words):
            cannot.plan(SCHEDULE)
