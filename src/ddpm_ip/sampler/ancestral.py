r"""Ancestral sampling: DDPM's own reverse process, on the full or on a respaced chain of times.

One step from ``t`` to ``s < t`` draws from the Gaussian (Ho et al. 2020, arXiv 2006.11239, equation 7, algorithm 2)

    beta   = 1 - alpha_bar_t / alpha_bar_s                         (recomputed from the times that are kept)
    mean   = sqrt(alpha_bar_s) beta / (1 - alpha_bar_t) x_0 + sqrt(1 - beta) (1 - alpha_bar_s) / (1 - alpha_bar_t) x_t
    x_s    = mean + sqrt(variance) noise,    no noise in the last step

with the predicted ``x_0``, by default clipped (:mod:`ddpm_ip.sampler.correction.clip`), and a variance of

    fixed_large:    beta
    fixed_small:    beta (1 - alpha_bar_s) / (1 - alpha_bar_t),    the posterior's
    learned_range:  between the two, on a logarithmic scale (Nichol & Dhariwal 2021, arXiv 2102.09672, equation 15)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.schedule import Schedule, posterior

VarType = Literal["fixed_large", "fixed_small", "learned_range"]


@dataclass(frozen=True)
class Ancestral:
    """DDPM's sampler.

    Args:
        var_type: the variance of a step. None leaves it to the model (``diffusion.var_type``), and is filled in before
            a plan is made (:meth:`ddpm_ip.sampler.sampling.Sampling.filled`).
    """

    name: Literal["ancestral"] = field(default="ancestral", kw_only=True)
    var_type: VarType | None = None

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a step; no memory."""
        if self.var_type not in get_args(VarType):
            raise ConfigError(f"unknown var_type {self.var_type!r}: choose one of {', '.join(get_args(VarType))}")
        rows = Rows(schedule)
        for t, s in steps(times):
            q = posterior(schedule.alpha_bar(t), schedule.alpha_bar(s))
            mean = q.c0 * rows.x0 + q.ct * rows.x
            if s < 0:
                rows.add(t, s, mean)
            elif self.var_type == "learned_range":
                rows.add(t, s, mean + rows.noise, log_bounds=(math.log(q.variance), math.log(q.beta)))
            else:
                variance = q.beta if self.var_type == "fixed_large" else q.variance
                rows.add(t, s, mean + math.sqrt(variance) * rows.noise)
        return rows.plan()
