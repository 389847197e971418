"""Temporal score rescaling: on Gaussian data it is the exact network of other data."""

from __future__ import annotations

import math

import pytest
import torch
from tests.sampler.oracle import DEVIATION, ROWS, SHAPE, gaussian_denoiser, network, network_with_variance

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver, Plan, respace, walk
from ddpm_ip.sampler.correction import TSR, Clip, Correction, EpsilonScaling
from ddpm_ip.schedule import Schedule

TIMES = respace(1000, 12, "uniform-trailing")
KINDS = ["pred_eps", "pred_x0", "pred_v"]


def image(plan: Plan, denoiser: Denoiser, *corrections: Correction) -> torch.Tensor:
    *_, last = walk(plan, denoiser, 3, ROWS, SHAPE, corrections)
    return last.xt


@pytest.mark.parametrize("k", [0.5, 0.98, 2.0])
@pytest.mark.parametrize("schedule", [Schedule(), Schedule(1000, "quad")], ids=["linear", "quad"])
def test_the_exact_network_becomes_that_of_data_of_variance_sigma_2_over_k(schedule: Schedule, k: float) -> None:
    """N(0.3, 0.25^2) becomes N(0.3, 0.25^2 / k)."""
    wider = gaussian_denoiser(schedule, deviation=DEVIATION / math.sqrt(k))
    for sampler in (DDIM(), DPMSolver(2), Ancestral("fixed_small")):
        plan = sampler.plan(schedule, TIMES)
        found = image(plan, gaussian_denoiser(schedule), TSR(k, sigma=DEVIATION))
        torch.testing.assert_close(found, image(plan, wider), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("learned", [False, True])
def test_it_is_epsilon_scaling_by_one_over_r_to_the_last_bit(kind: str, learned: bool) -> None:
    schedule, k, sigma = Schedule(), 0.9, 0.5
    denoiser = Denoiser(network_with_variance if learned else network, schedule, kind, learned)
    plan = (Ancestral("learned_range") if learned else DDIM()).plan(schedule, TIMES)
    rising = sorted(TIMES)
    snr = [a / (1 - a) for a in (schedule.alpha_bar(t) for t in rising)]
    r = [(x * sigma**2 + 1) / (x * sigma**2 / k + 1) for x in snr]
    table = EpsilonScaling(times=tuple(map(float, rising)), scales=tuple(1 / x for x in r))
    assert torch.equal(image(plan, denoiser, TSR(k, sigma), Clip()), image(plan, denoiser, table, Clip()))


def test_it_goes_from_1_at_much_noise_to_1_over_k() -> None:
    first, *middle, last = TSR(0.9, 0.5).numbers(DDIM().plan(Schedule(), [999, 600, 300, 100, 0]), Schedule())[:, 0]
    assert float(first) == pytest.approx(1, abs=1e-4)
    assert float(last) == pytest.approx(1 / 0.9, abs=1e-3)
    assert first < middle[0] < middle[1] < middle[2] < last


def test_k_of_1_changes_nothing() -> None:
    numbers = TSR(1.0, 0.5).numbers(DDIM().plan(Schedule(1000, "cosine"), TIMES), Schedule(1000, "cosine"))
    torch.testing.assert_close(numbers, torch.ones_like(numbers), atol=1e-15, rtol=0)


@pytest.mark.parametrize("settings", [{"k": 0.0}, {"k": math.inf}, {"sigma": -1.0}, {"sigma": math.nan}])
def test_settings_that_are_none_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be a positive number"):
        TSR(**settings)
