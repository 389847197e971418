"""DPM-Solver++ against diffusers, and against Gaussian data where all is known."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from tests.sampler.oracle import (
    ROWS,
    SHAPE,
    TYPES,
    clipping,
    first_rows,
    gaussian_moments,
    marginal_deviation,
    network,
)

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.sampler import DDIM, DPMSolver, respace, walk
from ddpm_ip.sampler.correction import Clip
from ddpm_ip.schedule import Schedule


def scheduler(sampler: DPMSolver, kind: str, spacing: str) -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(
        1000, 1e-4, 0.02, "linear", solver_order=sampler.order, prediction_type=TYPES[kind],
        algorithm_type="dpmsolver++", solver_type=sampler.solver_type, final_sigmas_type="zero",
        timestep_spacing=spacing,
    )  # fmt: skip


SAMPLERS = [DPMSolver(1), DPMSolver(2), DPMSolver(2, "heun")]


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize(("kind", "spacing", "steps"), [
    ("pred_eps", "trailing", 10), ("pred_v", "leading", 20), ("pred_x0", "linspace", 50), ("pred_eps", "linspace", 25),
])  # fmt: skip
def test_the_whole_walk_equals_diffusers(clip: bool, sampler: DPMSolver, kind: str, spacing: str, steps: int) -> None:
    """Theirs is given our clipped predictions as a network that predicts clean images."""
    schedule = Schedule()
    theirs = scheduler(sampler, "pred_x0" if clip else kind, spacing)
    theirs.set_timesteps(steps)
    times = theirs.timesteps.tolist()
    denoiser = Denoiser(network, schedule, kind)
    states = list(walk(sampler.plan(schedule, times), denoiser, 3, ROWS, SHAPE, [Clip("rederive" if clip else "none")]))
    x = states[0].xt
    for t, state in zip(times, states[1:], strict=True):
        seen = (clipping(network, schedule, kind) if clip else denoiser)(x, torch.full((4,), t))
        x = theirs.step(seen.output, t, x).prev_sample
        scale = 1e-5 * float(1 + x.abs().max()) / schedule.level(t).alpha ** (0 if clip else 1)
        torch.testing.assert_close(state.xt, x, atol=scale, rtol=1e-5)


def test_uniform_linspace_is_their_rule_but_for_one_time() -> None:
    """diffusers' DPM-Solver takes n + 1 points and leaves out the last: its 10 times are not those of its DDPM."""
    theirs = scheduler(DPMSolver(), "pred_eps", "linspace")
    theirs.set_timesteps(10)
    assert theirs.timesteps.tolist() == respace(1000, 11)[:-1]


def test_order_1_is_ddim() -> None:
    schedule, times = Schedule(), respace(1000, 20)
    denoiser = Denoiser(network, schedule)
    ours, ddim = (
        list(walk(sampler.plan(schedule, times), denoiser, 3, ROWS, SHAPE, [Clip()]))
        for sampler in (DPMSolver(order=1), DDIM())
    )
    for a, b in zip(ours, ddim, strict=True):
        torch.testing.assert_close(a.xt, b.xt, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("variance", [0.05, 0.4])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_gaussian_data_are_reached_with_the_order(sampler: DPMSolver, variance: float) -> None:
    """From the exact marginal at 900 to that at 100; twice as many steps, half the error, or a quarter of it."""
    schedule, errors = Schedule(), []
    for steps in (100, 200, 400):
        times = [900 - i * 800 // steps for i in range(steps + 1)]
        plan = first_rows(sampler.plan(schedule, times), steps, marginal_deviation(schedule, 900, variance))
        found = gaussian_moments(plan, 0.0, variance)[1] ** 0.5
        errors.append(abs(found - marginal_deviation(schedule, 100, variance)))
    for coarse, fine in pairwise(errors):
        assert 0.75 * 2**sampler.order < coarse / fine < 1.35 * 2**sampler.order


def test_first_and_last_steps_are_of_order_one() -> None:
    """The first has nothing to look back on, and the last would have weights that are no numbers."""
    plan = DPMSolver().plan(Schedule(), respace(1000, 5))
    assert plan.update.isfinite().all()
    assert (plan.visits, plan.memories) == (5, 1)
    assert plan.update[[0, -1], 0, 1].tolist() == [0, 0]
    assert (plan.update[1:-1, 0, 1] != 0).all()
    assert plan.update[-1, 0].tolist() == [0, 0, 1, 0, 0]
