"""Times by noise level: against diffusers' sigmas, quadrature, and what a person may write."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from diffusers import DPMSolverMultistepScheduler

from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler.levels import quantile, share
from ddpm_ip.sampler.spacing import check, shown, times_of
from ddpm_ip.schedule import Schedule

SCHEDULE = Schedule()


def sigmas(times: list[float], schedule: Schedule = SCHEDULE) -> list[float]:
    return [math.exp(-schedule.half_log_snr(t)) for t in times]


@pytest.mark.parametrize("n", [2, 6, 10, 50])
@pytest.mark.parametrize(("spacing", "option"), [
    ("karras", "use_karras_sigmas"), ("exponential", "use_exponential_sigmas"), ("logsnr", "use_lu_lambdas"),
])  # fmt: skip
def test_levels_are_those_of_diffusers(spacing: str, option: str, n: int) -> None:
    """Theirs lie between the levels of the first and the last of its own times, which "linspace" makes ours."""
    theirs = DPMSolverMultistepScheduler(
        1000, 1e-4, 0.02, "linear", timestep_spacing="trailing", final_sigmas_type="zero", **{option: True}
    )
    theirs.set_timesteps(n)
    expected = theirs.sigmas[:-1].numpy()
    ends = f",sigma_min={expected[-1]:.9g},sigma_max={expected[0]:.9g}"
    found = sigmas(times_of(SCHEDULE, n, spacing + ends))
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_levels_reach_both_ends_of_the_schedule() -> None:
    for schedule in (SCHEDULE, Schedule(200), Schedule(1000, "quad")):
        for spacing in ("logsnr", "karras", "beta"):
            times = times_of(schedule, 10, spacing)
            assert (times[0], times[-1]) == (schedule.total_steps - 1, 0)
            assert all(a > b for a, b in pairwise(times))
    cosine = Schedule(1000, "cosine")
    assert sigmas(times_of(cosine, 10, "logsnr"), cosine)[0] == pytest.approx(160), "beyond that there is only noise"
    assert times_of(cosine, 10, "beta")[0] == 999, "that one is not by level"
    assert times_of(SCHEDULE, 1, "logsnr") == times_of(SCHEDULE, 1, "beta") == [999]


def test_karras_by_hand() -> None:
    """Equation 5 of the paper, for two inner points of four, rho 3."""
    high, low = sigmas([999, 0])
    expected = [(high ** (1 / 3) + i / 3 * (low ** (1 / 3) - high ** (1 / 3))) ** 3 for i in range(4)]
    np.testing.assert_allclose(sigmas(times_of(SCHEDULE, 4, "karras,rho=3")), expected, rtol=1e-9)


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (1, 1), (2, 5), (0.3, 5), (10, 3.3)])
def test_quantiles_of_the_beta_distribution(a: float, b: float) -> None:
    """Its density is integrated by a sum over x = sin^2(theta), with theta smooth and flat at its ends."""
    u = (np.arange(200_000) + 0.5) / 200_000
    theta = np.pi / 2 * u**4 * (35 - 84 * u + 70 * u**2 - 20 * u**3)
    density = np.sin(theta) ** (2 * a - 1) * np.abs(np.cos(theta)) ** (2 * b - 1) * u**3 * (1 - u) ** 3
    below = np.cumsum(density) / density.sum()
    for p in (0.05, 0.3, 0.5, 0.9):
        x = quantile(p, a, b)
        assert share(x, a, b) == pytest.approx(p, abs=1e-12)
        assert np.interp(np.arcsin(np.sqrt(x)), theta, below) == pytest.approx(p, abs=1e-4)


@pytest.mark.parametrize("spacing", ["[999, 500.5, 0]", "999,500.5,0", (999, 500.5, 0), "999 500.5 0"])
def test_times_one_by_one(spacing: object) -> None:
    assert times_of(SCHEDULE, None, spacing) == times_of(SCHEDULE, 3, spacing) == [999, 500.5, 0]  # type: ignore[arg-type]
    assert shown(spacing) == "[999, 500.5, 0]"  # type: ignore[arg-type]


def test_blanks_play_no_part() -> None:
    assert times_of(SCHEDULE, 5, "karras, rho=5") == times_of(SCHEDULE, 5, shown(" karras,rho=5"))
    assert shown("karras, rho=5") == "karras,rho=5"


def test_whole_times_for_a_network_that_takes_no_others() -> None:
    found = times_of(SCHEDULE, 10, "logsnr,whole=true")
    assert found == [round(t) for t in times_of(SCHEDULE, 10, "logsnr")]
    with pytest.raises(ConfigError, match="leave whole=true out"):
        times_of(SCHEDULE, 500, "logsnr,whole=true")


@pytest.mark.parametrize(
    ("steps", "spacing", "words"),
    [
        (10, "karas", "did you mean karras"),
        (10, "karras,rho=a", "'rho=a' is not possible; its settings are rho, sigma_min, sigma_max, whole"),
        (10, "karras,rho=0.5", "rho must lie in 1..1000"),
        (10, "karras,rho=nan", "is not possible"),
        (10, "quad,rho=2", "it has no settings"),
        (10, "logsnr,sigma_max=500", "must lie in order within the schedule's 0.0100005..157.4"),
        (10, "beta,a=0", "a and b must lie in"),
        (0, "logsnr", "choose 1..1000"),
        (1001, "karras", "choose 1..1000"),
        (4, "[999,0]", "leave the steps out"),
        (None, "[999,1000]", "must fall"),
        (None, "[1000,5]", "at most 999"),
        ("10,10", "logsnr", "leave the spacing out"),
        (10, "optimised", "ddpm-ip times"),
    ],
)
def test_what_cannot_be_is_said(steps: int | str | None, spacing: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        times_of(SCHEDULE, steps, spacing)


@pytest.mark.parametrize("spacing", ["karas", "karras,x=1", "[]", "5,7", (), (5.0, float("nan")), (-1.0,)])
def test_what_no_model_can_have_is_refused_where_it_is_read(spacing: object) -> None:
    with pytest.raises(ValueError, match="spacing"):
        check(spacing)  # type: ignore[arg-type]
