r"""Ancestral sampling: DDPM's own reverse process, on the full or on a respaced chain of times.

One step from ``t`` to ``s < t`` draws from the Gaussian (Ho et al. 2020, arXiv 2006.11239, equation 7, algorithm 2)

    beta   = 1 - alpha_bar_t / alpha_bar_s                         (recomputed from the times that are kept)
    mean   = sqrt(alpha_bar_s) beta / (1 - alpha_bar_t) x_0 + sqrt(1 - beta) (1 - alpha_bar_s) / (1 - alpha_bar_t) x_t
    x_s    = mean + sqrt(variance) noise,    no noise in the last step

with the predicted ``x_0``, by default clipped (:mod:`ddpm_ip.sampler.correction.clip`), and a variance of

    fixed_large:    beta
    fixed_small:    beta (1 - alpha_bar_s) / (1 - alpha_bar_t),    the posterior's
    learned_range:  between the two, on a logarithmic scale (Nichol & Dhariwal 2021, arXiv 2102.09672, equation 15)
    analytic:       the posterior's + alpha_bar_s (beta / (1 - alpha_bar_t))^2 clip(v_t, 0, 1),
                    v_t = (1 - alpha_bar_t) / alpha_bar_t (1 - Gamma_t),    Gamma_t = E ||eps(x_t, t)||^2 / d

The last is the best variance for a network that predicts the mean of ``x_0``: ``v_t`` is then the variance that remains
in ``x_0``, in [0, 1] for data in [-1, 1] (Bao et al. 2022, Analytic-DPM, arXiv 2201.06503, theorems 1 and 2).
In the last noisy step the noise is on average at most ``clip_pixel`` levels of 256, as in their code. A network that
does not predict the mean, such as one trained with input perturbation, has a different ``||eps(x_t, t)||``:
``analytic_residual`` takes ``1 - E ||eps - eps(x_t, t)||^2 / d`` for ``Gamma_t``, which is the same for the mean, and
leads to the best variance around any other prediction (Bao et al. 2022, arXiv 2206.07309: an imperfect mean).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.schedule import Posterior, Schedule, posterior

VarType = Literal["fixed_large", "fixed_small", "learned_range"]  # what a model may be trained for
Variance = Literal["analytic", "analytic_residual", "fixed_large", "fixed_small", "learned_range"]
ANALYTIC = ("analytic", "analytic_residual")


@dataclass(frozen=True)
class Ancestral:
    """DDPM's sampler.

    Args:
        var_type: the variance of a step. None leaves it to the model (``diffusion.var_type``), and is filled in before
            a plan is made (:meth:`ddpm_ip.sampler.sampling.Sampling.filled`).
        gammas: of an analytic variance: ``Gamma_t`` at the times 0..T-1. None is filled in with what was measured for
            the weights, or is measured then (:func:`ddpm_ip.sample.filled.filled`).
        clip_pixel: of an analytic variance, >= 0, in levels of 256; None is as published, 1 for the cosine schedule and
            2 for the others.
    """

    name: Literal["ancestral"] = field(default="ancestral", kw_only=True)
    var_type: Variance | None = None
    gammas: tuple[float, ...] | None = None
    clip_pixel: float | None = None

    def __post_init__(self) -> None:
        if self.var_type not in ANALYTIC and (self.gammas is not None or self.clip_pixel is not None):
            raise ValueError(f"gammas and clip_pixel go with var_type analytic, not with {self.var_type}")
        if self.gammas is not None and not all(map(math.isfinite, self.gammas)):
            raise ValueError("gammas must be finite numbers, one for each of the times 0..T-1")
        if self.clip_pixel is not None and not 0 <= self.clip_pixel < math.inf:
            raise ValueError(f"clip_pixel must be a number of at least 0, got {self.clip_pixel}")

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a step; no memory.

        Raises:
            ConfigError: the variance is unknown, or ``gammas`` is missing or of another schedule.
        """
        if self.var_type not in get_args(Variance):
            raise ConfigError(f"unknown var_type {self.var_type!r}: choose one of {', '.join(get_args(Variance))}")
        rows = Rows(schedule)
        for t, s in steps(times, schedule):
            q = posterior(schedule.alpha_bar(t), schedule.alpha_bar(s))
            mean = q.c0 * rows.x0 + q.ct * rows.x
            if s < 0:
                rows.add(t, s, mean)
            elif self.var_type == "learned_range":
                rows.add(t, s, mean + rows.noise, log_bounds=(math.log(q.variance), math.log(q.beta)))
            else:
                variance = q.beta if self.var_type == "fixed_large" else q.variance
                if self.var_type in ANALYTIC:
                    variance = self._analytic(schedule, t, q, last=s == times[-1])
                rows.add(t, s, mean + math.sqrt(variance) * rows.noise)
        return rows.plan()

    def _analytic(self, schedule: Schedule, t: float, q: Posterior, last: bool) -> float:
        """The variance of a step from ``t``; ``last``: of the last noisy one."""
        left = math.exp(-2 * schedule.half_log_snr(t)) * (1 - self._gamma(schedule, t))
        variance = q.variance + q.c0**2 * min(max(left, 0.0), 1.0)
        if not last:
            return variance
        pixel = self.clip_pixel
        if pixel is None:
            pixel = 1.0 if schedule.beta_schedule == "cosine" else 2.0
        return min(variance, math.pi / 2 * (pixel * 2 / 255) ** 2)

    def _gamma(self, schedule: Schedule, t: float) -> float:
        """``Gamma_t``, between whole times linear in lambda."""
        if self.gammas is None or len(self.gammas) != schedule.total_steps:
            found = "there are none" if self.gammas is None else f"there are {len(self.gammas)}"
            raise ConfigError(
                f"var_type {self.var_type} needs gammas, which are measured for finished weights, one for each of "
                f"{schedule.total_steps} times, and {found}. The commands measure them where they sample; while a "
                "network is trained, choose fixed_small"
            )
        below = math.floor(t)
        if below == t:
            return self.gammas[below]
        a, b, here = (schedule.half_log_snr(time) for time in (below, below + 1, t))
        return self.gammas[below] + (here - a) / (b - a) * (self.gammas[below + 1] - self.gammas[below])
