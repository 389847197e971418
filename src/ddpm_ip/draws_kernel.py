"""The numbers of :class:`ddpm_ip.draws.Draws` in one GPU kernel, in Triton.

The words are those of the plain form, bit for bit; the normal numbers made of them agree up to the rounding of
logarithm, sine and cosine.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_ROWS = 65_535  # of one launch: CUDA counts no more along the second direction


@triton.jit
def _product(a, b):
    p = a.to(tl.uint64) * b
    return (p >> 32).to(tl.uint32), p.to(tl.uint32)


@triton.jit
def pair(w0, w1):
    """Two normal numbers of two words (uint32), by the Box-Muller transform."""
    radius = tl.sqrt(-2.0 * tl.log((w0.to(tl.int64) + 1).to(tl.float32) * 2.3283064365386963e-10))
    angle = w1.to(tl.int64).to(tl.float32) * 1.4629180792671596e-09  # 2 pi / 2^32
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit
def philox(block, row, step, stream, k0, k1):
    """The four words of some blocks (uint32), see :func:`ddpm_ip.draws.philox`; the rest are numbers (uint32)."""
    c0 = block
    c1 = row + tl.zeros_like(c0)
    c2 = step + tl.zeros_like(c0)
    c3 = stream + tl.zeros_like(c0)
    for _ in tl.static_range(10):
        h0, l0 = _product(c0, 0xD2511F53)
        h1, l1 = _product(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = h1 ^ c1 ^ k0, l1, h0 ^ c3 ^ k1, l0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit(do_not_specialize=["k0", "k1", "stream"])
def _draw(rows, step, out, n, k0, k1, key, stream, NORMAL: tl.constexpr, KEYED: tl.constexpr, BLOCK: tl.constexpr):
    block = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1)
    if KEYED:  # the seed lies on the device
        k0 = tl.load(key).to(tl.uint32)
        k1 = tl.load(key + 1).to(tl.uint32)
    else:
        k0 = k0.to(tl.uint32)
        k1 = k1.to(tl.uint32)
    index, time = tl.load(rows + row).to(tl.uint32), tl.load(step).to(tl.uint32)
    c0, c1, c2, c3 = philox(block.to(tl.uint32), index, time, stream.to(tl.uint32), k0, k1)
    out += row.to(tl.int64) * n
    if NORMAL:
        z0, z1 = pair(c0, c1)
        z2, z3 = pair(c2, c3)
        _store(out, block * 4, n, z0, z1, z2, z3)
    else:
        _store(out, block * 4, n, c0, c1, c2, c3)


@triton.jit
def _store(out, at, n, v0, v1, v2, v3):
    tl.store(out + at, v0.to(out.dtype.element_ty), mask=at < n)
    tl.store(out + at + 1, v1.to(out.dtype.element_ty), mask=at + 1 < n)
    tl.store(out + at + 2, v2.to(out.dtype.element_ty), mask=at + 2 < n)
    tl.store(out + at + 3, v3.to(out.dtype.element_ty), mask=at + 3 < n)


def bits(rows: Tensor, step: Tensor, seed: int | Tensor, stream: int, n: int) -> Tensor:
    """Random words, int64 (B, n) with values in [0, 2^32); the arguments are those of :func:`normal`."""
    return _run(rows, step, seed, stream, torch.empty(len(rows), n, dtype=torch.int64, device=rows.device))


def normal(rows: Tensor, step: Tensor, seed: int | Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, float32 (B, *shape).

    Args:
        rows: int64 (B,).
        step: int64, one number, on the same device.
        seed: in [0, 2^64); or its low and high word, int64 (2,), on the same device.
        stream: what the numbers are for.
        shape: of what a row gets.
    """
    return _run(rows, step, seed, stream, torch.empty(len(rows), *shape, device=rows.device))


def _run(rows: Tensor, step: Tensor, seed: int | Tensor, stream: int, out: Tensor) -> Tensor:
    if out.numel() == 0:
        return out
    n = out[0].numel()
    blocks = triton.cdiv(n, 4)
    size = min(512, triton.next_power_of_2(blocks))
    keyed = isinstance(seed, Tensor)
    low, high = (0, 0) if isinstance(seed, Tensor) else (_signed(seed >> shift & 0xFFFFFFFF) for shift in (0, 32))
    for some, there in zip(rows.split(MOST_ROWS), out.split(MOST_ROWS), strict=True):
        _draw[(triton.cdiv(blocks, size), len(some))](
            some, step, there, n, low, high, seed if keyed else step, int(stream),
            NORMAL=out.is_floating_point(), KEYED=keyed, BLOCK=size,
        )  # fmt: skip
    return out


def _signed(word: int) -> int:
    """The 32 bits of an unsigned word as the signed integer that a kernel takes."""
    return word - 2**32 if word >= 2**31 else word
