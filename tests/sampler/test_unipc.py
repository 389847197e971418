"""UniPC against diffusers, against quadrature, and on Gaussian data."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from tests.sampler.exponential import COSINE, GRIDS, LINEAR, assert_same, grids, missed, on_parabola
from tests.sampler.grids import assert_finite
from tests.sampler.oracle import ROWS, SHAPE, TYPES, network
from tests.sampler.tables import end, numbers, states, theirs, uniform_lambda

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.run.record import row_label
from ddpm_ip.sampler import UniPC, respace, walk
from ddpm_ip.sampler.correction import Clip
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.sampler.unipc import phi

SAMPLERS = [UniPC(order, solver_type) for order in (1, 2, 3) for solver_type in ("bh1", "bh2")]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_it_is_diffusers_in_float64(sampler: UniPC, kind: str) -> None:
    """But for the clean image where theirs is no number: infinite h times zero. It is the prediction itself."""
    x = numbers(2, 3)
    for times, schedule in product(grids(kind), (LINEAR, COSINE)):
        others = UniPCMultistepScheduler(
            solver_order=sampler.order, solver_type=sampler.solver_type, prediction_type=TYPES[kind]
        )
        made = states(sampler.plan(schedule, times), x, kind=kind)
        expected = theirs(others, schedule, times, x, kind=kind)
        assert_same(made[:-1], expected[:-1])
        if sampler.solver_type == "bh2":
            assert_same(made[-1:], expected[-1:])
        else:
            assert expected[-1].isnan().all()


def test_the_order_may_stay_until_the_clean_image() -> None:
    """Theirs cannot make that step with order 3, so its last sigma is not 0; the steps before know nothing of it."""
    x = numbers(2, 3)
    for times in GRIDS:
        others = UniPCMultistepScheduler(solver_order=3, lower_order_final=False)
        made = states(UniPC(3, lower_order_final=False).plan(LINEAR, times), x)
        assert_same(made[:-1], theirs(others, LINEAR, times, x, last=0.001)[:-1])


def slope(sampler: UniPC, variance: float, exact_start: bool) -> float:
    """From 80 to 160 steps, see :func:`tests.sampler.tables.slopes`.

    A sum that a memory holds cannot be made exact from outside, so the history is what steps of ``h^2`` make: of these
    even order 1 leaves no more than ``h^5``.
    """
    found = []
    for n in (80, 160):
        begin = [-3 + k * (6 / n) ** 2 for k in range(sampler.order)] if exact_start else [-3.0]
        lambdas = [*begin, *(begin[-1] + i * (3 - begin[-1]) / n for i in range(1, n + 1))]
        plan = sampler.plan(LINEAR, [LINEAR.time(v) for v in lambdas])
        made, exact = end(plan, variance, plan.visits - 1)
        found.append(abs(made - exact))
    return math.log2(found[0] / found[1])


@pytest.mark.parametrize("variance", [0.05, 0.4])
@pytest.mark.parametrize("exact_start", [True, False])
def test_order_p_converges_with_p_plus_1(exact_start: bool, variance: float) -> None:
    """Own starts are of order 2 or 3, which is not seen yet at 160 steps: it is one small error."""
    for sampler in [UniPC(s.order, s.solver_type, lower_order_final=False) for s in SAMPLERS]:
        found = slope(sampler, variance, exact_start)
        assert sampler.order + 0.8 < found < sampler.order + 1.2, (sampler, found)


def test_a_parabola_is_met_exactly_by_order_3_and_in_what_order_2_corrects() -> None:
    """Of order 2 the predicted state is off, and the corrected one, where the next step starts, is not."""
    times = uniform_lambda(LINEAR, 20)
    times[5] = (times[4] + 2 * times[6]) / 3  # not uniform
    third = on_parabola(UniPC(3, lower_order_final=False).plan(LINEAR, times), LINEAR)
    assert max(map(abs, missed(third[:-1], LINEAR, times)[4:])) < 1e-12

    plan = UniPC(2).plan(LINEAR, times)
    predicted = on_parabola(plan, LINEAR)
    assert min(map(abs, missed(predicted[:-1], LINEAR, times)[4:])) > 1e-5
    corrected, x0 = [predicted[0]], [0.3 + 0.5 * v - 0.7 * v**2 for v in map(LINEAR.half_log_snr, times)]
    for i in range(1, plan.visits - 1):  # undoes the predictor of order 2, 2M
        kept = LINEAR.level(times[i + 1]).sigma / LINEAR.level(times[i]).sigma
        h, h_before = (LINEAR.half_log_snr(times[k + 1]) - LINEAR.half_log_snr(times[k]) for k in (i, i - 1))
        added = -math.expm1(-h) * (x0[i] + h / h_before / 2 * (x0[i] - x0[i - 1]))
        corrected.append((predicted[i + 1] - LINEAR.level(times[i + 1]).alpha * added) / kept)
    assert max(map(abs, missed(corrected, LINEAR, times[:-1])[2:])) < 1e-11


@pytest.mark.parametrize("k", range(5))
@pytest.mark.parametrize("z", [-3.0, -1.0, -0.999, -1e-3, -1e-9])
def test_phi_is_the_integral(k: int, z: float) -> None:
    """``phi_k(z) = int_0^1 exp((1 - u) z) u^(k - 1) / (k - 1)! du``."""
    if k == 0:
        assert phi(0, z) == pytest.approx(math.exp(z), rel=1e-15)
        return
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    integral = float((((1 - u) * z).exp() * u ** (k - 1)).mean()) / math.factorial(k - 1)
    assert phi(k, z) == pytest.approx(integral, rel=1e-8)


def test_a_change_of_the_state_reaches_the_sum_that_waits() -> None:
    """The corrected state starts from what the memory holds, so a change of x alone would be forgotten."""
    plan = UniPC(3).plan(LINEAR, respace(1000, 8))
    assert plan.carry.tolist() == [[1, 1, 0, 0]] * 7 + [[1, 0, 0, 0]]


def test_the_walk_in_float32_with_clipping() -> None:
    """The memories are set before they are looked at, also by one and by two steps."""
    denoiser = Denoiser(network, LINEAR)
    for sampler, n in product(SAMPLERS, (1, 2, 4)):
        *_, last = walk(sampler.plan(LINEAR, respace(1000, n)), denoiser, 3, ROWS, SHAPE, [Clip()])
        assert last.xt.isfinite().all()
        assert float(last.xt.abs().max()) <= 1


def test_settings() -> None:
    assert UniPC(2, lower_order_final=False) == UniPC()
    assert row_label(Sampling(UniPC()).row()) == "unipc,order=2,solver_type=bh2"
    assert (UniPC(3).plan(LINEAR, [5, 4]).memories, UniPC(1).plan(LINEAR, [5, 4]).memories) == (3, 1)
    with pytest.raises(ValueError, match="solver_type must be one of bh1, bh2, got 'bh3'"):
        UniPC(2, "bh3")  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_plans_are_finite(sampler: UniPC) -> None:
    assert_finite(sampler)
