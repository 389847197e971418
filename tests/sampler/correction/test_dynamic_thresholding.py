"""Dynamic thresholding against diffusers, NumPy's quantiles, and static clipping."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from tests.sampler.oracle import ROWS, network
from tests.sampler.tables import numbers

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.sampler import DDIM, DPMSolver, respace, walk
from ddpm_ip.sampler.correction import Clip, DynamicThresholding
from ddpm_ip.sampler.correction.base import Row
from ddpm_ip.schedule import Schedule


def thresholded(correction: DynamicThresholding, x0: torch.Tensor, xt: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """``x0`` and eps at time 500 of a network that says ``x0``."""
    schedule = Schedule()
    plan, denoiser = DDIM().plan(schedule, [500]), Denoiser(lambda x, t: x0, schedule, "pred_x0")
    alpha, sigma = (torch.tensor(v, dtype=torch.float32).reshape(1, 1, 1, 1) for v in schedule.level(500))
    row = Row(
        torch.full((len(x0),), 500), alpha, sigma, {correction.name: correction.numbers(plan, schedule)[0].float()}
    )
    seen = correction.wrap(lambda x, row: denoiser.at(x, row.t, row.alpha, row.sigma))(xt, row)
    return seen.x0, seen.eps


@pytest.mark.parametrize("shape", [(6, 3, 8, 8), (6, 1, 5, 7), (3, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("most", [None, 1.0, 1.5])
def test_predictions_are_those_of_diffusers_and_numpy(
    shape: tuple[int, ...], quantile: float, most: float | None
) -> None:
    """Images from dull to glaring; without a limit by NumPy alone, since diffusers always has one."""
    contrast = torch.linspace(0.1, 4, shape[0]).reshape(-1, 1, 1, 1)
    x0, xt = (contrast * numbers(*shape)).float(), numbers(*shape, seed=1).float()
    found, eps = thresholded(DynamicThresholding(quantile, most), x0, xt)
    limits = [max(1.0, float(np.quantile(np.abs(image), quantile))) for image in x0.numpy()]
    limits = [min(limit, math.inf if most is None else most) for limit in limits]
    for image, made, limit in zip(x0.numpy(), found.numpy(), limits, strict=True):
        np.testing.assert_allclose(made, np.clip(image, -limit, limit) / limit, atol=1e-5)
    theirs = DDPMScheduler(
        thresholding=True, dynamic_thresholding_ratio=quantile, sample_max_value=math.inf if most is None else most
    )
    torch.testing.assert_close(found, theirs._threshold_sample(x0), atol=1e-6, rtol=1e-6)
    alpha, sigma = Schedule().level(500)
    torch.testing.assert_close(eps, (xt - alpha * found) / sigma, atol=1e-5, rtol=1e-5)


def test_dpm_solver_equals_diffusers() -> None:
    """In a walk whose predictions leave [-1, 1] by much."""
    schedule, shape = Schedule(), (3, 8, 8)
    theirs = DPMSolverMultistepScheduler(
        1000, 1e-4, 0.02, "linear", final_sigmas_type="zero", timestep_spacing="trailing", thresholding=True,
        dynamic_thresholding_ratio=0.9, sample_max_value=3.0,
    )  # fmt: skip
    theirs.set_timesteps(10)
    times = respace(1000, 10, "uniform-trailing")
    plan, corrections = DPMSolver().plan(schedule, times), [DynamicThresholding(0.9, 3.0), Clip("none")]
    x, *states = (state.xt for state in walk(plan, Denoiser(network, schedule), 3, ROWS, shape, corrections))
    for t, ours in zip(times, states, strict=True):
        x = theirs.step(network(x, torch.full((4,), t)), t, x).prev_sample
        torch.testing.assert_close(ours, x, atol=1e-4, rtol=1e-4)
    static = list(walk(plan, Denoiser(network, schedule), 3, ROWS, shape, [Clip()]))[-1].xt
    assert (states[-1] - static).abs().max() > 0.01


def test_with_a_limit_of_one_it_is_static_clipping() -> None:
    schedule = Schedule()
    plan, denoiser = DDIM().plan(schedule, respace(1000, 5)), Denoiser(network, schedule)
    *_, dynamic = walk(plan, denoiser, 3, ROWS, (3, 4, 4), [DynamicThresholding(most=1.0), Clip("none")])
    *_, static = walk(plan, denoiser, 3, ROWS, (3, 4, 4), [Clip()])
    torch.testing.assert_close(dynamic.xt, static.xt, atol=1e-6, rtol=0)


@pytest.mark.parametrize("settings", [{"quantile": -0.1}, {"quantile": 99.5}, {"quantile": math.nan}])
def test_a_quantile_that_is_none_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"quantile must lie in \[0, 1\]"):
        DynamicThresholding(**settings)


@pytest.mark.parametrize("most", [0.5, math.nan])
def test_a_limit_within_the_range_of_images_is_refused(most: float) -> None:
    with pytest.raises(ValueError, match="most must be at least 1"):
        DynamicThresholding(most=most)
