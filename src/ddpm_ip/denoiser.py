r"""A network that predicts, seen as what it is for: ``(x_t, t) -> (x_0, eps)``.

The three prediction types are linear re-readings of each other (``a = alpha_t``, ``s = sigma_t``):

    pred_eps:  x_0 = (x_t - s eps) / a            Ho et al. 2020 (arXiv 2006.11239)
    pred_x0:   eps = (x_t - a x_0) / s
    pred_v:    v = a eps - s x_0,   x_0 = a x_t - s v,   eps = s x_t + a v      Salimans & Ho 2022 (arXiv 2202.00512)

This module is the only one that knows which of them a network speaks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from torch import Tensor

from ddpm_ip.errors import ConfigError
from ddpm_ip.nn.network import Cond, Network
from ddpm_ip.schedule import Schedule

PredictionType = Literal["pred_eps", "pred_x0", "pred_v"]


class Prediction(NamedTuple):
    """What a denoiser says about a batch; float32.

    Attributes:
        x0: the clean images, (B, C, H, W), not clipped.
        eps: the noise, (B, C, H, W).
        output: what the network returned in its own terms, (B, C, H, W): what the training loss compares.
        variance_fraction: where the reverse variance lies between its bounds, on a logarithmic scale, (B, C, H, W):
            0 is the posterior variance, 1 is beta (Nichol & Dhariwal 2021, equation 15); None if it is not learned.
        level: alpha and sigma that ``x_0`` and ``eps`` belong to, of a shape that multiplies them, where a correction
            asked at another level than the row's; else None.
    """

    x0: Tensor
    eps: Tensor
    output: Tensor
    variance_fraction: Tensor | None
    level: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Denoiser:
    """Network + schedule + prediction type.

    Args:
        network: ``(x (B, C, H, W), t (B,), cond) -> (B, C, H, W)``, or 2C channels with ``learned_variance``; without a
            condition it is asked with ``(x, t)`` alone.
        schedule: the schedule that it was trained with.
        prediction_type: what the network puts out.
        learned_variance: the second half of the output's channels are variance fractions, scaled to [-1, 1].
        whole_times: the network knows only whole times, as one with a table of T embeddings does: it is given the
            nearest one, while the level stays the one that is asked.
        cond: what the network is told if a call says nothing; None for an unconditional network.
    """

    network: Network
    schedule: Schedule
    prediction_type: PredictionType = "pred_eps"
    learned_variance: bool = False
    whole_times: bool = False
    cond: Cond | None = field(default=None, compare=False)

    def __call__(self, xt: Tensor, t: Tensor, cond: Cond | None = None) -> Prediction:
        """Predicts from noisy images ``xt`` (B, C, H, W) at int64 times ``t`` (B,) in 0..T-1, given ``cond``."""
        return self.at(xt, t, self.schedule.alpha(t, xt), self.schedule.sigma(t, xt), cond)

    def at(self, xt: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Cond | None = None) -> Prediction:
        """Predicts at a level that is given, and not looked up: that of a row of a sampler's plan.

        Args:
            xt: noisy images (B, C, H, W).
            t: what the network is told, (B,), whole or fractional.
            alpha, sigma: float32, of a shape that multiplies ``xt``.
            cond: what else the network is told.
        """
        cond = self.cond if cond is None else cond
        if self.whole_times and t.is_floating_point():
            t = t.round().long()
        output = self.network(xt, t) if cond is None else self.network(xt, t, cond)
        output, fraction = output.float(), None
        if self.learned_variance:
            output, v = output.chunk(2, dim=1)
            fraction = (v + 1) / 2
        return Prediction(*self.read(output, xt, alpha, sigma), output, fraction)

    def read(self, output: Tensor, xt: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """``x_0`` and ``eps`` that an output says, (B, C, H, W) both.

        Args:
            output: (B, C, H, W), without variance fractions.
            xt: what the network was asked, (B, C, H, W).
            alpha, sigma: the level of ``xt``, of a shape that multiplies it.
        """
        a, s = alpha, sigma
        if self.prediction_type == "pred_eps":
            return (xt - s * output) / a, output
        if self.prediction_type == "pred_x0":
            return output, (xt - a * output) / s
        if self.prediction_type == "pred_v":
            return a * xt - s * output, s * xt + a * output
        raise _unknown(self.prediction_type)

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network should have returned, given the truth, (B, C, H, W).

        Args:
            x0: the clean images, (B, C, H, W).
            eps: the noise in them, (B, C, H, W).
            t: int64 (B,), times in 0..T-1.
        """
        if self.prediction_type == "pred_eps":
            return eps
        if self.prediction_type == "pred_x0":
            return x0
        if self.prediction_type == "pred_v":
            return self.schedule.alpha(t, x0) * eps - self.schedule.sigma(t, x0) * x0
        raise _unknown(self.prediction_type)


def _unknown(prediction_type: str) -> ConfigError:
    return ConfigError(
        f"unknown prediction type {prediction_type!r}: choose one of {', '.join(get_args(PredictionType))}"
    )
