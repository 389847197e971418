r"""Noise schedules.

The kernel everywhere is ``p(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I)`` with ``alpha_t = sqrt(alpha_bar_t)``,
``sigma_t = sqrt(1 - alpha_bar_t)`` and ``alpha_bar_t = prod_{i <= t} (1 - beta_i)``. Times count from 0 to ``T - 1``,
from little noise to much; the clean image is time ``-1``, where ``alpha_bar = 1``.

References:
    linear: Ho et al. 2020 (arXiv 2006.11239), section 4. quad, const: the same authors' code, also Song et al. 2021.
    cosine: Nichol & Dhariwal 2021 (arXiv 2102.09672), equation 17, beta clipped at 0.999.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ddpm_ip.errors import ConfigError

BetaSchedule = Literal["linear", "quad", "const", "cosine"]


class Level(NamedTuple):
    """``x_t = alpha x_0 + sigma eps``, with ``alpha^2 + sigma^2 = 1``."""

    alpha: float
    sigma: float


@dataclass(frozen=True)
class Schedule:
    """``t -> (alpha_t, sigma_t)``, tables in float64.

    Args:
        total_steps: T, the number of training times.
        beta_schedule: the shape of ``beta_t``.
        beta_start, beta_end: its ends (``const`` uses ``beta_end``, ``cosine`` neither).
    """

    total_steps: int = 1000
    beta_schedule: BetaSchedule = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def betas(self) -> Tensor:
        """``beta_t``, float64 (T,) on the CPU."""
        n, start, end = self.total_steps, self.beta_start, self.beta_end
        if self.beta_schedule == "linear":
            return linspace(start, end, n)
        if self.beta_schedule == "quad":
            return linspace(start**0.5, end**0.5, n) ** 2
        if self.beta_schedule == "const":
            return torch.full((n,), end, dtype=torch.float64)
        if self.beta_schedule == "cosine":

            def alpha_bar(u: float) -> float:
                return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

            return torch.tensor(
                [min(1 - alpha_bar((i + 1) / n) / alpha_bar(i / n), 0.999) for i in range(n)], dtype=torch.float64
            )
        known = ", ".join(get_args(BetaSchedule))
        raise ConfigError(f"unknown beta_schedule {self.beta_schedule!r}: choose one of {known}")

    def alpha_bars(self) -> Tensor:
        """``alpha_bar_t``, float64 (T,) on the CPU."""
        return _alpha_bars(self)

    def alpha_bar(self, t: float) -> float:
        """``alpha_bar`` at one time in [-1, T - 1]; 1 at t = -1, the clean image.

        Between two whole times its logarithm is linear (as in DPM-Solver's discrete schedule, arXiv 2206.00927,
        appendix D).

        Raises:
            ConfigError: ``t`` is outside.
        """
        if not -1 <= t <= self.total_steps - 1:
            raise ConfigError(f"the time {t} lies outside -1..{self.total_steps - 1} (diffusion.total_steps)")
        below = math.floor(t)
        at_below = 1.0 if below < 0 else float(_alpha_bars(self)[below])
        if below == t:
            return at_below
        share, at_above = t - below, float(_alpha_bars(self)[below + 1])
        if at_above == 0:
            return 0.0
        return math.exp((1 - share) * math.log(at_below) + share * math.log(at_above))

    def level(self, t: float) -> Level:
        """``alpha_t`` and ``sigma_t`` at one time in [-1, T - 1]; (1, 0) at t = -1, the clean image."""
        alpha_bar = self.alpha_bar(t)
        return Level(math.sqrt(alpha_bar), math.sqrt(1.0 - alpha_bar))

    def half_log_snr(self, t: float) -> float:
        """``lambda_t = log(alpha_t / sigma_t)``, falling in t; infinite at t = -1, the clean image.

        Raises:
            ConfigError: ``t`` is outside, or nothing of the image is left there that float64 can square and divide by.
        """
        alpha, sigma = self.level(t)
        if (left := self.alpha_bar(t)) < VANISHED:
            raise ConfigError(
                f"at the time {t} alpha_bar is {left:.2g}: the betas of this schedule are too large: choose a smaller "
                "diffusion.beta_end, or fewer diffusion.total_steps"
            )
        return math.inf if sigma == 0 else math.log(alpha / sigma)

    def time(self, half_log_snr: float) -> float:
        """The time in [-1, T - 1], whole or fractional, whose ``lambda_t`` this is: the inverse of
        :meth:`half_log_snr`. What lies beyond the noisiest time T - 1 is T - 1.
        """
        log_alpha_bar = -softplus(-2 * half_log_snr)
        logs = _log_alpha_bars(self)
        above = bisect.bisect_left(logs, -log_alpha_bar)  # the first time that is as noisy or noisier
        if above == len(logs):
            return float(self.total_steps - 1)
        low, high = logs[above - 1] if above else 0.0, logs[above]
        t = above - 1 + (-log_alpha_bar - low) / (high - low)
        return float(round(t)) if abs(t - round(t)) < 1e-9 else t

    def alpha(self, t: Tensor, like: Tensor) -> Tensor:
        """``sqrt(alpha_bar_t)`` for int64 times (B,), float32 and shaped to multiply ``like`` (B, ...)."""
        return expand_like(_tables(self, like.device)[0][t], like)

    def sigma(self, t: Tensor, like: Tensor) -> Tensor:
        """``sqrt(1 - alpha_bar_t)`` for int64 times (B,), float32 and shaped to multiply ``like`` (B, ...)."""
        return expand_like(_tables(self, like.device)[1][t], like)


VANISHED = 1e-300  # of alpha_bar: what is less overflows where ratios of levels are squared
LEAST_LEFT = 2.0**-126  # of alpha_bar; what divides by alpha below that is not finite in float32
MOST_LEFT = 1e-3  # of alpha_bar at the noisiest time; more is seen in samples
PUBLISHED_LEFT = 4.04e-5  # what DDPM's own betas leave of 1000 times


def too_little_noise(schedule: Schedule) -> str:
    """What there is to say about a schedule whose noisiest time is not noise; empty if it is.

    Sampling begins with pure noise. Where ``alpha_bar`` at T - 1 is not nearly 0, training never showed the network
    that, but always something of the image, of which the brightness lasts longest (Lin et al. 2023, arXiv 2305.08891,
    section 3.1). With the usual betas, 1e-4 to 0.02, it is 4e-5 at T = 1000, 0.13 at 200 and 0.36 at 100.

    Returns:
        A sentence, and one that says what to choose for a new training: the smallest ``beta_end`` of two digits that
        leaves as little as DDPM's own, or another shape.
    """
    left = schedule.alpha_bar(schedule.total_steps - 1)
    if left <= MOST_LEFT:
        return ""
    end = _enough(schedule)
    other = "--diffusion.beta_schedule cosine"  # which leaves less, whatever its T
    choice = other if end is None else f"--diffusion.beta_end {end:g} or {other}"
    return (
        f"alpha_bar is {left:.2g} at the noisiest time (diffusion.total_steps {schedule.total_steps}), so "
        f"{left**0.5:.0%} of each image is still there in training, while sampling begins with pure noise, which the "
        f"network was never shown. For a new training choose {choice}"
    )


def _enough(schedule: Schedule) -> float | None:
    """The smallest ``beta_end`` of two digits that leaves :data:`PUBLISHED_LEFT`; None if none does."""

    def leaves(end: float) -> float:
        return float(torch.prod(1 - replace(schedule, beta_end=end).betas()))

    low, high = 0.0, 0.99
    if leaves(high) > PUBLISHED_LEFT:
        return None
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if leaves(middle) > PUBLISHED_LEFT else (low, middle)
    digit = 10.0 ** (math.floor(math.log10(high)) - 1)
    return round(math.ceil(high / digit - 1e-3) * digit, 6)


class Posterior(NamedTuple):
    """Coefficients of ``q(x_s | x_t, x_0) = N(c0 x_0 + ct x_t, variance I)`` and of its upper bound ``beta``."""

    c0: float
    ct: float
    variance: float
    beta: float


def posterior(alpha_bar_t: float, alpha_bar_s: float) -> Posterior:
    """The posterior of one step between two noise levels, ``alpha_bar_t < alpha_bar_s <= 1`` (DDPM, eq. 7)."""
    beta = 1.0 - alpha_bar_t / alpha_bar_s
    return Posterior(
        c0=math.sqrt(alpha_bar_s) * beta / (1.0 - alpha_bar_t),
        ct=math.sqrt(1.0 - beta) * (1.0 - alpha_bar_s) / (1.0 - alpha_bar_t),
        variance=beta * (1.0 - alpha_bar_s) / (1.0 - alpha_bar_t),
        beta=beta,
    )


def softplus(x: float) -> float:
    """``log(1 + exp(x))`` without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def expand_like(v: Tensor, x: Tensor) -> Tensor:
    """Gives ``v`` (B,) trailing axes of length 1, so that it multiplies ``x`` (B, ...)."""
    return v.reshape(-1, *(1,) * (x.ndim - 1))


def linspace(start: float, end: float, n: int) -> Tensor:
    """numpy's ``linspace`` to the last bit (torch's own differs there): the published tables were made with it."""
    points = torch.arange(n, dtype=torch.float64) * ((end - start) / max(n - 1, 1)) + start
    if n > 1:
        points[-1] = end
    return points


@lru_cache(maxsize=32)
def _alpha_bars(schedule: Schedule) -> Tensor:
    return torch.cumprod(1.0 - schedule.betas(), dim=0)


@lru_cache(maxsize=32)
def _log_alpha_bars(schedule: Schedule) -> list[float]:
    """``-log alpha_bar_t``, rising."""
    logs: list[float] = (-_alpha_bars(schedule).log()).tolist()
    return logs


@cache  # never let go: a captured graph may read them
def _tables(schedule: Schedule, device: torch.device) -> tuple[Tensor, Tensor]:
    """float32 tables of alpha and sigma on a device; kept, so that a step copies nothing to the GPU."""
    alpha_bars = _alpha_bars(schedule)
    return alpha_bars.sqrt().float().to(device), (1.0 - alpha_bars).sqrt().float().to(device)
