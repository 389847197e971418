"""The time shift against its algorithms, written here as loops over samples and times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tests.sampler.correction.rows import asks, row_at
from tests.sampler.oracle import ROWS, SHAPE, heun, network, network_with_variance
from torch import Tensor

from ddpm_ip.denoiser import Denoiser, Prediction
from ddpm_ip.draws import Draws
from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver, respace, walk
from ddpm_ip.sampler.correction import (
    Clip,
    Correction,
    DynamicThresholding,
    EpsilonScaling,
    IPEmulator,
    Row,
    TimeShift,
)  # fmt: skip
from ddpm_ip.schedule import Schedule

SCHEDULES = [Schedule(), Schedule(1000, "cosine"), Schedule(1000, "quad")]
TIMES = respace(1000, 8, "uniform-leading")


def best_time(x: Tensor, t: float, window: int, schedule: Schedule) -> float:
    """Of one sample, as published: whole times at most half a window away, of those that there are."""
    variance = np.var(x.double().numpy(), ddof=1)
    near = [tau for tau in np.arange(t - window // 2, t + window // 2 + 1) if 0 <= tau <= schedule.total_steps - 1]
    return min(near, key=lambda tau: (variance - (1 - schedule.alpha_bar(tau))) ** 2)


def samples(deviations: Sequence[float]) -> Tensor:
    """Noise of just these deviations, float64 (B, 3, 16, 16)."""
    x = Draws(5, 0, torch.arange(len(deviations))).start((3, 16, 16)).double()
    x /= x.flatten(1).std(dim=1).reshape(-1, 1, 1, 1)
    return x * torch.tensor(deviations, dtype=torch.float64).reshape(-1, 1, 1, 1)


def levels_asked(shift: TimeShift, x: Tensor, row: Row) -> list[tuple[float, float, float]]:
    found: list[Row] = []

    def network(x: Tensor, row: Row) -> Prediction:
        found.append(row)
        return Prediction(x, x, x, None)

    shift.wrap(network)(x, row)
    t, alpha, sigma = (v.flatten().tolist() for v in found[0][:3])
    return list(zip(t, alpha, sigma, strict=True))


@pytest.mark.parametrize("window", [0, 1, 30, 81, 100])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.beta_schedule)
def test_each_sample_is_asked_at_the_time_of_its_variance(schedule: Schedule, window: int) -> None:
    """In the middle and at the ends of the times, whole and fractional; with the level of that time."""
    shift = TimeShift(window, cutoff=0.0)
    for t in (999.0, 960.0, 700.0, 412.25, 90.0, 3.0):
        sigma = schedule.level(t)[1]
        x = samples([sigma * factor for factor in (0.8, 0.98, 0.995, 0.999, 0.9999, 1.0001, 1.001, 1.005, 1.3)])
        found = levels_asked(shift, x, row_at(schedule, t, len(x), shift, before=(999.0,) if t < 999 else ()))
        expected = [best_time(one, t, window, schedule) if t < 999 else t for one in x]
        assert [level[0] for level in found] == expected
        assert [level[1:] for level in found] == [schedule.level(tau) for tau in expected]
        assert not 90 <= t <= 700 or window < 2 or len(set(expected)) > 2


def test_nothing_is_shifted_at_the_first_visit_nor_from_the_cutoff_on() -> None:
    schedule, x = Schedule(), samples([0.3, 1.5])
    shift = TimeShift(40, cutoff=300)
    for t, before in ((900.0, ()), (300.0, (900.0,)), (299.0, (900.0,)), (0.0, (900.0, 300.0))):
        row = row_at(schedule, t, 2, shift, before=before)
        assert levels_asked(shift, x, row) == [(t, *schedule.level(t))] * 2
    assert [t for t, *_ in levels_asked(shift, x, row_at(schedule, 301.0, 2, shift, before=(900.0,)))] == [281, 321]


def test_windows_and_cutoffs_are_thousandths_of_all_times() -> None:
    schedule, x = Schedule(100), samples([0.1, 3.0])
    shift = TimeShift(40, cutoff=300)
    row = row_at(schedule, 31.0, 2, shift, before=(90.0,))
    assert [t for t, *_ in levels_asked(shift, x, row)] == [29, 33]
    row = row_at(schedule, 30.0, 2, shift, before=(90.0,))
    assert [t for t, *_ in levels_asked(shift, x, row)] == [30, 30]


def ddim(eps: Tensor, x: Tensor, at: tuple[float, float], after: tuple[float, float], clip: str = "none") -> Tensor:
    x0 = (x - at[1] * eps) / at[0]
    if clip != "none":
        x0 = x0.clamp(-1, 1)
    if clip == "rederive":
        eps = (x - at[0] * x0) / at[1]
    return after[0] * x0 + after[1] * eps


def bright(x: Tensor, t: Tensor) -> Tensor:
    """A network whose walk is far from the variances of the grid."""
    return 0.9 * network(x, t) + 0.1 * torch.cos(3 * x)


@pytest.mark.parametrize("clip", ["none", "keep_eps", "rederive"])
@pytest.mark.parametrize(("window", "cutoff"), [(30, 300), (80, 100)])
def test_the_published_algorithm(window: int, cutoff: float, clip: str) -> None:
    """Of the published steps, each from the level of the sample's own time, in DDIM."""
    schedule, shift = Schedule(), TimeShift(window, cutoff)
    plan, denoiser = DDIM().plan(schedule, TIMES), Denoiser(bright, schedule)
    *_, last = walk(plan, denoiser, 3, ROWS, (3, 8, 8), [shift, Clip(clip)])
    shifted = 0
    for one, found in zip(Draws(3, 0, ROWS).start((3, 8, 8)).double(), last.xt, strict=True):
        x = one
        for i, (t, s) in enumerate(zip(TIMES, [*TIMES[1:], -1], strict=True)):
            tau = best_time(x, t, window, schedule) if i > 0 and t > cutoff else t
            shifted += tau != t
            eps = bright(x[None], torch.tensor([tau]).double())[0]
            x = ddim(eps, x, schedule.level(tau), schedule.level(s), clip)
        torch.testing.assert_close(found.double(), x, atol=2e-3, rtol=2e-3)
    assert shifted > 8


