"""Algorithms 1 and 2 of Karras et al. 2022 (arXiv 2206.00364), in their own coordinates ``x_bar`` and ``rho``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from tests.sampler.tables import function, numbers, predicted, states
from torch import Tensor

from ddpm_ip.sampler import Euler, Heun, Plan
from ddpm_ip.schedule import Schedule


def time_of(schedule: Schedule, level: float) -> float:
    """The time of a rho, by interpolation in log alpha_bar."""
    falling = np.concatenate(([0.0], schedule.alpha_bars().log().numpy()))
    times = np.arange(-1, schedule.total_steps)
    return float(np.interp(math.log1p(level**2), -falling, times))


def levels(schedule: Schedule, churn: Euler | Heun, times: Sequence[float]) -> list[tuple[float, float]]:
    """``(t_i, t^_i)`` in the paper's words, where t is rho; no level lies above that of T - 1."""
    rhos = [math.sqrt(1 / schedule.alpha_bar(t) - 1) for t in times]
    cap = math.sqrt(1 / schedule.alpha_bar(schedule.total_steps - 1) - 1)
    most = math.inf if churn.s_tmax is None else churn.s_tmax
    found = []
    for rho in rhos:
        gamma = min(churn.s_churn / len(times), math.sqrt(2) - 1) if churn.s_tmin <= rho <= most else 0.0
        found.append((rho, min(rho * (1 + gamma), cap)))
    return [*found, (0.0, 0.0)]


def algorithm_2(
    schedule: Schedule, sampler: Euler | Heun, times: Sequence[float], x: Tensor, noises: Tensor, kind: str
) -> Iterator[tuple[float, Tensor]]:
    """``(t^_i, x^_i)`` for each i, the last of which is ``(0, image)``; ``x`` is x_bar at times[0]."""

    def denoised(x_bar: Tensor, rho: float) -> Tensor:
        alpha = 1 / math.sqrt(1 + rho**2)
        output = function(alpha * x_bar, time_of(schedule, rho))
        return predicted(output, alpha * x_bar, alpha, alpha * rho, kind)[0]

    for ((t, t_hat), (t_next, _)), noise in zip(pairwise(levels(schedule, sampler, times)), noises, strict=True):
        x_hat = x + math.sqrt(t_hat**2 - t**2) * sampler.s_noise * noise
        yield t_hat, x_hat
        d = (x_hat - denoised(x_hat, t_hat)) / t_hat
        x = x_hat + (t_next - t_hat) * d
        if isinstance(sampler, Heun) and t_next > 0:
            d_next = (x - denoised(x, t_next)) / t_next
            x = x_hat + (t_next - t_hat) * (d + d_next) / 2
    yield 0.0, x


def variance_of(schedule: Schedule, sampler: Euler | Heun, times: Sequence[float], data: float) -> float:
    """The variance that algorithm 2 ends with on data N(0, data), where ``D(x; t) = data / (data + t^2) x``."""
    rho = levels(schedule, sampler, times)[0][0]
    variance = 1 + rho**2  # of x_bar, where x_T is N(0, 1)
    for (t, t_hat), (t_next, _) in pairwise(levels(schedule, sampler, times)):
        variance += (t_hat**2 - t**2) * sampler.s_noise**2
        slope, h = t_hat / (data + t_hat**2), t_next - t_hat
        factor = 1 + h * slope
        if isinstance(sampler, Heun) and t_next > 0:
            factor = 1 + h * (slope + t_next / (data + t_next**2) * factor) / 2
        variance *= factor**2
    return variance


def assert_equal(sampler: Euler | Heun, schedule: Schedule, times: Sequence[float], kind: str = "pred_eps") -> Plan:
    """Our table follows algorithm 2 with the same noise."""
    x, noises, plan = numbers(2, 3), numbers(len(times), 2, 3, seed=1), sampler.plan(schedule, times)
    found = list(algorithm_2(schedule, sampler, times, x, noises, kind))
    alphas = [1 / math.sqrt(1 + rho**2) for rho, _ in found]
    ends = plan.state.nonzero().flatten().tolist()
    rows = torch.zeros(plan.visits, 2, 3, dtype=torch.float64)
    rows[ends[:-1]] = noises[1:]  # a step ends with the noise of the next one
    ours = states(plan, alphas[0] * found[0][1] / plan.start, rows, kind=kind)
    for row, alpha, (_, expected) in zip(ends, alphas[1:], found[1:], strict=True):
        torch.testing.assert_close(ours[row], alpha * expected, atol=1e-8, rtol=1e-8)
    return plan
