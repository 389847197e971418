"""Rows of features: what they are, where they are worked with, and how many are held at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Rows = npt.NDArray[np.floating]
"""(N, D), ``float32`` or ``float64``; may be a memory map, of which a few rows at a time are read."""

HELD = 16_000_000  # numbers at once, 128 MB
PIECE = 4096  # rows at once
SEED = 2020  # torch-fidelity's: other draws would be other numbers
SAME = 1e-13  # squared distances below this share of the squared lengths are rounding alone, and are 0


def as_tensor(rows: Rows) -> Tensor:
    """The rows where they lie."""
    return torch.from_numpy(np.ascontiguousarray(rows))


def squared_distances(points: Tensor, others: Tensor, device: torch.device) -> Iterator[Tensor]:
    """(rows, len(others)) of a few points at a time, in order; ``others`` stays on the device in its own precision."""
    others = others.to(device)
    # Any origin gives the same distances. From 0 they would be small differences of large numbers.
    origin = torch.stack([part.double().sum(dim=0) for part in torch.split(others, PIECE)]).sum(dim=0) / len(others)
    squares = torch.cat([((part.double() - origin) ** 2).sum(dim=1) for part in torch.split(others, PIECE)])
    for part in torch.split(points, max(1, HELD // len(others))):
        x = part.to(device).double() - origin
        products = torch.cat([x @ (y.double() - origin).T for y in torch.split(others, PIECE)], dim=1)
        lengths = (x**2).sum(dim=1, keepdim=True) + squares
        distances = lengths - 2 * products
        yield distances.masked_fill_(distances <= SAME * lengths, 0.0)
