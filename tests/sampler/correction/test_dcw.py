"""DCW against walks that are written out here: the wavelet form by matrices of Haar's transform, and the pixel form."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from tests.sampler.correction.haar import weighted
from tests.sampler.oracle import ROWS, SHAPE, heun, network
from torch import Tensor

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver, Plan, Sampler, respace, walk
from ddpm_ip.sampler.correction import DCW, Clip, EpsilonScaling
from ddpm_ip.sampler.spacing import Spacing
from ddpm_ip.schedule import Schedule, posterior

TIMES = [900, 700, 450, 200, 60]


def deviations(schedule: Schedule, times: list[int]) -> list[float]:
    """Of the reverse process along times, over the largest."""
    bars = [schedule.alpha_bar(t) for t in times]
    found = [
        math.sqrt((1 - a_t / a_s) * (1 - a_s) / (1 - a_t)) for a_t, a_s in zip(bars, [*bars[1:], 1.0], strict=True)
    ]
    return [value / max(found) for value in found]


def ratios(schedule: Schedule, times: list[int]) -> list[float]:
    found = [schedule.level(t).sigma / schedule.level(t).alpha for t in times]
    return [value / max(found) for value in found]


def written_out(correction: DCW, schedule: Schedule, along: list[float], shape: tuple[int, ...]) -> list[Tensor]:
    """DDIM's states, the prediction clipped, with the correction in the wavelet domain."""
    x, found = Draws(3, 0, ROWS).start(shape).double(), []
    for t, s, share in zip(TIMES, [*TIMES[1:], -1], along, strict=True):
        (alpha, sigma), after = schedule.level(t), schedule.level(s)
        x0 = ((x - sigma * network(x, torch.full((4,), t))) / alpha).clamp(-1, 1)
        x = after.alpha * x0 + after.sigma * (x - alpha * x0) / sigma
        if correction.weights == "constant":
            low, high = correction.low, correction.high
        else:
            low, high = correction.low * share, correction.high * (1 - share)
        if s >= 0:
            x = x + weighted(x - x0, [low, high])
        found.append(x)
    return found


@pytest.mark.parametrize("shape", [(3, 8, 4), (1, 7, 5)], ids=str)
@pytest.mark.parametrize(
    "correction",
    [DCW(0.05, 0.02), DCW(0.05, -0.02, "ratio"), DCW(0.04, 0.0, "constant"), DCW.pixels(0.03), DCW()],
    ids=str,
)
def test_the_walk_is_the_one_written_out_here(correction: DCW, shape: tuple[int, ...]) -> None:
    schedule = Schedule()
    along = (ratios if correction.weights == "ratio" else deviations)(schedule, TIMES)
    expected = written_out(correction, schedule, along, shape)
    plan, corrections = DDIM().plan(schedule, TIMES), [correction, Clip()]
    _, *states = walk(plan, Denoiser(network, schedule), 3, ROWS, shape, corrections)
    for ours, theirs in zip(states, expected, strict=True):
        torch.testing.assert_close(ours.xt.double(), theirs, atol=2e-5, rtol=2e-5)
    _, *plain = walk(plan, Denoiser(network, schedule), 3, ROWS, shape, [Clip()])
    assert max(float((a.xt - b.xt).abs().max()) for a, b in zip(plain, states, strict=True)) > 1e-4


def test_the_form_in_pixels_is_that_of_the_paper() -> None:
    """``x + strength (x - x0)`` after a step with noise, whatever the bands; the last step is left as it is."""
    schedule = Schedule()
    plan, denoiser = Ancestral("fixed_large").plan(schedule, [700, 300]), Denoiser(network, schedule)
    _, first, last = walk(plan, denoiser, 3, ROWS, SHAPE, [DCW.pixels(0.25), Clip()])
    _, plain, _ = walk(plan, denoiser, 3, ROWS, SHAPE, [Clip()])
    torch.testing.assert_close(first.xt, plain.xt + 0.25 * (plain.xt - plain.x0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last.xt, last.x0, atol=1e-6, rtol=0)


def test_inner_stages_count_nothing_and_a_step_counts_from_where_it_begins() -> None:
    """The released code corrects after Heun's second half, with the weight of the time before the first."""
    schedule, times = Schedule(), [900, 500, 100]
    plan = heun(schedule, times)
    assert not plan.state.all()
    found = DCW(0.2, 0.1, "ratio").numbers(plan, schedule)
    first = [schedule.level(t).sigma / schedule.level(t).alpha for t in times[:2]]
    s = [value / first[0] for value in first]
    expected = [[0, 0], [0.2 * s[0], 0.1 * (1 - s[0])], [0, 0], [0.2 * s[1], 0.1 * (1 - s[1])], [0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)
    found = DCW(0.2, 0.0).numbers(plan, schedule)
    bars = [schedule.alpha_bar(t) for t in times]
    std = [posterior(a_t, a_s).variance ** 0.5 for a_t, a_s in pairwise(bars)]
    torch.testing.assert_close(found[[1, 3], 0], 0.2 * torch.tensor(std).double() / max(std), atol=1e-6, rtol=0)


@pytest.mark.parametrize("sampler", [DDIM(), DDIM(1.0), Ancestral("fixed_small"), DPMSolver()], ids=str)
def test_weights_are_finite_and_end_with_nothing(sampler: Sampler) -> None:
    spacings: list[Spacing] = ["uniform", "uniform-trailing", "uniform-linspace"]
    for schedule in (Schedule(), Schedule(1000, "cosine"), Schedule(1000, "quad"), Schedule(200, "const")):
        for spacing in spacings:
            for steps in (1, 2, 3, 10, 50):
                plan: Plan = sampler.plan(schedule, respace(schedule.total_steps, steps, spacing))
                for weights in ("std", "ratio", "constant"):
                    found = DCW(0.5, 0.25, weights).numbers(plan, schedule)
                    assert found.shape == (plan.visits, 2)
                    assert found.isfinite().all()
                    assert found.min() >= 0
                    assert found.max() <= 0.5
                    assert found[-1].tolist() == [0, 0]


def test_it_composes_with_another_correction_and_a_solver_with_memory() -> None:
    schedule = Schedule()
    plan = DPMSolver().plan(schedule, TIMES)
    corrections = [EpsilonScaling(1.01), DCW(0.05), Clip()]
    *_, last = walk(plan, Denoiser(network, schedule), 3, ROWS, SHAPE, corrections)
    *_, other = walk(plan, Denoiser(network, schedule), 3, ROWS, SHAPE, [EpsilonScaling(1.01), Clip()])
    assert last.xt.isfinite().all()
    assert last.xt.abs().max() <= 1
    assert (last.xt - other.xt).abs().max() > 1e-4


@pytest.mark.parametrize("setting", [{"low": math.nan}, {"high": math.inf}])
def test_a_weight_that_is_no_number_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be a finite number"):
        DCW(**setting)
