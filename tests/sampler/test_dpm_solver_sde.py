"""SDE-DPM-Solver++ against diffusers, against ancestral sampling, and on Gaussian data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from tests.sampler.exponential import COSINE, LINEAR, assert_same, grids, missed, on_parabola
from tests.sampler.grids import assert_finite
from tests.sampler.oracle import TYPES, gaussian_moments
from tests.sampler.tables import numbers, slopes, states, theirs, uniform_lambda

from ddpm_ip.sampler import Ancestral, DPMSolverSDE, Plan, Rows, respace
from ddpm_ip.sampler.dpm_solver import SolverType
from ddpm_ip.schedule import Schedule

SAMPLERS = [DPMSolverSDE(1), DPMSolverSDE(2), DPMSolverSDE(2, "heun"), DPMSolverSDE(3)]


def scheduler(order: int, solver_type: SolverType = "midpoint", kind: str = "pred_eps") -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(
        solver_order=order, prediction_type=TYPES[kind], algorithm_type="sde-dpmsolver++", solver_type=solver_type,
        final_sigmas_type="zero",
    )  # fmt: skip


@dataclass(frozen=True)
class Theirs:
    """SDE-3M with diffusers' sign: the weight of ``D_2`` is less by ``alpha_s``."""

    name = "theirs"

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        plan, forms = DPMSolverSDE(3).plan(schedule, times), Rows(schedule, 2)
        update, lambdas = plan.update.clone(), [schedule.half_log_snr(t) for t in times]
        last = len(times) - (2 if len(times) < 15 else 1)
        for i in range(2, last):
            h2, h1, h = (lambdas[k + 1] - lambdas[k] for k in (i - 2, i - 1, i))
            latest, earlier = h / h1 * (forms.x0 - forms.m[0]), h / h2 * (forms.m[0] - forms.m[1])
            d2 = (latest - earlier) / ((h1 + h2) / h)
            update[i, 0] -= schedule.level(times[i + 1]).alpha * d2
        return plan._replace(update=update)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_it_is_diffusers_in_float64_but_for_a_sign_of_order_3(order: int, kind: str) -> None:
    x = numbers(2, 3)
    types: list[SolverType] = ["midpoint", "heun"]
    for times, schedule, solver_type in product(grids(kind), (LINEAR, COSINE), types):
        noises = numbers(len(times), 2, 3, seed=1)
        ours = DPMSolverSDE(order, solver_type).plan(schedule, times)  # type: ignore[arg-type]
        if order == 3 and len(times) >= 5:
            if solver_type == "heun":
                continue  # the test's own form has midpoint
            ours = Theirs().plan(schedule, times)
        others = theirs(scheduler(order, solver_type, kind), schedule, times, x, noises, kind=kind)
        assert_same(states(ours, x, noises, kind=kind), others)


def test_order_1_is_ancestral_with_the_small_variance() -> None:
    for schedule, n in product((LINEAR, COSINE), (1, 2, 10, 1000)):
        times = respace(1000, n)
        a, b = DPMSolverSDE(1).plan(schedule, times), Ancestral("fixed_small").plan(schedule, times)
        torch.testing.assert_close(a.update, b.update, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("variance", [0.05, 0.4])
def test_orders_are_seen_in_the_variance(variance: float) -> None:
    """From their own starts: there is no exact history of what is random."""
    assert all(0.9 < s < 1.1 for s in slopes(DPMSolverSDE(1), variance=variance))
    for sampler in SAMPLERS[1:]:
        assert all(1.8 < s < 2.3 for s in slopes(sampler, variance=variance))
    assert all(s < 1.2 for s in slopes(Theirs(), variance=variance)), "diffusers' sign leaves order 1"


def test_the_sign_is_that_of_the_integral() -> None:
    """With a parabola for x_0, ``D_2`` is half of ``h^2 x_0''``: ours counts half of the bend, theirs is far off."""
    times = uniform_lambda(LINEAR, 20)

    def found(sampler: DPMSolverSDE | Theirs, c: float = -0.7) -> list[float]:
        return missed(on_parabola(sampler.plan(LINEAR, times), LINEAR, c)[:-1], LINEAR, times, 2, c)[2:]

    assert max(map(abs, found(DPMSolverSDE(3), c=0))) < 1e-12, "a straight line is met exactly"
    for a, b, c in zip(*map(found, (DPMSolverSDE(3), Theirs(), DPMSolverSDE(2, "heun"))), strict=True):
        assert abs(a) < abs(c) < abs(b), "theirs is further off than order 2"


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_the_variance_is_the_papers(sampler: DPMSolverSDE) -> None:
    """The walk on Gaussian data, followed as a sum of independent normal numbers, one axis each."""
    variance, times = 0.3, [999, 800.5, 640, 400, 250, 100, 30, 4]
    axes = torch.eye(1 + len(times), dtype=torch.float64)
    x, seen, lambdas = axes[0], [], []
    for i, (t, s) in enumerate(zip(times, [*times[1:], -1.0], strict=True)):
        (a_t, s_t), (a_s, s_s) = LINEAR.level(t), LINEAR.level(s)
        seen.append(a_t * variance / (a_t**2 * variance + s_t**2) * x)
        lambdas.append(math.log(a_t / s_t))
        if s < 0:
            x = seen[-1]
            break
        h = math.log(a_s / s_s) - lambdas[-1]
        shrink = math.exp(-2 * h)
        x = s_s / s_t * math.exp(-h) * x + a_s * (1 - shrink) * seen[i] + s_s * math.sqrt(1 - shrink) * axes[i + 1]
        order = min(sampler.order, i + 1, len(times) - i)
        r0 = (lambdas[i] - lambdas[i - 1]) / h if order > 1 else 0
        d1 = (seen[i] - seen[i - 1]) / r0 if order > 1 else 0 * x
        of_slope = 1 - (1 - shrink) / (2 * h)
        if order == 3:
            r1 = (lambdas[i - 1] - lambdas[i - 2]) / h
            earlier = (seen[i - 1] - seen[i - 2]) / r1
            d2 = (d1 - earlier) / (r0 + r1)
            x = x + a_s * (of_slope * (d1 + r0 * d2) + ((1 - shrink - 2 * h) / (2 * h) ** 2 + 0.5) * d2)
        else:
            x = x + a_s * (of_slope if sampler.solver_type == "heun" else (1 - shrink) / 2) * d1
    found = gaussian_moments(sampler.plan(LINEAR, times), 0.0, variance)[1]
    assert found == pytest.approx(float(x @ x), rel=1e-10)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_plans_are_finite_and_the_last_step_adds_no_noise(sampler: DPMSolverSDE) -> None:
    assert_finite(sampler)


def test_settings_that_play_no_part_are_none() -> None:
    assert DPMSolverSDE(1, "heun") == DPMSolverSDE(1)
    assert DPMSolverSDE(2, "heun", False) == DPMSolverSDE(2, "heun")
    with pytest.raises(ValueError, match="order must be one of 1, 2, 3, got 0"):
        DPMSolverSDE(0)  # type: ignore[arg-type]
