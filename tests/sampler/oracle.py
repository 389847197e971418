"""What samplers are held against: networks that are plain functions, and Gaussian data, where all is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.nn.network import Cond
from ddpm_ip.sampler import Plan, Rows
from ddpm_ip.schedule import Schedule

ROWS = torch.arange(4)
SHAPE = (3, 4, 4)
TYPES = {"pred_eps": "epsilon", "pred_x0": "sample", "pred_v": "v_prediction"}
MEAN, DEVIATION = 0.3, 0.25


def network(x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
    """Any smooth function of image and time, and of labels, if there are any."""
    said = torch.tanh(1.3 * x) + 0.1 * torch.cos(t.reshape(-1, 1, 1, 1) / 100)
    return said if cond is None or cond.labels is None else said + 0.2 * torch.sin(cond.labels.reshape(-1, 1, 1, 1) + x)


def network_with_variance(x: Tensor, t: Tensor) -> Tensor:
    return torch.cat((network(x, t), torch.sin(2 * x)), dim=1)


def clipping(function: Callable[[Tensor, Tensor], Tensor], schedule: Schedule, kind: str = "pred_eps") -> Denoiser:
    """A network that predicts clean images within [-1, 1]: what a sampler sees of ``function`` after clipping."""

    def x0(x: Tensor, t: Tensor) -> Tensor:
        return Denoiser(function, schedule, kind)(x, t).x0.clamp(-1, 1)

    return Denoiser(x0, schedule, "pred_x0")


def gaussian_denoiser(schedule: Schedule, mean: float = MEAN, deviation: float = DEVIATION) -> Denoiser:
    """The exact eps of data N(mean, deviation^2)."""

    def eps(x: Tensor, t: Tensor) -> Tensor:
        a, s = schedule.alpha(t, x), schedule.sigma(t, x)
        return s * (x - a * mean) / (a**2 * deviation**2 + s**2)

    return Denoiser(eps, schedule)


def gaussian_moments(plan: Plan, mean: float = MEAN, variance: float = DEVIATION**2) -> tuple[float, float]:
    """Mean and variance of the samples of data N(mean, variance): the walk is linear, so both go through it exactly.

    ``z = (x, memories)`` and the constant 1 are carried together: with the exact prediction
    ``x0 = mean + g (x - alpha mean)`` each visit is ``z <- A z + b + u noise``.
    """
    m = plan.memories
    mu = torch.zeros(1 + m, dtype=torch.float64)
    p = torch.zeros(1 + m, 1 + m, dtype=torch.float64)
    p[0, 0] = plan.start**2
    for i in range(plan.visits):
        alpha, sigma, u = plan.alpha[i], plan.sigma[i], plan.update[i]
        g = alpha * variance / (alpha**2 * variance + sigma**2)
        a, b = u[:, : 1 + m].clone(), torch.zeros(1 + m, dtype=torch.float64)
        # x0 = g x + (1 - g alpha) mean,  eps = (x - alpha x0) / sigma
        a[:, 0] += u[:, 1 + m] * g + u[:, 2 + m] * (1 - alpha * g) / sigma
        b += (u[:, 1 + m] - u[:, 2 + m] * alpha / sigma) * (1 - g * alpha) * mean
        mu = a @ mu + b
        p = a @ p @ a.T + torch.outer(u[:, 3 + m], u[:, 3 + m])
    return float(mu[0]), float(p[0, 0])


def first_rows(plan: Plan, visits: int, start: float) -> Plan:
    """The beginning of a plan, from a state of deviation ``start``: where it stands before the clean step."""
    rows = {name: value[:visits] for name, value in plan._asdict().items() if isinstance(value, Tensor)}
    return plan._replace(**rows, start=start)


def deviation(alpha: float, sigma: float, variance: float = DEVIATION**2) -> float:
    """The standard deviation of ``x_t`` of Gaussian data."""
    return math.sqrt(alpha**2 * variance + sigma**2)


def marginal_deviation(schedule: Schedule, t: float, variance: float = DEVIATION**2) -> float:
    """The same at a time."""
    return deviation(*schedule.level(t), variance)


def heun(schedule: Schedule, times: list[int]) -> Plan:
    """A method of two visits a step, in the words of x0 and eps: DDIM to s, asked there, and the mean of both slopes.

    With memories for what the first visit leaves: the state before the step, and the first slope's part of it.
    """
    rows = Rows(schedule, memories=1)
    for t, s in zip(times, [*times[1:], -1], strict=True):
        asked, after = schedule.level(t), schedule.level(s)
        step = after.alpha * rows.x0 + after.sigma * rows.eps
        if s < 0:
            rows.add(t, s, step)
            continue
        rows.stage(t, s, x=step, m=[rows.x])
        ratio = after.sigma / asked.sigma
        factor = after.alpha - asked.alpha * ratio  # x_s = ratio x_t + factor x0, x0 the mean of two predictions
        mean = (rows.x - ratio * rows.m[0]) / factor / 2 + rows.x0 / 2
        rows.add(s, s, x=ratio * rows.m[0] + factor * mean, m=[rows.m[0] * 0], carry=[True, False])
    return rows.plan()
