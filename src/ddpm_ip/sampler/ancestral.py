r"""Ancestral sampling: DDPM's own reverse process, on the full or on a respaced chain of times.

One step from ``t`` to ``s < t`` draws from the Gaussian (Ho et al. 2020, arXiv 2006.11239, equation 7, algorithm 2)

    beta   = 1 - alpha_bar_t / alpha_bar_s                         (recomputed from the times that are kept)
    mean   = sqrt(alpha_bar_s) beta / (1 - alpha_bar_t) x_0 + sqrt(1 - beta) (1 - alpha_bar_s) / (1 - alpha_bar_t) x_t
    x_s    = mean + sqrt(variance) noise,    no noise in the last step

with the predicted ``x_0`` clipped to [-1, 1], and a variance of

    fixed_large:    beta
    fixed_small:    beta (1 - alpha_bar_s) / (1 - alpha_bar_t),    the posterior's
    learned_range:  between the two, on a logarithmic scale (Nichol & Dhariwal 2021, arXiv 2102.09672, equation 15)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ddpm_ip.denoiser import Denoiser, Prediction
from ddpm_ip.errors import ConfigError
from ddpm_ip.schedule import Schedule, posterior

VarType = Literal["fixed_large", "fixed_small", "learned_range"]
_LOG_NOTHING = -400.0  # finite, since infinity times a fraction of 0 is no number


class Coefficients(NamedTuple):
    """The numbers of one step: ``mean = c0 x_0 + ct x_t``, the fixed deviation, the bounds of a learned variance.

    The last step adds no noise: its deviation is 0, and its log-variances are so low that nothing is left of it.
    """

    c0: float | Tensor
    ct: float | Tensor
    deviation: float | Tensor
    log_small: float | Tensor
    log_large: float | Tensor


class Step(NamedTuple):
    """A state of the reverse process and the clean image that led to it; both (B, C, H, W)."""

    xs: Tensor
    x0: Tensor


@dataclass(frozen=True)
class Ancestral:
    """DDPM's sampler.

    Args:
        var_type: the variance of a step.
        clip: clip the predicted ``x_0`` to [-1, 1], the range of images.
    """

    var_type: VarType = "fixed_large"
    clip: bool = True

    def step(self, denoiser: Denoiser, xt: Tensor, t: int, s: int, noise: Tensor) -> Step:
        """One reverse step.

        Args:
            denoiser: the model.
            xt: the state at time ``t``, float32 (B, C, H, W).
            t, s: where it is and where it goes, ``t > s >= -1``; -1 is the clean image.
            noise: standard normal, like ``xt``; not used when ``s`` is -1.

        Raises:
            ConfigError: ``learned_range`` with a network that has learned no variance.
        """
        times = torch.full((len(xt),), t, device=xt.device)
        noise = noise if s >= 0 else torch.zeros_like(xt)
        return self.update(denoiser(xt, times), xt, self.coefficients(denoiser.schedule, t, s), noise)

    def coefficients(self, schedule: Schedule, t: int, s: int) -> Coefficients:
        """The numbers of the step from ``t`` to ``s``."""
        q = posterior(schedule.alpha_bar(t), schedule.alpha_bar(s))
        if s < 0:
            return Coefficients(q.c0, q.ct, 0.0, _LOG_NOTHING, _LOG_NOTHING)
        log_small, log_large = math.log(q.variance), math.log(q.beta)
        deviation = {"fixed_large": math.sqrt(q.beta), "fixed_small": math.sqrt(q.variance), "learned_range": math.nan}
        if self.var_type not in deviation:
            raise ConfigError(f"unknown var_type {self.var_type!r}: choose one of {', '.join(get_args(VarType))}")
        return Coefficients(q.c0, q.ct, deviation[self.var_type], log_small, log_large)

    def update(self, prediction: Prediction, xt: Tensor, k: Coefficients, noise: Tensor) -> Step:
        """What the step makes of the prediction: tensor arithmetic only, so that a graph of it can be replayed.

        Args:
            prediction: at ``xt``.
            xt: float32 (B, C, H, W).
            k: of the step; numbers, or tensors with one number each.
            noise: standard normal, like ``xt``.
        """
        x0 = prediction.x0.clamp(-1, 1) if self.clip else prediction.x0
        mean = k.c0 * x0 + k.ct * xt
        if self.var_type != "learned_range":
            return Step(mean + k.deviation * noise, x0)
        fraction = prediction.variance_fraction
        if fraction is None:
            raise ConfigError(
                "var_type learned_range needs a network with learned variance (trained with "
                "diffusion.var_type: learned_range); for this one choose fixed_large or fixed_small"
            )
        return Step(mean + torch.exp(0.5 * (fraction * k.log_large + (1 - fraction) * k.log_small)) * noise, x0)
