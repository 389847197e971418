"""Ancestral sampling against diffusers with the same noise, and against Gaussian data where all is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers import scheduling_ddpm
from tests.sampler.oracle import (
    DEVIATION,
    MEAN,
    ROWS,
    SHAPE,
    TYPES,
    gaussian_denoiser,
    gaussian_moments,
    network,
    network_with_variance,
)
from torch import Tensor

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler import Ancestral, respace, walk
from ddpm_ip.sampler.correction import Clip
from ddpm_ip.schedule import Schedule, posterior


def trajectory(sampler, denoiser, times, seed, rows, shape, clip="rederive"):
    return walk(sampler.plan(denoiser.schedule, times), denoiser, seed, rows, shape, [Clip(clip)])


def compare(
    monkeypatch: pytest.MonkeyPatch,
    var_type: str,
    spacing: str,
    steps: int | None,
    kind: str = "pred_eps",
    total: int = 1000,
) -> None:
    """Runs our chain, and has diffusers make each step from the same state with the same noise."""
    learned = var_type == "learned_range"
    function = network_with_variance if learned else network
    scheduler = DDPMScheduler(
        total, 1e-4, 0.02, "linear",
        variance_type=var_type, clip_sample=True, prediction_type=TYPES[kind], timestep_spacing=spacing,
    )  # fmt: skip
    if steps is not None:
        scheduler.set_timesteps(steps)
    times = respace(total, steps, f"uniform-{spacing}")
    assert scheduler.timesteps.tolist() == times
    denoiser = Denoiser(function, Schedule(total), kind, learned)
    states = list(trajectory(Ancestral(var_type), denoiser, times, 3, ROWS, SHAPE))
    noise: Tensor
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda shape, **_: noise)
    for before, after in pairwise(states):
        t = int(before.t)
        # diffusers adds noise in the last step too, unless it leaves time 0; the algorithm has none there.
        noise = Draws(3, t, ROWS).noise(SHAPE) * (after.t >= 0)
        theirs = scheduler.step(function(before.xt, torch.full((4,), t)), t, before.xt)
        # Their tables are float32, and x0 = (x_t - sigma eps) / alpha enlarges their rounding where alpha is small.
        tolerance = 2e-6 + 1e-6 / Schedule(total).alpha_bar(t) ** 0.5
        torch.testing.assert_close(after.x0, theirs.pred_original_sample, atol=tolerance, rtol=1e-4)
        torch.testing.assert_close(after.xt, theirs.prev_sample, atol=1e-5, rtol=1e-4)
    assert states[-1].t == -1


@pytest.mark.parametrize("var_type", ["fixed_small", "fixed_large", "learned_range"])
@pytest.mark.parametrize(("spacing", "steps"), [("leading", 30), ("linspace", 20), ("trailing", 25)])
def test_respaced_steps_equal_diffusers(
    var_type: str, spacing: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(monkeypatch, var_type, spacing, steps)


@pytest.mark.parametrize("var_type", ["fixed_small", "fixed_large", "learned_range"])
def test_every_step_of_the_full_chain_equals_diffusers(var_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(monkeypatch, var_type, "leading", None, total=200)


@pytest.mark.parametrize("kind", ["pred_x0", "pred_v"])
def test_the_other_prediction_types_equal_diffusers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(monkeypatch, "fixed_small", "linspace", 20, kind)


# --- Gaussian data ---------------------------------------------------------------------------------------------------


def chain_moments(schedule: Schedule, times: list[int], var_type: str) -> tuple[float, float]:
    """Mean and variance of the samples, from the formulas of one step."""
    mean, variance = 0.0, 1.0
    for t, s in zip(times, [*times[1:], -1], strict=True):
        bar_t, bar_s = schedule.alpha_bar(t), schedule.alpha_bar(s)
        gain = math.sqrt(bar_t) * DEVIATION**2 / (bar_t * DEVIATION**2 + 1 - bar_t)  # x0 = MEAN + gain (x - alpha MEAN)
        q = posterior(bar_t, bar_s)
        mean = q.c0 * (MEAN + gain * (mean - math.sqrt(bar_t) * MEAN)) + q.ct * mean
        added = 0.0 if s < 0 else {"fixed_small": q.variance, "fixed_large": q.beta}[var_type]
        variance = (q.c0 * gain + q.ct) ** 2 * variance + added
    return mean, variance


@pytest.mark.parametrize("var_type", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("steps", [1000, 50, 10])
def test_the_table_carries_gaussian_data_as_the_formulas_do(var_type: str, steps: int) -> None:
    schedule, times = Schedule(), respace(1000, steps)
    found = gaussian_moments(Ancestral(var_type).plan(schedule, times))
    assert found == pytest.approx(chain_moments(schedule, times, var_type), rel=1e-12)


@pytest.mark.parametrize("var_type", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("steps", [1000, 20])
def test_gaussian_data_come_out_as_they_are(var_type: str, steps: int) -> None:
    """Samples have the moments of the linear chain; with 1000 steps these are those of the data."""
    schedule, n, shape = Schedule(), 40, (1, 8, 8)
    times = respace(1000, steps)
    *_, last = trajectory(
        Ancestral(var_type), gaussian_denoiser(schedule), times, 0, torch.arange(n), shape, clip="none"
    )
    mean, variance = gaussian_moments(Ancestral(var_type).plan(schedule, times))
    count = last.xt.numel()
    assert abs(last.xt.double().mean() - mean) < 5 * math.sqrt(variance / count)
    assert last.xt.double().var() == pytest.approx(variance, rel=5 * math.sqrt(2 / count))
    if steps == 1000:
        assert mean == pytest.approx(MEAN, abs=0.002)
        assert variance == pytest.approx(DEVIATION**2, rel=0.03)


def test_the_two_variances_err_on_their_own_side() -> None:
    """At few steps fixed_small gives too little variance and fixed_large too much (Ho et al., section 3.2)."""
    plans = (Ancestral(v).plan(Schedule(), respace(1000, 50)) for v in ("fixed_small", "fixed_large"))
    small, large = (gaussian_moments(plan)[1] for plan in plans)
    assert small < DEVIATION**2 < large


# --- one step --------------------------------------------------------------------------------------------------------


def one_step(var_type: str, denoiser: Denoiser, x: Tensor, times: tuple[int, int], noise: Tensor) -> Tensor:
    """From ``times[0]`` to ``times[1]``, which the plan has as its first row (or its only one)."""
    t, s = times
    plan = Ancestral(var_type).plan(denoiser.schedule, [t] if s < 0 else [t, s])
    first = plan._replace(**{
        name: value[:1] for name, value in plan._asdict().items() if isinstance(value, Tensor)
    })  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Draws, "start", lambda self, shape: x)
        patch.setattr(Draws, "noise", lambda self, shape: noise)
        *_, last = walk(first, denoiser, 0, torch.arange(len(x)), x.shape[1:], [Clip()])
    return last.xt


def test_the_last_step_uses_no_noise() -> None:
    x, denoiser = torch.ones(1, 1, 2, 2), Denoiser(network, Schedule())
    for var_type in ("fixed_large", "fixed_small"):
        last = one_step(var_type, denoiser, x, (40, -1), torch.full_like(x, torch.nan))
        assert torch.equal(last, denoiser(x, torch.tensor([40])).x0.clamp(-1, 1))


def test_learned_range_lies_between_the_fixed_ones() -> None:
    """Fraction 0 is fixed_small, 1 is fixed_large, one half their geometric mean."""
    x, noise = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)

    def deviation(var_type: str, v: float = 0.0) -> float:
        function = (lambda x, t: torch.cat((x, x + v), 1)) if var_type == "learned_range" else (lambda x, t: x)
        denoiser = Denoiser(function, Schedule(), "pred_x0", var_type == "learned_range")
        return float(one_step(var_type, denoiser, x, (300, 200), noise)[0, 0, 0, 0])

    small, large = deviation("fixed_small"), deviation("fixed_large")
    assert small < 0.95 * large
    assert deviation("learned_range", -1) == pytest.approx(small, rel=1e-6)
    assert deviation("learned_range", 1) == pytest.approx(large, rel=1e-6)
    assert deviation("learned_range", 0) == pytest.approx(math.sqrt(small * large), rel=1e-6)


def test_variances_that_cannot_be_had_are_refused() -> None:
    denoiser = Denoiser(network, Schedule())
    with pytest.raises(ConfigError, match=r"learned_range needs a network with learned variance"):
        next(trajectory(Ancestral("learned_range"), denoiser, [5, 4], 0, ROWS, SHAPE))
    for wrong in ("optimal", None):
        with pytest.raises(ConfigError, match=r"fixed_large, fixed_small, learned_range"):
            Ancestral(wrong).plan(Schedule(), [5, 4])
