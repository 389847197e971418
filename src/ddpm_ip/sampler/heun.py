r"""Heun's method in the EDM view, with churn: Karras et al. 2022, arXiv 2206.00364, algorithms 1 and 2.

With ``x_bar = x / alpha`` and ``rho = sigma / alpha``, one step from ``t``, raised to ``t^`` by noise, to ``s < t``:

    x^      = x_bar_t + sqrt(rho_t^^2 - rho_t^2) s_noise noise           (:class:`ddpm_ip.sampler.edm.Churn`)
    x'      = x^ + (rho_s - rho_t^) d,   d = (x^ - x_0(x^, t^)) / rho_t^      (Euler, an inner stage)
    x_bar_s = x^ + (rho_s - rho_t^) (d + d') / 2,   d' = (x' - x_0(x', s)) / rho_s

The last step, to the clean image, is Euler's. So N times are ``2 N - 1`` network evaluations. The difference of both
slopes is multiplied by rho: on cosine, whose rho is 2e4 at T - 1, begin lower, as ``uniform-leading`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.sampler.edm import Churn, euler, heun, noised
from ddpm_ip.schedule import Schedule


@dataclass(frozen=True)
class Heun(Churn):
    """Heun's method, of order 2, with churn (see :class:`ddpm_ip.sampler.edm.Churn`)."""

    name: Literal["heun"] = field(default="heun", kw_only=True)

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """Two rows a step, one for the last; a memory between the two."""
        rows = Rows(schedule, memories=1)
        pairs, raised = list(steps(times, schedule)), [*self.raised(schedule, times), -1.0]
        for (_, s), t_hat, s_hat in zip(pairs, raised, raised[1:], strict=False):
            if s < 0:
                rows.add(t_hat, s, euler(rows, t_hat, s), m=[0 * rows.x])
            else:
                rows.add(s, s_hat, noised(rows, heun(rows, t_hat, s), s, s_hat, self.s_noise))
        return rows.plan(self.start(schedule, times[0], raised[0]))
