"""Analytic variances on Gaussian data, where the best variance of a step is the one that ``x_s`` has given ``x_t``."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from tests.sampler.oracle import DEVIATION, MEAN, first_rows, gaussian_denoiser, gaussian_moments, marginal_deviation

from ddpm_ip.errors import ConfigError
from ddpm_ip.sample.analytic import chosen, everywhere, measure, times_between
from ddpm_ip.sampler import Ancestral, respace
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.schedule import Schedule

SCHEDULES = [Schedule(beta_schedule=name) for name in ("linear", "cosine", "quad", "const")]
WIDE = 1e6  # a clip_pixel that clips nothing


def exact_gamma(schedule: Schedule, t: float, variance: float = DEVIATION**2) -> float:
    """``E ||eps(x_t, t)||^2 / d`` of the exact ``eps = sigma (x - alpha mean) / (alpha^2 variance + sigma^2)``."""
    alpha, sigma = schedule.level(t)
    return sigma**2 / (alpha**2 * variance + sigma**2)


def exact(schedule: Schedule, clip_pixel: float | None = WIDE, variance: float = DEVIATION**2) -> Ancestral:
    gammas = tuple(exact_gamma(schedule, t, variance) for t in range(schedule.total_steps))
    return Ancestral("analytic", gammas, clip_pixel)


def conditional_variance(schedule: Schedule, t: float, s: float, variance: float) -> float:
    """``Var(x_s | x_t)`` of data of a variance: ``x_t`` is ``x_s`` times a number plus noise, all of it Gaussian."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.level(t), schedule.level(s)
    var_t, var_s = alpha_t**2 * variance + sigma_t**2, alpha_s**2 * variance + sigma_s**2
    covariance = alpha_t / alpha_s * var_s
    return var_s - covariance**2 / var_t


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.beta_schedule)
@pytest.mark.parametrize("variance", [DEVIATION**2, 0.9])
@pytest.mark.parametrize("steps", [5, 10, 50])
def test_the_noise_of_a_step_has_the_variance_that_is_left(schedule: Schedule, variance: float, steps: int) -> None:
    times = respace(1000, steps)
    plan = exact(schedule, variance=variance).plan(schedule, times)
    wanted = [conditional_variance(schedule, t, s, variance) for t, s in pairwise(times)]
    torch.testing.assert_close(
        plan.update[:-1, 0, -1] ** 2, torch.tensor(wanted, dtype=torch.float64), rtol=1e-7, atol=1e-10
    )
    assert plan.update[-1, 0, -1] == 0


@pytest.mark.parametrize("steps", [5, 10, 50])
def test_every_state_then_has_the_moments_of_the_data(steps: int) -> None:
    """From the exact marginal, in any number of steps; fixed_small loses variance on the way."""
    schedule, times = Schedule(), respace(1000, steps)
    start, c = marginal_deviation(schedule, times[0]), DEVIATION**2
    for visits in range(1, steps):
        wanted = marginal_deviation(schedule, times[visits]) ** 2
        found = gaussian_moments(first_rows(exact(schedule).plan(schedule, times), visits, start), 0.0, c)[1]
        assert found == pytest.approx(wanted, abs=1e-10)
    # what the last step, to the clean image, leaves is the variance of the mean of x_0 given x_t at the last time
    alpha, sigma = schedule.level(times[-1])
    end = alpha**2 * c**2 / (alpha**2 * c + sigma**2)
    plans = (exact(schedule).plan(schedule, times), Ancestral("fixed_small").plan(schedule, times))
    analytic, small = (gaussian_moments(plan._replace(start=start), 0.0, c)[1] for plan in plans)
    assert analytic == pytest.approx(end, abs=1e-10)
    assert abs(analytic - c) < abs(small - c) / 10


