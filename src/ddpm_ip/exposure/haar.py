"""How much of images lies in each band of frequencies: Haar's, from blocks of 8 x 8 pixels to single ones.

Four images add up to the whole: what is the same in blocks of 8 x 8 pixels, what blocks of 4 x 4 add to that, then
those of 2 x 2, then single pixels. On sides that 8 divides they are orthogonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ddpm_ip.sampler.correction.band_gains import LEVELS
from ddpm_ip.sampler.correction.bands import low_band

BANDS = 1 + LEVELS  # from the lowest frequencies to the highest, as band_gains has them


def split(images: Tensor) -> list[Tensor]:
    """The four parts of images (B, C, H, W), the lowest frequencies first; their sum is the images."""
    low = [low_band(images, level) for level in range(LEVELS, -1, -1)]
    return [low[0], *(finer - coarser for coarser, finer in pairwise(low))]


def products(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The mean product of two sets of parts, for each image and band, float64 (B, 4)."""
    return torch.stack([(x.double() * y.double()).flatten(1).mean(dim=1) for x, y in zip(a, b, strict=True)], dim=1)


def energy(images: Tensor) -> Tensor:
    """The mean square of images (B, C, H, W) in each band, float64 (B, 4)."""
    parts = split(images)
    return products(parts, parts)


def noise_energy(height: int, width: int) -> Tensor:
    """The expected energy of standard normal noise in each band, float64 (4,).

    A pixel of a low band of blocks of ``m`` pixels, of which ``k`` lie in the image, has the variance ``k / m^2``, and
    the covariance ``1 / m`` with a finer one within it, times the share of the finer block that lies in the image.
    """
    ones = torch.ones(1, 1, height, width, dtype=torch.float64)
    inside = [low_band(ones, level) for level in range(LEVELS, -1, -1)]  # the share of each block
    pixels = [4.0**level for level in range(LEVELS, -1, -1)]
    variance = [share / m for share, m in zip(inside, pixels, strict=True)]
    found = [variance[0]]
    for k in range(1, BANDS):
        found.append(variance[k] - 2 * inside[k] / pixels[k - 1] + variance[k - 1])
    return torch.stack([v.mean() for v in found])
