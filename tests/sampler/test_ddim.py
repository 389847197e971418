"""DDIM against diffusers with the same noise, and against Gaussian data where all is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler
from tests.sampler.oracle import (
    DEVIATION,
    MEAN,
    ROWS,
    SHAPE,
    TYPES,
    first_rows,
    gaussian_moments,
    marginal_deviation,
    network,
)

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.sampler import DDIM, Ancestral, respace, walk
from ddpm_ip.sampler.correction import Clip
from ddpm_ip.schedule import Schedule


@pytest.mark.parametrize("clip", ["rederive", "keep_eps", "none"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("kind", "spacing", "steps"), [
    ("pred_eps", "leading", 20), ("pred_v", "trailing", 25), ("pred_x0", "leading", 50), ("pred_eps", "leading", 1000),
])  # fmt: skip
def test_every_step_equals_diffusers(clip: str, eta: float, kind: str, spacing: str, steps: int) -> None:
    schedule = Schedule()
    theirs = DDIMScheduler(
        1000, 1e-4, 0.02, "linear", clip_sample=clip != "none", prediction_type=TYPES[kind], timestep_spacing=spacing
    )
    theirs.set_timesteps(steps)
    times = respace(1000, steps, f"uniform-{spacing}")
    assert theirs.timesteps.tolist() == times
    states = walk(DDIM(eta).plan(schedule, times), Denoiser(network, schedule, kind), 3, ROWS, SHAPE, [Clip(clip)])
    for before, after in pairwise(states):
        t = int(before.t)
        step = theirs.step(
            network(before.xt, torch.full((4,), t)), t, before.xt, eta=eta,
            use_clipped_model_output=clip == "rederive", variance_noise=Draws(3, t, ROWS).noise(SHAPE),
        )  # fmt: skip
        # Their tables are float32, which dividing by a small alpha or sigma enlarges.
        (alpha, sigma), scale = schedule.level(t), 1 + before.xt.abs().max()
        tolerance = float(1e-5 * scale * (1 if clip != "none" and sigma > 0.1 else 1 / alpha + 0.01 / sigma))
        torch.testing.assert_close(after.xt, step.prev_sample, atol=tolerance, rtol=1e-5)


def test_eta_1_is_ddpm_with_the_small_variance() -> None:
    """The same walk, to rounding: mean, noise and clipping (Song et al., section 4.1)."""
    schedule, times = Schedule(), respace(1000, 20)
    denoiser = Denoiser(network, schedule)
    ours, ddpm = (
        list(walk(sampler.plan(schedule, times), denoiser, 3, ROWS, SHAPE, [Clip()]))
        for sampler in (DDIM(1.0), Ancestral("fixed_small"))
    )
    for a, b in zip(ours, ddpm, strict=True):
        torch.testing.assert_close(a.xt, b.xt, atol=2e-5, rtol=1e-5)


def test_eta_0_draws_no_noise() -> None:
    plan = DDIM().plan(Schedule(), respace(1000, 20))
    assert not plan.update[..., -1].any()
    assert (plan.visits, plan.memories) == (20, 0)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("variance", [0.05, 0.4])
def test_gaussian_data_are_reached_with_order_one(eta: float, variance: float) -> None:
    """From the exact marginal at 900 to that at 100: twice as many steps, half the error."""
    schedule, errors = Schedule(), []
    for steps in (50, 100, 200):
        times = [900 - i * 800 // steps for i in range(steps + 1)]
        plan = first_rows(DDIM(eta).plan(schedule, times), steps, marginal_deviation(schedule, 900, variance))
        found = gaussian_moments(plan, 0.0, variance)[1] ** 0.5
        errors.append(abs(found - marginal_deviation(schedule, 100, variance)))
    assert 1.7 < errors[0] / errors[1] < 2.4
    assert 1.8 < errors[1] / errors[2] < 2.2


def test_all_thousand_steps_give_the_data() -> None:
    mean, variance = gaussian_moments(DDIM().plan(Schedule(), respace(1000, None)))
    assert mean == pytest.approx(MEAN, abs=0.002)
    assert variance == pytest.approx(DEVIATION**2, rel=0.03)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_an_eta_outside_is_refused(eta: float) -> None:
    with pytest.raises(ValueError, match="eta must lie in"):
        DDIM(eta)
