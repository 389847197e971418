"""GroupNorm, a shift before it, a gain and an offset for each image, SiLU and dropout after it, in Triton.

One GPU kernel forward and one backward.

Feature maps lie in memory as (B, H, W, C). A program takes some whole groups of one image and walks over its places
twice: for the statistics, and for the result. What it reads the second time is a short while old and partly still in
a cache; a small map stays in registers. The next places are on their way to shared memory while the present ones are
worked on, which the backward pass gains from most.

Nothing is added up by atomics: the same inputs give the same bits.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ddpm_ip.nn.fused.launch import launch
from ddpm_ip.nn.fused.norm_kernels import _norm_backward, _norm_forward

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


REGISTER_TILE = 2048  # numbers that a program holds in registers, so that nothing is read twice
PER_THREAD = 16  # numbers that a thread works on at a time where the tile is larger


class _Plan(NamedTuple):
    """How a GroupNorm is divided among programs."""

    blocks: int
    options: dict[str, int | bool]
    warps: int


def _plan(c1: int, c2: int, places: int, group: int) -> _Plan:
    """A program takes whole groups of one image: ``BLOCK_C`` channels on ``LANES`` lanes, ``ROWS`` places at a time.

    The sizes are among the fastest of a sweep on an H200 (docs/performance.md).

    Args:
        c1, c2: channels of the maps that are joined.
        places: height times width.
        group: channels of a group.
    """
    channels = c1 + c2
    wanted = 64 if places >= 1024 else 32
    lanes = max(min(wanted, triton.next_power_of_2(channels)), triton.next_power_of_2(group))
    fitting = [g * group for g in range(1, lanes // group + 1) if channels % (g * group) == 0]
    # 16-byte accesses need blocks that start at multiples of eight channels
    block = max(fitting, key=lambda n: (n % 8 == 0, n))
    tile = triton.next_power_of_2(places) * lanes
    once = tile <= REGISTER_TILE  # the whole tile in registers: nothing is read twice
    per_thread = 32 if once else PER_THREAD
    warps = min(8, max(1, tile // (32 * per_thread))) if once or places >= 1024 else 4
    rows = tile // lanes if once else max(1, warps * 32 * per_thread // lanes)
    options: dict[str, int | bool] = {"GROUP": group, "BLOCK_C": block, "LANES": lanes, "ROWS": rows, "ONCE": once}
    options["EVEN"] = places % rows == 0 and block == lanes
    options["ALIGNED"] = c1 % 8 == 0 and c2 % 8 == 0 and block % 8 == 0
    options["STAGES"] = 3  # copies are on their way to shared memory while others are worked on
    return _Plan(channels // block, options, warps)


def _channels(x1: Tensor, x2: Tensor | None) -> tuple[int, int]:
    return x1.shape[1], 0 if x2 is None else x2.shape[1]


def _dropout(dropout: float) -> dict[str, float]:
    """The largest hash that is dropped, and what the kept values are multiplied by."""
    return {"THRESHOLD": round(dropout * 2**32), "SCALE": 1.0 / (1.0 - dropout)}


class Inputs(NamedTuple):
    """The tensors that a norm is computed from.

    Attributes:
        x1, x2: (B, C1, H, W) and (B, C2, H, W) or None: ``x`` is the two joined; channels_last.
        shift: (B, C) with a last stride of 1, (C,), or None.
        weight, bias: (C,).
        keys: int64 (B,), a random number an image; for dropout.
        scale, offset: (B, C) each, with a last stride of 1 and the same first stride; or None.
    """

    x1: Tensor
    x2: Tensor | None
    shift: Tensor | None
    weight: Tensor
    bias: Tensor
    keys: Tensor | None
    scale: Tensor | None = None
    offset: Tensor | None = None


class Settings(NamedTuple):
    """What a norm does with them.

    Attributes:
        groups, eps: of the norm.
        silu: whether the activation is applied.
        dropout: probability in [0, 1).
        layer: which layer this is: another layer drops other places.
    """

    groups: int
    eps: float
    silu: bool
    dropout: float
    layer: int


def norm_forward(inputs: Inputs, settings: Settings) -> tuple[Tensor, Tensor]:
    """``dropout(silu((1 + scale) group_norm(x + shift) + offset))``.

    Returns:
        The output (B, C, H, W), and mean and 1/deviation of every group, float32 (2, B, groups).
    """
    x1, x2, shift, weight, bias, keys, scale, offset = inputs
    c1, c2 = _channels(x1, x2)
    batch, places = x1.shape[0], x1.shape[2] * x1.shape[3]
    plan = _plan(c1, c2, places, (c1 + c2) // settings.groups)
    y = torch.empty(batch, c1 + c2, *x1.shape[2:], dtype=x1.dtype, device=x1.device, memory_format=torch.channels_last)
    stats = torch.empty(2, batch, settings.groups, device=x1.device)
    launch(
        _norm_forward, (plan.blocks, batch),
        x1, x1 if x2 is None else x2, weight if shift is None else shift, weight, bias, scale, offset,
        stats if keys is None else keys, y, stats, _row_stride(shift), None if scale is None else scale.stride(0),
        settings.eps, settings.layer,
        HW=places, C1=c1, C2=c2, **plan.options, SHIFT=shift is not None, SILU=settings.silu,
        **_dropout(settings.dropout), FAST=_fast(x1), num_warps=plan.warps,
    )  # fmt: skip
    return y, stats


def norm_backward(
    inputs: Inputs, settings: Settings, stats: Tensor, dy: Tensor, r1: Tensor | None, r2: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The gradients of :func:`norm_forward`.

    Args:
        inputs, settings: as there.
        stats: what the forward pass returned.
        dy: gradient of the output.
        r1, r2: gradients of ``x1`` and ``x2`` from elsewhere, which are added; both or none. Without ``x2``: of ``x1``,
            none, one or two.

    Returns:
        The gradients of ``x1`` and ``x2``; and for each image, float32 (3 to 6, B, C): those of weight and bias, the
        sum over all places of that of ``x``, that of the shift if there is one, and those of scale and offset if there
        are any.
    """
    x1, x2, shift, weight, bias, keys, scale, offset = inputs
    c1, c2 = _channels(x1, x2)
    batch, places = x1.shape[0], x1.shape[2] * x1.shape[3]
    plan = _plan(c1, c2, places, (c1 + c2) // settings.groups)
    dx1 = torch.empty_like(x1)
    dx2 = None if x2 is None else torch.empty_like(x2)
    kinds = 3 + (shift is not None) + 2 * (scale is not None)
    sums = torch.empty(kinds, batch, c1 + c2, device=x1.device)
    launch(
        _norm_backward, (plan.blocks, batch),
        x1, x1 if x2 is None else x2, weight if shift is None else shift, weight, bias, scale, offset,
        stats if keys is None else keys, stats, dy, dy if r1 is None else r1, dy if r2 is None else r2,
        dx1, dx1 if dx2 is None else dx2, sums, _row_stride(shift), None if scale is None else scale.stride(0),
        settings.layer,
        HW=places, C1=c1, C2=c2, **plan.options, SHIFT=shift is not None, SILU=settings.silu,
        **_dropout(settings.dropout), FAST=_fast(x1), RESIDUAL=(r1 is not None) + (r2 is not None),
        num_warps=plan.warps, maxnreg=128,
    )  # fmt: skip
    return dx1, dx2, sums


def _row_stride(shift: Tensor | None) -> int:
    return 0 if shift is None or shift.ndim == 1 else shift.stride(0)


def _fast(x: Tensor) -> bool:
    """Approximate instructions where the numbers have few digits anyway."""
    return x.dtype != torch.float32 and not INTERPRETED
