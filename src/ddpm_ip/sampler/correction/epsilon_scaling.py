r"""Epsilon scaling: the predicted noise divided by a factor a little above 1.

    eps <- eps / lambda,        x_0 <- (x_t - sigma eps) / alpha

In sampling the network's noise is too large, since its input drifts away from the true ``x_t`` (exposure bias). Ning et
al. 2024, "Elucidating the exposure bias in diffusion models" (arXiv 2308.15321), equation 8, with the factor

    constant:   lambda = scale
    linear:     lambda = scale + slope i,   i the index of the time on the grid, counted from the data as in the paper's
                code (ADM-ES), or from the noise as in that of TS-DPM, where the same slope means the opposite
    by a table: lambda is linear in t between ``(times, scales)``, and constant beyond its ends

A network trained with input perturbation has ``1 + gamma^2`` built in, on true noisy states (docs/DDPM-IP.md).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.denoiser import Prediction
from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler.base import Plan
from ddpm_ip.sampler.correction.base import Correction, Denoise, Row
from ddpm_ip.schedule import Schedule

SCALE = 1.005


@dataclass(frozen=True)
class EpsilonScaling(Correction):
    """Divides the predicted noise: by a constant, a line over the grid, or a table over t.

    Args:
        scale: > 0, 1.005 if nothing is given; the paper's CIFAR-10 values are 1.005 to 1.02. With a slope, at index 0.
        slope: what an index adds; for CIFAR-10 in 20 steps the paper has 0.0025, from a scale of 1.0 at the data.
        counted_from: where a slope's index 0 is: "data", least noise, or "noise", the first visit.
        times: of a table instead, two or more, rising; ``times=0/500,scales=1.0/1.01`` on the command line.
        scales: of the table, one for each of its times.
    """

    name: Literal["epsilon_scaling"] = field(default="epsilon_scaling", kw_only=True)
    scale: float | None = None
    slope: float | None = None
    counted_from: Literal["data", "noise"] | None = None
    times: tuple[float, ...] | None = None
    scales: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.times is not None or self.scales is not None:
            self._check_table(self.times or (), self.scales or ())
            return
        if (self.slope is None) != (self.counted_from is None) or (self.slope is not None and self.scale is None):
            raise ValueError("say slope, counted_from (data or noise) and scale, the factor at index 0, together")
        if self.slope is not None and not math.isfinite(self.slope):
            raise ValueError(f"slope must be a number, got {self.slope}")
        if self.scale is None:
            object.__setattr__(self, "scale", SCALE)
        elif not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be a positive number, got {self.scale}")

    def _check_table(self, times: Sequence[float], scales: Sequence[float]) -> None:
        if (self.scale, self.slope, self.counted_from) != (None, None, None):
            raise ValueError("times and scales are the whole factor: leave scale, slope and counted_from out")
        rising = all(s < t for s, t in pairwise(times)) and all(map(math.isfinite, times))
        if not rising or not 2 <= len(times) == len(scales) or not all(0 < scale < math.inf for scale in scales):
            raise ValueError(f"give two rising times or more, and a positive scale for each; got {times}, {scales}")

    def numbers(self, plan: Plan, schedule: Schedule) -> Tensor:
        """(V, 1): the factor.

        Raises:
            ConfigError: a slope leads to a factor that is not positive.
        """
        if self.times is not None and self.scales is not None:
            table = [[interpolated(t, self.times, self.scales)] for t in plan.t.tolist()]
            return torch.tensor(table, dtype=torch.float64)
        factor = torch.full((plan.visits, 1), self.scale or SCALE, dtype=torch.float64)
        if self.slope is not None:
            factor += self.slope * indices(plan, self.counted_from == "noise")[:, None]
            if not (factor > 0).all():
                raise ConfigError(f"epsilon_scaling: slope {self.slope} leads to a factor of {float(factor.min()):.3g}")
        return factor

    def wrap(self, denoise: Denoise) -> Denoise:
        return divided(denoise, self.name)


def divided(denoise: Denoise, name: str) -> Denoise:
    """The predicted noise divided by the number of the correction ``name``; ``x_0`` follows."""

    def scaled(xt: Tensor, row: Row) -> Prediction:
        seen = denoise(xt, row)
        eps, (alpha, sigma) = seen.eps / row.numbers[name], row.level_of(seen)
        return seen._replace(eps=eps, x0=(xt - sigma * eps) / alpha)

    return scaled


def indices(plan: Plan, from_noise: bool) -> Tensor:
    """The index (V,) of each visit's time among those where steps begin; an inner stage lies between."""
    grid = sorted({t for t, begin in zip(plan.t.tolist(), [True, *plan.state[:-1].tolist()], strict=True) if begin})
    index = torch.tensor([interpolated(t, grid, range(len(grid))) for t in plan.t.tolist()], dtype=torch.float64)
    return len(grid) - 1 - index if from_noise else index


def interpolated(t: float, times: Sequence[float], values: Sequence[float]) -> float:
    """The value at ``t``, linear between the rising ``times`` and constant beyond them."""
    above = bisect.bisect_left(times, t)
    if above in (0, len(times)):
        return values[0] if above == 0 else values[-1]
    share = (t - times[above - 1]) / (times[above] - times[above - 1])
    return (1 - share) * values[above - 1] + share * values[above]
