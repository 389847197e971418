r"""iPNDM: PNDM's linear multistep method without its Runge-Kutta start, and its form for steps of any size.

Along ``x_bar = x / alpha`` over ``rho = sigma / alpha`` with slopes ``d`` (:mod:`ddpm_ip.sampler.adams`) a step is

    x_bar_s = x_bar_t + (rho_s - rho_t) (w_0 d + w_1 d' + w_2 d'' + w_3 d''')

``ipndm`` takes the weights of Adams and Bashforth for equal steps, whatever the steps are (Liu et al. 2022, arXiv
2202.09778; "improved" by Zhang & Chen 2022, arXiv 2204.13902, which begins with the lower orders):

    order 1: 1    2: (3, -1) / 2    3: (23, -16, 5) / 12    4: (55, -59, 37, -9) / 24

They integrate the extrapolated slopes exactly only where times are uniform in rho; on other grids orders 3 and 4
converge as order 2 does. It is nevertheless the form that published tables rank first at few steps. ``ipndm_v``
integrates the polynomial through the slopes at their own rho, and reaches its order on any grid:

    w_j = 1 / (rho_s - rho_t) int_{rho_t}^{rho_s} l_j(rho) d rho,   l_j(rho_k) = (1 where j = k, else 0)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from ddpm_ip.sampler.adams import lagrange, multistep
from ddpm_ip.sampler.base import Plan
from ddpm_ip.sampler.edm import rho
from ddpm_ip.sampler.quadrature import gauss_legendre
from ddpm_ip.schedule import Schedule
from ddpm_ip.variants import settle

EQUAL_STEPS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True)
class IPNDM:
    """iPNDM with the weights of equal steps.

    Args:
        order: how many slopes a step uses; 1 is Euler's method.
    """

    name: Literal["ipndm"] = field(default="ipndm", kw_only=True)
    order: Literal[1, 2, 3, 4] = 4

    def __post_init__(self) -> None:
        settle(self)

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a step; ``order - 1`` memories."""
        return multistep(schedule, times, self.order, lambda known, s: EQUAL_STEPS[len(known) - 1])


@dataclass(frozen=True)
class IPNDMV:
    """iPNDM with the weights of the steps that are taken.

    Args:
        order: how many slopes a step uses; 1 is Euler's method.
    """

    name: Literal["ipndm_v"] = field(default="ipndm_v", kw_only=True)
    order: Literal[1, 2, 3, 4] = 4

    def __post_init__(self) -> None:
        settle(self)

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a step; ``order - 1`` memories."""

        def weights(known: Sequence[float], s: float) -> list[float]:
            nodes = torch.tensor([rho(schedule, t) for t in known], dtype=torch.float64)
            share, gauss = gauss_legendre(2)  # exact up to degree 3
            along = nodes[0] + share * (rho(schedule, s) - nodes[0])
            return [float(gauss @ polynomial) for polynomial in lagrange(nodes, along)]

        return multistep(schedule, times, self.order, weights)
