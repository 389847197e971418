"""Classifier-free guidance on Gaussian data, where the guided score is known in closed form."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tests.sampler.oracle import ROWS, SHAPE
from torch import Tensor

from ddpm_ip.denoiser import Denoiser, PredictionType
from ddpm_ip.errors import ConfigError
from ddpm_ip.nn.network import Cond
from ddpm_ip.sampler import DDIM, Ancestral, Plan, State, walk
from ddpm_ip.sampler.correction import Clip, Correction, EpsilonScaling, Guidance, IPEmulator
from ddpm_ip.schedule import Schedule

CENTRES = torch.tensor([-0.5, 0.25, 0.6])  # of the classes
WITHIN, OVERALL, CENTRE = 0.3, 0.5, 0.1  # deviation of a class, and of all data, which are taken for Gaussian, too
TYPES: tuple[PredictionType, ...] = ("pred_eps", "pred_x0", "pred_v")
CLASSES = torch.tensor([2, 0, 1, 1])


def optimal(schedule: Schedule, kind: PredictionType = "pred_eps", learned: bool = False) -> Denoiser:
    """The best network for classes N(centre, WITHIN^2), which without a class knows N(CENTRE, OVERALL^2)."""

    def network(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        assert cond.labels is not None
        labels = cond.labels.reshape(-1, 1, 1, 1)
        mean = torch.where(labels < 0, CENTRE, CENTRES[labels.clamp(min=0)])
        variance = torch.where(labels < 0, OVERALL**2, WITHIN**2)
        a, s = schedule.alpha(t, x), schedule.sigma(t, x)
        off = (x - a * mean) / (a**2 * variance + s**2)
        x0, eps = mean + a * variance * off, s * off
        output = {"pred_eps": eps, "pred_x0": x0, "pred_v": a * eps - s * x0}[kind]
        return torch.cat((output, 0.1 * labels + 0 * x), dim=1) if learned else output

    return Denoiser(network, schedule, kind, learned, cond=Cond(CLASSES))


def states(plan: Plan, denoiser: Denoiser, *corrections: Correction) -> list[State]:
    return list(walk(plan, denoiser, 5, ROWS, SHAPE, corrections))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_the_guided_score_is_that_of_the_product_of_powers(kind: PredictionType, scale: float) -> None:
    """``p_c^scale p_u^(1 - scale)`` of two Gaussians has precision and mean in closed form, at each time."""
    schedule = Schedule()
    plan = DDIM().plan(schedule, [800, 500, 200])
    found = states(plan, optimal(schedule, kind), Guidance(scale))
    for before, after in pairwise(found):
        alpha, sigma = schedule.level(before.t)
        precise = [1 / (alpha**2 * v**2 + sigma**2) for v in (WITHIN, OVERALL)]
        weights = scale * precise[0], (1 - scale) * precise[1]
        centres = alpha * CENTRES[CLASSES].reshape(-1, 1, 1, 1)
        score = -(weights[0] * (before.xt - centres) + weights[1] * (before.xt - alpha * CENTRE))
        assert after.seen is not None
        torch.testing.assert_close(after.seen.eps, -sigma * score, rtol=1e-4, atol=1e-4)
        x0 = (before.xt + sigma**2 * score) / alpha
        torch.testing.assert_close(after.seen.x0, x0, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", TYPES)
def test_the_ends_are_the_two_predictions(kind: PredictionType) -> None:
    """A scale of 1 is the conditional walk to the last bit, 0 the one without a class to rounding."""
    schedule = Schedule()
    plan, denoiser = Ancestral("fixed_small").plan(schedule, [800, 500, 200, 20]), optimal(schedule, kind)
    plain, one = states(plan, denoiser, Clip()), states(plan, denoiser, Guidance(1.0), Clip())
    assert all(torch.equal(a.xt, b.xt) for a, b in zip(plain, one, strict=True))
    without = Denoiser(denoiser.network, schedule, kind, cond=Cond(torch.full((4,), -1)))
    expected, zero = states(plan, without, Clip()), states(plan, denoiser, Guidance(0.0), Clip())
    torch.testing.assert_close(zero[-1].xt, expected[-1].xt, rtol=1e-4, atol=1e-4)
    assert (plain[-1].xt - expected[-1].xt).abs().max() > 0.1


def test_it_acts_between_two_times_alone() -> None:
    """Both ends belong to it; elsewhere the scale is 1."""
    schedule = Schedule()
    plan = DDIM().plan(schedule, [900, 700, 500, 300, 100])
    for guidance, expected in (
        (Guidance(3), [3, 3, 3, 3, 3]),
        (Guidance(3, start=700, stop=300), [1, 3, 3, 3, 1]),
        (Guidance(3, start=699.5), [1, 1, 3, 3, 3]),
        (Guidance(3, stop=301), [3, 3, 3, 1, 1]),
    ):
        assert guidance.numbers(plan, schedule)[:, 0].tolist() == expected
    for wrong in ({"scale": -1}, {"scale": float("nan")}, {"stop": -1}, {"start": 3, "stop": 4}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Guidance(**wrong)


def test_a_learned_variance_is_that_of_the_conditional_prediction() -> None:
    schedule = Schedule()
    plan = DDIM().plan(schedule, [800, 200])
    seen = states(plan, optimal(schedule, learned=True), Guidance(4.0), Clip())[1].seen
    assert seen is not None
    assert seen.variance_fraction is not None
    torch.testing.assert_close(seen.variance_fraction[:, 0, 0, 0], (0.1 * CLASSES + 1) / 2)


def test_within_other_corrections_both_predictions_are_asked_for_in_the_same_way() -> None:
    """The IP emulator asks at another time and for another image: of both alike, so of the guided one."""
    schedule = Schedule()
    plan, denoiser = DDIM().plan(schedule, [500]), replace(optimal(schedule), whole_times=True)
    emulator = IPEmulator(0.2)
    found = states(plan, denoiser, Guidance(3.0), emulator)[1].seen
    without = replace(denoiser, cond=Cond(torch.full((4,), -1)))
    c, u = (states(plan, one, emulator)[1].seen for one in (denoiser, without))
    assert found is not None
    assert c is not None
    assert u is not None
    torch.testing.assert_close(found.eps, u.eps + 3 * (c.eps - u.eps), rtol=1e-4, atol=1e-5)


def test_it_is_next_to_the_network_and_of_a_network_that_is_told_classes() -> None:
    schedule = Schedule()
    plan = DDIM().plan(schedule, [500])
    with pytest.raises(ConfigError, match=r"guidance asks the network more than once.*before epsilon_scaling"):
        states(plan, optimal(schedule), EpsilonScaling(), Guidance())
    with pytest.raises(ConfigError, match="guidance needs a class-conditional network"):
        states(plan, Denoiser(lambda x, t, cond=None: x, schedule), Guidance())
