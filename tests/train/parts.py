"""Variants that the package does not have, to see that one class each is enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ddpm_ip.draws import Draws, Stream
from ddpm_ip.nn.network import Cond
from ddpm_ip.schedule import Schedule


@dataclass(frozen=True)
class LossAware:
    """Times in proportion to a running root mean square of their losses (after Nichol & Dhariwal 2021, section 3.3)."""

    name: Literal["loss_aware"] = "loss_aware"
    keep: float = 0.5

    def start(self, schedule: Schedule, device: torch.device) -> History:
        return History(torch.ones(schedule.total_steps, device=device), self.keep)


class History:
    """What ``LossAware`` remembers: the mean square of the loss at each time, float32 (T,)."""

    def __init__(self, squares: Tensor, keep: float) -> None:
        self.squares, self.keep = squares, keep
        self.seen: list[tuple[Tensor, Tensor]] = []

    def draw(self, draws: Draws, total_steps: int) -> tuple[Tensor, Tensor]:
        p = self.squares.sqrt() / self.squares.sqrt().sum()
        u = draws.bits(Stream.TIME, 1)[:, 0].float() * 2.0**-32
        t = torch.searchsorted(p.cumsum(0), u).clamp(max=total_steps - 1)
        return t, 1 / (total_steps * p[t])

    def observe(self, t: Tensor, loss: Tensor) -> None:
        self.seen.append((t, loss))
        count = torch.zeros_like(self.squares).index_add_(0, t, torch.ones_like(loss))
        mean = torch.zeros_like(self.squares).index_add_(0, t, loss**2) / count.clamp(min=1)
        moved = self.keep * self.squares + (1 - self.keep) * mean
        self.squares.copy_(torch.where(count > 0, moved, self.squares))

    def tensors(self) -> dict[str, Tensor]:
        return {"squares": self.squares}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        if tensors:
            self.squares.copy_(tensors["squares"])


@dataclass(frozen=True)
class ByLabel:
    """A network that puts out a learned image for each class, and nothing without one."""

    name: Literal["by_label"] = "by_label"
    in_channels: int = 1
    size: int = 8
    labels: int = 10

    def build(self, channels: int, out_channels: int, classes: int | None) -> ByLabelNet:
        return ByLabelNet(self.labels, out_channels, self.size)

    def check(self, height: int, width: int) -> None:
        assert (height, width) == (self.size, self.size)

    def activation_bytes(self, height: int, width: int, element_size: int) -> int:
        return height * width * element_size


class ByLabelNet(nn.Module):
    def __init__(self, labels: int, channels: int, size: int) -> None:
        super().__init__()
        self.images = nn.Parameter(torch.zeros(labels, channels, size, size))
        self.seen: list[Tensor | None] = []

    def forward(self, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        self.seen.append(None if cond is None else cond.labels)
        labels = torch.full_like(t, -1) if cond is None else cond.labels
        return torch.where(labels[:, None, None, None] < 0, 0 * self.images[0], self.images[labels.clamp(min=0)])
