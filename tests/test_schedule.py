"""Noise schedules against numpy and diffusers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from ddpm_ip.errors import ConfigError
from ddpm_ip.schedule import Schedule, posterior, too_little_noise

SCHEDULES = ("linear", "quad", "const", "cosine")


def numpy_betas(kind: str, n: int, start: float, end: float) -> np.ndarray:
    """The code of Ho et al. (linear, quad, const) and of Nichol & Dhariwal (cosine), in numpy."""
    if kind == "linear":
        return np.linspace(start, end, n, dtype=np.float64)
    if kind == "quad":
        return np.linspace(start**0.5, end**0.5, n, dtype=np.float64) ** 2
    if kind == "const":
        return end * np.ones(n, dtype=np.float64)
    bar = [math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(n + 1)]
    return np.array([min(1 - bar[i + 1] / bar[i], 0.999) for i in range(n)])


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(
    ("n", "start", "end"), [(1000, 1e-4, 0.02), (4000, 2.5e-5, 0.005), (37, 1e-3, 0.3), (2, 0.1, 0.2)]
)
def test_tables_equal_numpy_to_the_last_bit(kind: str, n: int, start: float, end: float) -> None:
    schedule = Schedule(n, kind, start, end)
    betas = numpy_betas(kind, n, start, end)
    assert schedule.betas().dtype == schedule.alpha_bars().dtype == torch.float64
    np.testing.assert_array_equal(schedule.betas().numpy(), betas)
    np.testing.assert_array_equal(schedule.alpha_bars().numpy(), np.cumprod(1 - betas))


@pytest.mark.parametrize(
    ("kind", "theirs"), [("linear", "linear"), ("quad", "scaled_linear"), ("cosine", "squaredcos_cap_v2")]
)
@pytest.mark.parametrize("n", [1000, 50])
def test_tables_equal_diffusers(kind: str, theirs: str, n: int) -> None:
    """To the rounding of diffusers' float32 tables."""
    ours, reference = Schedule(n, kind), DDPMScheduler(n, 1e-4, 0.02, theirs)
    torch.testing.assert_close(ours.betas().float(), reference.betas, rtol=2e-6, atol=1e-9)
    torch.testing.assert_close(ours.alpha_bars().float(), reference.alphas_cumprod, rtol=5e-5, atol=1e-7)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_alpha_and_sigma_are_the_kernel(kind: str) -> None:
    """alpha^2 = alpha_bar, alpha^2 + sigma^2 = 1, shaped to multiply; time -1 is the clean image."""
    schedule, t = Schedule(1000, kind), torch.tensor([0, 500, 999])
    like = torch.zeros(3, 2, 4, 4)
    a, s = schedule.alpha(t, like), schedule.sigma(t, like)
    assert a.shape == s.shape == (3, 1, 1, 1)
    assert a.dtype == s.dtype == torch.float32
    np.testing.assert_allclose(a.flatten().double() ** 2, schedule.alpha_bars()[t], rtol=3e-7)
    np.testing.assert_allclose(s.flatten().double() ** 2, 1 - schedule.alpha_bars()[t], rtol=3e-7)
    assert [schedule.alpha_bar(i) for i in (0, 500, 999)] == schedule.alpha_bars()[t].tolist()
    assert schedule.alpha_bar(-1) == 1.0


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sigmoid.*linear, quad, const, cosine"):
        Schedule(10, "sigmoid").betas()


# --- the posterior ---------------------------------------------------------------------------------------------------

LEVELS = [(0.9999, 1.0), (0.3, 0.31), (0.01, 0.9), (5e-5, 0.5), (0.62, 0.9999)]


@pytest.mark.parametrize(("bar_t", "bar_s"), LEVELS[1:])
@pytest.mark.parametrize(("x0", "xt"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (-0.7, 1.9)])
def test_posterior_equals_the_product_of_gaussians(bar_t: float, bar_s: float, x0: float, xt: float) -> None:
    """Bayes by brute force: q(x_s | x_0) q(x_t | x_s), normalised on a grid."""
    xs = np.linspace(-12, 12, 400_001)
    step = bar_t / bar_s
    log = -0.5 * (xs - math.sqrt(bar_s) * x0) ** 2 / (1 - bar_s) - 0.5 * (xt - math.sqrt(step) * xs) ** 2 / (1 - step)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = (weight * xs).sum()
    variance = (weight * (xs - mean) ** 2).sum()
    q = posterior(bar_t, bar_s)
    assert q.c0 * x0 + q.ct * xt == pytest.approx(mean, abs=1e-9)
    assert q.variance == pytest.approx(variance, rel=1e-6)
    assert q.beta == pytest.approx(1 - step, rel=1e-12)


