r"""Curves from sums, each with its standard error and a 95 % interval.

The standard error is the spread of the replicates of the bootstrap, and the interval extends 1.96 standard errors to
both sides of the value. Two things are not left to the bootstrap:

* A standard deviation of n numbers is too small in the mean, by ``1 / (4 n)`` of itself if they are normal. Over
  thousands of pixels that is more than the error, so it is added.
* ``delta`` is a square, ``D^2``, whose estimate is too large by the variance of ``D``: ``se^2`` is subtracted, so that
  it is 0 in the mean where ``D`` is 0, and it may be below 0. Its own error is ``sqrt(4 D^2 se^2 + 2 se^4)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ddpm_ip.exposure.bands import noise_energy
from ddpm_ip.exposure.curves import BANDS, HAAR, Curve
from ddpm_ip.exposure.measure import LEVEL, Measurement, Point
from ddpm_ip.exposure.sums import Sums
from ddpm_ip.schedule import Schedule

NORMAL = 1.959964  # standard errors on each side of 95 %
FINEST = HAAR - 1  # of BANDS


def curves(measured: Measurement, sums: Sums) -> dict[str, Curve]:
    """The curves of a measurement, by name, each by rising time.

    Args:
        measured: what was summed.
        sums: of all processes.
    """
    visited, every = measured.points[::-1], [measured.last, *measured.points[::-1]]
    found: dict[str, Curve] = {}
    if "eps_norm" in measured.measures:
        norms = {side: [sums.mean(f"norm.{side}", p.row)[:, 0] for p in visited] for side in ("sampling", "real")}
        ratios = [a / b for a, b in zip(norms["sampling"], norms["real"], strict=True)]
        found["eps_norm.sampling"] = _curve(visited, norms["sampling"])
        found["eps_norm.training"] = _curve(visited, norms["real"])
        found["eps_norm.ratio"] = _curve(visited, ratios)
    if "delta" in measured.measures:
        walked = measured.later[::-1]  # the first state is a true one
        found["delta"] = _squares(walked, [_deviation(sums, "r", p.row) - p.sigma for p in walked])
        found["drift"] = _curve(walked, [_deviation(sums, "x", p.row) - _of_real(sums, p) for p in walked])
    if "errors" in measured.measures:
        found |= _errors([point for point, _ in measured.starts][::-1], sums)
    if "energy" in measured.measures:
        found |= _ratios("xt", every, sums) | _ratios("x0", visited, sums)
        schedule, shape = measured.generator.model.denoiser.schedule, measured.generator.model.shape
        found |= _coupled(visited, sums, schedule, float(noise_energy(*shape[1:])[FINEST]))
    return found


def _curve(points: Sequence[Point], values: Sequence[Tensor]) -> Curve:
    """A curve of values (1 + replicates,) at each point: the plain one, and the spread of the rest."""
    return _with_errors(points, [float(v[0]) for v in values], [float(v[1:].std()) for v in values])


def _with_errors(points: Sequence[Point], values: Sequence[float], se: Sequence[float]) -> Curve:
    low, high = (tuple(v + side * NORMAL * e for v, e in zip(values, se, strict=True)) for side in (-1, 1))
    return Curve(tuple(p.t for p in points), tuple(values), tuple(se), low, high)


def _squares(points: Sequence[Point], differences: Sequence[Tensor]) -> Curve:
    """The squares of differences (1 + replicates,) at each point, without what their errors add."""
    values, errors, low, high = [], [], [], []
    for difference in differences:
        d, se = abs(float(difference[0])), float(difference[1:].std())
        value = d**2 - se**2
        values.append(value)
        errors.append((4 * max(value, 0.0) * se**2 + 2 * se**4) ** 0.5)
        low.append(min(value, max(d - NORMAL * se, 0.0) ** 2))
        high.append((d + NORMAL * se) ** 2)
    return Curve(tuple(p.t for p in points), *map(tuple, (values, errors, low, high)))


def _deviation(sums: Sums, name: str, row: int) -> Tensor:
    """The standard deviation over images, mean over pixels, (1 + replicates,)."""
    return _unbiased(sums, sums.variances(name, row).sqrt()).mean(dim=1)


def _of_real(sums: Sums, point: Point) -> Tensor:
    """The standard deviation of true states at a level, mean over pixels, (1 + replicates,)."""
    of_data = point.alpha**2 * sums.variances("x0", 0)
    variance = of_data + point.sigma**2
    share = (of_data / variance.clamp(min=1e-12)).square()
    return _unbiased(sums, variance.sqrt(), share).mean(dim=1)


def _unbiased(sums: Sums, deviations: Tensor, share: Tensor | float = 1.0) -> Tensor:
    """Standard deviations (1 + replicates, K) of normal numbers, in the first row not too small in the mean.

    Args:
        sums: with the number of images.
        deviations: square roots of variances.
        share: of each variance, the square of the part that was estimated and is not known.
    """
    n = float(sums.n[0])
    correction = torch.zeros_like(sums.n)
    correction[0] = 1 / (4 * (n - 1)) if n > 1 else 0.0
    return deviations * (1 + correction * share)


def _errors(points: Sequence[Point], sums: Sums) -> dict[str, Curve]:
    found = {
        f"x0_error.{name}": _curve(points, [sums.mean(f"error.{name}", p.row)[:, 0].sqrt() for p in points])
        for name in ("one_step", "accumulated")
    }
    found["nu"] = _curve(points, [_deviation(sums, "e", p.row) for p in points])
    tested = [p for p in points if ("normal", p.row) in sums.values and float(sums.values["normal", p.row][0, 0])]
    shares, errors = [], []
    for point in tested:
        groups, total, squares = sums.values["normal", point.row][0].tolist()
        share = total / groups
        variance = max(squares / groups - share**2, 0.0) / (groups - 1) if groups > 1 else LEVEL * (1 - LEVEL)
        shares.append(share)
        errors.append(variance**0.5)
    return found | ({"nu.normal": _with_errors(tested, shares, errors)} if tested else {})


def _ratios(what: str, points: Sequence[Point], sums: Sums) -> dict[str, Curve]:
    """The energy by band in sampling, over that on real states; where there is any."""
    sides = [[sums.mean(f"energy.{what}.{side}", p.row) for p in points] for side in ("sampling", "real")]
    found = {}
    for band, name in enumerate(BANDS):
        there = [(p, a[:, band] / b[:, band]) for p, a, b in zip(points, *sides, strict=True) if (b[:, band] > 0).all()]
        if there:
            found[f"energy.{what}.{name}.ratio"] = _curve([p for p, _ in there], [ratio for _, ratio in there])
    return found


def _coupled(points: Sequence[Point], sums: Sums, schedule: Schedule, of_noise: float) -> dict[str, Curve]:
    """The time whose true states have the finest detail that sampled ones have, less the time of these.

    At alpha_bar a true state has ``alpha_bar E_0 + (1 - alpha_bar) E_1`` of it, where the data have ``E_0`` and noise
    ``E_1``; none is found where noise has no more than the data. Beyond the data the time is -1. Where alpha_bar is not
    known to a quarter of that of the time, which is where states can hardly be told from pure noise, there is none.
    """
    of_data = sums.mean("energy.clean.real", 0)[:, FINEST]
    if not (of_data < 0.9 * of_noise).all():
        return {}
    time = _times(schedule)
    found = {}
    for point in points:
        detail = sums.mean("energy.xt.sampling", point.row)[:, FINEST]
        alpha_bar = (of_noise - detail) / (of_noise - of_data)
        if float(alpha_bar[1:].std()) < point.alpha**2 / 4:
            found[point] = torch.from_numpy(time(alpha_bar.numpy())) - point.t
    return {"coupled_time": _curve([*found], [*found.values()])} if found else {}


def _times(schedule: Schedule) -> Callable[[np.ndarray], np.ndarray]:
    """The time of an alpha_bar, in [-1, T - 1]; between two whole times linear in log alpha_bar, as a schedule is."""
    falling = np.concatenate(([0.0], np.log(np.maximum(schedule.alpha_bars().numpy(), 1e-300))))
    whole = np.arange(-1.0, schedule.total_steps)
    return lambda alpha_bar: np.interp(-np.log(np.clip(alpha_bar, 1e-300, 1.0)), -falling, whole)
