r"""Band gains: what the state holds of the prediction and of the noise after a step, each times a factor in each band.

A first-order deterministic step ends with ``x_s = alpha_s x_0 + sigma_s eps``. Any state can be read so, with
``eps = (x_s - alpha_s x_0) / sigma_s``; band by band (Haar, up to three levels) it becomes

    x_s  <-  (x0 gain) alpha_s x_0 + (eps gain) sigma_s eps

Epsilon scaling, DCW and a step to a shifted time are of this kind (the constructors below; proven equal on DDIM's steps
in the tests), and so is multiplying the bands of a state with measured numbers. The family is this project's; nothing
of it is published. At the clean image, where sigma_s is 0, and at inner stages of a step nothing is changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor

from ddpm_ip.sampler.base import Plan
from ddpm_ip.sampler.correction.bands import first_visits, low_band, noisy_ends
from ddpm_ip.sampler.correction.base import Correction, Row
from ddpm_ip.sampler.correction.dcw import DCW
from ddpm_ip.sampler.correction.epsilon_scaling import interpolated
from ddpm_ip.schedule import Schedule
from ddpm_ip.variants import Read, one_or_more

LEVELS = 3  # of Haar; the most that may be told apart, since all settings share one graph
Gain = float | tuple[tuple[float, float], ...]  # everywhere the same, or pairs (t, gain)


@dataclass(frozen=True)
class BandGains(Correction):
    """Factors of prediction and noise in the bands of a state; without settings all are 1, and nothing changes.

    Args:
        x0: a gain, or one for each band, from the lowest to the highest: one for all frequencies; or two, of blocks of
            2 x 2 pixels and of what is finer; or three, from 4 x 4 on; or four, from 8 x 8. Each is a number, or a
            table of pairs (t, gain): linear between them, constant beyond; t is the time where the step begins.
        eps: the same for the noise.
    """

    name: Literal["band_gains"] = field(default="band_gains", kw_only=True)
    x0: Annotated[tuple[Gain, ...], Read(one_or_more)] = (1.0,)
    eps: Annotated[tuple[Gain, ...], Read(one_or_more)] = (1.0,)

    def __post_init__(self) -> None:
        for name in ("x0", "eps"):
            object.__setattr__(self, name, gains := one_or_more(getattr(self, name)))
            if not 1 <= len(gains) <= 1 + LEVELS:
                raise ValueError(f"{name} must have one gain, or one for each of 2 to {1 + LEVELS} bands")
            for gain in gains:
                points = _points(gain)
                if not points or not all(math.isfinite(value) for point in points for value in point):
                    raise ValueError(f"a gain of {name} must be a finite number, or a table of pairs (t, gain): {gain}")
                if len({t for t, _ in points}) < len(points):
                    raise ValueError(f"a table of {name} has a time twice: {gain}")

    @classmethod
    def epsilon_scaling(cls, scale: float, plan: Plan) -> BandGains:
        """Epsilon scaling with ``scale``, on the rows of DDIM's plan."""
        shrunk = plan.sigma / plan.alpha * plan.after[:, 0] / plan.after[:, 1]  # of x_0, which takes what eps loses
        return cls(eps=(_table(plan, 1 / scale + (1 - 1 / scale) * shrunk),))

    @classmethod
    def dcw(cls, correction: DCW, plan: Plan, schedule: Schedule) -> BandGains:
        """The gains that a correction DCW is, on a plan of one visit a step, of the schedule of the model."""
        low, high = correction.numbers(plan, schedule).unbind(1)
        grown = 1 - 1 / plan.after[:, 0]
        x0 = tuple(_table(plan, 1 + weight * grown) for weight in (low, high))
        return cls(x0, tuple(_table(plan, 1 + weight) for weight in (low, high)))

    @classmethod
    def time_shift(cls, shift: float, plan: Plan, schedule: Schedule) -> BandGains:
        """The gains that a time shift is, on DDIM's plan: steps end at the level of ``s + shift`` in the model's
        schedule, with ``shift`` in training steps, instead of at that of ``s``.
        """
        times = [min(max(s + shift, -1.0), schedule.total_steps - 1.0) for s in plan.times()[1:]]
        alpha, sigma = torch.tensor([schedule.level(s) for s in times], dtype=torch.float64).unbind(1)
        return cls((_table(plan, alpha / plan.after[:, 0]),), (_table(plan, sigma / plan.after[:, 1]),))

    def numbers(self, plan: Plan, schedule: Schedule) -> Tensor:
        """(V, 8): what x_0 and the state count in the change, each as it is and in the low bands of level 1 to 3."""
        times = plan.t[first_visits(plan)].tolist()
        x0, eps = (
            torch.tensor([_weights(gains, t) for t in times], dtype=torch.float64) for gains in (self.x0, self.eps)
        )
        return torch.cat((plan.after[:, :1] * (x0 - eps), eps), dim=1) * noisy_ends(plan)[:, None]

    def after(self, x: Tensor, x0: Tensor, row: Row) -> Tensor:
        of_x0, of_x = row.numbers[self.name].reshape(2, 1 + LEVELS)
        parts = [low_band(of_x0[k] * x0 + of_x[k] * x, k) for k in range(1 + LEVELS)]
        return parts[0] + parts[1] + parts[2] + parts[3]


def _weights(gains: tuple[Gain, ...], t: float) -> list[float]:
    """What an image and its low bands of level 1 to 3 count, so that each band has its gain less 1."""
    finest, *coarser = [_at(gain, t) - 1 for gain in reversed(gains)]
    steps = [b - a for a, b in zip([finest, *coarser], coarser, strict=False)]
    return [finest, *steps, *[0.0] * (LEVELS - len(steps))]


def _at(gain: Gain, t: float) -> float:
    times, gains = zip(*sorted(_points(gain)), strict=True)
    return interpolated(t, times, gains)


def _points(gain: Gain) -> tuple[tuple[float, float], ...]:
    return gain if isinstance(gain, tuple) else ((0.0, gain),)


def _table(plan: Plan, gains: Tensor) -> Gain:
    """The gains of a plan's rows that end in noise, by the time of each."""
    ends = noisy_ends(plan)
    return tuple(zip(plan.t[ends].tolist(), gains[ends].tolist(), strict=True)) or 1.0
