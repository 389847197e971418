r"""SA-Solver: stochastic Adams methods, a predictor and a corrector, for an SDE with ``tau`` times the usual noise.

With ``h = lambda_s - lambda_t`` and ``a = 1 + tau^2`` one step from ``t`` to ``s < t`` is (Xue et al. 2023, arXiv
2309.05019, equations 14 and 17, in terms of ``x_0``)

    x_s = exp(-tau^2 h) sigma_s / sigma_t x_t + sum_i b_i x_0(t_i) + sigma_s sqrt(1 - exp(-2 tau^2 h)) noise
    b_i = alpha_s a int_0^h exp(-a u) l_i(lambda_s - u) du

with ``l_i`` the Lagrange polynomials of the ``lambda`` of the predictions used. The predictor uses ``t`` and those
before it; the corrector also ``s``, once the network was asked there, and takes the step again with the same noise.
Where two predictions are used, the published code replaces the integral of the linear term,
``a int exp(-a u) (h - u) du``, by ``a h^2 / 2``. In long steps, of ``a h > 3``, that is more than twice as much.

All of a corrected state but the prediction to come is known a visit earlier, its noise among it: the first memory holds
that sum. Orders are lower in the first steps and towards the end; the last step, to the clean image, is of order 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.schedule import Schedule
from ddpm_ip.variants import settle


@dataclass(frozen=True)
class SASolver:
    """SA-Solver in data prediction.

    Args:
        predictor_order: how many predictions the predictor uses.
        corrector_order: how many the corrector uses, with the one to come; 0 for none. The paper has 3, 4 for CIFAR-10.
        tau: how much noise: 0 is the ODE, 1 the reverse SDE.
        tau_from: where the window of ``t / T`` begins in which there is noise, as published; outside it ``tau`` is 0.
            Noise everywhere needs many steps: the last ones leave it in the image.
        tau_to: where that window ends.
        linear_term: with two predictions, see above; published, or exact, which is better below 20 steps.
    """

    name: Literal["sa_solver"] = field(default="sa_solver", kw_only=True)
    predictor_order: Literal[1, 2, 3] = 2
    corrector_order: Literal[0, 1, 2, 3, 4] = 2
    tau: float = 1.0
    tau_from: float = 0.2
    tau_to: float = 0.8
    linear_term: Literal["published", "exact"] = "published"

    def __post_init__(self) -> None:
        settle(self)
        if not 0 <= self.tau < math.inf:
            raise ValueError(f"tau must be a number from 0, got {self.tau}: 0 is the ODE, 1 the SDE")
        if not 0 <= self.tau_from <= self.tau_to <= 1:
            raise ValueError(f"0 <= tau_from <= tau_to <= 1 must hold, got {self.tau_from} and {self.tau_to}")

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a step; memories: ``q`` (with a corrector), then the predictions before."""
        corrects = self.corrector_order > 0
        history = max(self.predictor_order - 1, self.corrector_order - 2)
        rows = Rows(schedule, memories=corrects + history)
        before = rows.m[corrects:]
        state = rows.x
        for i, (t, s) in enumerate(steps(times, schedule)):
            left = len(times) - i
            if s < 0:
                rows.add(t, s, rows.x0)
                break
            lambdas = [schedule.half_log_snr(u) for u in (s, *reversed(times[: i + 1]))]
            step = _Step(schedule.level(s).alpha, lambdas, self._tau(schedule, t), self.linear_term == "published")
            sigma_t, sigma_s = schedule.level(t).sigma, schedule.level(s).sigma
            known = step.decay * sigma_s / sigma_t * state + sigma_s * step.noise * rows.noise
            x0 = [rows.x0, *before]
            x = _plus(known, step.weights(1, min(self.predictor_order, i + 1, left)), x0)
            if corrects:
                to_come, *weights = step.weights(0, min(self.corrector_order, i + 2, left + 1))
                state = rows.m[0] + to_come * rows.x0  # of the next step
                rows.add(t, s, x, [_plus(known, weights, x0), *x0[:history]], carry=[True, True, *[False] * history])
            else:
                rows.add(t, s, x, x0[:history])
        return rows.plan()

    def _tau(self, schedule: Schedule, t: float) -> float:
        return self.tau if self.tau_from <= t / schedule.total_steps <= self.tau_to else 0.0


def _plus(form: Tensor, weights: Sequence[float], predictions: Sequence[Tensor]) -> Tensor:
    return sum((b * x0 for b, x0 in zip(weights, predictions, strict=False)), start=form)


class _Step:
    """A step to a level ``alpha``; ``lambdas`` of ``s``, of ``t`` and of the times before, the newest first."""

    def __init__(self, alpha: float, lambdas: Sequence[float], tau: float, published: bool) -> None:
        self.alpha, self.lambdas, self.published = alpha, lambdas, published
        self.a, self.h = 1 + tau**2, lambdas[0] - lambdas[1]
        self.decay = math.exp(-(tau**2) * self.h)
        self.noise = math.sqrt(-math.expm1(-2 * tau**2 * self.h))

    def weights(self, first: int, order: int) -> list[float]:
        """``b_i`` of ``order`` predictions from ``lambdas[first]`` on: those that integrate powers exactly."""
        v = [_power(k, self.a * self.h) for k in range(order)]
        if order == 2 and self.published:
            v[1] = self.a * self.h / 2
        nodes = [(at - self.lambdas[1]) / self.h for at in self.lambdas[first : first + order]]
        powers = torch.tensor([[x**k for x in nodes] for k in range(order)], dtype=torch.float64)
        solved: Tensor = torch.linalg.solve(powers, torch.tensor(v, dtype=torch.float64))
        return [self.alpha * b for b in solved.tolist()]


def _power(k: int, z: float) -> float:
    """``z int_0^1 exp(-z u) (1 - u)^k du``: by parts, or for small ``z``, where that cancels, by its series."""
    if z < 2:
        return math.exp(-z) * sum(z ** (n + 1) / (math.factorial(n) * (n + k + 1)) for n in range(30))
    return -math.expm1(-z) if k == 0 else 1 - k / z * _power(k - 1, z)
