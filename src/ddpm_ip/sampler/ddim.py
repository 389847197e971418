r"""DDIM: non-Markovian sampling, deterministic at ``eta = 0``.

One step from ``t`` to ``s < t`` (Song et al. 2021, arXiv 2010.02502, equations 12 and 16):

    noise_level = eta sqrt((1 - alpha_bar_s) / (1 - alpha_bar_t)) sqrt(1 - alpha_bar_t / alpha_bar_s)
    x_s         = sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s - noise_level^2) eps + noise_level noise

``eta = 1`` has the variance of DDPM with ``fixed_small``, and is the same walk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.schedule import Schedule, posterior


@dataclass(frozen=True)
class DDIM:
    """DDIM's sampler.

    Args:
        eta: the share of the posterior's deviation that is fresh noise in each step, in [0, 1].
    """

    name: Literal["ddim"] = field(default="ddim", kw_only=True)
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {self.eta}")

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a step; no memory."""
        rows = Rows(schedule)
        for t, s in steps(times, schedule):
            alpha_s, sigma_s = schedule.level(s)
            noise_level = self.eta * math.sqrt(posterior(schedule.alpha_bar(t), schedule.alpha_bar(s)).variance)
            direction = math.sqrt(sigma_s**2 - noise_level**2)
            rows.add(t, s, alpha_s * rows.x0 + direction * rows.eps + noise_level * rows.noise)
        return rows.plan()
