r"""GITS: the times of a few large steps, found on the trajectories of many small ones.

Chen et al. 2024, "On the trajectory regularity of ODE-based diffusion sampling" (arXiv 2405.11326, section 4 and
algorithm 1). In the view ``y = x / alpha`` over ``r = sigma / alpha`` a teacher's states ``y_0 .. y_P`` at ``r_0 > ..
> r_P`` bend alike whatever the image. A state's deviation is its distance from the straight line between the first and
the last. One Euler step from ``i`` to a later ``j`` lands at ``y_i + (r_j - r_i) eps_i``, and costs

    cost(i, j) = E [deviation of where it lands] - E [deviation of y_j]

The way of ``k`` steps from ``i`` to the end is the cheapest, with later costs counting more (``c = 1.15``):

    V_1(i) = cost(i, P),     V_k(i) = min over i < j < P of  cost(i, j) + c V_(k-1)(j)

Landing points are linear in ``r_j``, so that three products a state give the deviations of all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm_ip.errors import ConfigError
from ddpm_ip.precise import precise
from ddpm_ip.sampler.levels import karras
from ddpm_ip.schedule import Schedule

POINTS = 61  # of a teacher's trajectory, the clean image among them
RHO = 7.0
LATER = 1.15  # c, for images in pixels


def teacher_times(schedule: Schedule, points: int = POINTS, whole: bool = False) -> list[float]:
    """The times of a teacher, falling from T - 1 to 0, at most ``points - 1``: the clean image is the last point.

    Evenly spaced in ``r^(1/7)`` (:func:`ddpm_ip.sampler.levels.karras`), without an upper bound of ``r``.

    Args:
        schedule: of the model.
        points: of the trajectory, at least 2.
        whole: whole times only, each once; else fractional ones, of four decimals.
    """
    noisiest = math.exp(-schedule.half_log_snr(schedule.total_steps - 1))
    times = karras(schedule, points - 1, RHO, sigma_max=noisiest)
    return sorted({float(round(t)) if whole else round(t, 4) for t in times}, reverse=True)


def deviations(ratios: Sequence[float], states: Sequence[Tensor], eps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """How far from the straight line the states of some trajectories lie, and where one step from each would land.

    Args:
        ratios: ``sigma / alpha`` of the P + 1 points, falling; 0 of the clean image.
        states: ``x / alpha`` at each, (B, ...).
        eps: what the network says at each but the last, (B, ...).

    Returns:
        Float64, of each trajectory: of the states, (B, P + 1); of the landing point of one step
        from i to j, (B, P, P + 1), without meaning for j <= i.
    """
    end = precise(states[-1]).flatten(1)
    line = precise(states[0]).flatten(1) - end
    line = line / line.norm(dim=1, keepdim=True)

    def across(z: Tensor) -> Tensor:
        """The part of a vector that is perpendicular to the line."""
        rest: Tensor = z - (z * line).sum(dim=1, keepdim=True) * line
        return rest

    products = []
    for y, e in zip(states, eps, strict=False):
        a, b = across(precise(y).flatten(1) - end), across(precise(e).flatten(1))
        products.append(torch.stack([(a * a).sum(dim=1), (a * b).sum(dim=1), (b * b).sum(dim=1)]))
    aa, ab, bb = torch.stack(products, dim=2)  # (B, P) each
    r = torch.tensor(ratios, dtype=torch.float64, device=end.device)
    h = r[None, :] - r[:-1, None]
    squares = aa[:, :, None] + 2 * h * ab[:, :, None] + h**2 * bb[:, :, None]
    of_states = torch.cat([aa.sqrt(), torch.zeros_like(aa[:, :1])], dim=1)  # the last lies on the line
    return of_states, squares.clamp(min=0).sqrt()


def cheapest(cost: Tensor, steps: int, later: float = LATER) -> list[int]:
    """The points from which the steps of the cheapest way begin, rising from 0.

    Args:
        cost: float64 (P, P + 1), of one step from i to j > i.
        steps: how many, 1..P.
        later: c.

    Raises:
        ConfigError: there are fewer points.
    """
    cost = cost.cpu()
    points = len(cost)
    if not 1 <= steps <= points:
        raise ConfigError(f"the times of {steps} steps: choose 1..{points}, as many as the teacher has")
    inner = torch.where(torch.ones(points, points, dtype=torch.bool).triu(1), cost[:, :points], math.inf)
    value, ways = cost[:, points], []
    for _ in range(steps - 1):
        value, following = (inner + later * value).min(dim=1)
        ways.append(following)
    chosen = [0]
    for following in reversed(ways):
        chosen.append(int(following[chosen[-1]]))
    return chosen
