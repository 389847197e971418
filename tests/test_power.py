"""Averages by power functions: the recurrence, the length, and those that are made of others, against brute force."""

import math

import pytest
import torch
from torch import nn

from ddpm_ip.ema import PowerEMA
from ddpm_ip.power import LONGEST, Profile, _products, combination, gamma_of, sigma_rel_of, weight_at

LENGTHS = [0.02, 0.05, 0.1, 0.2, LONGEST]
GRID = 50_000  # points of an integral


def density(sigma: float, end: float, total: float) -> torch.Tensor:
    """A profile at the middles of a grid on (0, total], from its definition."""
    s = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID * total
    power = (s / end) ** gamma_of(sigma)
    power[s > end] = 0
    return power / (power.sum() * total / GRID)


@pytest.mark.parametrize("sigma", LENGTHS)
def test_the_length_is_the_deviation_of_the_profile(sigma):
    p = density(sigma, 1.0, 1.0) / GRID
    s = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    mean = float(p @ s)
    assert math.sqrt(float(p @ (s - mean) ** 2)) == pytest.approx(sigma, rel=1e-4)
    assert sigma_rel_of(gamma_of(sigma)) == pytest.approx(sigma, rel=1e-12)


def test_no_other_lengths():
    for sigma in (0.0, -0.1, 0.3, math.nan):
        with pytest.raises(ValueError, match="sigma_rel must be above 0"):
            gamma_of(sigma)


@pytest.mark.parametrize("sigma", LENGTHS)
def test_the_average_is_the_weighted_sum_of_a_known_trajectory(sigma):
    """Step s counts by the integral of the profile from s - 1 to s; the start does not count at all."""
    network = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(network.weight, 1e6)  # forgotten at once
    average, gamma, values = PowerEMA(network, sigma), gamma_of(sigma), []
    for step in range(50):
        values.append(math.sin(0.3 * step) + 0.1 * step)
        nn.init.constant_(network.weight, values[-1])
        weight = average.weight(step)
        average.update(network, torch.tensor(weight, dtype=torch.float64) if step % 2 else weight)
        t = step + 1
        shares = [(s / t) ** (gamma + 1) - ((s - 1) / t) ** (gamma + 1) for s in range(1, t + 1)]
        assert sum(shares) == pytest.approx(1)
        assert float(average.network.weight) == pytest.approx(
            sum(w * v for w, v in zip(shares, values, strict=True)), 1e-9
        )


def test_its_weight_keeps_its_digits_in_a_long_run():
    """Where 1 - 1/t is almost 1: against the series of (1 - x)^k."""
    t, k = 10**7, gamma_of(0.1) + 1
    assert weight_at(gamma_of(0.1), t) == pytest.approx(k / t - k * (k - 1) / 2 / t**2, rel=1e-12)
    assert weight_at(gamma_of(0.1), 1) == 1.0


def test_integrals_of_products_against_sums_over_a_grid():
    each = [(s, t) for s in (0.05, 0.15) for t in (0.4, 1.0)]
    grid = torch.stack([density(s, t, 1.0) for s, t in each])
    gamma = torch.tensor([gamma_of(s) for s, _ in each], dtype=torch.float64)
    time = torch.tensor([t for _, t in each], dtype=torch.float64)
    torch.testing.assert_close(_products(gamma, time), grid @ grid.T / GRID, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("wanted", [0.03, 0.08, 0.15])
def test_factors_are_those_of_least_squares_over_all_steps(wanted):
    """The same problem in numbers of steps: profiles as columns, and the last factor fixed by the sum of one."""
    there = [Profile(sigma, 1000 * i) for i in range(1, 5) for sigma in (0.05, 0.10)]
    factors, error = combination(there, Profile(wanted, 4000))
    columns = torch.stack([density(p.sigma_rel, p.step, 4000.0) for p in there], 1)
    target = density(wanted, 4000, 4000.0)
    free = torch.linalg.lstsq(columns[:, :-1] - columns[:, -1:], (target - columns[:, -1])[:, None]).solution[:, 0]
    expected = [*free.tolist(), 1 - float(free.sum())]
    assert factors == pytest.approx(expected, rel=1e-3, abs=1e-4)
    left = torch.linalg.vector_norm(columns @ torch.tensor(expected, dtype=torch.float64) - target)
    assert error == pytest.approx(float(left / torch.linalg.vector_norm(target)), rel=1e-3)
    assert sum(factors) == pytest.approx(1, abs=1e-12)


def test_what_is_there_is_found_again():
    there = [Profile(sigma, 500 * i) for i in range(1, 9) for sigma in (0.05, 0.10)]
    factors, error = combination(there, Profile(0.05, 4000))
    assert factors == pytest.approx([0.0] * 14 + [1.0, 0.0], abs=1e-6)
    assert error < 1e-6


@pytest.mark.parametrize("wanted", [0.05, 0.13, 0.22])
@pytest.mark.parametrize("lengths", [(0.05, 0.0501, 0.1, 0.1001, 0.2), tuple(0.04 + 0.01 * k for k in range(16))])
def test_lengths_that_are_alike_do_not_magnify_rounding(lengths, wanted):
    """Unit errors of 10^-5 of each average come out as some 10^-5, though 80 profiles or more nearly depend."""
    there = [Profile(length, 5000 * i) for i in range(1, 21) for length in lengths]
    factors, error = combination(there, Profile(wanted, 100_000))
    assert math.sqrt(sum(x * x for x in factors)) < 4
    assert error < 1e-3


@pytest.mark.parametrize(("sigma", "bound"), [(0.03, 1e-3), (0.07, 1e-4), (0.08, 1e-4), (0.13, 1e-4), (0.2, 2e-3)])
def test_a_made_average_of_a_random_trajectory_is_the_one_that_was_not_kept(sigma, bound):
    """20 snapshots of two lengths of a random walk that slows down: the error as a share of the average itself."""
    torch.manual_seed(0)
    steps, every, size = 4000, 200, 16
    rate = 1 / torch.sqrt(torch.arange(1, steps + 1, dtype=torch.float64) + 50)
    walk = (torch.randn(steps, size, dtype=torch.float64) * rate[:, None]).cumsum(0)

    def kept(length, t):
        s = torch.arange(t + 1, dtype=torch.float64) / t
        shares = (s ** (gamma_of(length) + 1)).diff()
        return shares @ walk[:t]

    there = [Profile(length, t) for t in range(every, steps + 1, every) for length in (0.05, 0.10)]
    factors, error = combination(there, Profile(sigma, steps))
    made = sum(x * kept(p.sigma_rel, p.step) for x, p in zip(factors, there, strict=True))
    direct = kept(sigma, steps)
    assert error < 0.1
    assert float((made - direct).norm() / direct.norm()) < bound