def test_the_last_noise_is_clipped_as_published() -> None:
    """At most 2 levels of 256 on average, 1 for the cosine schedule; ``E |noise| = sqrt(2 / pi)`` deviations."""
    for schedule, pixel in [(SCHEDULES[0], 2), (SCHEDULES[1], 1), (SCHEDULES[2], 2)]:
        for times in ([900, 500], respace(1000, 5)):
            clipped, free = (exact(schedule, c).plan(schedule, times).update[:, 0, -1] for c in (None, WIDE))
            assert float(clipped[-2]) * math.sqrt(2 / math.pi) == pytest.approx(pixel * 2 / 255, rel=1e-12)
            assert clipped[-2] < free[-2]
            assert clipped[:-2].tolist() == free[:-2].tolist()
    small = exact(SCHEDULES[0], 0.0).plan(SCHEDULES[0], [10, 5])
    assert not small.update[:, 0, -1].any()
    assert exact(SCHEDULES[0]).plan(SCHEDULES[0], [7]).update[0, 0, -1] == 0  # one step has no noise


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.beta_schedule)
def test_plans_are_finite_and_between_their_bounds_whatever_was_measured(schedule: Schedule) -> None:
    """Also where Gamma is above 1, or nothing, as of a network that is far off, and at fractional times."""
    grids = [respace(1000, steps, spacing) for steps in (1, 2, 3, 5, 10, 50) for spacing in ("uniform", "quad")
             if steps < 33 or spacing == "uniform"]  # fmt: skip
    for times in [*grids, [998.5, 30.25, 0.5], [999.0, 0.125]]:
        small = Ancestral("fixed_small").plan(schedule, times).update[:, 0, -1]
        for gamma in (-1.0, 0.0, 1.0, 1.5):
            for var_type in ("analytic", "analytic_residual"):
                plan = Ancestral(var_type, (gamma,) * 1000, WIDE).plan(schedule, times)
                assert plan.update.isfinite().all()
                assert plan.log_bounds is None
                assert (plan.update[:, 0, -1] >= small).all()
                if gamma >= 1:
                    assert plan.update[:, 0, -1].tolist() == small.tolist()


def test_between_whole_times_gamma_is_linear_in_lambda() -> None:
    schedule = Schedule()
    gammas = tuple(float(t % 2) for t in range(1000))  # 0 at even times, 1 at odd ones
    t = schedule.time(0.25 * schedule.half_log_snr(300) + 0.75 * schedule.half_log_snr(301))
    found = float(Ancestral("analytic", gammas, WIDE).plan(schedule, [t, 100]).update[0, 0, -1]) ** 2
    small = float(Ancestral("fixed_small").plan(schedule, [t, 100]).update[0, 0, -1]) ** 2
    c0 = float(Ancestral("fixed_small").plan(schedule, [t, 100]).update[0, 0, 1])
    alpha, sigma = schedule.level(t)
    assert found - small == pytest.approx(c0**2 * sigma**2 / alpha**2 * 0.25, rel=1e-8)


def test_gammas_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs gammas, .* 1000 times, and there are none.* choose fixed_small"):
        Ancestral("analytic").plan(Schedule(), [5, 4])
    with pytest.raises(ConfigError, match=r"1000 times, and there are 2"):
        Ancestral("analytic", (1.0, 1.0)).plan(Schedule(), [5, 4])
    for wrong in ({"gammas": (0.5,)}, {"clip_pixel": 1.0}):
        with pytest.raises(ValueError, match="go with var_type analytic, not with fixed_small"):
            Ancestral("fixed_small", **wrong)
    with pytest.raises(ValueError, match="finite"):
        Ancestral("analytic", (math.nan,))
    with pytest.raises(ValueError, match="clip_pixel"):
        Ancestral("analytic", clip_pixel=-1.0)


def test_facts_say_the_hash_of_a_long_table_and_nothing_new_of_the_others() -> None:
    assert Sampling(Ancestral("fixed_small")).row()["sampler"] == {"name": "ancestral", "var_type": "fixed_small"}
    one, other = (Sampling(Ancestral("analytic", (g,) * 1000)).row()["sampler"] for g in (0.5, 0.25))
    assert one.keys() == {"name", "var_type", "gammas"}
    assert one["gammas"].startswith("sha256:")
    assert one["gammas"] != other["gammas"]
    assert Sampling(Ancestral("analytic", (0.5, 0.25))).row()["sampler"]["gammas"] == [0.5, 0.25]


