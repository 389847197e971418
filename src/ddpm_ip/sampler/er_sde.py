r"""ER-SDE solvers: a family of reverse SDEs, from the ODE to the usual SDE and beyond, by their Taylor series.

With ``rho = sigma / alpha`` and a noise scale ``phi(rho) = rho g(rho)`` one step from ``t`` to ``s < t`` is (Cui et al.
2023, arXiv 2309.06169, variance-preserving form, algorithms 1 to 3), with ``r = g(rho_s) / g(rho_t)``,

    x_s = r sigma_s / sigma_t x_t + (alpha_s - r alpha_t sigma_s / sigma_t) x_0
          + alpha_s (C_1 D_1 + C_2 D_2) + sigma_s sqrt(1 - r^2) noise
    C_k = int_{rho_s}^{rho_t} (rho - rho_t)^(k-1) / (k-1)! (phi(rho_s) / phi(rho) - 1) d rho

where ``D_k`` stands for the k-th derivative of ``x_0`` along the way: none for order 1, ``D_1`` for order 2, both for
order 3. They are differences of the predictions at ``rho``, before it at ``rho'``, and before that at ``rho''``:

    D_1 = (x_0 - x_0') / (rho - rho'),      D_2 = 2 (D_1 - D_1') / (rho - rho'')               (backward)
    D_1 = (x_0 - x_0') / (rho - rho') + (rho - rho') / 2 D_2                                   (corrected)

Backward is published: a difference is the derivative half a step ago, so that order 3 is of order 2. Corrected is the
derivative of the parabola through the three. The first steps are of lower order, and the last, to the clean image, is
of order 1. The integrals are taken by Gauss-Legendre's rule over ``log rho``; the published code's sum of 100 terms has
an error of first order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.sampler.quadrature import integral
from ddpm_ip.schedule import Schedule
from ddpm_ip.variants import settle

NoiseScale = Literal["er_sde_5", "sde", "ode"]


@dataclass(frozen=True)
class ERSDE:
    """ER-SDE-Solver-1 to -3.

    Args:
        order: 1 to 3. On Gaussian data they converge with order 1, 2 and 2; the last with corrected differences with
            order 3, but with 2 for ``sde``.
        noise_scale: ``g``, how much noise there is: ``er_sde_5`` is the paper's choice, ``exp(rho^0.3) + 10``; ``sde``
            the reverse SDE, ``rho``; ``ode`` none, 1.
        difference: how order 3 takes the first derivative: backward is published, corrected is ours.
    """

    name: Literal["er_sde"] = field(default="er_sde", kw_only=True)
    order: Literal[1, 2, 3] = 3
    noise_scale: NoiseScale = "er_sde_5"
    difference: Literal["backward", "corrected"] = "backward"

    def __post_init__(self) -> None:
        settle(self)
        if self.difference == "corrected" and self.order != 3:
            raise ValueError(f"difference corrected needs order 3, got order {self.order}: choose backward, or order 3")

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a step; the memories are the predictions before."""
        rows = Rows(schedule, memories=self.order - 1)
        seen: list[float] = []  # log rho, the last first
        for t, s in steps(times, schedule):
            memories = [rows.x0, *rows.m][: self.order - 1]
            if s < 0:
                rows.add(t, s, rows.x0)
                break
            (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.level(t), schedule.level(s)
            start, end = -schedule.half_log_snr(t), -schedule.half_log_snr(s)
            log_ratio = float(self._log_g(end) - self._log_g(start))
            of_x = math.exp(log_ratio) * sigma_s / sigma_t
            noise_level = sigma_s * math.sqrt(-math.expm1(2 * log_ratio))
            x = of_x * rows.x + (alpha_s - of_x * alpha_t) * rows.x0 + noise_level * rows.noise
            seen = [start, *seen][: self.order]
            for k, d in enumerate(self._derivatives([rows.x0, *rows.m], [math.exp(v) for v in seen]), start=1):
                x = x + alpha_s * self._integral(k, start, end) * d
            rows.add(t, s, x, memories)
        return rows.plan()

    def _derivatives(self, x0: Sequence[Tensor], rho: Sequence[float]) -> list[Tensor]:
        """``D_1, D_2``, as many as the levels so far allow."""
        if len(rho) < 2:
            return []
        d1 = (x0[0] - x0[1]) / (rho[0] - rho[1])
        if len(rho) < 3:
            return [d1]
        d2 = 2 * (d1 - (x0[1] - x0[2]) / (rho[1] - rho[2])) / (rho[0] - rho[2])
        return [d1 + (rho[0] - rho[1]) / 2 * d2 if self.difference == "corrected" else d1, d2]

    def _integral(self, k: int, start: float, end: float) -> float:
        """``C_k`` of a step between two values of ``log rho``; ``k`` is 1 or 2, whose factorial is 1."""

        def integrand(v: Tensor) -> Tensor:
            ratio = torch.exp(end - v + self._log_g(end) - self._log_g(v))  # phi(rho_s) / phi(rho)
            return (v.exp() - math.exp(start)) ** (k - 1) * (ratio - 1) * v.exp()

        return integral(integrand, end, start)

    def _log_g(self, log_rho: Tensor | float) -> Tensor:
        """``log g`` at ``log rho``."""
        v = torch.as_tensor(log_rho, dtype=torch.float64)
        if self.noise_scale == "er_sde_5":
            u = torch.exp(0.3 * v)
            return u + torch.log1p(10 * torch.exp(-u))
        return v if self.noise_scale == "sde" else torch.zeros_like(v)
