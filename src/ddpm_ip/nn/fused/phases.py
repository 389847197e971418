"""Doubling, then a 3x3 convolution, as 2x2 convolutions of the small image: the weights of the four, in Triton.

Around row ``2 i`` of the doubled image lie rows ``i-1, i, i`` of the small one, around row ``2 i + 1`` lie ``i, i,
i+1``: with the taps that fall on one pixel added up two are left, and the same for columns.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ddpm_ip.nn.fused.launch import launch


@triton.jit
def _tap(first, second, third, PHASE: tl.constexpr, TAP: tl.constexpr):
    # What falls on a pixel of the small image, of three taps in a row
    if PHASE == 0:
        if TAP == 0:
            return first
        else:
            return second + third
    else:
        if TAP == 0:
            return first + second
        else:
            return third


@triton.jit
def _phases(w, out, COUT, CIN: tl.constexpr, LANES: tl.constexpr):
    """``out[(a, e), co, (r, s), ci]`` is the sum of ``w[co, ky, kx, ci]`` over all (ky, kx) that fall on (r, s)."""
    co = tl.program_id(0)
    c = tl.program_id(1) * LANES + tl.arange(0, LANES)
    live = c < CIN
    w += co * 9 * CIN + c
    a0 = tl.load(w, mask=live).to(tl.float32)
    a1 = tl.load(w + CIN, mask=live).to(tl.float32)
    a2 = tl.load(w + 2 * CIN, mask=live).to(tl.float32)
    b0 = tl.load(w + 3 * CIN, mask=live).to(tl.float32)
    b1 = tl.load(w + 4 * CIN, mask=live).to(tl.float32)
    b2 = tl.load(w + 5 * CIN, mask=live).to(tl.float32)
    c0 = tl.load(w + 6 * CIN, mask=live).to(tl.float32)
    c1 = tl.load(w + 7 * CIN, mask=live).to(tl.float32)
    c2 = tl.load(w + 8 * CIN, mask=live).to(tl.float32)
    for phase in tl.static_range(4):
        for tap in tl.static_range(4):
            left = _tap(a0, b0, c0, phase // 2, tap // 2)
            middle = _tap(a1, b1, c1, phase // 2, tap // 2)
            right = _tap(a2, b2, c2, phase // 2, tap // 2)
            value = _tap(left, middle, right, phase % 2, tap % 2)
            tl.store(out + ((phase * COUT + co) * 4 + tap) * CIN + c, value.to(out.dtype.element_ty), mask=live)


@triton.jit
def _phases_gradient(d, out, COUT, CIN: tl.constexpr, LANES: tl.constexpr):
    """Each tap of a 3x3 kernel falls on one pixel in each phase: the sum of the gradients of these four."""
    co = tl.program_id(0)
    c = tl.program_id(1) * LANES + tl.arange(0, LANES)
    live = c < CIN
    for at in tl.static_range(9):
        total = tl.zeros([LANES], tl.float32)
        for phase in tl.static_range(4):
            row = (at // 3 + phase // 2 + 1) // 2 - phase // 2
            column = (at % 3 + phase % 2 + 1) // 2 - phase % 2
            source = ((phase * COUT + co) * 4 + row * 2 + column) * CIN
            total += tl.load(d + source + c, mask=live, other=0.0).to(tl.float32)
        tl.store(out + (co * 9 + at) * CIN + c, total.to(out.dtype.element_ty), mask=live)


def phases(weight: Tensor) -> Tensor:
    """The weights of a 3x3 convolution of a doubled image, for the small one.

    Args:
        weight: (cout, cin, 3, 3), channels_last.

    Returns:
        (4 cout, 4 cin), outputs by phase (0, 0), (0, 1), (1, 0), (1, 1), inputs by tap in the same order.
    """
    cout, cin = weight.shape[:2]
    out = torch.empty(4 * cout, 4 * cin, dtype=weight.dtype, device=weight.device)
    _launch(_phases, weight, out, cout, cin)
    return out


def phases_gradient(d: Tensor, like: Tensor) -> Tensor:
    """The gradient of ``weight`` in :func:`phases` from that of the result; in memory as ``like``, the weight."""
    cout, cin = like.shape[:2]
    out = torch.empty_like(like)
    _launch(_phases_gradient, d, out, cout, cin)
    return out


def _launch(kernel: object, source: Tensor, out: Tensor, cout: int, cin: int) -> None:
    lanes = min(256, triton.next_power_of_2(cin))
    launch(kernel, (cout, triton.cdiv(cin, lanes)), source, out, cout, CIN=cin, LANES=lanes, num_warps=1)
