r"""Times by a normal distribution of the logarithm of their noise level (Karras et al. 2022, arXiv 2206.00364).

    ln(sigma_t / alpha_t) ~ N(mean, std^2),        mean = -1.2, std = 1.2

(table 1). ``sigma_t / alpha_t`` is the noise level of the paper, whose states are ``x_0 + sigma n``. Its levels are
continuous; here ``p(t)`` is the probability of the levels that are nearer to that of ``t`` than to that of another
time, on a logarithmic scale, and what lies beyond the schedule's ends is left out (the distribution is truncated).

The flow models of Meta draw "skewed" times ``1 / (1 + sigma)`` with ``ln sigma ~ N(-1.2, 1.2^2)``, counted from noise
to data: the ratio of noise to data is ``sigma`` then, so that is this very distribution.

What is known: the paper's loss is not weighted back, so that is the default here, and the distribution is itself a
weighting, towards levels where the loss can still fall (sigma of 0.1 to 1). The paper combines it with the weights of
``train.weighting.name: edm``. On linear and cosine schedules few of 1000 times lie in the middle of it, and each is
drawn the more often.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch

from ddpm_ip.errors import ConfigError
from ddpm_ip.schedule import Schedule
from ddpm_ip.times.base import Table, TimeSampler


@dataclass(frozen=True)
class Lognormal:
    """A normal distribution of ``ln(sigma_t / alpha_t)``.

    Args:
        mean: of the distribution.
        std: its standard deviation, > 0.
        reweigh: whether losses are multiplied by ``1 / (T p(t))``, so that only their variance differs from that of
            uniform times. The paper's are not.
    """

    name: Literal["lognormal"] = field(default="lognormal", kw_only=True)
    mean: float = -1.2
    std: float = 1.2
    reweigh: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise ValueError(f"mean must be a finite number, got {self.mean}")
        if not 0 < self.std < math.inf:
            raise ValueError(f"std must be above 0, got {self.std}")

    def start(self, schedule: Schedule, device: torch.device) -> TimeSampler:
        """The sampler of a training run.

        Raises:
            ConfigError: no time of the schedule has a noise level of this distribution.
        """
        logs = [-schedule.half_log_snr(t) for t in range(schedule.total_steps)]
        between = [(low + high) / 2 for low, high in pairwise(logs)]
        edges = [2 * logs[0] - between[0], *between, 2 * logs[-1] - between[-1]]
        below = torch.special.ndtr((torch.tensor(edges, dtype=torch.float64) - self.mean) / self.std)
        p = below.diff().clamp(min=0)
        if p.sum() < 1e-3:
            raise ConfigError(
                f"train.times lognormal with mean {self.mean:g} and std {self.std:g}: the logarithms of the schedule's "
                f"noise levels go from {logs[0]:.1f} to {logs[-1]:.1f}, where next to nothing of it lies"
            )
        return Table.of(p / p.sum(), self.reweigh, device)
