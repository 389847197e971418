"""The few operations that dominate the cost of the U-Net, one signature each.

This is the plain PyTorch form: the reference, and what the CPU runs. A faster form of an operation has the same
signature and is tested against this one.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def norm_silu(x: Tensor, norm: nn.GroupNorm, shift: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """``dropout(silu(group_norm(x + shift)))``.

    Args:
        x: (B, C, H, W).
        norm: the GroupNorm and its parameters.
        shift: (B, C), added at every place before the norm; the time embedding.
        dropout: probability of zeroing an element, 0 when not training.

    Returns:
        (B, C, H, W).
    """
    if shift is not None:
        x = x + shift[:, :, None, None]
    y = F.silu(norm(x))
    return F.dropout(y, dropout) if dropout > 0 else y


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Softmax attention of every place to every place.

    Args:
        q, k, v: (B, C, H, W) with C divisible by ``heads``.
        heads: number of heads.

    Returns:
        (B, C, H, W).
    """
    b, c, h, w = q.shape

    def tokens(x: Tensor) -> Tensor:  # (B, heads, HW, C / heads)
        return x.permute(0, 2, 3, 1).reshape(b, h * w, heads, c // heads).transpose(1, 2)

    out = F.scaled_dot_product_attention(tokens(q), tokens(k), tokens(v))
    return out.transpose(1, 2).reshape(b, h, w, c).permute(0, 3, 1, 2)
