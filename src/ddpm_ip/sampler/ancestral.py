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

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.errors import ConfigError
from ddpm_ip.schedule import Posterior, posterior

VarType = Literal["fixed_large", "fixed_small", "learned_range"]


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
        x0, _, _, fraction = denoiser(xt, times)
        if self.clip:
            x0 = x0.clamp(-1, 1)
        q = posterior(denoiser.schedule.alpha_bar(t), denoiser.schedule.alpha_bar(s))
        mean = q.c0 * x0 + q.ct * xt
        if s < 0:
            return Step(mean, x0)
        return Step(mean + self._deviation(q, fraction) * noise, x0)

    def _deviation(self, q: Posterior, fraction: Tensor | None) -> Tensor | float:
        if self.var_type == "fixed_large":
            return math.sqrt(q.beta)
        if self.var_type == "fixed_small":
            return math.sqrt(q.variance)
        if self.var_type == "learned_range":
            if fraction is None:
                raise ConfigError(
                    "var_type learned_range needs a network with learned variance (trained with "
                    "diffusion.var_type: learned_range); for this one choose fixed_large or fixed_small"
                )
            return torch.exp(0.5 * (fraction * math.log(q.beta) + (1 - fraction) * math.log(q.variance)))
        raise ConfigError(f"unknown var_type {self.var_type!r}: choose one of {', '.join(get_args(VarType))}")
