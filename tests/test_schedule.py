"""Noise schedules against numpy and diffusers, respacing against the programs that published the rules."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from ddpm_ip.errors import ConfigError
from ddpm_ip.schedule import Schedule, posterior, respace

SCHEDULES = ("linear", "quad", "const", "cosine")
KINDS = ("uniform", "uniform-leading", "uniform-linspace", "uniform-trailing", "quad")


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


# --- respacing -------------------------------------------------------------------------------------------------------

COUNTS = (1, 2, 3, 7, 10, 30, 33, 50, 99, 100, 250, 300, 333, 500, 999, 1000)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_respacing_equals_diffusers(spacing: str) -> None:
    compared = 0
    for total in (1000, 400, 37):
        reference = DDPMScheduler(total, timestep_spacing=spacing)
        for n in (n for n in COUNTS if n <= total):
            if n == 1 and spacing == "linspace":
                continue  # numpy's linspace of one point is time 0: nothing but noise; ours is T - 1
            reference.set_timesteps(n)
            theirs = reference.timesteps.tolist()
            if len(set(theirs)) != n:
                continue
            assert respace(total, n, f"uniform-{spacing}") == theirs, (total, n)
            compared += 1
    assert compared >= 30


def test_uniform_is_leading() -> None:
    assert all(respace(1000, n, "uniform") == respace(1000, n, "uniform-leading") for n in COUNTS)


def test_one_step_starts_from_the_noisiest_time() -> None:
    assert respace(1000, 1, "uniform-linspace") == respace(1000, 1, "uniform-trailing") == [999]


@pytest.mark.parametrize("n", [2, 10, 20, 33, 50, 80, 100, 250, 300, 998])
def test_linspace_is_the_rule_of_guided_diffusion(n: int) -> None:
    """``space_timesteps(1000, [n])``: a running sum of a fractional stride, rounded, kept in a set."""
    stride, at, times = (1000 - 1) / (n - 1), 0.0, set()
    for _ in range(n):
        times.add(round(at))
        at += stride
    assert respace(1000, n, "uniform-linspace") == sorted(times, reverse=True)


@pytest.mark.parametrize("n", [2, 10, 20, 50, 100, 150])
def test_quad_is_the_rule_of_ddim(n: int) -> None:
    times = [int(x) for x in np.linspace(0, np.sqrt(1000 * 0.8), n) ** 2]
    if len(set(times)) == n:
        assert respace(1000, n, "quad") == times[::-1]
    else:
        with pytest.raises(ConfigError, match="uniform-linspace"):
            respace(1000, n, "quad")


def test_quad_is_compared_where_it_matters() -> None:
    """The counts of DDIM's tables exist; a count that does not is refused (so the test above has both branches)."""
    assert len(respace(1000, 20, "quad")) == 20
    with pytest.raises(ConfigError, match=r"quad has only \d+ different times for 1000 steps"):
        respace(1000, 1000, "quad")


@given(st.integers(2, 1500), st.integers(-1, 1501), st.sampled_from(KINDS))
def test_exactly_as_many_times_as_asked_or_an_error(total: int, steps: int, kind: str) -> None:
    try:
        times = respace(total, steps, kind)
    except ConfigError:
        assert kind == "quad" or not 1 <= steps <= total  # the uniform rules always have as many
        return
    assert 1 <= steps <= total
    assert len(times) == steps
    assert all(a > b for a, b in pairwise(times))
    assert all(type(t) is int for t in times)
    assert times[0] <= total - 1
    assert times[-1] >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_count_every_time_is_visited(kind: str) -> None:
    assert respace(12, None, kind) == list(range(11, -1, -1))


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"logsnr.*uniform-linspace"):
        respace(10, 5, "logsnr")
