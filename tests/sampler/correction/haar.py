"""Haar's orthonormal transform as matrices, one level at a time: what bands are held against."""

from __future__ import annotations

import torch
from torch import Tensor


def transform(n: int) -> Tensor:
    """(n, n), n even: the low band's rows, then the high band's."""
    h = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n // 2):
        h[i, 2 * i] = h[i, 2 * i + 1] = h[n // 2 + i, 2 * i] = 0.5**0.5
        h[n // 2 + i, 2 * i + 1] = -(0.5**0.5)
    return h


def weighted(images: Tensor, weights: list[float]) -> Tensor:
    """Images (..., H, W) with their bands times weights, from the lowest to the highest: ``len(weights) - 1`` levels.

    Zeros are added at the right and below before each level where a side is odd, and cut off afterwards.
    """
    if len(weights) == 1:
        return images * weights[0]
    height, width = images.shape[-2:]
    whole = torch.zeros(*images.shape[:-2], height + height % 2, width + width % 2, dtype=images.dtype)
    whole[..., :height, :width] = images
    rows, columns = transform(whole.shape[-2]).to(images.dtype), transform(whole.shape[-1]).to(images.dtype)
    bands = rows @ whole @ columns.T
    low = bands[..., : len(rows) // 2, : len(columns) // 2].clone()
    bands = bands * weights[-1]
    bands[..., : len(rows) // 2, : len(columns) // 2] = weighted(low, weights[:-1])
    return (rows.T @ bands @ columns)[..., :height, :width]
