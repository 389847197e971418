"""The GPU kernels of the fused operations, in Triton. Feature maps lie in memory as (B, H, W, C) throughout.

What each one saves is passes over memory: on a fast GPU the convolutions take less than half of a plain step, the rest
moves bytes. Every kernel here reads its inputs from memory once and writes its outputs once (a second look at what has
just been read comes from the cache). None uses atomics: the same inputs give the same bits.

The kernels also run in Triton's interpreter (``TRITON_INTERPRET=1``), where the tests compare them with PyTorch.
"""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def _sigmoid(z, FAST: tl.constexpr):
    # FAST: two approximate instructions, exact to about 2^-22; the plain division takes about ten
    if FAST:
        return tl.inline_asm_elementwise(
            "{ .reg .f32 e; mul.f32 e, $1, 0fBFB8AA3B; ex2.approx.ftz.f32 e, e; "
            "add.f32 e, e, 0f3F800000; rcp.approx.ftz.f32 $0, e; }",
            "=f,f", [z], dtype=tl.float32, is_pure=True, pack=1,
        )  # fmt: skip
    else:
        return 1.0 / (1.0 + tl.exp(-z))


@triton.jit
def _kept(key, at, THRESHOLD: tl.constexpr):
    # A hash of (key of image and layer, place): cheaper to make again in the backward pass than to store
    h = (at.to(tl.uint32) ^ key) * 0x9E3779B1
    h = (h ^ (h >> 15)) * 0x85EBCA77
    h = (h ^ (h >> 13)) * 0xC2B2AE3D
    return h >= THRESHOLD


@triton.jit
def _image_key(keys, b, layer):
    return tl.load(keys + b).to(tl.uint32) ^ (layer.to(tl.uint32) * 0x9E3779B9)


@triton.jit
def _columns(x1, x2, c, C1: tl.constexpr, C2: tl.constexpr):
    # Where each column of maps joined along the channels begins, and how far its rows are apart, counted from x1
    if C2 == 0:
        return c, c * 0 + C1
    else:
        apart = (x2.to(tl.int64) - x1.to(tl.int64)) // (x1.dtype.element_ty.primitive_bitwidth // 8)
        return tl.where(c < C1, c.to(tl.int64), apart + (c - C1)), tl.where(c < C1, C1, C2)


@triton.jit
def _places(rows, columns, C1: tl.constexpr, C2: tl.constexpr, ALIGNED: tl.constexpr):
    # Offsets from x1 of a tile (rows, channels)
    if C2 == 0:
        return rows[:, None] * C1 + columns[0][None, :]
    else:
        at = rows[:, None] * columns[1][None, :] + columns[0][None, :]
        if ALIGNED:  # eight neighbours lie in one of the two maps, side by side: they can be moved as one
            at = tl.max_contiguous(tl.multiple_of(at, (1, 8)), (1, 8))
        return at


