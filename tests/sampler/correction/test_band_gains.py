"""Band gains: by the bands of Haar's transform, and as three published methods on the steps of DDIM, in float64."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from tests.sampler.correction.haar import weighted
from tests.sampler.oracle import ROWS, SHAPE, heun, network
from tests.sampler.tables import numbers
from torch import Tensor

from ddpm_ip.config import from_dict
from ddpm_ip.denoiser import Denoiser
from ddpm_ip.run.record import row_label
from ddpm_ip.sampler import DDIM, DPMSolver, Plan, Rows, respace, walk
from ddpm_ip.sampler.correction import DCW, BandGains, Clip, Correction, EpsilonScaling, Row
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.schedule import Schedule

TIMES = [900, 700, 450, 200, 60]
SCHEDULES = [Schedule(), Schedule(1000, "cosine")]
x, x0, eps = numbers(3, 2, 3, 8, 8).unbind()


def changed(correction: Correction, plan: Plan, i: int, x: Tensor, x0: Tensor, schedule: Schedule) -> Tensor:
    """The state after row i, in float64."""
    given = {correction.name: correction.numbers(plan, schedule)[i]}
    change = correction.after(x, x0, Row(plan.t[i], plan.alpha[i], plan.sigma[i], given))
    return x if change is None else x + change


# --- the family ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 9, 13)], ids=str)
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_each_band_has_its_gains(bands: int, shape: tuple[int, ...]) -> None:
    gains = [1.3, 0.7, 1.1, 0.9][:bands], [0.8, 1.2, 0.95, 1.4][:bands]
    correction, schedule = BandGains(*map(tuple, gains)), Schedule()
    plan = DDIM().plan(schedule, TIMES)
    x, x0 = numbers(2, *shape).unbind()
    for i, s in enumerate(TIMES[1:]):
        alpha, sigma = schedule.level(s)
        noise = (x - alpha * x0) / sigma
        expected = weighted(alpha * x0, gains[0]) + weighted(sigma * noise, gains[1])
        torch.testing.assert_close(changed(correction, plan, i, x, x0, schedule), expected, atol=1e-12, rtol=0)
    assert torch.equal(changed(correction, plan, 4, x, x0, schedule), x), "the clean image"


def test_a_table_is_linear_between_its_times_and_constant_beyond() -> None:
    schedule, gain = Schedule(), ((200.0, 1.5), (800.0, 1.2), (500.0, 1.0))
    plan = DDIM().plan(schedule, [999, 800, 700, 500, 350, 200, 100])
    found = BandGains(eps=(gain,)).numbers(plan, schedule)[:, 4] + 1
    expected = [1.2, 1.2, 1 + 0.2 * 2 / 3, 1.0, 1.25, 1.5, 1.0]  # the last is the clean image
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_a_step_of_several_visits_is_corrected_at_its_end_by_the_gain_of_its_beginning() -> None:
    schedule = Schedule()
    found = BandGains(eps=(((900.0, 1.2), (500.0, 1.1), (100.0, 1.0)),)).numbers(
        heun(schedule, [900, 500, 100]), schedule
    )
    torch.testing.assert_close(found[:, 4], torch.tensor([0, 0.2, 0, 0.1, 0], dtype=torch.float64))


def test_without_settings_nothing_changes() -> None:
    schedule = Schedule()
    plan, denoiser = DPMSolver().plan(schedule, TIMES), Denoiser(network, schedule)
    *_, last = walk(plan, denoiser, 3, ROWS, SHAPE, [BandGains(), Clip()])
    *_, plain = walk(plan, denoiser, 3, ROWS, SHAPE, [Clip()])
    assert torch.equal(last.xt, plain.xt)


# --- published methods in it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.beta_schedule)
@pytest.mark.parametrize("scale", [1.02, 0.97])
def test_epsilon_scaling_on_ddim_s_steps(schedule: Schedule, scale: float) -> None:
    plan = DDIM().plan(schedule, TIMES)
    gains = BandGains.epsilon_scaling(scale, plan)
    for i, (t, s) in enumerate(pairwise(TIMES)):
        (alpha, sigma), after = schedule.level(t), schedule.level(s)
        x0 = (x - sigma * eps) / alpha
        scaled = eps / scale
        expected = after.alpha * (x - sigma * scaled) / alpha + after.sigma * scaled
        found = changed(gains, plan, i, after.alpha * x0 + after.sigma * eps, x0, schedule)
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.beta_schedule)
@pytest.mark.parametrize("correction", [DCW.pixels(0.03), DCW(0.05, 0.02), DCW(0.05, 0.01, "ratio")], ids=str)
def test_dcw_on_ddim_s_steps(schedule: Schedule, correction: DCW) -> None:
    plan = DDIM().plan(schedule, TIMES)
    gains = BandGains.dcw(correction, plan, schedule)
    if correction.low == correction.high:  # (a' + lam (a' - 1)) x0 + (1 + lam) s' eps, written out
        after = schedule.level(TIMES[1])
        x = after.alpha * x0 + after.sigma * eps
        expected = (after.alpha + 0.03 * (after.alpha - 1)) * x0 + 1.03 * after.sigma * eps
        torch.testing.assert_close(changed(gains, plan, 0, x, x0, schedule), expected, atol=1e-12, rtol=0)
    for i, s in enumerate(TIMES[1:]):
        after = schedule.level(s)
        x = after.alpha * x0 + after.sigma * eps
        expected = changed(correction, plan, i, x, x0, schedule)
        assert (expected - x).abs().max() > 1e-4
        torch.testing.assert_close(changed(gains, plan, i, x, x0, schedule), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.beta_schedule)
@pytest.mark.parametrize("shift", [7.5, -20.0, 400.0, -100.0])
def test_a_step_to_a_shifted_time_on_ddim_s_steps(schedule: Schedule, shift: float) -> None:
    """A shift is kept within the levels that there are: below the least noise is the clean image."""
    plan = DDIM().plan(schedule, TIMES)
    gains = BandGains.time_shift(shift, plan, schedule)
    for i, s in enumerate(TIMES[1:]):
        after, shifted = schedule.level(s), schedule.level(min(max(s + shift, -1), 999))
        found = changed(gains, plan, i, after.alpha * x0 + after.sigma * eps, x0, schedule)
        torch.testing.assert_close(found, shifted.alpha * x0 + shifted.sigma * eps, atol=1e-11, rtol=0)


def shifted_plan(schedule: Schedule) -> Plan:
    rows = Rows(schedule)
    for t, s in zip(TIMES, [*TIMES[1:], -1], strict=True):
        alpha, sigma = schedule.level(s + 5 if s >= 0 else s)
        rows.add(t, s, alpha * rows.x0 + sigma * rows.eps)
    return rows.plan()


@pytest.mark.parametrize(
    ("of", "plan", "published"),
    [
        (lambda p, s: BandGains.epsilon_scaling(1.02, p), None, [EpsilonScaling(1.02)]),
        (lambda p, s: BandGains.dcw(DCW(0.05, 0.02), p, s), None, [DCW(0.05, 0.02)]),
        (lambda p, s: BandGains.time_shift(5, p, s), shifted_plan, []),
    ],
    ids=["epsilon_scaling", "dcw", "time_shift"],
)
def test_whole_walks_are_the_published_ones(
    of: Callable[[Plan, Schedule], BandGains],
    plan: Callable[[Schedule], Plan] | None,
    published: list[Correction],
) -> None:
    """Up to the last step: what epsilon scaling does to the clean image is not in the family."""
    schedule = Schedule()
    ddim, denoiser = DDIM().plan(schedule, TIMES), Denoiser(network, schedule)
    ours = list(walk(ddim, denoiser, 3, ROWS, SHAPE, [of(ddim, schedule)]))
    theirs = list(walk(plan(schedule) if plan else ddim, denoiser, 3, ROWS, SHAPE, published))
    plain = list(walk(ddim, denoiser, 3, ROWS, SHAPE))
    for a, b, c in zip(ours[1:-1], theirs[1:-1], plain[1:-1], strict=True):
        torch.testing.assert_close(a.xt, b.xt, atol=1e-4, rtol=1e-4)
        assert (c.xt - b.xt).abs().max() > 1e-3


def test_a_walk_of_one_step_has_nothing_to_correct() -> None:
    schedule = Schedule()
    plan = DDIM().plan(schedule, [500])
    assert BandGains.epsilon_scaling(1.02, plan) == BandGains()
    assert BandGains.time_shift(3, plan, schedule) == BandGains()


# --- as a setting ----------------------------------------------------------------------------------------------------


def test_one_gain_may_be_a_number() -> None:
    tree = {"data": {"name": "digits"}, "sampling": {"corrections": [{"name": "band_gains", "x0": 1.05, "eps": 1}]}}
    assert from_dict(tree).sampling.corrections == (BandGains(x0=(1.05,)),) == (BandGains(1.05),)  # type: ignore[arg-type]


def test_a_table_comes_and_goes_through_a_configuration() -> None:
    gains = {"name": "band_gains", "x0": [1.0], "eps": [[[900, 1.0], [100, 1.02]], 0.99]}
    config = from_dict({"data": {"name": "digits"}, "sampling": {"corrections": [gains]}})
    assert config.sampling.corrections == (BandGains(eps=(((900, 1.0), (100, 1.02)), 0.99)),)
    assert from_dict(config.to_dict()) == config
    row = Sampling(DDIM(), corrections=config.sampling.corrections).row()
    read = json.loads(json.dumps(row))
    assert row_label(row) == row_label(read) == ("ddim,eta=0+band_gains,x0=[1.0],eps=[[[900.0,1.0],[100.0,1.02]],0.99]")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"eps": ()}, "one gain, or one for each of 2 to 4 bands"),
        ({"x0": (1.0,) * 5}, "one gain, or one for each of 2 to 4 bands"),
        ({"eps": (math.nan,)}, "must be a finite number"),
        ({"eps": ((),)}, "or a table of pairs"),
        ({"x0": (((5.0, 1.0), (5.0, 2.0)),)}, "a time twice"),
    ],
)
def test_gains_that_are_none_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BandGains(**settings)


def test_numbers_are_finite_on_every_grid() -> None:
    correction = BandGains((1.1, 0.9, 1.0), (((900, 1.3), (10, 0.8)), 1.1))
    for schedule in (*SCHEDULES, Schedule(50), Schedule(1000, "quad")):
        for steps in (1, 2, 5, 50):
            plan = DPMSolver().plan(schedule, respace(schedule.total_steps, steps))
            found = correction.numbers(plan, schedule)
            assert found.shape == (plan.visits, 8)
            assert found.isfinite().all()
            for made in (BandGains.epsilon_scaling(1.01, plan), BandGains.dcw(DCW(), plan, schedule)):
                assert made.numbers(plan, schedule).isfinite().all()
