r"""What a weighting is: how much the squared error at each time counts in the training loss.

Papers state their weights for the error of ``x_0``, of ``eps``, or of ``v``. For one and the same prediction, seen in
these three ways, with ``alpha^2 + sigma^2 = 1`` and ``snr = alpha^2 / sigma^2``,

    |eps - eps^|^2 = snr |x_0 - x_0^|^2,        |v - v^|^2 = (snr + 1) |x_0 - x_0^|^2

so a weight of the error of ``x_0`` is divided by ``snr`` or ``snr + 1`` to become one of the network's own output.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ddpm_ip.denoiser import PredictionType
from ddpm_ip.schedule import Schedule


class Weighting(Protocol):
    """A frozen dataclass that weighs times: the section ``train.weighting`` of a configuration."""

    def __call__(self, schedule: Schedule, t: Tensor, prediction_type: PredictionType) -> Tensor:
        """Weights of the squared error of the network's output; device work only, so that a CUDA graph can hold it.

        Args:
            schedule: gives ``alpha`` and ``sigma``, and so the signal-to-noise ratio ``snr = alpha^2 / sigma^2``.
            t: int64 (B,).
            prediction_type: of what the error is; errors of ``eps``, ``x0`` and ``v`` differ by factors of ``snr``.

        Returns:
            float32 (B,), >= 0.
        """
        ...


def snr(schedule: Schedule, t: Tensor) -> Tensor:
    """``alpha_t^2 / sigma_t^2``, float32 (B,), of int64 times (B,)."""
    return (schedule.alpha(t, t.float()) / schedule.sigma(t, t.float())) ** 2
