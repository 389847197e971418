"""What the kernels of :mod:`ddpm_ip.nn.fused.norm` do with a tile of places and channels, in Triton.

Feature maps lie in memory as (B, H, W, C). Maps that are meant as joined along the channels are addressed from the
first of them. Nothing is launched here: the functions become part of the kernels that call them.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sigmoid(z, FAST: tl.constexpr):
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
def kept(key, at, THRESHOLD: tl.constexpr):
    # A hash of (key of image and layer, place): cheaper to make again in the backward pass than to store
    h = (at.to(tl.uint32) ^ key) * 0x9E3779B1
    h = (h ^ (h >> 15)) * 0x85EBCA77
    h = (h ^ (h >> 13)) * 0xC2B2AE3D
    return h >= THRESHOLD


@triton.jit
def image_key(keys, b, layer):
    return tl.load(keys + b).to(tl.uint32) ^ (layer.to(tl.uint32) * 0x9E3779B9)


@triton.jit
def columns(x1, x2, c, C1: tl.constexpr, C2: tl.constexpr):
    # Where each column of maps joined along the channels begins, and how far its rows are apart, counted from x1
    if C2 == 0:
        return c, c * 0 + C1
    else:
        apart = (x2.to(tl.int64) - x1.to(tl.int64)) // (x1.dtype.element_ty.primitive_bitwidth // 8)
        return tl.where(c < C1, c.to(tl.int64), apart + (c - C1)), tl.where(c < C1, C1, C2)


@triton.jit
def places(rows, columns, C1: tl.constexpr, C2: tl.constexpr, ALIGNED: tl.constexpr):
    # Offsets from x1 of a tile (rows, channels)
    if C2 == 0:
        return rows[:, None] * C1 + columns[0][None, :]
    else:
        at = rows[:, None] * columns[1][None, :] + columns[0][None, :]
        if ALIGNED:  # eight neighbours lie in one of the two maps, side by side: they can be moved as one
            at = tl.max_contiguous(tl.multiple_of(at, (1, 8)), (1, 8))
        return at


@triton.jit
def load(x, at, inside, EVEN: tl.constexpr):
    if EVEN:
        return tl.load(x + at).to(tl.float32)
    else:
        return tl.load(x + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store(x, at, value, inside, EVEN: tl.constexpr):
    if EVEN:
        tl.store(x + at, value.to(x.dtype.element_ty))
    else:
        tl.store(x + at, value.to(x.dtype.element_ty), mask=inside)


@triton.jit
def activation(z, key, at, SILU: tl.constexpr, THRESHOLD: tl.constexpr, SCALE: tl.constexpr, FAST: tl.constexpr):
    if SILU:
        z = z * sigmoid(z, FAST)
    if THRESHOLD > 0:
        z = tl.where(kept(key, at, THRESHOLD), z * SCALE, 0.0)
    return z


@triton.jit
def activation_gradient(
    z, dy, key, at, SILU: tl.constexpr, THRESHOLD: tl.constexpr, SCALE: tl.constexpr, FAST: tl.constexpr
):
    if THRESHOLD > 0:
        dy = tl.where(kept(key, at, THRESHOLD), dy * SCALE, 0.0)
    if SILU:
        s = sigmoid(z, FAST)
        y = z * s
        dy = dy * (s - s * y + y)
    return dy


@triton.jit
def residual(
    r1, r2, at_r1, at, inside, EVEN: tl.constexpr, C2: tl.constexpr, RESIDUAL: tl.constexpr
):  # fmt: skip
    r = load(r1, at_r1, inside, EVEN)
    if RESIDUAL > 1 and C2 == 0:
        r += load(r2, at, inside, EVEN)
    return r
