"""Weightings: the same loss whatever the network predicts, and the papers' own words."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.objective import Objective
from ddpm_ip.schedule import Schedule
from ddpm_ip.weighting import EDM, P2, Constant, MinSNR, WeightingConfig

KINDS = ("pred_eps", "pred_x0", "pred_v")
SCHEDULE = Schedule()
ALL = torch.arange(1000)


@pytest.mark.parametrize("kind", KINDS)
def test_constant_is_one_at_every_time_in_every_terms(kind: str) -> None:
    weights = Constant()(Schedule(), torch.arange(1000), kind)
    assert weights.dtype == torch.float32
    assert torch.equal(weights, torch.ones(1000))


def in_paper_s_words(weighting: WeightingConfig, sigma: Tensor) -> Tensor:
    """The weight of the squared error of x0 at a noise level of x = x0 + sigma n, float64."""
    snr = 1 / sigma**2
    if isinstance(weighting, MinSNR):
        return torch.minimum(snr, torch.tensor(weighting.gamma))
    if isinstance(weighting, P2):
        return snr / (weighting.k + snr) ** weighting.gamma
    return (sigma**2 + weighting.sigma_data**2) / (sigma * weighting.sigma_data) ** 2


@pytest.mark.parametrize("weighting", [MinSNR(), MinSNR(0.3), P2(), P2(0.5, 2.0), EDM(), EDM(0.9)], ids=str)
@pytest.mark.parametrize("schedule", [SCHEDULE, Schedule(1000, "cosine")], ids=["linear", "cosine"])
def test_the_loss_is_that_of_x0_whatever_the_network_predicts(weighting: WeightingConfig, schedule: Schedule) -> None:
    """One and the same prediction in three forms: the weighted loss of each is the paper's in x0, in float64."""
    draws = Draws(1, 2, torch.arange(200))
    x0 = Draws(9, 0, torch.arange(200)).normal(0, (1, 3, 3)).clamp(-1, 1)
    t, eps = draws.times(1000), draws.eps((1, 3, 3))
    bar = schedule.alpha_bars()[t][:, None, None, None]
    a, s = bar.sqrt(), (1 - bar).sqrt()
    wrong = 0.1 * Draws(8, 0, torch.arange(200)).normal(0, (1, 3, 3)).double()  # of x0
    forms = {"pred_x0": x0 + wrong, "pred_eps": eps - a / s * wrong, "pred_v": a * eps - s * x0 - wrong / s}
    expected = in_paper_s_words(weighting, (s / a).flatten()) * wrong.square().mean(dim=(1, 2, 3))
    for kind, output in forms.items():
        denoiser = Denoiser(lambda x, t, output=output: output.float(), schedule, kind)
        loss = Objective(weighting=weighting)(denoiser, x0, draws).per_sample.double()
        seen = (output - output.float()).abs().amax((1, 2, 3)) / wrong.abs().amax((1, 2, 3)) < 1e-6  # by float32
        torch.testing.assert_close(loss[seen], expected[seen], rtol=2e-3, atol=1e-7)
        assert seen.sum() > 60
    exact = in_paper_s_words(weighting, ((1 - schedule.alpha_bars()) / schedule.alpha_bars()).sqrt())
    torch.testing.assert_close(weighting(schedule, ALL, "pred_x0").double(), exact, rtol=2e-6, atol=0)


def test_min_snr_equals_the_training_examples_of_diffusers() -> None:
    """Their examples: min(snr, gamma) / snr for eps, min(snr, gamma) / (snr + 1) for v."""
    pytest.importorskip("diffusers")
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    snr = compute_snr(DDPMScheduler(1000), ALL)
    capped = torch.stack([snr, torch.full_like(snr, 5.0)], dim=1).min(dim=1)[0]
    for kind, expected in (("pred_eps", capped / snr), ("pred_v", capped / (snr + 1))):
        torch.testing.assert_close(MinSNR()(SCHEDULE, ALL, kind), expected, rtol=1e-3, atol=0)  # theirs is of float32


def test_special_cases() -> None:
    """P2 with k = gamma = 1 is sigma^2, without gamma the simple loss; EDM with data of variance 1 is that of v."""
    variance = (1 - SCHEDULE.alpha_bars()).float()
    torch.testing.assert_close(P2()(SCHEDULE, ALL, "pred_eps"), variance, rtol=1e-5, atol=0)
    assert torch.equal(P2(gamma=0)(SCHEDULE, ALL, "pred_eps"), torch.ones(1000))
    torch.testing.assert_close(EDM(1.0)(SCHEDULE, ALL, "pred_v"), torch.ones(1000))
    found = EDM()(SCHEDULE, ALL, "pred_v")
    assert 1 <= found.min() < 1.01
    assert 3.99 < found.max() <= 4


def test_a_schedule_that_ends_in_noise_alone_has_finite_weights() -> None:
    """At snr 0; but for EDM's of eps, which has no bound."""
    schedule = Schedule(1000, "const", 0.5, 0.9)
    last = torch.tensor([999])
    assert float(schedule.alpha(last, last.float())) == 0
    for weighting in (MinSNR(), P2(), EDM()):
        for kind in KINDS[isinstance(weighting, EDM) :]:
            assert weighting(schedule, last, kind).isfinite().all(), (weighting, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighting", [MinSNR(), P2(), EDM()])
def test_nothing_waits_for_the_device(weighting: WeightingConfig, kind: str) -> None:
    t = torch.zeros(3, dtype=torch.int64, device="meta")
    assert weighting(Schedule(7), t, kind).shape == (3,)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MinSNR(0), "gamma must be above 0"),
        (lambda: P2(-1), "gamma must be >= 0"),
        (lambda: P2(k=0), "k must be above 0"),
        (lambda: EDM(math.nan), "sigma_data must be above 0"),
    ],
)
def test_senseless_settings_are_refused(make, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
