r"""UniPC: a predictor, and a corrector that costs no evaluation of its own.

With ``h = lambda_s - lambda_t``, ``x_k`` the prediction k steps before ``t`` and ``r_k = (lambda_k - lambda_t) / h``,
both are, in terms of ``x_0`` (Zhao et al. 2023, arXiv 2302.04867; the form for data prediction)

    x_s = sigma_s / sigma_t x_t + alpha_s (1 - exp(-h)) x_0 + alpha_s sum_k w_k (x_k - x_0) / r_k

    predictor:  k = 1 .. p - 1
    corrector:  also the prediction at s itself, with r = 1
    weights:    sum_k w_k r_k^(i - 1) = i! h phi_(i + 1)(-h),    i = 1, 2, ..
                of a single one B(h) / 2,    B(h) = h (bh1) or 1 - exp(-h) (bh2)

with ``phi_0 = exp`` and ``phi_(i + 1)(z) = (phi_i(z) - 1 / i!) / z``. The network is asked at the predicted ``x_s``;
what it says corrects this state, and the next step starts there. The order rises from 1 in the first steps, and the
last, to the clean image, is of order 1 and not corrected. UniPC of order p converges with order p + 1.

A corrected state is a known sum and one prediction more, so the sum is kept as a memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.sampler.dpm_solver import orders, remembered
from ddpm_ip.schedule import Schedule
from ddpm_ip.variants import settle


@dataclass(frozen=True)
class UniPC:
    """UniPC of order 1 to 3. The defaults are diffusers', whose documentation recommends order 3 for unconditional
    networks, there with bh1 in fewer than 10 steps, and order 2 with guidance.

    ``lower_order_final`` plays no part but for order 3, and is else None.

    Args:
        order: p, how many predictions a step uses.
        solver_type: B(h), where a single difference is weighed: in the first steps, in all of order 1, and in the
            predictor of order 2.
        lower_order_final: the last step but one is of order 2 at most.
    """

    name: Literal["unipc"] = field(default="unipc", kw_only=True)
    order: Literal[1, 2, 3] = 2
    solver_type: Literal["bh1", "bh2"] = "bh2"
    lower_order_final: bool | None = True

    def __post_init__(self) -> None:
        settle(self, lower_order_final=self.order == 3)

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a step; remembers what is known of the corrected state, and ``order - 1`` predictions."""
        rows = Rows(schedule, memories=self.order)
        pairs, lambdas = list(steps(times, schedule)), [schedule.half_log_snr(t) for t in [*times, -1.0]]
        weight = 0.0  # of the coming prediction in the corrected state
        for i, order in enumerate(orders(self.order, len(times), self.lower_order_final)):
            t, s = pairs[i]
            (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.level(t), schedule.level(s)
            corrected = rows.x if i == 0 else rows.m[0] + weight * rows.x0
            base = sigma_s / sigma_t * corrected + (alpha_s - alpha_t * sigma_s / sigma_t) * rows.x0
            if s < 0:
                rows.add(t, s, base, m=[rows.x0] * self.order)  # nothing looks at the memories any more
                continue
            h = lambdas[i + 1] - lambdas[i]
            nodes = [(lambdas[i - k] - lambdas[i]) / h for k in range(1, order)]
            slopes = [(rows.m[k] - rows.x0) / r for k, r in enumerate(nodes, 1)]
            predicted = _sum(base, alpha_s, self._weights(h, nodes), slopes)
            *known, coming = self._weights(h, [*nodes, 1.0])
            weight = alpha_s * coming
            waiting = _sum(base, alpha_s, known, slopes) - weight * rows.x0
            m = [waiting, *remembered(rows.x0, rows.m[1:], first=i == 0)]
            rows.add(t, s, predicted, m, carry=[True, True, *[False] * (self.order - 1)])
        return rows.plan()

    def _weights(self, h: float, nodes: Sequence[float]) -> list[float]:
        """``w_k`` of differences to predictions at ``nodes``, in units of h from t."""
        if len(nodes) < 2:
            return [(h if self.solver_type == "bh1" else -math.expm1(-h)) / 2 for _ in nodes]
        powers = torch.tensor([[r**i for r in nodes] for i in range(len(nodes))], dtype=torch.float64)
        moments = [math.factorial(i) * h * phi(i + 1, -h) for i in range(1, len(nodes) + 1)]
        weights: list[float] = torch.linalg.solve(powers, torch.tensor(moments, dtype=torch.float64)).tolist()
        return weights


def phi(k: int, z: float) -> float:
    """``phi_k(z)``, see above; of small z by its series, since the recursion cancels there."""
    if abs(z) < 1:
        return sum(z**j / math.factorial(j + k) for j in range(20))
    return math.exp(z) if k == 0 else (phi(k - 1, z) - 1 / math.factorial(k - 1)) / z


def _sum(base: Tensor, alpha: float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    for w, slope in zip(weights, slopes, strict=True):
        base = base + alpha * w * slope
    return base
