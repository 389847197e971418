"""The two kernels of :mod:`ddpm_ip.nn.fused.norm`, in Triton.

They are long, and take many arguments, because each is one launch: what they do with a tile is in
:mod:`ddpm_ip.nn.fused.tiles`, the rest shares its pointers and sums from the first line to the last.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ddpm_ip.nn.fused import tiles


@triton.jit(do_not_specialize=["layer"])
def _norm_forward(
    x1, x2, shift, weight, bias, scale, offset, keys, y, stats, shift_stride, scale_stride, eps, layer,
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

    w = tl.load(weight + c, mask=live, other=0.0).to(tl.float32)
    if scale is not None:
        factor = 1.0 + tl.load(scale + b * scale_stride + c, mask=live, other=0.0).to(tl.float32)
        w *= factor
    gain = rstd * w
    beta = tl.load(bias + c, mask=live, other=0.0).to(tl.float32)
    if scale is not None:
        beta = beta * factor + tl.load(offset + b * scale_stride + c, mask=live, other=0.0).to(tl.float32)
    beta -= mean * gain
    if SHIFT:
        beta += added * gain
    key = 0
    if THRESHOLD > 0:
        key = tiles.image_key(keys, b, layer)
    if ONCE:
        at = rows[:, None] * C + c[None, :]
        z = tiles.activation(x * gain[None, :] + (beta + first * gain)[None, :], key, at, SILU, THRESHOLD, SCALE, FAST)
        tiles.store(y, at, z, inside, EVEN)
    else:
        last = (tl.cdiv(HW, ROWS) - 1) * ROWS
        for done in tl.range(0, HW, ROWS, num_stages=STAGES):
            rows = last - done + tl.arange(0, ROWS)
            inside = (rows[:, None] < HW) & live[None, :]
            at = rows[:, None] * C + c[None, :]
            z = (
                tiles.load(x1, tiles.places(rows, columns, C1, C2, ALIGNED), inside, EVEN) * gain[None, :]
                + beta[None, :]
            )
            tiles.store(y, at, tiles.activation(z, key, at, SILU, THRESHOLD, SCALE, FAST), inside, EVEN)


@triton.jit(do_not_specialize=["layer"])
def _norm_backward(
    x1, x2, shift, weight, bias, scale, offset, keys, stats, dy, r1, r2, dx1, dx2, sums,
    shift_stride, scale_stride, layer,
    HW: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr, GROUP: tl.constexpr, BLOCK_C: tl.constexpr,
    LANES: tl.constexpr, ROWS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr, STAGES: tl.constexpr,
    ONCE: tl.constexpr, SHIFT: tl.constexpr, SILU: tl.constexpr, THRESHOLD: tl.constexpr, SCALE: tl.constexpr,
    FAST: tl.constexpr,
    RESIDUAL: tl.constexpr,
):  # fmt: skip
    """One image, some whole groups. With ``xn = (x + shift - mean) rstd``, ``z = xn weight + bias``, ``dz = dy f'(z)``

        dx = rstd (weight dz - (S1 + xn S2) / N) + r,   S1 = sum over the group of weight dz,  S2 = of weight dz xn

    where ``r`` is the gradient of the ``x`` that was handed through, ``r1`` and ``r2`` those of the two maps that are
    joined in ``x``, or both of the one that is ``x``. ``sums``: (3 to 6, B, C), per channel of this image
    ``sum dz xn`` (of the weight), ``sum dz`` (of the bias), ``sum dx``, and ``sum dx`` without ``r`` (of the shift).

    With a scale and an offset z is ``xn w' + b'``, ``w' = weight (1 + scale)`` and ``b' = bias (1 + scale) + offset``:
    the same with other numbers, and from the two sums follow those of all four. Those of scale and offset come last.
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
    if scale is not None:
        factor = 1.0 + tl.load(scale + b * scale_stride + c, mask=live, other=0.0).to(tl.float32)
        w *= factor
    if SHIFT:
        mean -= tl.load(shift + b * shift_stride + c, mask=live, other=0.0).to(tl.float32)
    gain = rstd * w
    beta = tl.load(bias + c, mask=live, other=0.0).to(tl.float32)
    if scale is not None:
        beta = beta * factor + tl.load(offset + b * scale_stride + c, mask=live, other=0.0).to(tl.float32)
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
        beta -= mean * gain
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
            dz = tiles.activation_gradient(x * gain[None, :] + beta[None, :], dz, key, at, SILU, THRESHOLD, SCALE, FAST)
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
    if scale is not None:
        w = tl.load(weight + c, mask=live, other=0.0).to(tl.float32)
        beta = tl.load(bias + c, mask=live, other=0.0).to(tl.float32)
        of_scale = out + (4 if SHIFT else 3) * images * C
        tl.store(of_scale, w * d_weight + beta * d_bias, mask=live)
        tl.store(of_scale + images * C, d_bias, mask=live)
        factor = 1.0 + tl.load(scale + b * scale_stride + c, mask=live, other=0.0).to(tl.float32)
        d_weight *= factor
        d_bias *= factor
    tl.store(out, d_weight, mask=live)
    tl.store(out + images * C, d_bias, mask=live)
    tl.store(out + 2 * images * C, total, mask=live)
    if SHIFT:
        tl.store(out + 3 * images * C, d_shift, mask=live)
