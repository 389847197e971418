"""Classes as vectors that are added to the time embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LabelEmbedding(nn.Embedding):
    """One learned vector a class; nothing, which is zero, for the label -1.

    A product with ones and zeros instead of a look-up: its gradient is a sum in a fixed order, so the same on every
    run, and a label outside picks nothing instead of another's memory.

    Args:
        classes: how many.
        width: of a vector.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__(classes, width)

    def forward(self, labels: Tensor) -> Tensor:
        """Vectors float32 (B, width) of labels int64 (B,)."""
        numbers = torch.arange(self.num_embeddings, device=labels.device)
        return (labels[:, None] == numbers[None, :]).to(self.weight.dtype) @ self.weight
