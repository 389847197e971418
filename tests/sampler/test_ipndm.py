"""iPNDM against an Adams-Bashforth method written in EDM's coordinates, and its order on Gaussian data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from tests.sampler.grids import MIXED, assert_finite, rho, uniform_rho
from tests.sampler.tables import end, function, numbers, predicted, slopes, states
from torch import Tensor

from ddpm_ip.sampler import DDIM, IPNDM, IPNDMV, Sampler, respace
from ddpm_ip.schedule import Schedule

TIMES = {"linspace": respace(1000, 10), "mixed": MIXED, "two": [700, 20], "one": [300]}
EQUAL = [[1], [3, -1], [23, -16, 5], [55, -59, 37, -9]]


def equal_steps(known: Sequence[float], s: float) -> list[float]:
    """Adams & Bashforth's, as in any textbook."""
    return [w / sum(EQUAL[len(known) - 1]) for w in EQUAL[len(known) - 1]]


def any_steps(known: Sequence[float], s: float) -> list[float]:
    """By moments: ``sum_j w_j (rho_j - rho_t)^k = (rho_s - rho_t)^k / (k + 1)``, what integration makes of powers."""
    back, h = (np.array(known) - known[0]) / (s - known[0]), 1.0
    powers = np.vander(back, increasing=True).T
    return list(np.linalg.solve(powers, [h / (k + 1) for k in range(len(known))]))


def adams_bashforth(order: int, variable: bool, times: Sequence[float], x: Tensor, kind: str) -> list[Tensor]:
    """``d x_bar / d rho = (x_bar - D) / rho``, in x_bar; the last step, to rho = 0, is Euler's."""
    schedule, found, slopes_, known = Schedule(), [], [], []
    x = x / schedule.level(times[0]).alpha
    for t, s in pairwise([*times, -1]):
        alpha, sigma = schedule.level(t)
        clean, _ = predicted(function(alpha * x, t), alpha * x, alpha, sigma, kind)
        slopes_, known = [(x - clean) / (sigma / alpha), *slopes_][:order], [sigma / alpha, *known][:order]
        target = 0.0 if s < 0 else rho(schedule, s)
        weights = [1.0] if s < 0 else (any_steps if variable else equal_steps)(known, target)
        x = x + (target - known[0]) * sum(w * d for w, d in zip(weights, slopes_, strict=False))
        found.append(schedule.level(s).alpha * x)
    return found


@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0", "pred_v"])
@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_walk_is_the_formulas(order: int, times: list[float], kind: str) -> None:
    x = numbers(2, 3)
    for sampler, variable in ((IPNDM(order=order), False), (IPNDMV(order=order), True)):
        ours = states(sampler.plan(Schedule(), times), x, kind=kind)
        for a, b in zip(ours, adams_bashforth(order, variable, times, x, kind), strict=True):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_order_1_is_ddim_and_the_defaults_are_order_4() -> None:
    x, times = numbers(2, 3), respace(1000, 10)
    ddim = states(DDIM().plan(Schedule(), times), x)
    for sampler in (IPNDM(order=1), IPNDMV(order=1)):
        for a, b in zip(states(sampler.plan(Schedule(), times), x), ddim, strict=True):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
    assert [IPNDM().order, IPNDMV().order, IPNDM().plan(Schedule(), times).memories] == [4, 4, 3]


def test_steps_of_equal_size_make_both_the_same() -> None:
    schedule = Schedule()
    times = uniform_rho(schedule, 12)
    plain, variable = (sampler.plan(schedule, times) for sampler in (IPNDM(), IPNDMV()))
    torch.testing.assert_close(plain.update, variable.update, atol=1e-8, rtol=1e-8)
    plain, variable = (sampler.plan(schedule, respace(1000, 12)) for sampler in (IPNDM(), IPNDMV()))
    assert (plain.update - variable.update).abs().max() > 0.1


@pytest.mark.parametrize("variance", [0.05, 0.4])
def test_the_variable_form_reaches_its_order(variance: float) -> None:
    """Evenly spaced in lambda, where steps shrink by the same ratio; from its own start, too: what the first steps do
    wrong at lambda = -3 is forgotten (measured at variance 0.05: 0.99, 1.96, 2.90, 3.81; from exact history the same
    to 0.02; at 0.4 order 4 reaches 3.83 from exact history, and 3.64 from its own start)."""
    for order in (1, 2, 3, 4):
        sampler = IPNDMV(order=order)
        assert min(slopes(sampler, (80, 160), variance, history=order)) > order - 0.2
        assert min(slopes(sampler, (80, 160), variance)) > order - 0.4


@pytest.mark.parametrize("variance", [0.05, 0.4])
def test_the_plain_form_falls_short_of_it(variance: float) -> None:
    """Its weights are those of equal steps: 1, 2, 2 and 2."""
    found = [slopes(IPNDM(order=order), (80, 160), variance, history=order)[0] for order in (1, 2, 3, 4)]
    assert found == pytest.approx([1, 2, 2, 2], abs=0.05)


def uniform_rho_slope(sampler: Sampler, variance: float, history: int) -> float:
    """The slope from 80 to 160 equal steps in rho, from 2 to 0.2."""
    schedule, errors = Schedule(), []
    for steps in (80, 160):
        made, exact = end(sampler.plan(schedule, uniform_rho(schedule, steps)), variance, steps, history)
        errors.append(abs(made - exact))
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize("variance", [0.05, 0.4])
def test_the_plain_form_reaches_its_order_where_steps_are_equal(variance: float) -> None:
    for order in (1, 2, 3, 4):
        assert uniform_rho_slope(IPNDM(order=order), variance, history=order) > order - 0.25


def test_a_start_of_order_1_is_seen_where_nothing_forgets_it() -> None:
    """From rho = 2 at variance 0.4, orders 3 and 4 end at 2.6 and 1.9: one Euler step is an error of h^2."""
    found = [uniform_rho_slope(IPNDM(order=order), 0.4, history=0) for order in (1, 2, 3, 4)]
    assert found == pytest.approx([1.0, 1.99, 2.56, 1.91], abs=0.05)


@pytest.mark.parametrize("sampler", [IPNDM(), IPNDMV()], ids=lambda s: s.name)
def test_every_plan_is_finite(sampler: Sampler) -> None:
    assert_finite(sampler)


@pytest.mark.parametrize("kind", [IPNDM, IPNDMV])
def test_an_order_that_does_not_exist_is_refused(kind: type) -> None:
    for order in (0, 5):
        with pytest.raises(ValueError, match="order must be one of 1, 2, 3, 4"):
            kind(order=order)
