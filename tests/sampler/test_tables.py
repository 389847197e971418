"""The harness itself: DDIM through diffusers' Euler and DDIM, and the order that is known."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from tests.sampler.tables import numbers, slopes, states, theirs

from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler import DDIM, Ancestral, AnySampler, DPMSolver, Rows, Sampler
from ddpm_ip.sampler.spacing import times_of
from ddpm_ip.schedule import BetaSchedule, Schedule
from ddpm_ip.variants import variants

TIMES = [999, 850, 700, 500, 300, 200, 100, 50, 20, 0]


def test_ddim_is_diffusers_euler_and_ddim_in_float64() -> None:
    schedule, x = Schedule(), numbers(2, 3)
    ours = states(DDIM().plan(schedule, TIMES), x)
    euler = theirs(EulerDiscreteScheduler(1000, 1e-4, 0.02, "linear"), schedule, TIMES, x, variance_exploding=True)
    for a, b in zip(ours, euler, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)
    even = list(range(900, -1, -100))
    theirs_ = DDIMScheduler(1000, 1e-4, 0.02, "linear", clip_sample=False, set_alpha_to_one=True)
    for a, b in zip(states(DDIM().plan(schedule, even), x), theirs(theirs_, schedule, even, x), strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("variance", [0.05, 0.4])
def test_orders_are_seen(variance: float) -> None:
    assert all(0.95 < s < 1.05 for s in slopes(DDIM(), variance=variance))
    assert all(1.9 < s < 2.1 for s in slopes(DPMSolver(2), variance=variance, history=2))


@pytest.mark.parametrize("t", [-0.5, 0, 0.25, 1, 17.3, 500, 998.7, 999])
@pytest.mark.parametrize("shape", ["linear", "cosine", "quad", "const"])
def test_time_is_the_inverse_of_the_level(t: float, shape: str) -> None:
    schedule = Schedule(1000, shape)  # type: ignore[arg-type]
    assert schedule.time(schedule.half_log_snr(t)) == pytest.approx(t, abs=1e-6)


SAMPLERS: list[Sampler] = [cls() if cls is not Ancestral else Ancestral("fixed_small") for cls in variants(AnySampler)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_times_of_one_level_are_refused_by_their_names(sampler: Sampler) -> None:
    """And no method divides by the difference of their levels, nor by noise or image that is not there."""
    cases = [
        (Schedule(), [999, 500.00000001, 500, 0], "500.00000001 and 500 have the same noise level"),
        (Schedule(2), [0.5 + 1e-15, 0.5], "and 0.5 have the same noise level"),
        (Schedule(1000, "linear", 1e-12, 1e-10), [999, 1e-6, 0.0], "1e-06 and 0.0 have the same noise level"),
        (Schedule(1000, "linear", 1e-17, 1e-17), [999, 500], "at the time 999 this schedule has no noise"),
        (Schedule(1000, "linear", 1e-4, 0.999), [998.5, 500], r"at the time 998.5 alpha_bar is 0"),
        (Schedule(2000, "const", 1e-4, 0.3), [1999, 0], r"alpha_bar is 1.6e-310: .* smaller diffusion.beta_end"),
    ]
    for schedule, times, words in cases:
        with pytest.raises(ConfigError, match=words):
            sampler.plan(schedule, times)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
@pytest.mark.parametrize("shape", get_args(BetaSchedule))
def test_plans_of_unusual_models_and_times_are_finite(sampler: Sampler, shape: BetaSchedule) -> None:
    for total in (2, 3, 10, 1000):
        schedule, middle = Schedule(total, shape), total / 2 - 0.5
        grids = [[middle], [total - 1, 0.0], [1e-3, 0.0], [middle + 2e-3, middle + 1e-3, middle]]
        for times in grids if total > 2 else grids[:3]:
            plan = sampler.plan(schedule, times)
            assert plan.update.isfinite().all()
            assert plan.after.isfinite().all()
            assert 0 < plan.start < 2


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_plans_are_finite_where_hardly_anything_of_an_image_is_left(sampler: Sampler) -> None:
    """``alpha_bar`` of 1e-299, next to what is refused."""
    schedule = Schedule(1925, "const", 1e-4, 0.3)
    for times in ([1924.0, 1923.0, 1922.0, 3.0], [1924.0, 0.0]):
        assert sampler.plan(schedule, times).update.isfinite().all()


def test_levels_of_a_schedule_without_an_image_at_its_end_are_a_refusal() -> None:
    with pytest.raises(ConfigError, match="alpha_bar is 0"):
        times_of(Schedule(1000, "linear", 1e-4, 0.999), 5, "logsnr")


def test_no_two_visits_add_the_same_noise() -> None:
    """Counters are ``floor(t) + 2^16 * (earlier rows there)``, so beyond 65536 times they may meet."""
    rows = Rows(Schedule(70_000))
    for t in (65_536.0, 0.5, 0.25):
        rows.add(t, 0.0, rows.x + rows.noise)
    with pytest.raises(ConfigError, match="there is noise for 65536 whole times"):
        rows.plan()
    quiet = Rows(Schedule(70_000))
    for t in (65_536.0, 0.5, 0.25):
        quiet.add(t, 0.0, quiet.x)
    assert quiet.plan().visits == 3