def test_posterior_at_the_clean_image_is_the_clean_image() -> None:
    q = posterior(0.9999, 1.0)
    assert (q.c0, q.ct, q.variance) == (1.0, 0.0, 0.0)


@given(st.lists(st.floats(1e-5, 0.9999), min_size=3, max_size=3, unique=True))
def test_two_hops_of_the_posterior_are_one(bars: list[float]) -> None:
    """q(x_r | x_t, x_0) is the mixture of q(x_r | x_s, x_0) over q(x_s | x_t, x_0): respacing loses nothing."""
    bar_t, bar_s, bar_r = sorted(bars)
    if min(bar_s / bar_t, bar_r / bar_s) < 1 + 1e-6:
        return  # beta would be rounding error
    first, second, whole = posterior(bar_t, bar_s), posterior(bar_s, bar_r), posterior(bar_t, bar_r)
    assert second.c0 + second.ct * first.c0 == pytest.approx(whole.c0, rel=1e-6)
    assert second.ct * first.ct == pytest.approx(whole.ct, rel=1e-6)
    assert second.variance + second.ct**2 * first.variance == pytest.approx(whole.variance, rel=1e-6)
    assert (1 - first.beta) * (1 - second.beta) == pytest.approx(1 - whole.beta, rel=1e-6)


# --- levels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_level_is_that_of_the_tables(kind: str) -> None:
    schedule = Schedule(50, kind)
    assert schedule.level(-1) == (1.0, 0.0)
    bars = schedule.alpha_bars()
    for t in range(50):
        level = schedule.level(t)
        assert level == (math.sqrt(float(bars[t])), math.sqrt(1 - float(bars[t])))
        like = torch.zeros(1, 1)
        assert torch.tensor(level.alpha).float() == schedule.alpha(torch.tensor([t]), like)
        assert torch.tensor(level.sigma).float() == schedule.sigma(torch.tensor([t]), like)


def test_between_two_times_the_logarithm_of_alpha_is_linear() -> None:
    """As in DPM-Solver's discrete schedule."""
    schedule = Schedule(100)
    for t in (-0.75, 0.5, 41.25, 98.5):
        below, above = math.floor(t), math.floor(t) + 1
        logs = [math.log(schedule.level(s).alpha) for s in (below, above)]
        assert math.log(schedule.level(t).alpha) == pytest.approx(float(np.interp(t, [below, above], logs)), rel=1e-12)
        assert schedule.level(above).alpha < schedule.level(t).alpha < schedule.level(below).alpha


@pytest.mark.parametrize("t", [-1.5, 99.5, 1000])
def test_a_time_outside_has_no_level(t: float) -> None:
    with pytest.raises(ConfigError, match=r"outside -1\.\.99"):
        Schedule(100).level(t)


@pytest.mark.parametrize(("n", "left"), [(1000, 4e-5), (200, 0.13), (100, 0.36)])
def test_what_the_usual_betas_leave_of_fewer_times(n: int, left: float) -> None:
    found = math.prod(1 - float(beta) for beta in numpy_betas("linear", n, 1e-4, 0.02))
    assert found == pytest.approx(left, rel=0.03)
    said = too_little_noise(Schedule(n))
    assert said == "" if n == 1000 else f"alpha_bar is {left:g} at" in said and f"{left**0.5:.0%} of each" in said


@given(
    st.sampled_from(SCHEDULES), st.integers(2, 1500), st.floats(1e-5, 0.1), st.floats(1e-5, 0.5)
)  # fmt: skip
def test_the_cure_is_one(kind: str, n: int, start: float, end: float) -> None:
    schedule = Schedule(n, kind, start, end)
    said, left = too_little_noise(schedule), math.prod(1 - numpy_betas(kind, n, start, end))
    assert (said != "") == (left > 1e-3)
    assert said == "" or too_little_noise(Schedule(n, "cosine")) == "", "the other cure"
    if "--diffusion.beta_end " in said:
        wanted = float(said.split("--diffusion.beta_end ")[1].split()[0])
        assert math.prod(1 - numpy_betas(kind, n, start, wanted)) <= 4.05e-5
        step = 10.0 ** (math.floor(math.log10(wanted)) - 1)
        assert math.prod(1 - numpy_betas(kind, n, start, wanted - step)) > 4.03e-5, "no smaller one of two digits does"
    elif said:
        assert math.prod(1 - numpy_betas(kind, n, start, 0.99)) > 4.04e-5
