"""A visit's update in one GPU kernel, in Triton: the noise and the weighted sums of all components, in place.

The sums are those of :mod:`ddpm_ip.sampler.walk`, term by term in float32, the noise last and without fused
multiply-adds; the noise is that of :class:`ddpm_ip.draws.Draws`, made in registers.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ddpm_ip.denoiser import Prediction
from ddpm_ip.draws import Draws, Stream
from ddpm_ip.draws_kernel import MOST_ROWS, pair, philox
from ddpm_ip.sampler.packed import CHANGES, COLUMNS, LEARNED, USED

BLOCK = 1024  # elements of an image that one program works on


@triton.jit
def _and(inside, flag):
    return tl.where(inside, flag, 0.0) != 0


@triton.jit
def _load(z, at, inside, used):
    return tl.load(z + at, mask=_and(inside, used), other=0.0)


@triton.jit
def _term(total, weight, z):
    return tl.where(weight != 0, total + weight * z, total)  # where there is no weight, z may be anything


@triton.jit
def _combined(row, x, m1, m2, m3, x0, eps, noise):
    """The weighted sum of one component, whose weights begin at ``row``."""
    total = _term(tl.zeros_like(x), tl.load(row), x)
    total = _term(total, tl.load(row + 1), m1)
    total = _term(total, tl.load(row + 2), m2)
    total = _term(total, tl.load(row + 3), m3)
    total = _term(total, tl.load(row + 4), x0)
    total = _term(total, tl.load(row + 5), eps)
    return _term(total, tl.load(row + 6), noise)


@triton.jit
def _update(
    x, memories, x0, eps, fraction, row, rows, word, key, n, size, STREAM: tl.constexpr, HAS_FRACTION: tl.constexpr,
    CHANGES: tl.constexpr, USED: tl.constexpr, LEARNED: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = element < n
    at = image.to(tl.int64) * n + element
    vx = _load(x, at, inside, tl.load(row + USED))
    v1 = _load(memories, at, inside, tl.load(row + USED + 1))
    v2 = _load(memories + size, at, inside, tl.load(row + USED + 2))
    v3 = _load(memories + 2 * size, at, inside, tl.load(row + USED + 3))
    v0 = _load(x0, at, inside, tl.load(row + USED + 4))
    ve = _load(eps, at, inside, tl.load(row + USED + 5))
    noise = tl.zeros_like(vx)
    if tl.load(row + USED + 6) != 0:
        index, step = tl.load(rows + image).to(tl.uint32), tl.load(word).to(tl.uint32)
        k0, k1 = tl.load(key).to(tl.uint32), tl.load(key + 1).to(tl.uint32)
        stream = tl.full((), STREAM, tl.uint32)
        c0, c1, c2, c3 = philox((element // 4).to(tl.uint32), index, step, stream, k0, k1)
        place = element % 4
        even, odd = pair(tl.where(place < 2, c0, c2), tl.where(place < 2, c1, c3))
        noise = tl.where(place % 2 == 0, even, odd)
        if HAS_FRACTION:  # noqa: SIM102  (this is known when the kernel is compiled, the next is not)
            if tl.load(row + LEARNED) != 0:
                f = tl.load(fraction + at, mask=inside, other=0.0)
                noise = tl.exp(0.5 * (f * tl.load(row + LEARNED + 2) + (1 - f) * tl.load(row + LEARNED + 1))) * noise
    tl.store(x + at, _combined(row, vx, v1, v2, v3, v0, ve, noise), mask=_and(inside, tl.load(row + CHANGES)))
    for k in tl.static_range(3):
        value = _combined(row + (k + 1) * COLUMNS, vx, v1, v2, v3, v0, ve, noise)
        tl.store(memories + k * size + at, value, mask=_and(inside, tl.load(row + CHANGES + 1 + k)))


def update(x: Tensor, memories: Tensor, seen: Prediction, row: Tensor, draws: Draws) -> None:
    """Updates the state and the memories in place.

    Args:
        x: float32 (B, C, H, W), contiguous.
        memories: float32 (3, B, C, H, W), contiguous.
        seen: what the denoiser said, after all corrections.
        row: a row of :func:`ddpm_ip.sampler.packed.packed`, float32, on the device.
        draws: of the images; its seed and its step are tensors on the device.

    Raises:
        MemoryError: there are more images than a launch can have.
    """
    if len(x) > MOST_ROWS:
        raise MemoryError(f"a GPU kernel takes {MOST_ROWS:,} images at most, and got {len(x):,}")
    assert isinstance(draws.seed, Tensor)
    assert isinstance(draws.step, Tensor)
    n = x[0].numel()
    x0, eps = seen.x0.contiguous(), seen.eps.contiguous()
    fraction = x if seen.variance_fraction is None else seen.variance_fraction.contiguous()
    _update[(triton.cdiv(n, BLOCK), len(x))](
        x, memories, x0, eps, fraction, row, draws.rows, draws.step, draws.seed, n, x.numel(),
        STREAM=int(Stream.STEP), HAS_FRACTION=seen.variance_fraction is not None, CHANGES=CHANGES, USED=USED,
        LEARNED=LEARNED, COLUMNS=COLUMNS, BLOCK=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
