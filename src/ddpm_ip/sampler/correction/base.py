"""What is not linear composes with every plan, in two places: around the denoiser, and after a visit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ddpm_ip.denoiser import Prediction
from ddpm_ip.nn.network import Cond
from ddpm_ip.sampler.base import Plan
from ddpm_ip.schedule import Schedule


class Row(NamedTuple):
    """What a visit's row of the plan says to a denoiser and to corrections, on the device.

    Attributes:
        t: (B,) times, whole or fractional.
        alpha, sigma: float32 (1, 1, 1, 1), the level that the network is asked at.
        numbers: float32 (P,) for each correction, by its name: its row of :meth:`Correction.numbers`.
        cond: what the network is told about the images; None for an unconditional network.
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    numbers: Mapping[str, Tensor]
    cond: Cond | None = None

    def level_of(self, seen: Prediction) -> tuple[Tensor, Tensor]:
        """Alpha and sigma at which ``x_0`` and ``eps`` follow from each other.

        Args:
            seen: a prediction at this row, which a correction may have asked at another level.
        """
        return (self.alpha, self.sigma) if seen.level is None else seen.level


Denoise = Callable[[Tensor, Row], Prediction]


class Correction(Protocol):
    """A change of what the denoiser says, or of the state after a visit; the hooks of this class change nothing.

    A correction is a frozen dataclass and its own configuration. One captured graph serves every setting of a
    correction, so :meth:`wrap` and :meth:`after` may use nothing of the correction but what the row holds of
    :meth:`numbers`, and must be tensor arithmetic that waits for nothing.
    """

    @property
    def name(self) -> str:
        """What files and the command line call it; each correction is given once."""
        ...

    @property
    def asks(self) -> int:
        """How often it asks the network at a visit; one that asks more than once stands next to the network."""
        return 1

    def numbers(self, plan: Plan, schedule: Schedule) -> Tensor:
        """What it works with at each visit, float64 (V, P) on the CPU; P is the same for every plan.

        Args:
            plan: of the walk, V visits.
            schedule: of the model.

        Raises:
            ConfigError: it cannot correct such a walk.
        """
        return torch.zeros(plan.visits, 0, dtype=torch.float64)

    def wrap(self, denoise: Denoise) -> Denoise:
        """A denoiser that says something better: ``(xt (B, C, H, W), row) -> Prediction``.

        Args:
            denoise: the denoiser within the corrections before this one.
        """
        return denoise

    def after(self, x: Tensor, x0: Tensor, row: Row) -> Tensor | None:
        """What is added to the state after a visit, (B, C, H, W), and to what carries it; None for nothing.

        Args:
            x: the state after the visit, float32 (B, C, H, W).
            x0: the clean images as predicted at the visit, after all corrections.
            row: of the visit.
        """
        return None
