"""Epsilon scaling against diffusers, which is given the scaled output of the network."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers import scheduling_ddpm
from tests.sampler.oracle import DEVIATION, MEAN, ROWS, SHAPE, gaussian_denoiser, network

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver, respace, walk
from ddpm_ip.sampler.correction import Clip, EpsilonScaling
from ddpm_ip.schedule import Schedule

TIMES = respace(1000, 20, "uniform-trailing")


@pytest.mark.parametrize("scale", [1.0, 1.02, 0.97])
def test_ancestral_steps_equal_diffusers(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Schedule()
    theirs = DDPMScheduler(1000, 1e-4, 0.02, "linear", timestep_spacing="trailing", variance_type="fixed_small")
    theirs.set_timesteps(20)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda shape, **_: noise)
    plan, corrections = Ancestral("fixed_small").plan(schedule, TIMES), [EpsilonScaling(scale), Clip()]
    for before, after in pairwise(walk(plan, Denoiser(network, schedule), 3, ROWS, SHAPE, corrections)):
        t = int(before.t)
        noise = Draws(3, t, ROWS).noise(SHAPE) * (after.t >= 0)
        step = theirs.step(network(before.xt, torch.full((4,), t)) / scale, t, before.xt)
        torch.testing.assert_close(after.xt, step.prev_sample, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("clip", ["rederive", "none"])
def test_ddim_steps_equal_diffusers(clip: str) -> None:
    schedule = Schedule()
    theirs = DDIMScheduler(1000, 1e-4, 0.02, "linear", clip_sample=clip != "none", timestep_spacing="trailing")
    theirs.set_timesteps(20)
    plan, corrections = DDIM().plan(schedule, TIMES), [EpsilonScaling(1.02), Clip(clip)]
    for before, after in pairwise(walk(plan, Denoiser(network, schedule), 3, ROWS, SHAPE, corrections)):
        t = int(before.t)
        output = network(before.xt, torch.full((4,), t)) / 1.02
        step = theirs.step(output, t, before.xt, use_clipped_model_output=clip == "rederive")
        tolerance = 1e-5 * float(1 + before.xt.abs().max()) / schedule.level(t).alpha ** (clip == "none")
        torch.testing.assert_close(after.xt, step.prev_sample, atol=tolerance, rtol=1e-5)


def test_dpm_solver_equals_diffusers() -> None:
    schedule = Schedule()
    theirs = DPMSolverMultistepScheduler(
        1000, 1e-4, 0.02, "linear", final_sigmas_type="zero", timestep_spacing="trailing"
    )
    theirs.set_timesteps(20)
    plan, corrections = DPMSolver().plan(schedule, TIMES), [EpsilonScaling(1.02), Clip("none")]
    x, *states = (state.xt for state in walk(plan, Denoiser(network, schedule), 3, ROWS, SHAPE, corrections))
    for t, ours in zip(TIMES, states, strict=True):
        x = theirs.step(network(x, torch.full((4,), t)) / 1.02, t, x).prev_sample
        tolerance = 1e-5 * float(1 + x.abs().max()) / schedule.level(t).alpha
        torch.testing.assert_close(ours, x, atol=tolerance, rtol=1e-5)


def test_input_perturbation_at_its_optimum_is_undone_by_its_factor() -> None:
    """An exact network whose noise is too large by sqrt(1 + gamma^2), scaled by just that, samples the exact data."""
    schedule, gamma = Schedule(), 0.2
    exact, factor = gaussian_denoiser(schedule), math.sqrt(1 + gamma**2)
    large = Denoiser(lambda x, t: factor * exact.network(x, t), schedule)
    plan = DDIM().plan(schedule, respace(1000, 50))

    def images(denoiser: Denoiser, *corrections: EpsilonScaling) -> torch.Tensor:
        *_, last = walk(plan, denoiser, 0, torch.arange(8), (1, 4, 4), corrections)
        return last.xt

    torch.testing.assert_close(images(large, EpsilonScaling(factor)), images(exact), atol=1e-4, rtol=1e-4)
    assert images(exact).mean() == pytest.approx(MEAN, abs=5 * DEVIATION / 128**0.5)
    assert (images(large) - images(exact)).abs().max() > 0.01


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be a positive number"):
        EpsilonScaling(scale)
