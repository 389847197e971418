r"""Time shift: each sample is taken to be at the time that fits its variance, not at that of the grid.

A state of variance ``v`` (unbiased, over all dimensions of a sample) fits best to the time

    tau = argmin (v - (1 - alpha_bar_tau))^2,    tau in [t - w / 2, t + w / 2]

while ``t > cutoff`` and from the second visit on (Li et al. 2024, "Alleviating exposure bias in diffusion models
through sampling with shifted time steps", arXiv 2305.15583, algorithm 3).

published: the network is asked at ``tau``, and ``x_0`` and ``eps`` are read at its level, clipped or not: ddim steps
    from ``tau``. What other samplers take from the state is at the level of the grid.
released: what the authors' program does (Mingxiao-Li/TS-DPM, pnm_solver.py). The network is asked on the grid; the
    variance of the state *before* a step is compared with the levels around the time s *after* it, and the step leads
    to ``tau``, which the next visit takes for s. Here the state is moved along ``x_0`` and ``eps`` after steps of first
    order without noise (ddim with eta 0, euler, dpm_solver of order 1), whose end tells both; others mix in noise or
    earlier predictions, which a correction does not see.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.denoiser import Prediction
from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler.base import Plan
from ddpm_ip.sampler.correction.base import Correction, Denoise, Row
from ddpm_ip.schedule import Schedule

MOST = 100  # the widest window
SLOTS = MOST + 1  # the table has room for it, whatever the setting
PER = 1000  # windows and cutoffs are in thousandths of T, as published


@dataclass(frozen=True)
class TimeShift(Correction):
    """Chooses the time by the variance of the sample.

    Published for CIFAR-10 (window, cutoff): 30, 300 for DPM-Solver, 10, 900 for DEIS and 80, 300 for ADM's DDIM in 5
    steps; 5, 550 for F-PNDM in 100.

    Args:
        window: w, 0 to 100 thousandths of T; half of it, rounded down, to either side.
        cutoff: 0 to 1000 thousandths of T.
        variant: "published", the paper's algorithm; "released", that of its program.
    """

    name: Literal["time_shift"] = field(default="time_shift", kw_only=True)
    window: int = 30
    cutoff: float = 300.0
    variant: Literal["published", "released"] = "published"

    def __post_init__(self) -> None:
        for name, value, most in (("window", self.window, MOST), ("cutoff", self.cutoff, PER)):
            if not 0 <= value <= most:
                raise ValueError(f"{name} must lie in 0..{most} thousandths of T, got {value}")

    def numbers(self, plan: Plan, schedule: Schedule) -> Tensor:
        """(V, 3 + 5 SLOTS): alpha, sigma and 1 / sigma after the visit; the window around t (times, alphas, sigmas) and
        that around s (alphas, sigmas). Where nothing is shifted, every slot is the time itself.

        Raises:
            ConfigError: "released", and the steps are not of first order without noise.
        """
        released, level, rows = self.variant == "released", cache(schedule.level), []
        if released and not _first_order(plan):
            fitting = "ddim with eta 0, euler or dpm_solver of order 1"
            raise ConfigError(f"time_shift,variant=released needs {fitting}: choose one, or variant=published")
        for i, (t, s) in enumerate(zip(plan.t.tolist(), plan.times()[1:], strict=True)):
            around_t = self._window(t, schedule.total_steps, shifts=i > 0 and not released)
            around_s = self._window(s, schedule.total_steps, shifts=i > 0 and released)
            after, asked, moved = level(s), map(level, around_t), map(level, around_s)
            levels = *chain(*zip(*asked, strict=True)), *chain(*zip(*moved, strict=True))
            rows.append([*after, 1 / after.sigma if after.sigma else 0.0, *around_t, *levels])
        return torch.tensor(rows, dtype=torch.float64)

    def _window(self, t: float, total_steps: int, shifts: bool) -> list[float]:
        """The times that ``t`` may be shifted to, SLOTS with repetitions."""
        unit, half = total_steps / PER, self.window // 2
        if not shifts or t <= self.cutoff * unit:
            return [t] * SLOTS
        return [min(max(t + min(k, half) * unit, 0.0), total_steps - 1.0) for k in range(-half, SLOTS - half)]

    def wrap(self, denoise: Denoise) -> Denoise:
        def shifted(xt: Tensor, row: Row) -> Prediction:
            times, alphas, sigmas = row.numbers[self.name][3 : 3 + 3 * SLOTS].reshape(3, SLOTS)
            chosen = _nearest(xt, sigmas)
            alpha, sigma = (levels[chosen].reshape(-1, 1, 1, 1) for levels in (alphas, sigmas))
            seen = denoise(xt, row._replace(t=times[chosen], alpha=alpha, sigma=sigma))
            return seen._replace(level=(alpha, sigma))

        return shifted

    def after(self, x: Tensor, x0: Tensor, row: Row) -> Tensor:
        """The state moved along ``x_0`` and ``eps`` to the level that the variance of the one before it asks for."""
        numbers = row.numbers[self.name]
        (alpha, sigma, inverse), (alphas, sigmas) = numbers[:3], numbers[3 + 3 * SLOTS :].reshape(2, SLOTS)
        eps = (x - alpha * x0) * inverse
        chosen = _nearest(row.alpha * x0 + row.sigma * eps, sigmas)
        alpha_to, sigma_to = (levels[chosen].reshape(-1, 1, 1, 1) for levels in (alphas, sigmas))
        moved: Tensor = (alpha_to - alpha) * x0 + (sigma_to - sigma) * eps
        return moved


def _nearest(x: Tensor, sigmas: Tensor) -> Tensor:
    """For each sample (B, ...) the slot (B,) whose ``1 - alpha_bar`` is nearest to its variance."""
    variance = x.flatten(1).var(dim=1, keepdim=True)
    return ((variance - sigmas**2) ** 2).argmin(dim=1)


def _first_order(plan: Plan) -> bool:
    """Whether each new state is ``alpha_s x_0 + sigma_s eps``, once x is written in x_0 and eps, too."""
    x, memories, (x0, eps, noise) = plan.update[:, 0, 0], plan.update[:, 0, 1:-3], plan.update[:, 0, -3:].unbind(1)
    level = torch.stack((x0 + x * plan.alpha, eps + x * plan.sigma), dim=1)
    return not memories.any() and not noise.any() and torch.allclose(level, plan.after, rtol=1e-9, atol=1e-9)
