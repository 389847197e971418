"""Variance normalisation against a loop, and what becomes of images without a cutoff."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.sampler.oracle import ROWS, SHAPE, gaussian_denoiser, heun, network

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.sampler import DDIM, Ancestral, respace, walk
from ddpm_ip.sampler.correction import Clip, VarianceNormalisation
from ddpm_ip.schedule import Schedule

TIMES = respace(1000, 8, "uniform-leading")


@pytest.mark.parametrize("cutoff", [0.0, 375.0, 500.0])
def test_ddim_steps_equal_a_loop(cutoff: float) -> None:
    schedule = Schedule()
    plan, denoiser = DDIM().plan(schedule, TIMES), Denoiser(network, schedule)
    *_, last = walk(plan, denoiser, 3, ROWS, SHAPE, [VarianceNormalisation(cutoff), Clip("none")])
    x = Draws(3, 0, ROWS).start(SHAPE).double()
    for t, s in zip(TIMES, [*TIMES[1:], -1], strict=True):
        (alpha, sigma), (alpha_s, sigma_s) = schedule.level(t), schedule.level(s)
        eps = network(x, torch.full((4,), t).double())
        x = alpha_s * (x - sigma * eps) / alpha + sigma_s * eps
        if s >= max(cutoff, 0):
            variances = np.var(x.flatten(1).numpy(), axis=1, ddof=1)
            x *= torch.tensor(np.sqrt((1 - schedule.alpha_bar(s)) / variances)).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(last.xt.double(), x, atol=1e-3, rtol=1e-3)


def test_states_have_the_variance_of_their_time_and_stages_are_left_alone() -> None:
    schedule, denoiser = Schedule(100, "cosine"), Denoiser(network, Schedule(100, "cosine"))
    for plan in (heun(schedule, [95, 80, 60, 30, 10]), Ancestral("fixed_small").plan(schedule, [99, 80, 60, 30, 10])):
        for state in list(walk(plan, denoiser, 0, ROWS, SHAPE, [VarianceNormalisation(600.0), Clip()]))[1:]:
            variance = state.xt.flatten(1).var(dim=1)
            near = (variance - (1 - schedule.alpha_bar(max(state.t, 0)))).abs() < 1e-5
            assert near.all() == (state.finished and state.t >= 60)


def test_without_a_cutoff_contrast_is_lost() -> None:
    """Exact Gaussian data of deviation 0.25 keep it with the default, and lose it with the program's own way."""
    schedule = Schedule()
    plan = DDIM().plan(schedule, respace(1000, 50))

    def deviation(*corrections: VarianceNormalisation) -> float:
        *_, last = walk(plan, gaussian_denoiser(schedule, mean=0.0), 0, torch.arange(4), (3, 16, 16), corrections)
        return float(last.xt.std())

    assert deviation() == pytest.approx(0.25, rel=0.1)
    assert 0.9 * deviation() < deviation(VarianceNormalisation()) < deviation()
    assert deviation(VarianceNormalisation(0.0)) < 0.1 * deviation()


@pytest.mark.parametrize("cutoff", [-1.0, 1001.0, math.nan])
def test_a_cutoff_that_cannot_be_is_refused(cutoff: float) -> None:
    with pytest.raises(ValueError, match="cutoff must lie in"):
        VarianceNormalisation(cutoff)