@triton.jit
def _load(x, at, inside, EVEN: tl.constexpr):
    if EVEN:
        return tl.load(x + at).to(tl.float32)
    else:
        return tl.load(x + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _store(x, at, value, inside, EVEN: tl.constexpr):
    if EVEN:
        tl.store(x + at, value.to(x.dtype.element_ty))
    else:
        tl.store(x + at, value.to(x.dtype.element_ty), mask=inside)


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
    columns = _columns(x1, x2, c, C1, C2)

    # Sums of x - x[0]: without the pivot a mean much larger than the deviation would eat all digits.
    first = tl.load(x1 + columns[0], mask=live, other=0.0).to(tl.float32)
    if ONCE:
        rows = tl.arange(0, ROWS)
        inside = (rows[:, None] < HW) & live[None, :]
        x = _load(x1, _places(rows, columns, C1, C2, ALIGNED), inside, EVEN) - first[None, :]
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
            x = _load(x1, _places(rows, columns, C1, C2, ALIGNED), inside, EVEN) - first[None, :]
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
        key = _image_key(keys, b, layer)
    if ONCE:
        at = rows[:, None] * C + c[None, :]
        z = _activation(x * gain[None, :] + (offset + first * gain)[None, :], key, at, SILU, THRESHOLD, SCALE, FAST)
        _store(y, at, z, inside, EVEN)
    else:
        last = (tl.cdiv(HW, ROWS) - 1) * ROWS
        for done in tl.range(0, HW, ROWS, num_stages=STAGES):
            rows = last - done + tl.arange(0, ROWS)
            inside = (rows[:, None] < HW) & live[None, :]
            at = rows[:, None] * C + c[None, :]
            z = _load(x1, _places(rows, columns, C1, C2, ALIGNED), inside, EVEN) * gain[None, :] + offset[None, :]
            _store(y, at, _activation(z, key, at, SILU, THRESHOLD, SCALE, FAST), inside, EVEN)


@triton.jit
def _activation(z, key, at, SILU: tl.constexpr, THRESHOLD: tl.constexpr, SCALE: tl.constexpr, FAST: tl.constexpr):
    if SILU:
        z = z * _sigmoid(z, FAST)
    if THRESHOLD > 0:
        z = tl.where(_kept(key, at, THRESHOLD), z * SCALE, 0.0)
    return z


@triton.jit
def _activation_gradient(
    z, dy, key, at, SILU: tl.constexpr, THRESHOLD: tl.constexpr, SCALE: tl.constexpr, FAST: tl.constexpr
):
    if THRESHOLD > 0:
        dy = tl.where(_kept(key, at, THRESHOLD), dy * SCALE, 0.0)
    if SILU:
        s = _sigmoid(z, FAST)
        y = z * s
        dy = dy * (s - s * y + y)
    return dy


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
    columns = _columns(x1, x2 + base * C2, c, C1, C2)
    r_columns = _columns(r1, r2, c, C1, C2)
    dx_columns = _columns(dx1, dx2 + base * C2, c, C1, C2)

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
        key = _image_key(keys, b, layer)

    if ONCE:
        rows = tl.arange(0, ROWS)
        inside = (rows[:, None] < HW) & live[None, :]
        at = rows[:, None] * C + c[None, :]
        x = _load(x1, _places(rows, columns, C1, C2, ALIGNED), inside, EVEN) - mean[None, :]
        dz = _load(dy, at, inside, EVEN)
        dz = _activation_gradient(x * gain[None, :] + beta[None, :], dz, key, at, SILU, THRESHOLD, SCALE, FAST)
        d_bias = tl.sum(dz, 0)
        d_weight = tl.sum(dz * x, 0) * rstd
    else:
        sum_dz = tl.zeros([ROWS, LANES], tl.float32)
        sum_dz_x = tl.zeros([ROWS, LANES], tl.float32)
        for start in tl.range(0, HW, ROWS, num_stages=STAGES):
            rows = start + tl.arange(0, ROWS)
            inside = (rows[:, None] < HW) & live[None, :]
            at = rows[:, None] * C + c[None, :]
            x = _load(x1, _places(rows, columns, C1, C2, ALIGNED), inside, EVEN) - mean[None, :]
            dz = _load(dy, at, inside, EVEN)
            dz = _activation_gradient(x * gain[None, :] + beta[None, :], dz, key, at, SILU, THRESHOLD, SCALE, FAST)
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
            dx += _residual(r1, r2, _places(rows, r_columns, C1, C2, ALIGNED), at, inside, EVEN, C2, RESIDUAL)
        total = tl.sum(dx, 0)
        _store(dx1, _places(rows, dx_columns, C1, C2, ALIGNED), dx, inside, EVEN)
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
            x = _load(x1, _places(rows, columns, C1, C2, ALIGNED), inside, EVEN)
            dz = _load(dy, at, inside, EVEN)
            dz = _activation_gradient(x * gain[None, :] + offset[None, :], dz, key, at, SILU, THRESHOLD, SCALE, FAST)
            dx = dz * gain[None, :] + (x * slope[None, :] + constant[None, :])
            if not EVEN:
                dx = tl.where(inside, dx, 0.0)
            if RESIDUAL > 0:
                r = _residual(r1, r2, _places(rows, r_columns, C1, C2, ALIGNED), at, inside, EVEN, C2, RESIDUAL)
                dx += r
                if SHIFT:
                    sum_r += r
            sum_dx += dx
            _store(dx1, _places(rows, dx_columns, C1, C2, ALIGNED), dx, inside, EVEN)
        total = tl.sum(sum_dx, 0)
        d_shift = total - tl.sum(sum_r, 0)
    out = sums + b * C + c
    tl.store(out, d_weight, mask=live)
    tl.store(out + images * C, d_bias, mask=live)
    tl.store(out + 2 * images * C, total, mask=live)
    if SHIFT:
        tl.store(out + 3 * images * C, d_shift, mask=live)


@triton.jit
def _residual(
    r1, r2, at_r1, at, inside, EVEN: tl.constexpr, C2: tl.constexpr, RESIDUAL: tl.constexpr
):  # fmt: skip
    r = _load(r1, at_r1, inside, EVEN)
    if RESIDUAL > 1 and C2 == 0:
        r += _load(r2, at, inside, EVEN)
    return r


REGISTER_TILE = 2048  # numbers that a program holds in registers, so that nothing is read twice
PER_THREAD = 16  # numbers that a thread works on at a time where the tile is larger


class _Plan(NamedTuple):
    """How a GroupNorm is divided among programs."""

    blocks: int
    options: dict[str, int | bool]
    warps: int


def _plan(c1: int, c2: int, places: int, group: int) -> _Plan:
    """A program takes whole groups of one image: ``BLOCK_C`` channels on ``LANES`` lanes, ``ROWS`` places at a time.

    The sizes are those that were fastest in a sweep on an H200 (docs/performance.md).

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


def empty_maps(like: Tensor, channels: int, height: int | None = None, width: int | None = None) -> Tensor:
    """Uninitialised (B, channels, H, W), in memory as (B, H, W, C); height and width as in ``like`` by default."""
    shape = (like.shape[0], channels, height or like.shape[2], width or like.shape[3])
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def norm_forward(
    x1: Tensor, x2: Tensor | None, shift: Tensor | None, weight: Tensor, bias: Tensor, keys: Tensor | None,
    groups: int, eps: float, silu: bool, dropout: float, layer: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """``dropout(silu(group_norm(x + shift)))``.

    Args:
        x1, x2: (B, C1, H, W) and (B, C2, H, W) or None: ``x`` is the two joined; channels_last.
        shift: (B, C) with a last stride of 1, or None.
        weight, bias: (C,).
        keys: int64 (B,), a random number an image; for dropout.
        groups, eps: of the norm.
        silu: whether the activation is applied.
        dropout: probability in [0, 1).
        layer: which layer this is: another layer drops other places.

    Returns:
        The output (B, C, H, W), and mean and 1/deviation of every group, float32 (2, B, groups).
    """
    c1, c2 = _channels(x1, x2)
    batch, places = x1.shape[0], x1.shape[2] * x1.shape[3]
    plan = _plan(c1, c2, places, (c1 + c2) // groups)
    y = empty_maps(x1, c1 + c2)
    stats = torch.empty(2, batch, groups, device=x1.device)
    _norm_forward[(plan.blocks, batch)](
        x1, x1 if x2 is None else x2, weight if shift is None else shift, weight, bias,
        stats if keys is None else keys, y, stats, 0 if shift is None else shift.stride(0), eps, layer,
        HW=places, C1=c1, C2=c2, **plan.options, SHIFT=shift is not None, SILU=silu, **_dropout(dropout),
        FAST=_fast(x1), num_warps=plan.warps,
    )  # fmt: skip
    return y, stats


def norm_backward(
    x1: Tensor, x2: Tensor | None, shift: Tensor | None, weight: Tensor, bias: Tensor, keys: Tensor | None,
    stats: Tensor, dy: Tensor, r1: Tensor | None, r2: Tensor | None, silu: bool, dropout: float, layer: int,
) -> tuple[Tensor, Tensor | None, Tensor]:  # fmt: skip
    """The gradients of :func:`norm_forward`.

    Args:
        stats: what the forward pass returned; the other arguments as there.
        dy: gradient of the output.
        r1, r2: gradients of ``x1`` and ``x2`` from elsewhere, which are added; both or none. Without ``x2``: of ``x1``,
            none, one or two.

    Returns:
        The gradients of ``x1`` and ``x2``; and for each image, float32 (3 or 4, B, C): those of weight and bias, the
        sum over all places of that of ``x``, and that of the shift if there is one.
    """
    c1, c2 = _channels(x1, x2)
    batch, places = x1.shape[0], x1.shape[2] * x1.shape[3]
    plan = _plan(c1, c2, places, (c1 + c2) // stats.shape[2])
    dx1 = torch.empty_like(x1)
    dx2 = None if x2 is None else torch.empty_like(x2)
    sums = torch.empty(4 if shift is not None else 3, batch, c1 + c2, device=x1.device)
    _norm_backward[(plan.blocks, batch)](
        x1, x1 if x2 is None else x2, weight if shift is None else shift, weight, bias,
        stats if keys is None else keys, stats, dy, dy if r1 is None else r1, dy if r2 is None else r2,
        dx1, dx1 if dx2 is None else dx2, sums, 0 if shift is None else shift.stride(0), layer,
        HW=places, C1=c1, C2=c2, **plan.options, SHIFT=shift is not None, SILU=silu, **_dropout(dropout),
        FAST=_fast(x1), RESIDUAL=(r1 is not None) + (r2 is not None), num_warps=plan.warps, maxnreg=128,
    )  # fmt: skip
    return dx1, dx2, sums


def _fast(x: Tensor) -> bool:
    """Approximate instructions where the numbers have few digits anyway."""
    return x.dtype != torch.float32 and not INTERPRETED


@triton.jit
def _divided(WIDTH: tl.constexpr, TILE: tl.constexpr):
    # Which rows and which columns this program has: neighbours share the rows, so that the cache does
    columns: tl.constexpr = (WIDTH + TILE - 1) // TILE
    return tl.program_id(0) // columns, tl.program_id(0) % columns


@triton.jit
def _product(
    acc, x, w, rows, cols, M, N, K: tl.constexpr, W_STRIDE: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr
):
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        a = tl.load(
            x + rows[:, None].to(tl.int64) * K + k[None, :], mask=(rows[:, None] < M) & (k[None, :] < K), other=0.0
        )
        b = tl.load(w + cols[None, :] * W_STRIDE + k[:, None], mask=(cols[None, :] < N) & (k[:, None] < K), other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    return acc


@triton.jit
def _add_product(
    h, bias, x1, x2, w, out, M, N: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``out = h + bias + x1 w[:, :K1]^T + x2 w[:, K1:]^T``, one tile of it."""
    tile_m, tile_n = _divided(N, BN)
    rows = tile_m * BM + tl.arange(0, BM)
    cols = tile_n * BN + tl.arange(0, BN)
    acc = tl.zeros([BM, BN], tl.float32)
    acc = _product(acc, x1, w, rows, cols, M, N, K1, K1 + K2, BK, PRECISION)
    if K2 > 0:
        acc = _product(acc, x2, w + K1, rows, cols, M, N, K2, K1 + K2, BK, PRECISION)
    inside = (rows[:, None] < M) & (cols[None, :] < N)
    at = rows[:, None].to(tl.int64) * N + cols[None, :]
    acc += tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
    acc += tl.load(bias + cols, mask=cols < N, other=0.0).to(tl.float32)[None, :]
    tl.store(out + at, acc.to(out.dtype.element_ty), mask=inside)


def add_product(h: Tensor, bias: Tensor, x1: Tensor, x2: Tensor | None, weight: Tensor) -> Tensor:
    """``h + bias + weight x`` at every place: the end of a block whose shortcut is a 1x1 convolution.

    Args:
        h: (B, N, H, W), channels_last.
        bias: (N,).
        x1, x2: (B, K1, H, W) and (B, K2, H, W) or None: ``x`` is the two joined; channels_last.
        weight: (N, K1 + K2), contiguous.

    Returns:
        (B, N, H, W).
    """
    out = torch.empty_like(h)
    m, n = h.shape[0] * h.shape[2] * h.shape[3], h.shape[1]
    k1, k2 = _channels(x1, x2)
    tile = {"BM": 128, "BN": 128, "BK": 64} if not INTERPRETED else {"BM": 32, "BN": 32, "BK": 16}
    tile["BK"] = min(tile["BK"], max(16, triton.next_power_of_2(math.gcd(k1, k2) if k2 else k1)))
    if h.dtype == torch.float32:
        tile |= {"BM": 64, "BN": 64, "BK": 16} if not INTERPRETED else {}
    # what cuDNN does with a float32 convolution
    precision = "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
    _add_product[(triton.cdiv(n, tile["BN"]) * triton.cdiv(m, tile["BM"]),)](
        h, bias, x1, x1 if x2 is None else x2, weight, out, m, N=n, K1=k1, K2=k2, **tile, PRECISION=precision,
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


@triton.jit
def _add(h, bias, x, out, M, C: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, X: tl.constexpr):
    """``out = h + bias (+ x)``."""
    tile, part_c = _divided(C, LANES)
    rows = tile * ROWS + tl.arange(0, ROWS)
    c = part_c * LANES + tl.arange(0, LANES)
    inside = (rows[:, None] < M) & (c[None, :] < C)
    at = rows[:, None].to(tl.int64) * C + c[None, :]
    y = tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
    y += tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    if X:
        y += tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


def add(h: Tensor, bias: Tensor, x: Tensor | None) -> Tensor:
    """``h + bias (+ x)``, (B, C, H, W), channels_last; ``bias`` (C,)."""
    out = torch.empty_like(h)
    m = h.shape[0] * h.shape[2] * h.shape[3]
    grid, options = _tiles(m, h.shape[1])
    _add[grid](h, bias, h if x is None else x, out, m, **options, X=x is not None)
    return out


@triton.jit
def _column_sum(x, out, M, C: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, TURNS: tl.constexpr):
    """The sums of ``TURNS`` times ``ROWS`` rows of one of several matrices (M, C): a line of partial sums a program."""
    part, part_c = _divided(C, LANES)
    matrix = tl.program_id(1)
    c = part_c * LANES + tl.arange(0, LANES)
    start = part.to(tl.int64) * (TURNS * ROWS)
    x += (matrix.to(tl.int64) * M + start) * C
    total = tl.zeros([ROWS, LANES], tl.float32)
    for turn in range(TURNS):
        rows = turn * ROWS + tl.arange(0, ROWS)
        inside = (rows[:, None] < M - start) & (c[None, :] < C)
        total += tl.load(x + rows[:, None] * C + c[None, :], mask=inside, other=0.0).to(tl.float32)
    parts = tl.cdiv(M, TURNS * ROWS)
    tl.store(out + (matrix * parts + part) * C + c, tl.sum(total, 0), mask=c < C)


def column_sum(x: Tensor) -> Tensor:
    """Sums over the rows of matrices (K, M, C), contiguous: float32 (K, C). In two rounds where there are many rows."""
    k, m, c = x.shape
    if m <= 1024:  # one load for all rows: nothing but its latency
        lanes, rows, turns, warps = 16, triton.next_power_of_2(m), 1, 8
    else:
        lanes, rows, warps = min(64, triton.next_power_of_2(c)), 64, 4
        programs = max(1, 132 * 12 * lanes // c)  # enough to fill a large GPU
        turns = max(1, triton.next_power_of_2(triton.cdiv(m, rows * programs) + 1) // 2)
    parts = triton.cdiv(m, turns * rows)
    out = torch.empty(k, parts, c, device=x.device)
    grid = (parts * triton.cdiv(c, lanes), k)
    _column_sum[grid](x, out, m, C=c, LANES=lanes, ROWS=rows, TURNS=turns, num_warps=warps)
    return column_sum(out) if parts > 1 else out[:, 0]


def channel_sum(x: Tensor) -> Tensor:
    """The sum over images and places of (B, C, H, W), channels_last: the gradient of a bias. float32 (C,)."""
    return column_sum(x.permute(0, 2, 3, 1).reshape(1, -1, x.shape[1]))[0]


@triton.jit
def _frame(
    x, out, M, H, W, OH, OW, C: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """``x`` (H, W) in the upper left corner of ``out`` (OH, OW): cut off where it is larger, 0 where it is smaller."""
    tile, part_c = _divided(C, LANES)
    pixel = tile * ROWS + tl.arange(0, ROWS)
    c = part_c * LANES + tl.arange(0, LANES)
    j = pixel % OW
    i = pixel // OW % OH
    source = ((pixel // (OH * OW)).to(tl.int64) * H + i) * W + j
    used = (pixel < M) & (i < H) & (j < W)
    value = tl.load(x + source[:, None] * C + c[None, :], mask=used[:, None] & (c[None, :] < C), other=0.0)
    at = pixel[:, None].to(tl.int64) * C + c[None, :]
    tl.store(out + at, value, mask=(pixel[:, None] < M) & (c[None, :] < C))


def frame(x: Tensor, height: int, width: int) -> Tensor:
    """(B, C, H, W) with rows and columns of zeros added below and on the right, or cut off there; channels_last."""
    out = empty_maps(x, x.shape[1], height, width)
    m = x.shape[0] * height * width
    grid, options = _tiles(m, x.shape[1])
    _frame[grid](x, out, m, x.shape[2], x.shape[3], height, width, **options)
    return out


@triton.jit
def _spread(z, bias, out, M, H, W, C: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr):
    """``out[2 i + a, 2 j + e] = z[i + a, j + e, phase (a, e)] + bias``."""
    tile, part_c = _divided(C, LANES)
    pixel = tile * ROWS + tl.arange(0, ROWS)
    c = part_c * LANES + tl.arange(0, LANES)
    x = pixel % (2 * W)
    y = pixel // (2 * W) % (2 * H)
    b = pixel // (4 * H * W)
    phase = y % 2 * 2 + x % 2
    source = ((b.to(tl.int64) * (H + 1) + y // 2 + y % 2) * (W + 1) + x // 2 + x % 2) * (4 * C) + phase * C
    inside = (pixel[:, None] < M) & (c[None, :] < C)
    value = tl.load(z + source[:, None] + c[None, :], mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    tl.store(out + pixel[:, None].to(tl.int64) * C + c[None, :], value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _pick(
    x, out, M, H, W, STRIDE: tl.constexpr, SIGN: tl.constexpr, OFFSET: tl.constexpr,
    C: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """``out[p, q, (a, e)] = x[STRIDE p + SIGN a + OFFSET, STRIDE q + SIGN e + OFFSET]``, 0 outside of ``x``."""
    tile, part_c = _divided(C, LANES)
    item = tile * ROWS + tl.arange(0, ROWS)  # (b, p, q, (a, e))
    c = part_c * LANES + tl.arange(0, LANES)
    q = item // 4 % (W + 1)
    p = item // 4 // (W + 1) % (H + 1)
    b = item // 4 // (W + 1) // (H + 1)
    i = STRIDE * p + SIGN * (item // 2 % 2) + OFFSET
    j = STRIDE * q + SIGN * (item % 2) + OFFSET
    used = (item < M) & (i >= 0) & (i < STRIDE * H) & (j >= 0) & (j < STRIDE * W)
    source = (b.to(tl.int64) * (STRIDE * H) + i) * (STRIDE * W) + j
    value = tl.load(x + source[:, None] * C + c[None, :], mask=used[:, None] & (c[None, :] < C), other=0.0)
    at = item[:, None].to(tl.int64) * C + c[None, :]
    tl.store(out + at, value, mask=(item[:, None] < M) & (c[None, :] < C))


@triton.jit
def _fold(cols, out, M, H, W, C: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr):
    """``out[i, j] = sum over taps (a, e) of cols[i + 1 - a, j + 1 - e, (a, e)]``."""
    tile, part_c = _divided(C, LANES)
    pixel = tile * ROWS + tl.arange(0, ROWS)
    c = part_c * LANES + tl.arange(0, LANES)
    j = pixel % W
    i = pixel // W % H
    b = (pixel // (H * W)).to(tl.int64)
    inside = (pixel[:, None] < M) & (c[None, :] < C)
    total = tl.zeros([ROWS, LANES], tl.float32)
    for tap in tl.static_range(4):
        source = ((b * (H + 1) + i + 1 - tap // 2) * (W + 1) + j + 1 - tap % 2) * 4 + tap
        total += tl.load(cols + source[:, None] * C + c[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(out + pixel[:, None].to(tl.int64) * C + c[None, :], total.to(out.dtype.element_ty), mask=inside)


def _tiles(m: int, c: int) -> tuple[tuple[int], dict[str, int]]:
    """How a matrix (m, c) is cut into tiles of two thousand numbers: the grid, and the options of a kernel."""
    lanes = min(64, triton.next_power_of_2(c))
    rows = 2048 // lanes
    return (triton.cdiv(c, lanes) * triton.cdiv(m, rows),), {"C": c, "LANES": lanes, "ROWS": rows}


def spread(z: Tensor, bias: Tensor, height: int, width: int) -> Tensor:
    """Lays the four phases of a doubled image side by side.

    Args:
        z: (B (H+1) (W+1), 4C): phase ``(a, e)`` of pixel ``(2 i + a, 2 j + e)`` stands at ``(i + a, j + e)``.
        bias: (C,), added.
        height, width: H and W.

    Returns:
        (B, C, 2H, 2W), channels_last.
    """
    c, b = z.shape[1] // 4, len(z) // (height + 1) // (width + 1)
    out = torch.empty(b, 2 * height, 2 * width, c, dtype=z.dtype, device=z.device).permute(0, 3, 1, 2)
    m = b * 4 * height * width
    grid, options = _tiles(m, c)
    _spread[grid](z, bias, out, m, height, width, **options)
    return out


def gather(d: Tensor) -> Tensor:
    """The gradient of ``z`` in :func:`spread`, from that of the output (B, C, 2H, 2W), channels_last."""
    return _picked(d, d.shape[2] // 2, d.shape[3] // 2, STRIDE=2, SIGN=-1, OFFSET=0)


def unfold(x: Tensor) -> Tensor:
    """The pixels under a 2x2 kernel at each of its (H+1) (W+1) places: (B, C, H, W) -> (B (H+1) (W+1), 4C)."""
    return _picked(x, x.shape[2], x.shape[3], STRIDE=1, SIGN=1, OFFSET=-1)


def _picked(x: Tensor, height: int, width: int, **where: int) -> Tensor:
    b, c = x.shape[:2]
    places = b * (height + 1) * (width + 1)
    out = torch.empty(places, 4 * c, dtype=x.dtype, device=x.device)
    grid, options = _tiles(4 * places, c)
    _pick[grid](x, out, 4 * places, height, width, **where, **options)
    return out


def fold(cols: Tensor, height: int, width: int) -> Tensor:
    """The gradient of ``x`` in :func:`unfold`, from that of the output: (B, C, H, W), channels_last."""
    c, b = cols.shape[1] // 4, len(cols) // (height + 1) // (width + 1)
    out = torch.empty(b, height, width, c, dtype=cols.dtype, device=cols.device).permute(0, 3, 1, 2)
    m = b * height * width
    grid, options = _tiles(m, c)
    _fold[grid](cols, out, m, height, width, **options)
    return out
