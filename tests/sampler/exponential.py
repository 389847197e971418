"""What the exponential integrators (DPM-Solver++, its SDE, UniPC) have in common in tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from tests.sampler.tables import numbers, states
from torch import Tensor

from ddpm_ip.sampler import Plan
from ddpm_ip.schedule import Schedule

LINEAR, COSINE = Schedule(), Schedule(1000, "cosine")
GRIDS: list[list[float]] = [
    [999, 850, 700, 500, 300, 200, 100, 50, 20, 0],
    [998.5, 720.5, 300.25, 50, 3.5],
    list(range(980, -1, -49)),  # 20 of them: too many for an order that is lowered at the end
    [800, 100], [700],
]  # fmt: skip


def grids(kind: str) -> list[list[float]]:
    """All of them for one kind of prediction, one for the others."""
    return GRIDS if kind == "pred_eps" else GRIDS[:1]


def assert_same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """To rounding in float64, relative to the size of the state."""
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11 * (1 + float(b.abs().max())))


def on_parabola(plan: Plan, schedule: Schedule, c: float = -0.7) -> list[Tensor]:
    """The start and the state after each row of a walk with ``x_0 = 0.3 + 0.5 lambda + c lambda^2``."""

    def network(x: Tensor, t: float) -> Tensor:
        half_log_snr = schedule.half_log_snr(t)
        return torch.zeros_like(x) + 0.3 + 0.5 * half_log_snr + c * half_log_snr**2

    return [numbers(1), *states(plan, numbers(1), network=network, kind="pred_x0")]


def missed(
    made: Sequence[Tensor], schedule: Schedule, times: Sequence[float], z: float = 1.0, c: float = -0.7
) -> list[float]:
    """By how much, in alpha, each step misses ``int z exp(-z (lambda_s - l)) x_0(l) dl`` of the parabola.

    Args:
        made: the state at each of the times.
        schedule, times: none of them the clean image.
        z: 1 for the ODE, 2 for the SDE.
        c: see :func:`on_parabola`.
    """

    def antiderivative(v: float) -> float:  # divided by exp(z v)
        value, slope, bend = 0.3 + 0.5 * v + c * v**2, 0.5 + 2 * c * v, 2 * c
        return value - slope / z + bend / z**2

    errors = []
    for (x_t, t), (x_s, s) in pairwise(zip(made, times, strict=True)):
        sigma_t, (alpha_s, sigma_s) = schedule.level(t).sigma, schedule.level(s)
        a, b = schedule.half_log_snr(t), schedule.half_log_snr(s)
        exact = antiderivative(b) - math.exp(-z * (b - a)) * antiderivative(a)
        kept = sigma_s / sigma_t * math.exp((1 - z) * (b - a)) * x_t
        errors.append(float((x_s - kept) / alpha_s) - exact)
    return errors
