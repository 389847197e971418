r"""A network that was trained without input perturbation, sampled as if with it; or the other way round.

A network trained with perturbation of strength gamma (Ning et al. 2023, arXiv 2301.11706) sees
``y = alpha x_0 + sigma (eps + gamma xi)``, and learns ``eps``. Of its noise, ``f = sqrt(1 + gamma^2)`` times a standard
normal one, the part ``1 / f^2`` is ``eps`` in the mean. So the optimal such network is the optimal ordinary one, asked
at a slightly later time (Bayes; docs/DDPM-IP.md):

    eps_IP(y, t) = eps*(c y, t') / f,    c = 1 / sqrt(alpha_t^2 + f^2 sigma_t^2),    sigma_t' / alpha_t' = f sigma/alpha

and with ``1 / f`` in place of ``f`` this reads backwards: the ordinary network of one that was trained with gamma. Both
are exact where ``t'`` is a time; beyond T - 1, and below 0 on the way back, the network is asked at that end. What a
trained network of finite capacity gains by perturbation beyond this is not emulated. A learned variance stays where
the network says that it lies between its bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.denoiser import Prediction
from ddpm_ip.sampler.base import Plan
from ddpm_ip.sampler.correction.base import Correction, Denoise, Row
from ddpm_ip.schedule import Schedule


@dataclass(frozen=True)
class IPEmulator(Correction):
    """Adds input perturbation to a network that was trained without, or takes it away.

    Args:
        gamma: >= 0, the strength of the perturbation; 0 changes nothing.
        undo: the network was trained with gamma, and is sampled as if it had been trained without.
    """

    name: Literal["ip_emulator"] = field(default="ip_emulator", kw_only=True)
    gamma: float = 0.1
    undo: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < math.inf:
            raise ValueError(f"gamma must be a number that is not negative, got {self.gamma}")

    def numbers(self, plan: Plan, schedule: Schedule) -> Tensor:
        """(V, 4): f, ``t' - t``, and the level of the time that is asked as a share of the one that is meant: 1, 1
        unless ``t'`` is beyond the ends.
        """
        f = math.sqrt(1 + self.gamma**2) ** (-1 if self.undo else 1)
        rows = []
        for t, alpha, sigma in zip(plan.t.tolist(), plan.alpha.tolist(), plan.sigma.tolist(), strict=True):
            c = 1 / math.hypot(alpha, f * sigma)
            asked = t if f == 1 else max(0.0, schedule.time(math.log(alpha / sigma) - math.log(f)))
            level = schedule.level(asked)
            rows.append((f, asked - t, level.alpha / (c * alpha), level.sigma / (c * f * sigma)))
        return torch.tensor(rows, dtype=torch.float64)

    def wrap(self, denoise: Denoise) -> Denoise:
        def emulated(xt: Tensor, row: Row) -> Prediction:
            f, later, share_alpha, share_sigma = row.numbers[self.name]
            c = (row.alpha**2 + (f * row.sigma) ** 2).rsqrt()
            asked = row._replace(
                t=row.t + later, alpha=c * row.alpha * share_alpha, sigma=c * f * row.sigma * share_sigma
            )
            seen = denoise(c * xt, asked)
            eps = seen.eps / f
            return seen._replace(eps=eps, x0=(xt - row.sigma * eps) / row.alpha, level=None)

        return emulated
