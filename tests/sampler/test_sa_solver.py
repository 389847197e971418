"""SA-Solver against diffusers, and against moments derived from the paper's equations on Gaussian data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch
from diffusers import SASolverScheduler
from tests.sampler.oracle import TYPES, gaussian_moments
from tests.sampler.tables import numbers, slopes, states, theirs

from ddpm_ip.sampler import DPMSolver, SASolver, respace
from ddpm_ip.schedule import Schedule

GRIDS = [
    [999, 850, 700, 500, 300, 200, 100, 50, 20, 0],
    [999, 998, 600, 599, 2],
    respace(1000, 20, "uniform-trailing"),
    [640, 310],
]
ORDERS = list(product((1, 2, 3), (1, 2, 3, 4)))


@pytest.mark.parametrize("times", GRIDS, ids=len)
@pytest.mark.parametrize(("predictor", "corrector"), ORDERS)
def test_the_walk_equals_diffusers(predictor: int, corrector: int, times: list[int]) -> None:
    """But for its end: theirs stops at the smallest sigma, ours at the clean prediction."""
    schedule, x, noises = Schedule(), numbers(2, 3), numbers(len(times), 2, 3, seed=1)
    kind = ["pred_eps", "pred_x0", "pred_v"][(predictor + corrector) % 3]
    scheduler = SASolverScheduler(
        1000, 1e-4, 0.02, "linear", predictor_order=predictor, corrector_order=corrector, prediction_type=TYPES[kind]
    )
    expected = theirs(scheduler, schedule, times, x, noises, kind=kind)
    plan = SASolver(predictor, corrector).plan(schedule, times)  # type: ignore[arg-type]
    assert plan.memories == max(predictor - 1, corrector - 2) + 1
    found = states(plan, x, noises, kind=kind)
    for a, b in zip(found[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.3])
def test_other_windows_equal_diffusers(tau: float) -> None:
    schedule, times, x, noises = Schedule(), GRIDS[0], numbers(2, 3), numbers(10, 2, 3, seed=1)
    for low, high in ((0, 1), (0.3, 0.7), (0.5, 0.5)):
        given = SASolverScheduler(
            1000, 1e-4, 0.02, "linear", predictor_order=3, corrector_order=3,
            tau_func=lambda t, low=low, high=high: tau if low * 1000 <= t <= high * 1000 else 0,
        )  # fmt: skip
        plan = SASolver(3, 3, tau, low, high).plan(schedule, times)
        for a, b in zip(states(plan, x, noises)[:-1], theirs(given, schedule, times, x, noises)[:-1], strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def test_order_2_without_noise_and_corrector_is_dpm_solver_by_heun() -> None:
    """The exact linear term: the exponential Adams-Bashforth method, which has several names."""
    times = GRIDS[0]
    ours = SASolver(2, 0, 0.0, linear_term="exact").plan(Schedule(), times).update
    theirs_ = DPMSolver(order=2, solver_type="heun").plan(Schedule(), times).update
    torch.testing.assert_close(ours[:, 0], theirs_[:, 0], atol=1e-12, rtol=1e-12)


def adams(alpha: float, a: float, start: float, end: float, nodes: Sequence[float], published: bool) -> list[float]:
    """``a alpha int_start^end exp(-a (end - v)) l_i(v) dv``, the paper's b_i, by numpy's quadrature."""
    points, weights = np.polynomial.legendre.leggauss(60)
    v = (start + end) / 2 + (end - start) / 2 * points
    kernel = a * alpha * (end - start) / 2 * weights * np.exp(-a * (end - v))
    found = []
    for i, node in enumerate(nodes):
        others = [n for k, n in enumerate(nodes) if k != i]
        found.append(float((kernel * np.prod([(v - n) / (node - n) for n in others], axis=0)).sum()))
    if published and len(nodes) == 2:  # the integral of (v - start) becomes h^2 / 2, divided by what lies between
        linear = float((kernel * (v - start)).sum())
        more = (a * alpha * (end - start) ** 2 / 2 - linear) / (nodes[0] - nodes[1])
        found = [found[0] + more, found[1] - more]
    return found


def moments(sampler: SASolver, schedule: Schedule, times: Sequence[int], variance: float) -> float:
    """The variance of the samples, from the equations: each quantity as weights of ``x_T`` and of each step's noise."""
    n = len(times)
    x, stay, noise = np.eye(n + 1)[0], np.zeros(n + 1), np.eye(n + 1)[1:]
    lambdas = [schedule.half_log_snr(t) for t in times]
    seen: list[np.ndarray] = []  # predictions, the last first
    b: list[float] = []
    for i, t in enumerate(times):
        alpha, sigma = schedule.level(t)
        seen.insert(0, alpha * variance / (alpha**2 * variance + sigma**2) * x)
        if i > 0 and sampler.corrector_order > 0:
            x = stay + sum(w * p for w, p in zip(b, seen, strict=False))
        if i == n - 1:
            return float((seen[0] ** 2).sum())
        after, h = schedule.level(times[i + 1]), lambdas[i + 1] - lambdas[i]
        tau = sampler.tau if sampler.tau_from <= t / 1000 <= sampler.tau_to else 0.0
        stay = after.sigma / sigma * math.exp(-(tau**2) * h) * x
        stay = stay + after.sigma * math.sqrt(1 - math.exp(-2 * tau**2 * h)) * noise[i]
        ends, published = (lambdas[i], lambdas[i + 1]), sampler.linear_term == "published"
        p = min(sampler.predictor_order, i + 1, n - i)
        c = min(sampler.corrector_order, i + 2, n - i + 1)
        x = stay + sum(
            w * z
            for w, z in zip(
                adams(after.alpha, 1 + tau**2, *ends, lambdas[i : i - p if i >= p else None : -1], published), seen,
                strict=False,
            )
        )  # fmt: skip
        nodes = lambdas[i + 1 : i + 1 - c if i + 1 >= c else None : -1]
        b = adams(after.alpha, 1 + tau**2, *ends, nodes, published)
    raise AssertionError


