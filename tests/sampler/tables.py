"""Tables held against other people's arithmetic, in float64 and without a network's rounding.

* :func:`states` follows a plan in float64; :func:`theirs` lets a scheduler of diffusers make the same walk, in float64.
* :func:`errors` and :func:`slopes`: on Gaussian data the walk is linear, and its exact end is known.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import torch
from tests.sampler.oracle import deviation
from torch import Tensor

from ddpm_ip.sampler import Plan, Sampler
from ddpm_ip.schedule import Schedule

Function = Callable[[Tensor, float], Tensor]  # a network: (x, t) -> output


def function(x: Tensor, t: float) -> Tensor:
    """Any smooth network."""
    return torch.tanh(1.3 * x) + 0.1 * math.cos(t / 100)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def predicted(output: Tensor, x: Tensor, alpha: float, sigma: float, kind: str = "pred_eps") -> tuple[Tensor, Tensor]:
    """``(x0, eps)`` of a network's output."""
    if kind == "pred_eps":
        return (x - sigma * output) / alpha, output
    if kind == "pred_x0":
        return output, (x - alpha * output) / sigma
    return alpha * x - sigma * output, sigma * x + alpha * output


def states(
    plan: Plan, x: Tensor, noises: Tensor | None = None, network: Function = function, kind: str = "pred_eps"
) -> list[Tensor]:
    """The state after each row, float64; ``noises`` (V, ...) holds the noise of each row."""
    z: list[Tensor | None] = [plan.start * x, *[None] * plan.memories]
    found = []
    for i in range(plan.visits):
        x = _set(z[0])
        alpha, sigma = float(plan.alpha[i]), float(plan.sigma[i])
        x0, eps = predicted(network(x, float(plan.t[i])), x, alpha, sigma, kind)
        noise = torch.zeros_like(x) if noises is None else noises[i]
        terms = [*z, x0, eps, noise]
        z = [_sum([(w, v) for w, v in zip(row, terms, strict=True) if w != 0], x) for row in plan.update[i].tolist()]
        found.append(_set(z[0]))
    return found


def _sum(terms: Sequence[tuple[float, Tensor | None]], x: Tensor) -> Tensor | None:
    """A weighted sum of the shape of ``x``; a memory that is only handed on may be unset."""
    if [w for w, _ in terms] == [1]:
        return terms[0][1]
    return sum((w * _set(v) for w, v in terms), start=torch.zeros_like(x))


def _set(z: Tensor | None) -> Tensor:
    assert z is not None, "a memory is used before it is set"
    return z


def theirs(
    scheduler: Any,
    schedule: Schedule,
    times: Sequence[float],
    x: Tensor,
    noises: Tensor | None = None,
    *,
    network: Function = function,
    kind: str = "pred_eps",
    variance_exploding: bool = False,
    last: float = 0.0,
) -> list[Tensor]:
    """The states of a scheduler of diffusers along our times, in float64, as variance-preserving ``x``.

    Args:
        scheduler: new; its tables are replaced by ours.
        schedule, times: ours; one call of ``step`` for each time.
        x: where it starts (variance preserving).
        noises: (calls, ...), in the order in which it asks for noise.
        network, kind: as in :func:`states`.
        variance_exploding: whether its states are ``x / alpha`` (Euler, Heun).
        last: its sigma / alpha after the last time; 0 is the clean image.
    """
    levels = [schedule.level(t) for t in times]
    ratios = [level.sigma / level.alpha for level in levels]
    scheduler.set_timesteps(len(times))
    scheduler.alphas_cumprod = schedule.alpha_bars()
    scheduler.sigmas = torch.tensor([*ratios, last], dtype=torch.float64)
    whole = all(float(t).is_integer() for t in times) and not variance_exploding  # DDPM and DDIM look them up
    scheduler.timesteps = torch.tensor([int(t) if whole else float(t) for t in times])
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    asked = iter([] if noises is None else noises)
    after = [*levels[1:], None]
    found = []
    with doubled(scheduler, asked):
        for t, level, following in zip(times, levels, after, strict=True):
            output = network(x, t)
            sample = x / level.alpha if variance_exploding else x
            following_alpha = following.alpha if following is not None else 1 / math.sqrt(1 + last**2)
            made = scheduler.step(output, torch.tensor(int(t) if whole else float(t)), sample).prev_sample
            x = made * following_alpha if variance_exploding else made
            found.append(x)
    return found