@pytest.mark.parametrize("sampler", [DDIM(), DPMSolver(1)], ids=str)
@pytest.mark.parametrize(("window", "cutoff"), [(30, 300), (80, 100)])
def test_the_released_program(window: int, cutoff: float, sampler: Any) -> None:
    """The variance of the state before a step, the levels around its end; the next visit is on the grid."""
    schedule, shift = Schedule(), TimeShift(window, cutoff, "released")
    plan, denoiser = sampler.plan(schedule, TIMES), Denoiser(bright, schedule)
    *_, last = walk(plan, denoiser, 3, ROWS, (3, 8, 8), [shift, Clip("none")])
    shifted = 0
    for one, found in zip(Draws(3, 0, ROWS).start((3, 8, 8)).double(), last.xt, strict=True):
        x = one
        for i, (t, s) in enumerate(zip(TIMES, [*TIMES[1:], -1], strict=True)):
            tau = best_time(x, s, window, schedule) if i > 0 and s > cutoff else s
            shifted += tau != s
            x = ddim(bright(x[None], torch.tensor([t]).double())[0], x, schedule.level(t), schedule.level(tau))
        torch.testing.assert_close(found.double(), x, atol=2e-3, rtol=2e-3)
    assert shifted > 8


def test_released_looks_at_the_state_before_the_step() -> None:
    """Its variance may ask for another time than that of the state afterwards; in the last step nothing is moved."""
    schedule, shift, t, s = Schedule(), TimeShift(100, 0.0, "released"), 610.0, 600.0
    plan = DDIM().plan(schedule, [999.0, t, s])
    x0, eps = samples([0.2, 0.1]), samples([1.0, 0.995]).flip(-1)
    (alpha, sigma), (alpha_s, sigma_s) = schedule.level(t), schedule.level(s)
    for visit, end in ((1, s), (2, -1.0)):
        numbers = {shift.name: shift.numbers(plan, schedule)[visit]}
        row = row_at(schedule, t if visit == 1 else s, 2)._replace(numbers=numbers)
        x = schedule.level(end)[0] * x0 + schedule.level(end)[1] * eps
        change = shift.after(x, x0, row)
        if end < 0:
            assert not change.any()
            continue
        taus = [best_time(one, s, 100, schedule) for one in alpha * x0 + sigma * eps]
        assert taus != [best_time(one, s, 100, schedule) for one in alpha_s * x0 + sigma_s * eps]
        for one, tau, x0_one, eps_one in zip(x + change, taus, x0, eps, strict=True):
            torch.testing.assert_close(one, schedule.level(tau)[0] * x0_one + schedule.level(tau)[1] * eps_one)


