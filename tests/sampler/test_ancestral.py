"""Ancestral sampling against diffusers with the same noise, and against Gaussian data where all is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers import scheduling_ddpm
from torch import Tensor

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler import Ancestral, trajectory
from ddpm_ip.schedule import Schedule, posterior, respace

ROWS = torch.arange(4)
SHAPE = (3, 4, 4)
TYPES = {"pred_eps": "epsilon", "pred_x0": "sample", "pred_v": "v_prediction"}


def network(x: Tensor, t: Tensor) -> Tensor:
    """Any smooth function of image and time."""
    return torch.tanh(1.3 * x) + 0.1 * torch.cos(t.reshape(-1, 1, 1, 1) / 100)


def network_with_variance(x: Tensor, t: Tensor) -> Tensor:
    return torch.cat((network(x, t), torch.sin(2 * x)), dim=1)


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
        t = before.t
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

MEAN, DEVIATION = 0.3, 0.25


def gaussian_denoiser(schedule: Schedule) -> Denoiser:
    """The exact eps of data N(MEAN, DEVIATION^2)."""

    def eps(x: Tensor, t: Tensor) -> Tensor:
        a, s = schedule.alpha(t, x), schedule.sigma(t, x)
        return s * (x - a * MEAN) / (a**2 * DEVIATION**2 + s**2)

    return Denoiser(eps, schedule)


def expected_moments(schedule: Schedule, times: list[int], var_type: str) -> tuple[float, float]:
    """Mean and variance of the samples: the chain is linear and Gaussian, so both go through it exactly."""
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
@pytest.mark.parametrize("steps", [1000, 20])
def test_gaussian_data_come_out_as_they_are(var_type: str, steps: int) -> None:
    """Samples have the moments of the linear chain; with 1000 steps these are those of the data."""
    schedule, n, shape = Schedule(), 40, (1, 8, 8)
    times = respace(1000, steps)
    *_, last = trajectory(
        Ancestral(var_type, clip=False), gaussian_denoiser(schedule), times, 0, torch.arange(n), shape
    )
    mean, variance = expected_moments(schedule, times, var_type)
    count = last.xt.numel()
    assert abs(last.xt.double().mean() - mean) < 5 * math.sqrt(variance / count)
    assert last.xt.double().var() == pytest.approx(variance, rel=5 * math.sqrt(2 / count))
    if steps == 1000:
        assert mean == pytest.approx(MEAN, abs=0.002)
        assert variance == pytest.approx(DEVIATION**2, rel=0.03)


def test_the_two_variances_err_on_their_own_side() -> None:
    """At few steps fixed_small gives too little variance and fixed_large too much (Ho et al., section 3.2)."""
    times = respace(1000, 50)
    small, large = (expected_moments(Schedule(), times, v)[1] for v in ("fixed_small", "fixed_large"))
    assert small < DEVIATION**2 < large


# --- the loop --------------------------------------------------------------------------------------------------------


def test_the_trajectory_is_lazy_and_complete() -> None:
    """One network call a state, none before it is asked for; from noise at times[0] to the image at -1."""
    calls: list[int] = []

    def counting(x: Tensor, t: Tensor) -> Tensor:
        calls.append(int(t[0]))
        assert (t == t[0]).all()
        assert not torch.is_grad_enabled()
        return network(x, t)

    times = respace(1000, 5)
    states = trajectory(Ancestral(), Denoiser(counting, Schedule()), times, 3, ROWS, SHAPE)
    first = next(states)
    assert calls == []
    assert (first.t, first.x0) == (999, None)
    assert torch.equal(first.xt, Draws(3, 0, ROWS).start(SHAPE))
    second = next(states)
    assert calls == [999]
    assert second.t == times[1]
    rest = list(states)
    assert calls == times
    assert [s.t for s in rest] == [*times[2:], -1]
    assert torch.equal(rest[-1].xt, rest[-1].x0)  # the last step has no noise: its mean is the clipped prediction
    assert all(s.x0.min() >= -1 and s.x0.max() <= 1 for s in rest)
    assert torch.is_grad_enabled()


def test_an_image_is_the_same_whatever_the_batch_around_it() -> None:
    def images(indices: list[int], seed: int = 3) -> Tensor:
        denoiser = Denoiser(network, Schedule())
        *_, last = trajectory(Ancestral(), denoiser, respace(1000, 8), seed, torch.tensor(indices), SHAPE)
        return last.xt

    whole = images(list(range(8)))
    assert torch.equal(images([5, 2]), whole[[5, 2]])
    assert torch.equal(images([7]), whole[[7]])
    assert not torch.equal(images([5], seed=4), whole[[5]])
    assert len({tuple(image.flatten().tolist()) for image in whole}) == 8


def test_clipping_is_what_clip_says() -> None:
    denoiser = Denoiser(lambda x, t: 5 + 0 * x, Schedule(), "pred_x0")
    x = torch.zeros(1, 1, 2, 2)
    assert Ancestral(clip=True).step(denoiser, x, 500, 400, x).x0.unique().tolist() == [1]
    assert Ancestral(clip=False).step(denoiser, x, 500, 400, x).x0.unique().tolist() == [5]


def test_the_last_step_uses_no_noise() -> None:
    x, denoiser = torch.ones(1, 1, 2, 2), Denoiser(network, Schedule())
    for var_type in ("fixed_large", "fixed_small"):
        last = Ancestral(var_type).step(denoiser, x, 40, -1, torch.full_like(x, torch.nan))
        assert torch.equal(last.xs, last.x0)


def test_learned_range_lies_between_the_fixed_ones() -> None:
    """Fraction 0 is fixed_small, 1 is fixed_large, one half their geometric mean."""
    x, noise = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)

    def deviation(var_type: str, v: float = 0.0) -> float:
        function = (lambda x, t: torch.cat((x, x + v), 1)) if var_type == "learned_range" else (lambda x, t: x)
        denoiser = Denoiser(function, Schedule(), "pred_x0", var_type == "learned_range")
        return float(Ancestral(var_type).step(denoiser, x, 300, 200, noise).xs[0, 0, 0, 0])

    small, large = deviation("fixed_small"), deviation("fixed_large")
    assert small < 0.95 * large
    assert deviation("learned_range", -1) == pytest.approx(small, rel=1e-6)
    assert deviation("learned_range", 1) == pytest.approx(large, rel=1e-6)
    assert deviation("learned_range", 0) == pytest.approx(math.sqrt(small * large), rel=1e-6)


def test_variances_that_cannot_be_had_are_refused() -> None:
    x, denoiser = torch.zeros(1, 1, 2, 2), Denoiser(network, Schedule())
    with pytest.raises(ConfigError, match=r"learned_range needs a network with learned variance"):
        Ancestral("learned_range").step(denoiser, x, 5, 4, x)
    with pytest.raises(ConfigError, match=r"analytic.*fixed_large, fixed_small, learned_range"):
        Ancestral("analytic").step(denoiser, x, 5, 4, x)