@contextmanager
def doubled(scheduler: Any, noises: Iterator[Tensor]) -> Iterator[None]:
    """What a scheduler of diffusers computes in float32 is computed in float64, with noise that is given."""
    module = sys.modules[type(scheduler).__module__]

    def given(*args: Any, **kwargs: Any) -> Tensor:
        return next(noises)

    with ExitStack() as stack:
        stack.enter_context(patch.object(torch, "float32", torch.float64))
        if hasattr(module, "randn_tensor"):
            stack.enter_context(patch.object(module, "randn_tensor", given))
        yield


def uniform_lambda(schedule: Schedule, steps: int, begin: float = -3.0, end: float = 3.0) -> list[float]:
    """``steps + 1`` times, evenly spaced in lambda."""
    return [schedule.time(begin + i * (end - begin) / steps) for i in range(steps + 1)]


def end(plan: Plan, variance: float, rows: int, history: int = 0) -> tuple[float, float]:
    """Standard deviation of the state after ``rows`` rows on data N(0, variance), and the exact one.

    The walk starts from the exact marginal. For deterministic plans the first ``history`` states are exact as well, so
    that what the memories hold is exact.
    """
    m = plan.memories
    z = torch.zeros(1 + m, dtype=torch.float64)  # multiples of the start; of noise only the covariance p is kept
    p = torch.zeros(1 + m, 1 + m, dtype=torch.float64)
    z[0] = deviation(float(plan.alpha[0]), float(plan.sigma[0]), variance)
    states_so_far, at_state = 0, True
    for i in range(rows):
        alpha, sigma, u = float(plan.alpha[i]), float(plan.sigma[i]), plan.update[i]
        if at_state and 0 < states_so_far <= history:
            z[0] = deviation(alpha, sigma, variance)
        g = alpha * variance / (alpha**2 * variance + sigma**2)
        a = u[:, : 1 + m].clone()
        a[:, 0] += u[:, 1 + m] * g + u[:, 2 + m] * (1 - alpha * g) / sigma
        z, p = a @ z, a @ p @ a.T + torch.outer(u[:, 3 + m], u[:, 3 + m])
        at_state = bool(plan.state[i])
        states_so_far += at_state
    alpha, sigma = plan.after[rows - 1].tolist()
    return math.sqrt(float(z[0]) ** 2 + float(p[0, 0])), deviation(alpha, sigma, variance)


def errors(
    sampler: Sampler, steps: Sequence[int], variance: float, history: int = 0, schedule: Schedule | None = None
) -> list[float]:
    """The error of the standard deviation at lambda = 3, from the exact marginal at lambda = -3."""
    found = []
    schedule = Schedule() if schedule is None else schedule
    for n in steps:
        plan = sampler.plan(schedule, uniform_lambda(schedule, n))
        finished = plan.state.nonzero().flatten().tolist()
        made, exact = end(plan, variance, finished[n - 1] + 1, history)
        found.append(abs(made - exact))
    return found


def slopes(
    sampler: Sampler, steps: Sequence[int] = (40, 80, 160), variance: float = 0.1, history: int = 0
) -> list[float]:
    """The order that is seen: ``log(error / error of the next number of steps) / log(the ratio of both)``."""
    found = errors(sampler, steps, variance, history)
    ratios = [fine / coarse for coarse, fine in pairwise(steps)]
    return [math.log(a / b) / math.log(r) for (a, b), r in zip(pairwise(found), ratios, strict=True)]
