r"""Times on the grid by their noise level ``sigma / alpha``, between the schedule's ends; whole or fractional.

logsnr (the same as exponential):   log(sigma) evenly spaced, and so lambda = -log(sigma)
                                    (Lu et al. 2022, DPM-Solver, arXiv 2206.00927, appendix D)
karras,rho=7:                       sigma^(1/rho) evenly spaced (Karras et al. 2022, arXiv 2206.00364, equation 5)
beta,a=0.6,b=0.6:                   not by level: times at even quantiles of a beta distribution over 0..T-1, dense at
                                    both ends for a, b < 1 (Lee et al. 2024, arXiv 2407.12173)

Settings of each: ``whole=true`` rounds the times, for a network that takes only whole ones (one that says so, by
``whole_times``, is given the nearest whole time anyway). Settings of logsnr and karras:
``sigma_max``, ``sigma_min`` (of ``sigma / alpha``; by default the schedule's, but at most :data:`SIGMA_MAX`: the cosine
schedule ends at 2e4, where nothing but noise is left, and steps there would be wasted).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from ddpm_ip.schedule import Schedule

SIGMA_MAX = 160.0  # the linear schedule of 1000 times ends at 157, DPM-Solver's cut of the cosine one at 164

Level = Callable[..., list[float]]


def ends(schedule: Schedule, sigma_min: float | None, sigma_max: float | None) -> tuple[float, float]:
    """The highest and the lowest level.

    Raises:
        ValueError: they do not lie in order within the schedule.
    """
    least, most = (math.exp(-schedule.half_log_snr(t)) for t in (0, schedule.total_steps - 1))
    high, low = min(most, SIGMA_MAX) if sigma_max is None else sigma_max, least if sigma_min is None else sigma_min
    slack = 1 + 1e-9
    if not least / slack <= low <= high <= most * slack:
        raise ValueError(
            f"sigma_min {low:g} and sigma_max {high:g} must lie in order within the schedule's {least:g}..{most:g}"
        )
    return high, low


def even(first: float, last: float, steps: int) -> list[float]:
    """``steps`` evenly spaced numbers; of one alone the first."""
    return [first + i / max(steps - 1, 1) * (last - first) for i in range(steps)]


def times_at(schedule: Schedule, sigmas: Iterable[float]) -> list[float]:
    """The times of levels ``sigma / alpha``, in 0..T-1."""
    return [max(schedule.time(-math.log(sigma)), 0.0) for sigma in sigmas]


def logsnr(
    schedule: Schedule, steps: int, sigma_min: float | None = None, sigma_max: float | None = None
) -> list[float]:
    """``log sigma`` evenly spaced."""
    high, low = ends(schedule, sigma_min, sigma_max)
    return times_at(schedule, map(math.exp, even(math.log(high), math.log(low), steps)))


def karras(
    schedule: Schedule, steps: int, rho: float = 7.0, sigma_min: float | None = None, sigma_max: float | None = None
) -> list[float]:
    """``sigma^(1 / rho)`` evenly spaced; rho = 1 is even in sigma, a large one is logsnr.

    Raises:
        ValueError: rho is not in [1, 1000].
    """
    if not 1 <= rho <= 1000:
        raise ValueError(f"rho must lie in 1..1000, got {rho:g}")
    high, low = (sigma ** (1 / rho) for sigma in ends(schedule, sigma_min, sigma_max))
    return times_at(schedule, (root**rho for root in even(high, low, steps)))


def beta(schedule: Schedule, steps: int, a: float = 0.6, b: float = 0.6) -> list[float]:
    """Times at even quantiles of a beta distribution, from T - 1 to 0.

    Raises:
        ValueError: a or b is not in [0.1, 10].
    """
    if not (0.1 <= a <= 10 and 0.1 <= b <= 10):
        raise ValueError(f"a and b must lie in 0.1..10, got {a:g} and {b:g}")
    last = schedule.total_steps - 1
    return [last * quantile(p, a, b) for p in even(1.0, 0.0, steps)]


def quantile(p: float, a: float, b: float) -> float:
    """The p-quantile of a beta distribution, by halving :func:`share`."""
    low, high = 0.0, 1.0
    if p in (low, high):
        return p
    for _ in range(55):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle, a, b) < p else (low, middle)
    return (low + high) / 2


def share(x: float, a: float, b: float) -> float:
    """The share of a beta distribution below x: the regularised incomplete beta function.

    Its continued fraction (NIST Digital Library of Mathematical Functions, 8.17.22), from the end backwards.
    """
    if x > (a + 1) / (a + b + 2):
        return 1 - share(1 - x, b, a)
    if x == 0:
        return 0.0
    fraction = 1.0
    for m in range(60, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        fraction = 1 + even / (1 + odd / fraction)
    fraction = 1 - (a + b) * x / ((a + 1) * fraction)
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta) / (a * fraction)


LEVELS: dict[str, Level] = {"logsnr": logsnr, "exponential": logsnr, "karras": karras, "beta": beta}


def rounded(times: Sequence[float]) -> list[float]:
    """The nearest whole times."""
    return [float(round(t)) for t in times]
