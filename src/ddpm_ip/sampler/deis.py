r"""DEIS: an exponential integrator that extrapolates eps by a polynomial in t (tAB), or in log rho.

Zhang & Chen 2022, arXiv 2204.13902, equations 14 and 15. Their transition matrix is ``alpha_s / alpha_t``, so that with
``rho = sigma / alpha`` and ``d`` = eps (:mod:`ddpm_ip.sampler.adams`) a step from ``t`` to ``s`` is

    x_s / alpha_s = x_t / alpha_t + C_0 d + C_1 d' + C_2 d'' + C_3 d'''
    C_j           = int_{rho_t}^{rho_s} l_j(u) d rho,   l_j(u_k) = (1 where j = k, else 0)

    fit "t":        u = t, their tAB
    fit "log_rho":  u = log rho, the form that diffusers calls DEIS

(In ``u = rho`` it would be their rhoAB, which is ``ipndm_v``.) An order is the number of predictions used: order k is
"tAB(k - 1)" in the paper, and order 1 is DDIM. The schedule's ``log alpha_bar`` is linear between whole times, so that
the integral is taken from one whole time to the next, by Gauss and Legendre's rule, where all is smooth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.sampler.adams import lagrange, multistep
from ddpm_ip.sampler.base import Plan
from ddpm_ip.sampler.quadrature import gauss_legendre
from ddpm_ip.schedule import Schedule
from ddpm_ip.variants import settle

POINTS = 16  # from one whole time to the next; the weights are then exact to 1e-12


@dataclass(frozen=True)
class DEIS:
    """DEIS.

    Args:
        order: how many predictions a step uses.
        fit: what the polynomial through the predictions is a polynomial of, "t" or "log_rho".
        lower_order_final: whether a step uses no more predictions than steps are left (which diffusers does by default
            in walks of less than 15 steps); else all but the last, to the clean image, use all.
    """

    name: Literal["deis"] = field(default="deis", kw_only=True)
    order: Literal[1, 2, 3, 4] = 3
    fit: Literal["t", "log_rho"] = "t"
    lower_order_final: bool = False

    def __post_init__(self) -> None:
        settle(self)

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a step; ``order - 1`` memories."""

        def weights(known: Sequence[float], s: float) -> list[float]:
            return self._weights(schedule, known, s)

        return multistep(schedule, times, self.order, weights, self.lower_order_final)

    def _weights(self, schedule: Schedule, known: Sequence[float], s: float) -> list[float]:
        """``C_j / (rho_s - rho_t)``."""
        whole = torch.arange(math.floor(s) + 1, math.ceil(known[0]))
        edges = _with_ends(s, whole, known[0])
        logs = _with_ends(schedule.alpha_bar(s), schedule.alpha_bars()[whole], schedule.alpha_bar(known[0])).log()
        share, gauss = gauss_legendre(POINTS)
        rho = torch.expm1(-_along(logs, share)).sqrt()
        d_rho = gauss * (logs[:-1] - logs[1:])[:, None] * (1 + rho**2) / (2 * rho)
        if self.fit == "t":
            nodes, u = torch.tensor(known, dtype=torch.float64), _along(edges, share)
        else:
            nodes = torch.tensor([-schedule.half_log_snr(k) for k in known], dtype=torch.float64)
            u = rho.log()
        return [float((d_rho * polynomial).sum() / d_rho.sum()) for polynomial in lagrange(nodes, u)]


def _with_ends(first: float, between: Tensor, last: float) -> Tensor:
    return torch.tensor([first, *between.tolist(), last], dtype=torch.float64)


def _along(ends: Tensor, share: Tensor) -> Tensor:
    """``share`` (n,) of the way from each number to the next, (k - 1, n)."""
    return torch.lerp(ends[:-1, None], ends[1:, None], share)
