"""Everything that a training run changes, and how it goes to a checkpoint and back, bit for bit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ddpm_ip.ema import EMA
from ddpm_ip.errors import CheckpointError
from ddpm_ip.run.checkpoint import Checkpoint
from ddpm_ip.run.weights import load_weights
from ddpm_ip.times import Observer, TimeSampler, Uniform

log = logging.getLogger("ddpm_ip.train")


@runtime_checkable
class Part(Protocol):
    """A part of the state: whatever tensors of it a step changes, by name."""

    def tensors(self) -> dict[str, Tensor]:
        """The tensors themselves, no copies; a step changes them in place. There may be none, or none yet."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what ``tensors`` gave, from the CPU.

        Raises:
            CheckpointError: they are of something else.
        """
        ...


@dataclass(frozen=True)
class Weights:
    """Parameters and buffers of a network, as a part of the state."""

    network: nn.Module

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        load_weights(self.network, tensors, "this checkpoint")


@dataclass(frozen=True)
class Moments:
    """What an optimizer remembers, as a part of the state: named by the index of the parameter."""

    optimizer: torch.optim.Optimizer

    def tensors(self) -> dict[str, Tensor]:
        return {f"{i}.{k}": v for i, p in enumerate(self._parameters()) for k, v in self.optimizer.state[p].items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        for i, p in enumerate(self._parameters()):
            prefix = f"{i}."
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            # A moment lies in memory as its parameter does (NHWC), so that the next step computes the same.
            self.optimizer.state[p] = {
                k: torch.empty_like(p).copy_(v) if v.shape == p.shape else v.to(p.device) for k, v in own.items()
            }

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


@dataclass
class Sums:
    """What is averaged between two log lines; float64 on the training device, so that no step waits for the GPU."""

    total: Tensor  # (2,): loss, gradient norm
    count: int = 0

    @classmethod
    def zero(cls, device: torch.device) -> Sums:
        return cls(torch.zeros(2, dtype=torch.float64, device=device))

    def add(self, loss: Tensor, grad_norm: Tensor) -> None:
        self.total += torch.stack((loss.detach(), grad_norm.detach())).double()
        self.count += 1


@dataclass
class TrainState:
    """The state of a run after ``step`` optimizer steps. There is no random state: draws are functions of the step.

    Attributes:
        parts: everything that a step changes in tensors: what a checkpoint holds, each under its name, and what the
            captured step puts back. A part of one's own is one more entry, made before the first step.
    """

    network: nn.Module
    ema: EMA[nn.Module]
    optimizer: torch.optim.Optimizer
    sums: Sums
    scaler: torch.amp.GradScaler | None = None
    times: TimeSampler = field(default_factory=Uniform)
    step: int = 0
    meta: dict[str, Any] = field(default_factory=dict)  # configuration, data, versions: written, not read back
    parts: dict[str, Part] = field(init=False)

    def __post_init__(self) -> None:
        self.parts = {
            "model": Weights(self.network),
            "ema": Weights(self.ema.network),
            "optimizer": Moments(self.optimizer),
        }
        if isinstance(self.times, Part):
            self.parts["times"] = self.times
        elif isinstance(self.times, Observer):
            raise TypeError(
                f"{type(self.times).__name__} learns from the losses, but has no tensors() and load(): a run could not "
                "continue where it stopped (see ddpm_ip.train.state.Part)"
            )

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of a checkpoint, by part."""
        return {name: part.tensors() for name, part in self.parts.items()}

    def to_meta(self) -> dict[str, Any]:
        """The numbers of a checkpoint; JSON keeps a float64 exactly."""
        scaler = self.scaler.state_dict() if self.scaler is not None else None
        return {**self.meta, "sums": self.sums.total.tolist(), "count": self.sums.count, "scaler": scaler}

    def snapshot(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """The tensors and numbers of a checkpoint as they are now, in memory that no later step changes.

        The copy lies on the CPU and is as large as a checkpoint: network, average, two moments; 16 bytes a parameter.
        """
        copies = {
            name: {k: v.detach().to("cpu", copy=True) for k, v in tensors.items()}
            for name, tensors in self.tensors().items()
        }
        return copies, self.to_meta()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes over a checkpoint. A part that it does not hold, since it had no tensors then, starts from scratch.

        Raises:
            CheckpointError: it belongs to another network.
        """
        for name, part in self.parts.items():
            if name not in checkpoint.parts:
                log.info("%s holds no %s: it starts from scratch", checkpoint.path, name)
            try:
                part.load(checkpoint.tensors(name) if name in checkpoint.parts else {})
            except CheckpointError as error:
                raise CheckpointError(f"{checkpoint.path}, {name}: {error}") from None
        self.sums = Sums(torch.tensor(checkpoint.meta["sums"], dtype=torch.float64, device=self.sums.total.device))
        self.sums.count = checkpoint.meta["count"]
        if self.scaler is not None and checkpoint.meta.get("scaler"):
            self.scaler.load_state_dict(checkpoint.meta["scaler"])
        self.step = checkpoint.step
