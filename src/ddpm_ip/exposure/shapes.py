"""Corrections of few numbers, read off measured curves: constants, lines, TSR, and the window of a time shift."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm_ip.sampler.base import Plan
from ddpm_ip.sampler.correction import TSR, EpsilonScaling, TimeShift
from ddpm_ip.sampler.correction.bands import noisy_ends
from ddpm_ip.sampler.correction.epsilon_scaling import indices
from ddpm_ip.sampler.correction.time_shift import MOST, PER
from ddpm_ip.schedule import Schedule

LEAST, MOST_SCALE = 0.8, 1.25  # epsilon scales that are believed
TSR_SIGMAS = (0.1, 0.15, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)


def table(times: Sequence[float], scales: Sequence[float]) -> EpsilonScaling:
    """Epsilon scaling by numbers at times, in any order; of a time that is there twice, the last number counts."""
    rising = {t: min(max(s, LEAST), MOST_SCALE) for t, s in sorted(zip(times, scales, strict=True), key=lambda p: p[0])}
    if len(rising) < 2:
        return EpsilonScaling(next(iter(rising.values())))
    return EpsilonScaling(times=tuple(rising), scales=tuple(rising.values()))


def constant(scales: Sequence[float]) -> EpsilonScaling:
    """The median of measured factors, which a few extreme ones at either end of a walk do not move."""
    return EpsilonScaling(round(statistics.median(scales), 5))


def line(plan: Plan, factors: Tensor) -> EpsilonScaling:
    """The straight line nearest to factors (V,) of a plan's visits, over the index on the grid from the data on."""
    x = indices(plan, from_noise=False)
    centred = x - x.mean()
    spread = float(centred.square().sum())
    slope = float((centred * factors).sum()) / spread if spread > 0 else 0.0
    return EpsilonScaling(float(factors.mean() - slope * x.mean()), slope, "data")


def tsr(plan: Plan, schedule: Schedule, factors: Tensor) -> TSR:
    """TSR's two numbers whose factors are nearest to those of a plan's visits, (V,); the best of a grid."""
    tried = [
        TSR(k=float(k), sigma=sigma) for sigma in TSR_SIGMAS for k in torch.linspace(0.8, 1.2, 161, dtype=torch.float64)
    ]
    return min(tried, key=lambda one: float((one.numbers(plan, schedule)[:, 0] - factors).square().sum()))


def time_shift(plan: Plan, schedule: Schedule, ratio: Tensor, images: float) -> TimeShift | None:
    r"""The window that holds the drift of the sampled states, and the cutoff below which their variance misleads.

    A state after a visit has the variance ``V = alpha^2 v + sigma^2 + excess``, with the images' ``v``. The excess is
    read as time: ``d = tau - s``, with ``sigma_tau^2 = sigma_s^2 + excess``; the window is twice the largest ``|d|``.
    The method takes ``alpha^2 v`` for noise as well. Where that alone looks like more time than the drift, it misleads:
    the cutoff is above.

    Args:
        plan: of the sampling.
        schedule: of the model.
        ratio: energy of the sampled states over that of true ones, (V,).
        images: ``v``, the mean square of the images' pixels.

    Returns:
        None where the variance misleads everywhere.
    """
    unit = schedule.total_steps / PER
    fitting = []
    for i in (plan.state & noisy_ends(plan)).nonzero().flatten().tolist():
        alpha, sigma = plan.after[i].tolist()
        true = alpha**2 * images + sigma**2
        s = plan.times()[i + 1]
        drift = abs(_time(schedule, sigma**2 + (float(ratio[i]) - 1) * true) - s) / unit
        misled = abs(_time(schedule, true) - s) / unit
        if misled <= max(drift, 1.0):
            fitting.append((s / unit, drift))
    if not fitting:
        return None
    window = min(MOST, max(2, round(2 * max(drift for _, drift in fitting))))
    return TimeShift(window, float(min(max(min(s for s, _ in fitting) - 1, 0), PER)))


def _time(schedule: Schedule, variance: float) -> float:
    """The time whose noise has a variance, within 0..T-1."""
    last = schedule.total_steps - 1
    ends = schedule.level(0).sigma ** 2, schedule.level(last).sigma ** 2
    variance = min(max(variance, ends[0]), ends[1])
    return min(
        max(schedule.time(0.5 * torch.tensor((1 - variance) / variance).double().log().item()), 0.0), float(last)
    )
