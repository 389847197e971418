"""GPU kernels, in Triton, for what lies between the convolutions. Feature maps lie in memory as (B, H, W, C).

Each one saves passes over memory: on a fast GPU the convolutions take a small part of a plain step, and the rest moves
bytes. Every kernel reads its inputs once and writes its outputs once; none uses atomics, so the same inputs give
the same bits. (GroupNorm has a file of its own, :mod:`ddpm_ip.nn.fused.norm`.)

The kernels also run in Triton's interpreter (``TRITON_INTERPRET=1``), where the tests compare them with PyTorch.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ddpm_ip.nn.fused.launch import launch
from ddpm_ip.nn.fused.norm import INTERPRETED


def _channels(x1: Tensor, x2: Tensor | None) -> tuple[int, int]:
    return x1.shape[1], 0 if x2 is None else x2.shape[1]


def empty_maps(like: Tensor, channels: int, height: int | None = None, width: int | None = None) -> Tensor:
    """Uninitialised (B, channels, H, W), in memory as (B, H, W, C); height and width as in ``like`` by default."""
    shape = (like.shape[0], channels, height or like.shape[2], width or like.shape[3])
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


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
    launch(
        _add_product, (triton.cdiv(n, tile["BN"]) * triton.cdiv(m, tile["BM"]),),
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
    launch(_add, grid, h, bias, h if x is None else x, out, m, **options, X=x is not None)
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
    launch(_column_sum, grid, x, out, m, C=c, LANES=lanes, ROWS=rows, TURNS=turns, num_warps=warps)
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
    launch(_frame, grid, x, out, m, x.shape[2], x.shape[3], height, width, **options)
    return out


@triton.jit
def _halve(x, out, M, W, FACTOR: tl.constexpr, C: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr):
    """``out[i, j] = FACTOR * sum over (a, e) of x[2 i + a, 2 j + e]``; W is that of ``out``."""
    tile, part_c = _divided(C, LANES)
    pixel = tile * ROWS + tl.arange(0, ROWS)
    c = part_c * LANES + tl.arange(0, LANES)
    inside = (pixel[:, None] < M) & (c[None, :] < C)
    first = (pixel // W).to(tl.int64) * (4 * W) + pixel % W * 2
    total = tl.zeros([ROWS, LANES], tl.float32)
    for part in tl.static_range(4):
        source = first + part // 2 * (2 * W) + part % 2
        total += tl.load(x + source[:, None] * C + c[None, :], mask=inside, other=0.0).to(tl.float32)
    at = pixel[:, None].to(tl.int64) * C + c[None, :]
    tl.store(out + at, (FACTOR * total).to(out.dtype.element_ty), mask=inside)


def halve(x: Tensor, factor: float) -> Tensor:
    """The sums of 2x2 places times ``factor``: (B, C, 2H, 2W) -> (B, C, H, W), channels_last."""
    height, width = x.shape[2] // 2, x.shape[3] // 2
    out = empty_maps(x, x.shape[1], height, width)
    m = x.shape[0] * height * width
    grid, options = _tiles(m, x.shape[1])
    launch(_halve, grid, x, out, m, width, FACTOR=factor, **options)
    return out


@triton.jit
def _double(x, out, M, W, FACTOR: tl.constexpr, C: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr):
    """``out[2 i + a, 2 j + e] = FACTOR * x[i, j]``; W is that of ``x``."""
    tile, part_c = _divided(C, LANES)
    pixel = tile * ROWS + tl.arange(0, ROWS)
    c = part_c * LANES + tl.arange(0, LANES)
    inside = (pixel[:, None] < M) & (c[None, :] < C)
    at = pixel[:, None].to(tl.int64) * C + c[None, :]
    value = (FACTOR * tl.load(x + at, mask=inside, other=0.0).to(tl.float32)).to(out.dtype.element_ty)
    first = (pixel // W).to(tl.int64) * (4 * W) + pixel % W * 2
    for part in tl.static_range(4):
        target = first + part // 2 * (2 * W) + part % 2
        tl.store(out + target[:, None] * C + c[None, :], value, mask=inside)


def double(x: Tensor, factor: float) -> Tensor:
    """Every place four times, times ``factor``: (B, C, H, W) -> (B, C, 2H, 2W), channels_last."""
    out = empty_maps(x, x.shape[1], 2 * x.shape[2], 2 * x.shape[3])
    m = x.shape[0] * x.shape[2] * x.shape[3]
    grid, options = _tiles(m, x.shape[1])
    launch(_double, grid, x, out, m, x.shape[3], FACTOR=factor, **options)
    return out


@triton.jit
def _spread(z, bias, out, M, H, W, C: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr):
    """``out[2 i + a, 2 j + e] = z[i + a, j + e, phase (a, e)] (+ bias)``."""
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
    if bias is not None:
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


def spread(z: Tensor, bias: Tensor | None, height: int, width: int) -> Tensor:
    """Lays the four phases of a doubled image side by side.

    Args:
        z: (B (H+1) (W+1), 4C): phase ``(a, e)`` of pixel ``(2 i + a, 2 j + e)`` stands at ``(i + a, j + e)``.
        bias: (C,), added; None for nothing.
        height, width: H and W.

    Returns:
        (B, C, 2H, 2W), channels_last.
    """
    c, b = z.shape[1] // 4, len(z) // (height + 1) // (width + 1)
    out = torch.empty(b, 2 * height, 2 * width, c, dtype=z.dtype, device=z.device).permute(0, 3, 1, 2)
    m = b * 4 * height * width
    grid, options = _tiles(m, c)
    launch(_spread, grid, z, bias, out, m, height, width, **options)
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
    launch(_pick, grid, x, out, 4 * places, height, width, **where, **options)
    return out


def fold(cols: Tensor, height: int, width: int) -> Tensor:
    """The gradient of ``x`` in :func:`unfold`, from that of the output: (B, C, H, W), channels_last."""
    c, b = cols.shape[1] // 4, len(cols) // (height + 1) // (width + 1)
    out = torch.empty(b, height, width, c, dtype=cols.dtype, device=cols.device).permute(0, 3, 1, 2)
    m = b * height * width
    grid, options = _tiles(m, c)
    launch(_fold, grid, cols, out, m, height, width, **options)
    return out
