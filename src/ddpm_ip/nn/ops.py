"""The few operations that dominate the cost of the U-Net, one signature each.

:class:`Operations` is the plain PyTorch form: the reference, and what the CPU runs. The fused form for GPUs
(:class:`ddpm_ip.nn.fused.operations.FusedOperations`) has the same signatures and is tested against this one. The
signatures say what can be done in one pass over memory: they join a layer with what is done to its output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Feature maps (B, C_i, H, W) that are meant as one, joined along the channels: a fused operation need not join them.
Sources = tuple[Tensor, ...]
# What is done to a norm's output, (B, C) each: it is multiplied by 1 + the first, and the second is added.
Modulation = tuple[Tensor, Tensor]


class Operations:
    """Plain PyTorch.

    Attributes:
        draws_from_generator: whether dropout draws from torch's generator; else its masks are the same each time.
    """

    draws_from_generator: ClassVar[bool] = True

    def norm_silu(
        self,
        x: Sources,
        norm: nn.GroupNorm,
        shift: Tensor | None = None,
        dropout: float = 0.0,
        silu: bool = True,
        modulation: Modulation | None = None,
    ) -> tuple[Tensor, Sources, Tensor]:
        """``dropout(silu((1 + scale) group_norm(x + shift) + offset))``, and ``x``, handed through.

        (Whoever uses the ``x`` that is handed through has its gradient added where the norm's gradient is made.)

        Args:
            x: joined (B, C, H, W).
            norm: the GroupNorm and its parameters.
            shift: (B, C), added at every place before the norm: the time embedding; or (C,), the same for all images.
            dropout: probability of zeroing an element, 0 when not training.
            silu: False leaves the activation out.
            modulation: ``scale`` and ``offset``, (B, C) each; None for zeros.

        Returns:
            (B, C, H, W); ``x``; and ``x`` once more, the first of its maps if it is joined.
        """
        joined = _join(x)
        y = norm(joined if shift is None else joined + shift[..., None, None].to(joined.dtype))
        if modulation is not None:
            scale, offset = (m[:, :, None, None] for m in modulation)
            y = y * (1 + scale) + offset
        y = F.silu(y) if silu else y
        return F.dropout(y, dropout) if dropout > 0 else y, (joined,), x[0]

    def conv(self, x: Tensor, conv: nn.Conv2d, bias: bool = True) -> Tensor:
        """The convolution; without its bias if that is added elsewhere. (B, cin, H, W) -> (B, cout, H', W')."""
        return F.conv2d(x, conv.weight, conv.bias if bias else None, conv.stride, conv.padding)

    def conv_residual(self, h: Tensor, conv: nn.Conv2d, x: Sources, shortcut: nn.Module) -> Tensor:
        """``conv(h) + shortcut(x)``, the end of a residual block.

        Args:
            h: (B, cin, H, W).
            conv: keeps height and width.
            x: joined (B, c, H, W).
            shortcut: a 1x1 convolution, or the identity.

        Returns:
            (B, cout, H, W).
        """
        joined = _join(x)
        return conv(h) + (shortcut(joined) if isinstance(shortcut, nn.Conv2d) else joined)  # type: ignore[no-any-return]

    def downsample_conv(self, x: Tensor, conv: nn.Conv2d) -> Tensor:
        """A strided 3x3 convolution of ``x`` padded on the right and below, (B, C, H, W) -> (B, C, H/2, W/2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)), conv)

    def upsample_conv(self, x: Tensor, conv: nn.Conv2d, bias: bool = True) -> Tensor:
        """Nearest-neighbour doubling and a 3x3 convolution, (B, cin, H, W) -> (B, cout, 2H, 2W); see :meth:`conv`."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"), conv, bias)

    def pool(self, x: Tensor) -> Tensor:
        """Means of 2x2 places, (B, C, H, W) -> (B, C, H/2, W/2); H and W are even."""
        return F.avg_pool2d(x, 2)

    def double(self, x: Tensor) -> Tensor:
        """Nearest-neighbour doubling, (B, C, H, W) -> (B, C, 2H, 2W)."""
        return F.interpolate(x, scale_factor=2.0, mode="nearest")

    def attention(
        self, y: Tensor, qkv: nn.Conv2d, proj: nn.Conv2d, x: Sources, heads: int, by_head: bool = False
    ) -> Tensor:
        """``x + proj(attention(qkv(y)))``, softmax attention of every place to every place.

        Args:
            y: (B, C, H, W) with C divisible by ``heads``.
            qkv: 1x1, to queries, keys and values, 3C channels.
            proj: 1x1.
            x: joined (B, C, H, W).
            heads: number of heads.
            by_head: the channels of ``qkv`` are queries, keys and values of the first head, then of the second, ...;
                else the queries of all heads, then all keys, then all values.
        """
        joined = qkv(y)
        if by_head:
            joined = joined.unflatten(1, (heads, 3, -1)).transpose(1, 2).flatten(1, 3)
        q, k, v = joined.chunk(3, dim=1)
        return _join(x) + proj(attention(q, k, v, heads))  # type: ignore[no-any-return]

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        """The layer, (B, in) -> (B, out)."""
        return layer(x)  # type: ignore[no-any-return]

    def shifts(self, emb: Tensor, layers: Sequence[nn.Linear], convs: Sequence[nn.Conv2d]) -> list[Tensor]:
        """What the time embedding adds in every residual block, with the bias of the convolution before it.

        Args:
            emb: (B, in).
            layers: a block's own view of the embedding, in -> C_i.
            convs: the convolution whose output is shifted, C_i channels.

        Returns:
            (B, C_i) each.
        """
        shifts = []
        for layer, conv in zip(layers, convs, strict=True):
            assert conv.bias is not None
            shifts.append(F.linear(emb, layer.weight, layer.bias + conv.bias))
        return shifts

    def modulations(self, emb: Tensor, layers: Sequence[nn.Linear]) -> list[Modulation]:
        """What the time embedding does to a norm's output in every residual block.

        Args:
            emb: (B, in).
            layers: a block's own view of the embedding, in -> 2 C_i: the scales, then the offsets.

        Returns:
            Scale and offset, (B, C_i) each, of every block.
        """
        both = [layer(emb).chunk(2, dim=1) for layer in layers]
        return [(scale, offset) for scale, offset in both]


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Softmax attention of every place to every place; all (B, C, H, W) with C divisible by ``heads``."""
    b, c, h, w = q.shape

    def tokens(x: Tensor) -> Tensor:  # (B, heads, HW, C / heads)
        return x.permute(0, 2, 3, 1).reshape(b, h * w, heads, c // heads).transpose(1, 2)

    out = F.scaled_dot_product_attention(tokens(q), tokens(k), tokens(v))
    return out.transpose(1, 2).reshape(b, h, w, c).permute(0, 3, 1, 2)


def _join(x: Sources) -> Tensor:
    return x[0] if len(x) == 1 else torch.cat(x, dim=1)
