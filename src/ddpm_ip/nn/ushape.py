"""The way through a U-Net, whatever its blocks are: down, through the middle, and up again with what went down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ddpm_ip.nn.blocks import Block, Downsample, Residual, Upsample, check_halvings
from ddpm_ip.nn.labels import LabelEmbedding
from ddpm_ip.nn.network import Cond
from ddpm_ip.nn.ops import Sources

Conditions = Iterator[tuple[Any, ...]]  # a residual block takes the next ones


class Parts(NamedTuple):
    """What a U-Net is made of, each by its width.

    Attributes:
        res: a residual block, from a width to a width.
        attn: attention, or nothing where it is not wanted.
        down: halves the image.
        up: doubles it.
        norm: the last normalisation.
    """

    res: Callable[[int, int], nn.Module]
    attn: Callable[[int, bool], nn.Module]
    down: Callable[[int], nn.Module]
    up: Callable[[int], nn.Module]
    norm: Callable[[int], nn.GroupNorm]


class UShape(Block):
    """``(x, t, cond) -> prediction``. ``conditions(t, cond)`` is what each residual block is given besides, in order.

    Args:
        channels: of the images, and of the prediction.
        dim: width of the time embedding, of which there are four times as many.
        first: width of the first convolution.
        levels: of each resolution the width, and whether it has attention.
        num_res_blocks: residual blocks a resolution on the way down (one more on the way up).
        parts: makes them.
    """

    labels: LabelEmbedding | None
    conditions: Callable[[Tensor, Cond | None], Sequence[tuple[Any, ...]]]

    def __init__(
        self,
        channels: tuple[int, int],
        dim: int,
        first: int,
        levels: Sequence[tuple[int, bool]],
        num_res_blocks: int,
        parts: Parts,
    ) -> None:
        super().__init__()
        self.halvings = len(levels) - 1
        self.time = nn.Sequential(nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, 4 * dim))
        self.conv_in = nn.Conv2d(channels[0], first, 3, padding=1)
        skips, c = [first], first
        self.down = nn.ModuleList()
        for i, (width, wanted) in enumerate(levels):
            for _ in range(num_res_blocks):
                self.down.append(nn.ModuleList([parts.res(c, width), parts.attn(width, wanted)]))
                c = width
                skips.append(c)
            if i < self.halvings:
                self.down.append(parts.down(c))
                skips.append(c)
        self.middle = nn.ModuleList([parts.res(c, c), parts.attn(c, True), parts.res(c, c)])
        self.up = nn.ModuleList()
        for i, (width, wanted) in reversed(list(enumerate(levels))):
            for _ in range(num_res_blocks + 1):
                self.up.append(nn.ModuleList([parts.res(c + skips.pop(), width), parts.attn(width, wanted)]))
                c = width
            if i > 0:
                self.up.append(parts.up(c))
        self.norm_out = parts.norm(c)
        self.conv_out = nn.Conv2d(c, channels[1], 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """Predicts.

        Args:
            x: (B, in_channels, H, W), H and W divisible by 2 for every halving.
            t: times (B,), whole or fractional.
            cond: the classes; without them the network says what it says for the label -1. An unconditional network
                does not look at it.

        Returns:
            (B, out_channels, H, W).
        """
        check_halvings(x.shape[-2], x.shape[-1], self.halvings)
        conditions = iter(self.conditions(t, cond))
        h = self.ops.conv(x.contiguous(memory_format=torch.channels_last), self.conv_in)  # (B, first width, H, W)
        skips = []  # what goes into every part of the way down is joined to what comes out on the way up
        for module in self.down:
            h, skip = _part(module, (h,), conditions)
            skips.append(skip)
        first, attn, second = self.middle
        h, skip = first((h,), *next(conditions))  # (B, last width, H / 2^halvings, W / 2^halvings)
        skips.append(skip)
        h, _ = second((attn(h),), *next(conditions))
        for module in self.up:
            joined = (h, skips.pop()) if isinstance(module, nn.ModuleList) else (h,)
            h = module(h) if isinstance(module, Upsample) else _part(module, joined, conditions)[0]
        y, _, _ = self.ops.norm_silu((h,), self.norm_out)
        return self.ops.conv(y, self.conv_out)


def _part(module: nn.Module, x: Sources, conditions: Conditions) -> tuple[Tensor, Tensor]:
    """A part of the way down or up, and what went in: a residual block and its attention, or a change of size."""
    if isinstance(module, Downsample):
        return module(x[0])  # type: ignore[no-any-return]
    if isinstance(module, Residual):
        return module(x, *next(conditions))  # type: ignore[no-any-return]
    res, attn = module.children()
    h, again = res(x, *next(conditions))
    return attn(h), again