# --- measured --------------------------------------------------------------------------------------------------------

N, SHAPE = 200, (1, 4, 4)


def images() -> torch.Tensor:
    """``uint8`` images of Gaussian pixels."""
    values = MEAN + DEVIATION * np.random.default_rng(0).standard_normal((N, *SHAPE))
    return torch.from_numpy(((values + 1) * 127.5).round().clip(0, 255).astype(np.uint8))


def test_what_is_measured_of_the_exact_network_is_what_the_formulas_say() -> None:
    """Given the images, whose variance v is not quite that of the data: ``eps(x) = sigma (x - alpha mean) / V``.

    ``E eps(x)^2 = sigma^2 (alpha^2 v + sigma^2) / V^2``, and ``eps - eps(x) = alpha^2 c / V eps - alpha sigma / V
    (x_0 - mean)``. Within five times what N images leave open: of 3,200 squares a share of ``sqrt(2 / 3200)``.
    """
    schedule, pixels = Schedule(), images()
    denoiser = gaussian_denoiser(schedule)
    times = times_between(schedule, 12)
    found = measure(lambda x, t, which: denoiser(x, t).eps, schedule, pixels, times, seed=3, block=64)
    v = float((pixels.double() / 127.5 - 1 - MEAN).square().mean())
    count = pixels.numel()
    assert found.times == times
    for t, norm, residual in zip(*found, strict=True):
        alpha, sigma = schedule.level(t)
        c = DEVIATION**2
        total = alpha**2 * c + sigma**2
        left = (alpha**4 * c**2 + sigma**2 * alpha**2 * v) / total**2
        assert 1 - residual == pytest.approx(left, rel=5 * math.sqrt(2 / count) * 1.5)
        wanted = sigma**2 * (alpha**2 * v + sigma**2) / total**2
        assert norm == pytest.approx(wanted, abs=5 * math.sqrt(2 / count) * min(1, 2 * math.sqrt(left)))
    # what is wanted is the last digit of the first: drawn noise alone would be off by 0.01 there
    assert 1 - found.norm[-1] == pytest.approx(1 - exact_gamma(schedule, 999), abs=3e-4)


def test_a_measurement_is_a_function_of_its_seed() -> None:
    schedule, pixels, times = Schedule(100), images(), [0, 50, 99]

    def network(x: torch.Tensor, t: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) + 0.01 * which.reshape(-1, 1, 1, 1)

    one = measure(network, schedule, pixels, times, seed=1, block=64)
    assert measure(network, schedule, pixels, times, seed=1, block=N) == one
    assert measure(network, schedule, pixels, times, seed=2, block=64) != one
    single = measure(network, schedule, pixels[:1], times, seed=1, block=64)  # no slope, but numbers
    assert all(map(math.isfinite, [*single.norm, *single.residual]))


def test_gamma_between_the_measured_times() -> None:
    """As close to the truth as 100 times allow, and what was measured where it was."""
    for schedule in (*SCHEDULES, Schedule(50)):
        times = times_between(schedule, 100)
        assert times[0] == 0
        assert times[-1] == schedule.total_steps - 1
        assert len(times) <= 100
        table = everywhere([exact_gamma(schedule, t) for t in times], times, schedule)
        wanted = [exact_gamma(schedule, t) for t in range(schedule.total_steps)]
        np.testing.assert_allclose(table, wanted, atol=2e-3)
        assert [table[t] for t in times] == pytest.approx([wanted[t] for t in times], abs=1e-15)
    assert times_between(Schedule(1), 100) == [0]


def test_images_are_chosen_once_each_by_the_seed() -> None:
    pixels = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    some = chosen(pixels, 4, seed=0).ravel().tolist()
    assert len(set(some)) == 4
    assert chosen(pixels, 4, seed=0).ravel().tolist() == some
    assert any(chosen(pixels, 4, seed=s).ravel().tolist() != some for s in (1, 2, 3))
    assert sorted(chosen(pixels, 50, seed=1).ravel().tolist()) == list(range(10))
    assert chosen(np.arange(10), 4, seed=0).tolist() == some, "labels are those of the same images"
