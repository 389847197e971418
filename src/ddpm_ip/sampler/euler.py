r"""Euler's method in the EDM view, with churn: Karras et al. 2022, arXiv 2206.00364, algorithm 2 without correction.

With ``x_bar = x / alpha`` and ``rho = sigma / alpha``, one step from ``t``, raised to ``t^`` by noise, to ``s < t``:

    x^      = x_bar_t + sqrt(rho_t^^2 - rho_t^2) s_noise noise           (:class:`ddpm_ip.sampler.edm.Churn`)
    x_bar_s = x^ + (rho_s - rho_t^) (x^ - x_0(x^, t^)) / rho_t^

The noise comes before the network is asked, so it is added in the row before, at the end of a step. Without churn this
is DDIM with ``eta = 0``, whose eps is that of the clipped ``x_0``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.sampler.edm import Churn, euler, noised
from ddpm_ip.schedule import Schedule


@dataclass(frozen=True)
class Euler(Churn):
    """Euler's method, of order 1, with churn (see :class:`ddpm_ip.sampler.edm.Churn`)."""

    name: Literal["euler"] = field(default="euler", kw_only=True)

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a step; no memory."""
        rows = Rows(schedule)
        pairs, raised = list(steps(times, schedule)), [*self.raised(schedule, times), -1.0]
        for (_, s), t_hat, s_hat in zip(pairs, raised, raised[1:], strict=False):
            rows.add(t_hat, s_hat, noised(rows, euler(rows, t_hat, s), s, s_hat, self.s_noise))
        return rows.plan(self.start(schedule, times[0], raised[0]))
