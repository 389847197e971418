"""DDIM inversion against diffusers, against the ODE's formula, and on Gaussian data, where the way up is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMInverseScheduler
from tests.sampler.oracle import ROWS, SHAPE, deviation, network
from tests.sampler.tables import function, numbers, states
from torch import Tensor

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler import DDIM, Ancestral, DDIMInversion, Plan, respace, walk
from ddpm_ip.sampler.correction import Clip
from ddpm_ip.schedule import Schedule

TIMES = [999, 850.5, 700, 500, 300, 200.25, 100, 50, 20, 0]


@pytest.mark.parametrize("steps", [4, 10, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_it_is_diffusers_where_its_times_are_whole_strides(shape: str, spacing: str, steps: int) -> None:
    schedule, x = Schedule(1000, shape), numbers(2, 3)  # type: ignore[arg-type]
    theirs = DDIMInverseScheduler(1000, clip_sample=False, timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    theirs.alphas_cumprod = schedule.alpha_bars()
    plan = DDIMInversion().plan(schedule, theirs.timesteps.tolist()[::-1])
    made = states(plan, x)
    for t, ours in zip(theirs.timesteps, made, strict=True):
        x = theirs.step(function(x, float(t)), t, x).prev_sample
        torch.testing.assert_close(ours, x, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0", "pred_v"])
@pytest.mark.parametrize("shape", ["linear", "cosine", "quad", "const"])
def test_it_is_the_odes_euler_step_for_every_prediction_type(shape: str, kind: str) -> None:
    """In ``x / alpha`` over ``sigma / alpha``. diffusers reads x0 and v at the lower level, and at the first divides x0
    by a sigma of 0; here the same denoiser gives the same noise, whatever its network puts out."""
    schedule, x = Schedule(1000, shape), numbers(2, 3)  # type: ignore[arg-type]

    def output(x: Tensor, t: float) -> Tensor:
        (alpha, sigma), eps = schedule.level(t), function(x, t)
        x0 = (x - sigma * eps) / alpha
        return {"pred_eps": eps, "pred_x0": x0, "pred_v": alpha * eps - sigma * x0}[kind]

    made = states(DDIMInversion().plan(schedule, TIMES), x, network=output, kind=kind)
    ratio = 0.0
    for t, ours in zip(TIMES[::-1], made, strict=True):
        alpha, sigma = schedule.level(t)
        alpha_s = 1 / math.sqrt(1 + ratio**2)
        x = (x / alpha_s + (sigma / alpha - ratio) * function(x, t)) * alpha
        ratio = sigma / alpha
        torch.testing.assert_close(ours, x, atol=1e-8, rtol=1e-8)


def through(plan: Plan, variance: float) -> float:
    """What a walk multiplies the state with, on data N(0, variance)."""
    z = 1.0
    for alpha, sigma, update in zip(plan.alpha.tolist(), plan.sigma.tolist(), plan.update, strict=True):
        g = alpha * variance / (alpha**2 * variance + sigma**2)
        x, x0, eps, _ = update[0].tolist()
        z *= x + x0 * g + eps * (1 - alpha * g) / sigma
    return z


@pytest.mark.parametrize("variance", [0.1, 2.0])
@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_the_way_up_and_the_way_back_are_of_first_order(shape: str, variance: float) -> None:
    """Up to the exact noise, and back to the image. Measured: 0.96 to 1.1 up, 0.82 to 0.99 for both."""
    schedule = Schedule(1000, shape)  # type: ignore[arg-type]
    there, both = [], []
    for steps in (50, 100, 200):
        times = respace(1000, steps)
        up = through(DDIMInversion().plan(schedule, times), variance)
        there.append(abs(up - deviation(*schedule.level(times[0]), variance) / math.sqrt(variance)))
        both.append(abs(up * through(DDIM().plan(schedule, times), variance) - 1))
    assert both[-1] < 0.03
    for errors in (there, both):
        assert all(math.log2(a / b) > 0.8 for a, b in pairwise(errors))


@pytest.mark.parametrize("shape", ["linear", "cosine", "quad", "const"])
def test_every_plan_is_finite_and_rises_from_the_clean_image(shape: str) -> None:
    schedule = Schedule(1000, shape)  # type: ignore[arg-type]
    for steps in (1, 2, 3, 5, 10, 50):
        for spacing in ("uniform", "uniform-linspace", "uniform-trailing", "quad"):
            if (spacing, steps) == ("quad", 50):
                continue  # has no so many different times
            times = respace(1000, steps, spacing)  # type: ignore[arg-type]
            plan = DDIMInversion().plan(schedule, times)
            assert plan.visits == steps
            assert plan.update.isfinite().all()
            assert plan.times() == [-1, *times[::-1]]
            assert not plan.update[:, :, -1].any(), "no noise"
    assert DDIMInversion().plan(schedule, [500.5]).times() == [-1, 500.5]
    with pytest.raises(ConfigError, match="times must fall"):
        DDIMInversion().plan(schedule, [0, 500])


def test_a_walk_begins_with_the_state_that_it_is_given() -> None:
    """As it is; and the walk of a drawn start is the one from that start, with the same noise on the way."""
    schedule, x = Schedule(), torch.linspace(-1, 1, 4 * 48).reshape(4, *SHAPE)
    denoiser, times = Denoiser(network, schedule), respace(1000, 5)
    up = list(walk(DDIMInversion().plan(schedule, times), denoiser, 3, ROWS, x))
    assert torch.equal(up[0].xt, x)
    assert [s.t for s in up] == [-1, *times[::-1]]
    plan = Ancestral("fixed_large").plan(schedule, times)._replace(start=1.5)
    drawn = list(walk(plan, denoiser, 3, ROWS, SHAPE, [Clip()]))
    begin = 1.5 * Draws(3, 0, ROWS).start(SHAPE)
    given = list(walk(plan, denoiser, 3, ROWS, begin, [Clip()]))
    assert torch.equal(given[0].xt, begin), "its scale is not applied again"
    assert [s.t for s in given] == [*times, -1]
    assert all(torch.equal(a.xt, b.xt) for a, b in zip(drawn, given, strict=True))