@pytest.mark.parametrize("later", [EpsilonScaling(1.02), DynamicThresholding(0.9), Clip()], ids=lambda c: str(c.name))
def test_what_derives_again_does_so_at_the_level_that_was_asked(later: Correction) -> None:
    """Whichever comes after it: ``x_t = alpha x_0 + sigma eps`` holds at the sample's own level, not at the grid's."""
    schedule, shift, t = Schedule(), TimeShift(80, 100), 600.0
    asked, network = [], Denoiser(bright, schedule)

    def denoise(x: Tensor, row: Row) -> Prediction:
        asked.append(row)
        return network.at(x, row.t, row.alpha, row.sigma)

    x = samples([0.5, 0.9, 1.2])
    row = row_at(schedule, t, 3, shift, later, before=(900.0,))
    seen = later.wrap(shift.wrap(denoise))(x, row)
    alpha, sigma = asked[0].alpha, asked[0].sigma
    torch.testing.assert_close(alpha * seen.x0 + sigma * seen.eps, x, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(row.alpha * seen.x0 + row.sigma * seen.eps, x, atol=1e-3)


def test_an_emulator_after_it_is_read_at_the_grid() -> None:
    """What the emulator says belongs to its own state and level again."""
    schedule, shift, emulator = Schedule(), TimeShift(80, 100), IPEmulator()
    row = row_at(schedule, 600.0, 3, shift, emulator, before=(900.0,))
    network = Denoiser(bright, schedule)
    x = samples([0.5, 0.9, 1.2])
    seen = emulator.wrap(shift.wrap(lambda x, row: network.at(x, row.t, row.alpha, row.sigma)))(x, row)
    assert row.level_of(seen) == (row.alpha, row.sigma)
    torch.testing.assert_close(row.alpha * seen.x0 + row.sigma * seen.eps, x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "plan",
    [
        lambda s: DDIM(0.5).plan(s, TIMES),
        lambda s: Ancestral("fixed_small").plan(s, TIMES),
        lambda s: DPMSolver(2).plan(s, TIMES),
        lambda s: heun(s, TIMES),
    ],
    ids=["noise", "ancestral", "memories", "stages"],
)
def test_released_refuses_steps_that_it_cannot_move(plan: Any) -> None:
    schedule = Schedule()
    with pytest.raises(ConfigError, match=r"released needs ddim with eta 0.* or variant=published"):
        TimeShift(variant="released").numbers(plan(schedule), schedule)
    assert TimeShift().numbers(plan(schedule), schedule).isfinite().all()


def test_what_is_nearer_to_the_network_is_asked_at_that_time_and_level() -> None:
    schedule = Schedule()
    shift, scaling = TimeShift(100, 0.0), EpsilonScaling(1.25)
    t, x = 600.0, samples([0.7, 1.2])
    row = row_at(schedule, t, 2, shift, scaling, before=(900.0,))
    seen = shift.wrap(scaling.wrap(asks(lambda x, t: torch.sin(x) + t / 1000)))(x, row)
    for one, x0, eps in zip(x, seen.x0, seen.eps, strict=True):
        tau = best_time(one, t, 100, schedule)
        expected = (torch.sin(one) + tau / 1000) / 1.25
        alpha, sigma = schedule.level(tau)
        torch.testing.assert_close(eps, expected)
        torch.testing.assert_close(x0, (one - sigma * expected) / alpha)


@pytest.mark.parametrize("schedule", [*SCHEDULES, Schedule(10), Schedule(1)], ids=str)
def test_numbers_are_finite_and_as_many_for_every_setting(schedule: Schedule) -> None:
    many = {
        TimeShift(window, cutoff, variant).numbers(DDIM().plan(schedule, times), schedule).isfinite().all(1).shape
        for window, cutoff in ((0, 0.0), (100, 0.0), (7, 1000.0))
        for variant in ("published", "released")
        for times in ([schedule.total_steps - 1], respace(schedule.total_steps, min(10, schedule.total_steps)))
    }
    assert {shape[0] for shape in many} == {1, min(10, schedule.total_steps)}
    for times in ([schedule.total_steps - 1], respace(schedule.total_steps, min(10, schedule.total_steps))):
        for shift in (TimeShift(100, 0.0), TimeShift(0, 0.0, "released"), TimeShift(100, 0.0, "released")):
            numbers = shift.numbers(DDIM().plan(schedule, times), schedule)
            assert numbers.isfinite().all()
            assert numbers.shape[1] == TimeShift().numbers(DDIM().plan(schedule, times), schedule).shape[1]


def test_a_learned_variance_goes_along() -> None:
    schedule = Schedule()
    denoiser = Denoiser(network_with_variance, schedule, "pred_v", learned_variance=True)
    plan = Ancestral("learned_range").plan(schedule, TIMES)
    *_, last = walk(plan, denoiser, 0, ROWS, SHAPE, [TimeShift(80, 100), Clip()])
    assert last.xt.isfinite().all()
    *_, other = walk(plan, denoiser, 0, ROWS, SHAPE, [TimeShift(0), Clip()])
    *_, plain = walk(plan, denoiser, 0, ROWS, SHAPE, [Clip()])
    assert torch.equal(other.xt, plain.xt), "a window of one time is that time, to the last bit"
    assert not torch.equal(last.xt, plain.xt)


@pytest.mark.parametrize("settings", [{"window": -1}, {"window": 101}, {"cutoff": -1.0}, {"cutoff": math.nan}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must lie in 0\.\."):
        TimeShift(**settings)
