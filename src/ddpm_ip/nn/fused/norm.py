"""GroupNorm, a shift before it, SiLU and dropout after it, in one GPU kernel forward and one backward, in Triton.

Feature maps lie in memory as (B, H, W, C). A program takes some whole groups of one image and walks over its places
twice: for the statistics, and for the result. What it reads the second time is a short while old and partly still in
a cache; a small map stays in registers. The next places are on their way to shared memory while the present ones are
worked on, which the backward pass gains from most.

Nothing is added up by atomics: the same inputs give the same bits.

The two kernels are long, and take many arguments, because each is one launch: what they do with a tile is in
:mod:`ddpm_ip.nn.fused.tiles`, the rest shares its pointers and sums from the first line to the last.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ddpm_ip.nn.fused import tiles
from ddpm_ip.nn.fused.launch import launch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit(do_not_specialize=["layer"])
def _norm_forward(
    x1, x2, shift, weight, bias, keys, y, stats, shift_stride, eps, layer,
    HW: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr, GROUP: tl.constexpr, BLOCK_C: tl.constexpr,
    LANES: tl.constexpr, ROWS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr, STAGES: tl.constexpr,
    ONCE: tl.constexpr, SHIFT: tl.constexpr, SILU: tl.constexpr, THRESHOLD: tl.constexpr, SCALE: tl.constexpr,
    FAST: tl.constexpr,
):  # fmt: skip
    """One image, some whole groups: mean and deviation in a first walk over the places, the output in a second.

    The second walk goes backwards, since the last places that were read are still in the nearest cache.
    """
    C: tl.constexpr = C1 + C2
    b = tl.program_id(1)
    lane = tl.arange(0, LANES)
    c = tl.program_id(0) * BLOCK_C + lane
    live = (lane < BLOCK_C) & (c < C)
    base = b.to(tl.int64) * HW
    x1 += base * C1
    x2 += base * C2
    y += base * C
    columns = tiles.columns(x1, x2, c, C1, C2)

    # Sums of x - x[0]: without the pivot a mean much larger than the deviation would eat all digits.
    first = tl.load(x1 + columns[0], mask=live, other=0.0).to(tl.float32)
    if ONCE:
        rows = tl.arange(0, ROWS)
        inside = (rows[:, None] < HW) & live[None, :]
        x = tiles.load(x1, tiles.places(rows, columns, C1, C2, ALIGNED), inside, EVEN) - first[None, :]
        if not EVEN:
            x = tl.where(inside, x, 0.0)
        s1 = tl.sum(x, 0)
        s2 = tl.sum(x * x, 0)
    else:
        s = tl.zeros([ROWS, LANES], tl.float32)
        q = tl.zeros([ROWS, LANES], tl.float32)
        for start in tl.range(0, HW, ROWS, num_stages=STAGES):
            rows = start + tl.arange(0, ROWS)
            inside = (rows[:, None] < HW) & live[None, :]
            x = tiles.load(x1, tiles.places(rows, columns, C1, C2, ALIGNED), inside, EVEN) - first[None, :]
            if not EVEN:
                x = tl.where(inside, x, 0.0)
            s += x
            q += x * x
        s1 = tl.sum(s, 0)
        s2 = tl.sum(q, 0)
    mean_c = s1 / HW
    square_c = s2 - s1 * mean_c  # sum of squared deviations from the channel's own mean
    mean_c += first
    if SHIFT:
        added = tl.load(shift + b * shift_stride + c, mask=live, other=0.0).to(tl.float32)
        mean_c += added
    group = lane // GROUP
    same = (group[:, None] == group[None, :]) & live[None, :]
    mean = tl.sum(tl.where(same, mean_c[None, :], 0.0), 1) / GROUP
    d = tl.where(same, mean_c[None, :] - mean[:, None], 0.0)
    square = tl.sum(tl.where(same, square_c[None, :], 0.0) + HW * d * d, 1)
    rstd = 1.0 / tl.sqrt(square / (GROUP * HW) + eps)
    place = stats + b * (C // GROUP) + c // GROUP
    leads = live & (lane % GROUP == 0)
    tl.store(place, mean, mask=leads)
    tl.store(place + tl.num_programs(1) * (C // GROUP), rstd, mask=leads)

    gain = rstd * tl.load(weight + c, mask=live, other=0.0).to(tl.float32)
    offset = tl.load(bias + c, mask=live, other=0.0).to(tl.float32) - mean * gain
    if SHIFT:
        offset += added * gain
    key = 0
    if THRESHOLD > 0:
        key = tiles.image_key(keys, b, layer)
    if ONCE:
        at = rows[:, None] * C + c[None, :]
        z = tiles.activation(
            x * gain[None, :] + (offset + first * gain)[None, :], key, at, SILU, THRESHOLD, SCALE, FAST
        )
        tiles.store(y, at, z, inside, EVEN)
    else:
        last = (tl.cdiv(HW, ROWS) - 1) * ROWS
        for done in tl.range(0, HW, ROWS, num_stages=STAGES):
            rows = last - done + tl.arange(0, ROWS)
            inside = (rows[:, None] < HW) & live[None, :]
            at = rows[:, None] * C + c[None, :]
            z = (
                tiles.load(x1, tiles.places(rows, columns, C1, C2, ALIGNED), inside, EVEN) * gain[None, :]
                + offset[None, :]
            )
            tiles.store(y, at, tiles.activation(z, key, at, SILU, THRESHOLD, SCALE, FAST), inside, EVEN)


@triton.jit(do_not_specialize=["layer"])
def _norm_backward(
    x1, x2, shift, weight, bias, keys, stats, dy, r1, r2, dx1, dx2, sums, shift_stride, layer,
    HW: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr, GROUP: tl.constexpr, BLOCK_C: tl.constexpr,
    LANES: tl.constexpr, ROWS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr, STAGES: tl.constexpr,
    ONCE: tl.constexpr, SHIFT: tl.constexpr, SILU: tl.constexpr, THRESHOLD: tl.constexpr, SCALE: tl.constexpr,
    FAST: tl.constexpr,
    RESIDUAL: tl.constexpr,
):  # fmt: skip
    """One image, some whole groups. With ``xn = (x + shift - mean) rstd``, ``z = xn weight + bias``, ``dz = dy f'(z)``

        dx = rstd (weight dz - (S1 + xn S2) / N) + r,   S1 = sum over the group of weight dz,  S2 = of weight dz xn

    where ``r`` is the gradient of the ``x`` that was handed through, ``r1`` and ``r2`` those of the two maps that are
    joined in ``x``, or both of the one that is ``x``. ``sums``: (3 or 4, B, C), per channel of this image
    ``sum dz xn`` (of the weight), ``sum dz`` (of the bias), ``sum dx``, and ``sum dx`` without ``r`` (of the shift).
    """
    C: tl.constexpr = C1 + C2
    b = tl.program_id(1)
    images = tl.num_programs(1)
    lane = tl.arange(0, LANES)
    c = tl.program_id(0) * BLOCK_C + lane
    live = (lane < BLOCK_C) & (c < C)
    base = b.to(tl.int64) * HW
    x1 += base * C1
    r1 += base * C1
    dx1 += base * C1
    dy += base * C
    r2 += base * C if C2 == 0 else base * C2
    columns = tiles.columns(x1, x2 + base * C2, c, C1, C2)
    r_columns = tiles.columns(r1, r2, c, C1, C2)
    dx_columns = tiles.columns(dx1, dx2 + base * C2, c, C1, C2)

    place = stats + b * (C // GROUP) + c // GROUP
    mean = tl.load(place, mask=live, other=0.0)
    rstd = tl.load(place + images * (C // GROUP), mask=live, other=0.0)
    w = tl.load(weight + c, mask=live, other=0.0).to(tl.float32)
    if SHIFT:
        mean -= tl.load(shift + b * shift_stride + c, mask=live, other=0.0).to(tl.float32)
    gain = rstd * w
    beta = tl.load(bias + c, mask=live, other=0.0).to(tl.float32)
    key = 0
    if THRESHOLD > 0:
        key = tiles.image_key(keys, b, layer)

    if ONCE:
        rows = tl.arange(0, ROWS)
        inside = (rows[:, None] < HW) & live[None, :]
        at = rows[:, None] * C + c[None, :]
        x = tiles.load(x1, tiles.places(rows, columns, C1, C2, ALIGNED), inside, EVEN) - mean[None, :]
        dz = tiles.load(dy, at, inside, EVEN)
        dz = tiles.activation_gradient(x * gain[None, :] + beta[None, :], dz, key, at, SILU, THRESHOLD, SCALE, FAST)
        d_bias = tl.sum(dz, 0)
        d_weight = tl.sum(dz * x, 0) * rstd
    else:
        sum_dz = tl.zeros([ROWS, LANES], tl.float32)
        sum_dz_x = tl.zeros([ROWS, LANES], tl.float32)
        for start in tl.range(0, HW, ROWS, num_stages=STAGES):
            rows = start + tl.arange(0, ROWS)
            inside = (rows[:, None] < HW) & live[None, :]
            at = rows[:, None] * C + c[None, :]
            x = tiles.load(x1, tiles.places(rows, columns, C1, C2, ALIGNED), inside, EVEN) - mean[None, :]
            dz = tiles.load(dy, at, inside, EVEN)
            dz = tiles.activation_gradient(x * gain[None, :] + beta[None, :], dz, key, at, SILU, THRESHOLD, SCALE, FAST)
            sum_dz += dz
            sum_dz_x += dz * x
        d_bias = tl.sum(sum_dz, 0)
        d_weight = tl.sum(sum_dz_x, 0) * rstd
    group = lane // GROUP
    same = (group[:, None] == group[None, :]) & live[None, :]
    s1 = tl.sum(tl.where(same, (w * d_bias)[None, :], 0.0), 1) / (GROUP * HW)
    s2 = tl.sum(tl.where(same, (w * d_weight)[None, :], 0.0), 1) / (GROUP * HW)

    slope = -rstd * rstd * s2
    constant = -rstd * s1
    if ONCE:
        dx = dz * gain[None, :] + (x * slope[None, :] + constant[None, :])
        if not EVEN:
            dx = tl.where(inside, dx, 0.0)
        d_shift = tl.sum(dx, 0)
        if RESIDUAL > 0:
            dx += tiles.residual(r1, r2, tiles.places(rows, r_columns, C1, C2, ALIGNED), at, inside, EVEN, C2, RESIDUAL)
        total = tl.sum(dx, 0)
        tiles.store(dx1, tiles.places(rows, dx_columns, C1, C2, ALIGNED), dx, inside, EVEN)
    else:
        offset = beta - mean * gain
        constant -= mean * slope
        sum_dx = tl.zeros([ROWS, LANES], tl.float32)
        sum_r = tl.zeros([ROWS, LANES], tl.float32)
        last = (tl.cdiv(HW, ROWS) - 1) * ROWS
        for done in tl.range(0, HW, ROWS, num_stages=STAGES):
            rows = last - done + tl.arange(0, ROWS)
            inside = (rows[:, None] < HW) & live[None, :]
            at = rows[:, None] * C + c[None, :]
            x = tiles.load(x1, tiles.places(rows, columns, C1, C2, ALIGNED), inside, EVEN)
            dz = tiles.load(dy, at, inside, EVEN)
            dz = tiles.activation_gradient(
                x * gain[None, :] + offset[None, :], dz, key, at, SILU, THRESHOLD, SCALE, FAST
            )
            dx = dz * gain[None, :] + (x * slope[None, :] + constant[None, :])
            if not EVEN:
                dx = tl.where(inside, dx, 0.0)
            if RESIDUAL > 0:
                r = tiles.residual(
                    r1, r2, tiles.places(rows, r_columns, C1, C2, ALIGNED), at, inside, EVEN, C2, RESIDUAL
                )
                dx += r
                if SHIFT:
                    sum_r += r
            sum_dx += dx
            tiles.store(dx1, tiles.places(rows, dx_columns, C1, C2, ALIGNED), dx, inside, EVEN)
        total = tl.sum(sum_dx, 0)
        d_shift = total - tl.sum(sum_r, 0)
    out = sums + b * C + c
    tl.store(out, d_weight, mask=live)
    tl.store(out + images * C, d_bias, mask=live)
    tl.store(out + 2 * images * C, total, mask=live)
    if SHIFT:
        tl.store(out + 3 * images * C, d_shift, mask=live)


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
        shift: (B, C) with a last stride of 1, or None.
        weight, bias: (C,).
        keys: int64 (B,), a random number an image; for dropout.
    """

    x1: Tensor
    x2: Tensor | None
    shift: Tensor | None
    weight: Tensor
    bias: Tensor
    keys: Tensor | None


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
    """``dropout(silu(group_norm(x + shift)))``.

    Returns:
        The output (B, C, H, W), and mean and 1/deviation of every group, float32 (2, B, groups).
    """
    x1, x2, shift, weight, bias, keys = inputs
    c1, c2 = _channels(x1, x2)
    batch, places = x1.shape[0], x1.shape[2] * x1.shape[3]
    plan = _plan(c1, c2, places, (c1 + c2) // settings.groups)
    y = torch.empty(batch, c1 + c2, *x1.shape[2:], dtype=x1.dtype, device=x1.device, memory_format=torch.channels_last)
    stats = torch.empty(2, batch, settings.groups, device=x1.device)
    launch(
        _norm_forward, (plan.blocks, batch),
        x1, x1 if x2 is None else x2, weight if shift is None else shift, weight, bias,
        stats if keys is None else keys, y, stats,
        0 if shift is None else shift.stride(0), settings.eps, settings.layer,
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
        The gradients of ``x1`` and ``x2``; and for each image, float32 (3 or 4, B, C): those of weight and bias, the
        sum over all places of that of ``x``, and that of the shift if there is one.
    """
    x1, x2, shift, weight, bias, keys = inputs
    c1, c2 = _channels(x1, x2)
    batch, places = x1.shape[0], x1.shape[2] * x1.shape[3]
    plan = _plan(c1, c2, places, (c1 + c2) // settings.groups)
    dx1 = torch.empty_like(x1)
    dx2 = None if x2 is None else torch.empty_like(x2)
    sums = torch.empty(4 if shift is not None else 3, batch, c1 + c2, device=x1.device)
    launch(
        _norm_backward, (plan.blocks, batch),
        x1, x1 if x2 is None else x2, weight if shift is None else shift, weight, bias,
        stats if keys is None else keys, stats, dy, dy if r1 is None else r1, dy if r2 is None else r2,
        dx1, dx1 if dx2 is None else dx2, sums, 0 if shift is None else shift.stride(0), settings.layer,
        HW=places, C1=c1, C2=c2, **plan.options, SHIFT=shift is not None, SILU=settings.silu,
        **_dropout(settings.dropout), FAST=_fast(x1), RESIDUAL=(r1 is not None) + (r2 is not None),
        num_warps=plan.warps, maxnreg=128,
    )  # fmt: skip
    return dx1, dx2, sums


def _fast(x: Tensor) -> bool:
    """Approximate instructions where the numbers have few digits anyway."""
    return x.dtype != torch.float32 and not INTERPRETED
