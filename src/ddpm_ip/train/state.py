"""Everything that a training run changes, and how it goes to a checkpoint and back, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_ip.ema import EMA
from ddpm_ip.nn.unet import UNet
from ddpm_ip.run.checkpoint import Checkpoint
from ddpm_ip.run.weights import load_weights


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
    """The state of a run after ``step`` optimizer steps. There is no random state: draws are functions of the step."""

    network: UNet
    ema: EMA[UNet]
    optimizer: torch.optim.Optimizer
    sums: Sums
    scaler: torch.amp.GradScaler | None = None
    step: int = 0
    meta: dict[str, Any] = field(default_factory=dict)  # configuration, data, versions: written, not read back

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """The tensors of a checkpoint."""
        return {
            "model": self.network.state_dict(),
            "ema": self.ema.network.state_dict(),
            "optimizer": {
                f"{i}.{k}": v for i, p in enumerate(self._parameters()) for k, v in self.optimizer.state[p].items()
            },
        }

    def to_meta(self) -> dict[str, Any]:
        """The numbers of a checkpoint; JSON keeps a float64 exactly."""
        scaler = self.scaler.state_dict() if self.scaler is not None else None
        return {**self.meta, "sums": self.sums.total.tolist(), "count": self.sums.count, "scaler": scaler}

    def snapshot(self) -> tuple[dict[str, Mapping[str, Tensor]], dict[str, Any]]:
        """The tensors and numbers of a checkpoint as they are now, in memory that no later step changes.

        The copy lies on the CPU and is as large as a checkpoint: network, average, two moments; 16 bytes a parameter.
        """
        copies: dict[str, Mapping[str, Tensor]] = {
            group: {k: v.detach().to("cpu", copy=True) for k, v in tensors.items()}
            for group, tensors in self.tensors().items()
        }
        return copies, self.to_meta()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes over a checkpoint.

        Raises:
            CheckpointError: it belongs to another network.
        """
        load_weights(self.network, checkpoint.tensors("model"), str(checkpoint.path))
        load_weights(self.ema.network, checkpoint.tensors("ema"), str(checkpoint.path))
        saved = checkpoint.tensors("optimizer")
        for i, p in enumerate(self._parameters()):
            prefix = f"{i}."
            own = {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)}
            # A moment lies in memory as its parameter does (NHWC), so that the next step computes the same.
            self.optimizer.state[p] = {
                k: torch.empty_like(p).copy_(v) if v.shape == p.shape else v.to(p.device) for k, v in own.items()
            }
        self.sums = Sums(torch.tensor(checkpoint.meta["sums"], dtype=torch.float64, device=self.sums.total.device))
        self.sums.count = checkpoint.meta["count"]
        if self.scaler is not None and checkpoint.meta.get("scaler"):
            self.scaler.load_state_dict(checkpoint.meta["scaler"])
        self.step = checkpoint.step

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]