@pytest.mark.parametrize("linear_term", ["published", "exact"])
@pytest.mark.parametrize("orders", [(1, 0), (2, 0), (3, 0), (1, 1), (2, 2), (3, 3), (3, 4), (1, 4)])
def test_gaussian_moments_follow_from_the_equations(orders: tuple[int, int], linear_term: str) -> None:
    for shape, variance in (("linear", 0.05), ("cosine", 0.4)):
        schedule, times = Schedule(1000, shape), respace(1000, 12)  # type: ignore[arg-type]
        for tau in ((1.0, 0.2, 0.8), (0.7, 0.0, 1.0), (0.0, 0.2, 0.8)):
            sampler = SASolver(*orders, *tau, linear_term=linear_term)  # type: ignore[arg-type]
            expected = moments(sampler, schedule, times, variance)
            found = gaussian_moments(sampler.plan(schedule, times), 0.0, variance)[1]
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("variance", [0.05, 0.4])
def test_orders_are_seen(variance: float) -> None:
    """Without noise as high as the predictor's from an own start; with noise the weak order is 2 at most."""

    def seen(*settings: float) -> float:
        return min(slopes(SASolver(*settings), variance=variance))  # type: ignore[arg-type]

    assert seen(1, 0, 0.0) > 0.8
    assert seen(2, 2, 0.0) > 1.8
    assert seen(3, 3, 0.0) > 2.6  # 3.1 and 2.7: an own start, whose first steps are of lower order
    assert seen(1, 0, 1.0, 0.0, 1.0) > 0.8
    assert seen(2, 2, 1.0, 0.0, 1.0) > 1.8
    assert 1.8 < seen(3, 3, 1.0, 0.0, 1.0) < 2.6


def test_the_exact_linear_term_is_the_better_one_in_few_steps() -> None:
    """Standard deviation of the samples over that of the data, 8 steps even in lambda: 1.87 and 1.14."""
    schedule = Schedule()
    ends = schedule.half_log_snr(999), schedule.half_log_snr(0)
    times = [schedule.time(ends[0] + i / 7 * (ends[1] - ends[0])) for i in range(8)]
    published, exact = (
        math.sqrt(gaussian_moments(SASolver(linear_term=kind).plan(schedule, times), 0.0, 0.25)[1] / 0.25)
        for kind in ("published", "exact")
    )
    assert published > 1.5
    assert 0.9 < exact < 1.2


def test_the_change_of_a_correction_reaches_the_corrected_state() -> None:
    plan = SASolver(3, 4).plan(Schedule(), GRIDS[0])
    assert plan.carry[:-1].tolist() == [[1, 1, 0, 0]] * 9
    assert plan.update[-1, 0].tolist() == [0, 0, 0, 0, 1, 0, 0], "the last step is of order 1"


@pytest.mark.parametrize("settings", [{"tau": -1.0}, {"tau": math.inf}, {"tau_from": 0.9}, {"tau_to": 1.5}], ids=str)
def test_settings_that_cannot_be(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="|".join(settings)):
        SASolver(**settings)  # type: ignore[arg-type]
