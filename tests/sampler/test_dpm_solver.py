"""DPM-Solver++ against diffusers, and against Gaussian data where all is known."""

from __future__ import annotations

import dataclasses
from itertools import pairwise, product

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from tests.sampler.exponential import COSINE, LINEAR, assert_same, grids, missed, on_parabola
from tests.sampler.grids import assert_finite
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
from tests.sampler.tables import numbers, slopes, states, theirs, uniform_lambda

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.run.record import row_label
from ddpm_ip.sampler import DDIM, DPMSolver, respace, walk
from ddpm_ip.sampler.correction import Clip
from ddpm_ip.sampler.dpm_solver import SolverType
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.schedule import Schedule


def scheduler(sampler: DPMSolver, kind: str = "pred_eps", spacing: str = "linspace") -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(
        1000, 1e-4, 0.02, "linear", solver_order=sampler.order, prediction_type=TYPES[kind],
        algorithm_type="dpmsolver++", solver_type=sampler.solver_type or "midpoint",
        final_sigmas_type="zero", timestep_spacing=spacing, lower_order_final=sampler.lower_order_final is not False,
    )  # fmt: skip


def row_of(sampler: DPMSolver) -> str:
    return row_label(Sampling(sampler).row())


SAMPLERS = [DPMSolver(1), DPMSolver(2), DPMSolver(2, "heun")]


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=row_of)
@pytest.mark.parametrize(("kind", "spacing", "steps"), [
    ("pred_eps", "trailing", 10), ("pred_v", "leading", 20), ("pred_x0", "linspace", 50), ("pred_eps", "linspace", 25),
])  # fmt: skip
def test_the_whole_walk_equals_diffusers(clip: bool, sampler: DPMSolver, kind: str, spacing: str, steps: int) -> None:
    """Theirs is given our clipped predictions as a network that predicts clean images."""
    schedule = Schedule()
    others = scheduler(sampler, "pred_x0" if clip else kind, spacing)
    others.set_timesteps(steps)
    times = others.timesteps.tolist()
    denoiser = Denoiser(network, schedule, kind)
    made = list(walk(sampler.plan(schedule, times), denoiser, 3, ROWS, SHAPE, [Clip("rederive" if clip else "none")]))
    x = made[0].xt
    for t, state in zip(times, made[1:], strict=True):
        seen = (clipping(network, schedule, kind) if clip else denoiser)(x, torch.full((4,), t))
        x = others.step(seen.output, t, x).prev_sample
        scale = 1e-5 * float(1 + x.abs().max()) / schedule.level(t).alpha ** (0 if clip else 1)
        torch.testing.assert_close(state.xt, x, atol=scale, rtol=1e-5)


def test_uniform_linspace_is_their_rule_but_for_one_time() -> None:
    """diffusers' DPM-Solver takes n + 1 points and leaves out the last: its 10 times are not those of its DDPM."""
    others = scheduler(DPMSolver(), "pred_eps", "linspace")
    others.set_timesteps(10)
    assert others.timesteps.tolist() == respace(1000, 11)[:-1]


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
@pytest.mark.parametrize("sampler", SAMPLERS, ids=row_of)
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


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_it_is_diffusers_in_float64(order: int, kind: str) -> None:
    x = numbers(2, 3)
    types: list[SolverType] = ["midpoint", "heun"]
    for times, schedule, solver_type, lower in product(grids(kind), (LINEAR, COSINE), types, (True, False)):
        sampler = DPMSolver(order, solver_type, lower)  # type: ignore[arg-type]
        made = states(sampler.plan(schedule, times), x, kind=kind)
        assert_same(made, theirs(scheduler(sampler, kind), schedule, times, x, kind=kind))


@pytest.mark.parametrize("variance", [0.05, 0.4])
def test_order_3_is_seen_only_of_the_corrected_form(variance: float) -> None:
    """From exact history."""
    assert all(2.0 < s < 2.3 for s in slopes(DPMSolver(3), variance=variance, history=3))
    corrected = DPMSolver(3, corrected=True)
    assert all(3.1 < s < 3.7 for s in slopes(corrected, variance=variance, history=3))
    assert all(1.9 < s < 2.1 for s in slopes(DPMSolver(2), variance=variance))


def test_own_starts_of_order_3() -> None:
    """At a variance of 0.4 the error of the corrected form passes through zero, and has no slope."""
    assert all(3.1 < s < 3.4 for s in slopes(DPMSolver(3, corrected=True), variance=0.05))
    assert all(2.0 < s < 2.3 for s in slopes(DPMSolver(3), variance=0.05))


def test_the_corrected_form_is_exact_for_a_parabola_and_the_published_one_is_not() -> None:
    times = uniform_lambda(LINEAR, 20)  # more than 15, so that the last but one is of order 3
    times[5] = (times[4] + 2 * times[6]) / 3  # not uniform

    def found(sampler: DPMSolver) -> list[float]:
        return missed(on_parabola(sampler.plan(LINEAR, times), LINEAR)[:-1], LINEAR, times)

    corrected = found(DPMSolver(3, corrected=True))
    assert max(map(abs, corrected[2:])) < 1e-12
    assert min(map(abs, found(DPMSolver(3))[2:])) > 1e-4
    assert min(map(abs, corrected[:2])) > 1e-4, "the first two are of order 1 and 2"


def test_the_order_is_lowered_at_the_end_of_a_short_walk() -> None:
    """The weight of the second prediction before says which steps are of order 3."""

    def third(n: int, lower: bool) -> list[bool]:
        plan = DPMSolver(3, lower_order_final=lower).plan(LINEAR, respace(1000, n))
        return (plan.update[:, 0, 2] != 0).tolist()

    assert third(6, True) == [False, False, True, True, False, False]
    assert third(6, False) == [False, False, True, True, True, False]
    assert third(14, True)[-2:] == [False, False]
    assert third(15, True)[-2:] == [True, False]


def test_settings_that_play_no_part_are_none_and_not_in_the_label() -> None:
    assert DPMSolver(1, "heun") == DPMSolver(1, "midpoint")
    assert DPMSolver(2, "heun", False, True) == DPMSolver(2, "heun")
    assert dataclasses.replace(DPMSolver(1), order=3) == DPMSolver(3)
    labels = [row_of(s) for s in (DPMSolver(1, "heun"), DPMSolver(), DPMSolver(3, corrected=True))]
    assert labels == [
        "dpm_solver,order=1",
        "dpm_solver,order=2,solver_type=midpoint",
        "dpm_solver,order=3,solver_type=midpoint,lower_order_final=true,corrected=true",
    ]


def test_what_is_no_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="order must be one of 1, 2, 3, got 4"):
        DPMSolver(4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="solver_type must be one of midpoint, heun, got 'euler'"):
        DPMSolver(solver_type="euler")  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", [DPMSolver(2), DPMSolver(3), DPMSolver(3, corrected=True)], ids=row_of)
def test_plans_are_finite(sampler: DPMSolver) -> None:
    assert_finite(sampler)
