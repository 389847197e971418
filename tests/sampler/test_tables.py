"""The harness itself: DDIM through diffusers' Euler and DDIM, and the order that is known."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from tests.sampler.tables import numbers, slopes, states, theirs

from ddpm_ip.sampler import DDIM, DPMSolver
from ddpm_ip.schedule import Schedule

TIMES = [999, 850, 700, 500, 300, 200, 100, 50, 20, 0]


def test_ddim_is_diffusers_euler_and_ddim_in_float64() -> None:
    schedule, x = Schedule(), numbers(2, 3)
    ours = states(DDIM().plan(schedule, TIMES), x)
    euler = theirs(EulerDiscreteScheduler(1000, 1e-4, 0.02, "linear"), schedule, TIMES, x, variance_exploding=True)
    for a, b in zip(ours, euler, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)
    even = list(range(900, -1, -100))
    theirs_ = DDIMScheduler(1000, 1e-4, 0.02, "linear", clip_sample=False, set_alpha_to_one=True)
    for a, b in zip(states(DDIM().plan(schedule, even), x), theirs(theirs_, schedule, even, x), strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("variance", [0.05, 0.4])
def test_orders_are_seen(variance: float) -> None:
    assert all(0.95 < s < 1.05 for s in slopes(DDIM(), variance=variance))
    assert all(1.9 < s < 2.1 for s in slopes(DPMSolver(2), variance=variance, history=2))


@pytest.mark.parametrize("t", [-0.5, 0, 0.25, 1, 17.3, 500, 998.7, 999])
@pytest.mark.parametrize("shape", ["linear", "cosine", "quad", "const"])
def test_time_is_the_inverse_of_the_level(t: float, shape: str) -> None:
    schedule = Schedule(1000, shape)  # type: ignore[arg-type]
    assert schedule.time(schedule.half_log_snr(t)) == pytest.approx(t, abs=1e-6)
