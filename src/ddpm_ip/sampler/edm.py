r"""The EDM view of a walk: ``x_bar = x / alpha`` over the ratio ``rho = sigma / alpha``, and churn.

In these coordinates the probability-flow ODE is (Karras et al. 2022, arXiv 2206.00364, equation 1 with ``s = 1``)

    d x_bar / d rho = d,    d = (x_bar - x_0) / rho = (x - alpha x_0) / sigma

with the predicted ``x_0``, as corrected and clipped: d is the eps that belongs to it. What is written here is in x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ddpm_ip.sampler.base import Rows
from ddpm_ip.schedule import Schedule


def rho(schedule: Schedule, t: float) -> float:
    """``sigma_t / alpha_t``; 0 for the clean image."""
    alpha, sigma = schedule.level(t)
    return sigma / alpha


def slope(rows: Rows, t: float) -> Tensor:
    """``d`` where the network is asked at ``t``."""
    alpha, sigma = rows.schedule.level(t)
    d: Tensor = (rows.x - alpha * rows.x0) / sigma
    return d


def euler(rows: Rows, t: float, s: float) -> Tensor:
    """``x_bar_s = x_bar_t + (rho_s - rho_t) d``: a straight line, which ends in ``x_0`` at the clean image.

    Written so that nothing is divided by ``alpha_t``, which may be 5e-5.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = rows.schedule.level(t), rows.schedule.level(s)
    x: Tensor = sigma_s / sigma_t * rows.x + (alpha_s - alpha_t * sigma_s / sigma_t) * rows.x0
    return x


def heun(rows: Rows, t: float, s: float) -> Tensor:
    """``x_bar_s = x_bar_t + (rho_s - rho_t) (d + d') / 2`` with ``d'`` asked at ``s >= 0``, of Euler's state.

    Adds the inner stage. What is returned is of the row after it, and holds the first memory, all of ``x_bar_s`` but
    ``d'``. That is not carried: a correction of the inner stage changes where ``d'`` is taken, and ``x_bar_s`` has its
    own correction, once it is there.
    """
    alpha_t, alpha_s = rows.schedule.level(t).alpha, rows.schedule.level(s).alpha
    predictor = euler(rows, t, s)
    rows.stage(t, s, predictor, m=[(predictor + alpha_s / alpha_t * rows.x) / 2])
    x: Tensor = rows.m[0] + alpha_s * (rho(rows.schedule, s) - rho(rows.schedule, t)) / 2 * slope(rows, s)
    return x


def noised(rows: Rows, x: Tensor, s: float, s_hat: float, s_noise: float = 1.0) -> Tensor:
    """The state ``x`` at ``s``, a form, with the noise that raises it to ``s_hat >= s``."""
    if s_hat == s:
        return x
    schedule = rows.schedule
    alpha_hat = schedule.level(s_hat).alpha
    deviation = math.sqrt(rho(schedule, s_hat) ** 2 - rho(schedule, s) ** 2)
    raised: Tensor = alpha_hat / schedule.level(s).alpha * x + alpha_hat * deviation * s_noise * rows.noise
    return raised


@dataclass(frozen=True)
class Churn:
    """Noise that is added on the way, after which the network is asked at the level that it raised (algorithm 2):

        gamma = min(s_churn / steps, sqrt(2) - 1)  where  s_tmin <= rho <= s_tmax,  else 0
        rho^  = (1 + gamma) rho
        x^    = x_bar + sqrt(rho^^2 - rho^2) s_noise noise

    ``rho^`` is at most that of the time T - 1, beyond which no network was trained.

    Args:
        s_churn: how much, for all steps together; at least 0, which adds none.
        s_tmin: the lowest level ``rho = sigma / alpha`` at which it is added.
        s_tmax: the highest level; None is no upper bound.
        s_noise: the deviation of the noise, at least 0; a little above 1 where predictions are too smooth.
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float | None = None
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("s_churn", self.s_churn), ("s_tmin", self.s_tmin), ("s_noise", self.s_noise)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number of at least 0, got {value}")
        if self.s_tmax is not None and not self.s_tmax >= self.s_tmin:
            raise ValueError(f"s_tmax must be at least s_tmin = {self.s_tmin}, or null for no bound; got {self.s_tmax}")

    def raised(self, schedule: Schedule, times: Sequence[float]) -> list[float]:
        """The time of ``rho^`` for each time of the grid; the time itself where there is no churn.

        Args:
            schedule: of the model.
            times: of the grid, falling.
        """
        gamma = min(self.s_churn / max(len(times), 1), math.sqrt(2) - 1)
        most = math.inf if self.s_tmax is None else self.s_tmax
        return [
            max(t, schedule.time(schedule.half_log_snr(t) - math.log1p(gamma)))
            if gamma > 0 and self.s_tmin <= rho(schedule, t) <= most
            else t
            for t in times
        ]

    def start(self, schedule: Schedule, t: float, t_hat: float) -> float:
        """The scale of a start at ``t_hat``. No row comes before it to add the first step's noise; that and ``x_T``
        are one Gaussian together, N(0, 1) again unless ``s_noise`` is not 1.

        Args:
            schedule: of the model.
            t, t_hat: the first time of the grid, and the time that it is raised to.
        """
        fresh = schedule.alpha_bar(t_hat) * (rho(schedule, t_hat) ** 2 - rho(schedule, t) ** 2)
        return math.sqrt(1 + (self.s_noise**2 - 1) * fresh)
