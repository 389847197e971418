"""How much the squared error at each time counts in the training loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from ddpm_ip.denoiser import PredictionType
from ddpm_ip.schedule import Schedule


class Weighting(Protocol):
    """A frozen dataclass that weighs times: the section ``train.weighting`` of a configuration."""

    def __call__(self, schedule: Schedule, t: Tensor, prediction_type: PredictionType) -> Tensor:
        """Weights of the squared error; device work only, so that a CUDA graph can hold it.

        Args:
            schedule: gives ``alpha`` and ``sigma``, and so the signal-to-noise ratio ``snr = alpha^2 / sigma^2``.
            t: int64 (B,).
            prediction_type: of what the error is; errors of ``eps``, ``x0`` and ``v`` differ by factors of ``snr``.

        Returns:
            float32 (B,), >= 0.
        """
        ...


@dataclass(frozen=True)
class Constant:
    """The simple loss: every time counts the same (Ho et al. 2020, arXiv 2006.11239, equation 14)."""

    name: Literal["constant"] = field(default="constant", kw_only=True)

    def __call__(self, schedule: Schedule, t: Tensor, prediction_type: PredictionType) -> Tensor:
        """Ones, float32 (B,)."""
        return torch.ones(len(t), device=t.device)


WeightingConfig = Constant  # what `train.weighting` can be, told apart by `name`: A | B | ...
