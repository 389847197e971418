"""DEIS against quadrature of its equations, against diffusers, and its order on Gaussian data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DEISMultistepScheduler
from tests.sampler.grids import MIXED, assert_finite, rho
from tests.sampler.oracle import TYPES
from tests.sampler.tables import errors, function, numbers, predicted, states, theirs
from torch import Tensor

from ddpm_ip.sampler import DDIM, DEIS, respace
from ddpm_ip.schedule import Schedule

EVEN = [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
FINE = Schedule(10_000, "linear", 1e-5, 2e-3)  # log alpha_bar is linear between whole times, which orders above 3 see


def coefficients(schedule: Schedule, known: Sequence[float], s: float) -> list[float]:
    """``int l_j(t) (d rho / d t) d t = [l_j rho] - int l_j' rho d t``, by Simpson's rule on each whole interval."""
    log_alpha_bar = np.concatenate(([0.0], schedule.alpha_bars().log().numpy()))

    def rho_at(t: np.ndarray) -> np.ndarray:
        return np.sqrt(np.expm1(-np.interp(t, np.arange(-1, schedule.total_steps), log_alpha_bar)))

    found = []
    for j in range(len(known)):
        others = [t for k, t in enumerate(known) if k != j]
        l_j = np.poly1d(np.atleast_1d(np.poly(others)), r=False) / math.prod(known[j] - t for t in others)
        total = l_j(s) * rho_at(np.array(s)) - l_j(known[0]) * rho_at(np.array(known[0]))
        for a, b in pairwise([s, *range(math.floor(s) + 1, math.ceil(known[0])), known[0]]):
            t = np.linspace(a, b, 129)
            simpson = np.array([1.0, *[4.0, 2.0] * 63, 4.0, 1.0])
            total += (simpson * l_j.deriv()(t) * rho_at(t)).sum() * (b - a) / 128 / 3
        found.append(float(total))
    return found


def exponential_integrator(schedule: Schedule, order: int, times: Sequence[float], x: Tensor) -> list[Tensor]:
    """Equation 14, with a transition of ``alpha_s / alpha_t``; the last step, to the clean image, is the prediction."""
    found, known, eps = [], [], []
    for t, s in pairwise([*times, -1]):
        alpha, sigma = schedule.level(t)
        known, eps = [t, *known][:order], [function(x, t), *eps][:order]
        if s < 0:
            x = predicted(eps[0], x, alpha, sigma)[0]
        else:
            c = coefficients(schedule, known, s)
            x = schedule.level(s).alpha * (x / alpha + sum(w * e for w, e in zip(c, eps, strict=True)))
        found.append(x)
    return found


@pytest.mark.parametrize("times", [EVEN, MIXED, [700, 20]], ids=["even", "mixed", "two"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_t_form_is_the_paper_s_integral(order: int, times: list[float]) -> None:
    x, schedule = numbers(2, 3), Schedule()
    ours = states(DEIS(order).plan(schedule, times), x)
    for a, b in zip(ours, exponential_integrator(schedule, order, times, x), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("shape", ["linear", "cosine", "quad", "const"])
def test_the_weights_are_exact_to_ten_digits(shape: str) -> None:
    """On every schedule, at both ends and between them: alpha_bar falls a thousandfold in cosine's last step."""
    schedule = Schedule(1000, shape)  # type: ignore[arg-type]
    for known, s in (([998.5, 999], 997.0), ([500.0, 600, 999], 480.5), ([30.0, 100, 300, 500], 0), ([3.0, 8], 0.25)):
        expected = coefficients(schedule, known, s)
        h = rho(schedule, s) - rho(schedule, known[0])
        found = [h * w for w in DEIS()._weights(schedule, known, s)]
        assert found == pytest.approx(expected, rel=1e-10, abs=1e-10 * max(map(abs, expected)))


@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0", "pred_v"])
@pytest.mark.parametrize("times", [EVEN, MIXED, respace(1000, 20)], ids=["even", "mixed", "20"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_log_rho_form_is_diffusers_but_for_the_clean_step(order: int, times: list[float], kind: str) -> None:
    """diffusers' DEIS stops at the level of its time 0, and leaves that noise; here the last step is to the image."""
    schedule, x = Schedule(), numbers(2, 3)
    for lower in (False, True) if len(times) < 15 else (False,):
        scheduler = DEISMultistepScheduler(
            1000, 1e-4, 0.02, "linear", solver_order=order, prediction_type=TYPES[kind], lower_order_final=lower
        )
        found = theirs(scheduler, schedule, times, x, kind=kind, last=0.005)
        ours = states(DEIS(order, "log_rho", lower).plan(schedule, times), x, kind=kind)
        for a, b in zip(ours[:-1], found[:-1], strict=True):
            torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)
        before, t = ours[-2], times[-1]
        torch.testing.assert_close(ours[-1], predicted(function(before, t), before, *schedule.level(t), kind)[0])


def test_order_1_is_ddim() -> None:
    x = numbers(2, 3)
    for sampler in (DEIS(1), DEIS(1, "log_rho")):
        for a, b in zip(*(states(s.plan(Schedule(), EVEN), x) for s in (sampler, DDIM())), strict=True):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def slope(sampler: DEIS, variance: float, history: int) -> float:
    coarse, fine = errors(sampler, (80, 160), variance, history, FINE)
    return math.log2(coarse / fine)


@pytest.mark.parametrize(("fit", "variance"), [("t", 0.05), ("t", 0.4), ("log_rho", 0.01), ("log_rho", 10.0)])
def test_the_order_is_reached(fit: str, variance: float) -> None:
    """Measured for t at variance 0.05 and 0.4: 0.99, 1.96, 2.92, 3.87 and 0.99, 1.97, 2.96, 3.99. (For log_rho and
    uniform lambda the error of order 3 passes through zero between these variances.)"""
    for order in (2, 3, 4):
        assert slope(DEIS(order, fit), variance, history=order) > order - 0.2  # type: ignore[arg-type]


def test_every_plan_is_finite() -> None:
    assert_finite(DEIS(4))
    assert_finite(DEIS(4, "log_rho", lower_order_final=True))


def test_lower_order_final_is_one_order_less_a_step_towards_the_end() -> None:
    plan = DEIS(4, lower_order_final=True).plan(Schedule(), EVEN)
    assert (plan.update[:, 0, 1:4] != 0).sum(1).tolist() == [0, 1, 2, 3, 3, 3, 3, 2, 1, 0]
    plan = DEIS(4).plan(Schedule(), EVEN)
    assert (plan.update[:, 0, 1:4] != 0).sum(1).tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 3, 0]


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="order must be one of 1, 2, 3, 4"):
        DEIS(5)
    with pytest.raises(ValueError, match="fit must be one of t, log_rho"):
        DEIS(3, "rho")  # type: ignore[arg-type]
