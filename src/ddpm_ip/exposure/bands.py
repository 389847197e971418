r"""The energy of images by frequency band, in two ways.

Haar: an image is the sum of its blocks' means and of what each finer level adds. ``haar0`` is the coarsest (blocks of
8 x 8 pixels), ``haar3`` the finest (what blocks of 2 x 2 pixels do not say). On sides that 8 divides the four are
orthogonal. They are the bands of the correction ``band_gains``.
Radial: the squared Fourier coefficients by distance from the middle of the spectrum, in rings of equal width up to the
Nyquist frequency; ``ring0`` has the mean, and the corners of the spectrum are in the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ddpm_ip.exposure.curves import BANDS, HAAR, RINGS
from ddpm_ip.precise import precise
from ddpm_ip.sampler.correction.bands import low_band


def split(images: Tensor) -> list[Tensor]:
    """Haar's four parts of images (B, C, H, W), the lowest frequencies first; their sum is the images."""
    low = [low_band(images, level) for level in reversed(range(HAAR))]
    return [low[0], *(finer - coarser for coarser, finer in pairwise(low))]


def products(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The mean product of two sets of parts, for each image and band, float64 (B, 4)."""
    return torch.stack([(precise(x) * precise(y)).flatten(1).mean(dim=1) for x, y in zip(a, b, strict=True)], dim=1)


def haar_energy(images: Tensor) -> Tensor:
    """The mean square of images (B, C, H, W) in each of Haar's bands, float64 (B, 4)."""
    parts = split(images)
    return products(parts, parts)


def noise_energy(height: int, width: int) -> Tensor:
    """The expected :func:`haar_energy` of standard normal noise, float64 (4,).

    A pixel of a low band of blocks of ``m`` pixels, of which ``k`` lie in the image, has the variance ``k / m^2``, and
    the covariance ``1 / m`` with a finer one within it, times the share of the finer block that lies in the image.
    """
    ones = torch.ones(1, 1, height, width, dtype=torch.float64)
    inside = [low_band(ones, level) for level in reversed(range(HAAR))]  # the share of each block
    pixels = [4.0**level for level in reversed(range(HAAR))]
    variance = [share / m for share, m in zip(inside, pixels, strict=True)]
    found = [variance[0]]
    for k in range(1, HAAR):
        found.append(variance[k] - 2 * inside[k] / pixels[k - 1] + variance[k - 1])
    return torch.stack([v.mean() for v in found])


def energies(images: Tensor) -> Tensor:
    """The energy of each image in each of ``BANDS``, as a share of its number of values: float32 (B, bands).

    The mean of its squares is the sum over Haar's bands where 8 divides height and width, and the sum over rings.

    Args:
        images: float32 (B, C, H, W).
    """
    images = images.float()
    haar = torch.stack([part.square().flatten(1).mean(1) for part in split(images)], dim=1)
    power = torch.fft.fft2(images, norm="ortho").abs().square().mean(dim=1) / (images.shape[2] * images.shape[3])
    ring = _rings(images.shape[2], images.shape[3], images.device)
    radial = torch.zeros(len(images), RINGS, device=images.device).index_add_(1, ring, power.flatten(1))
    found = torch.cat((haar, radial), dim=1)
    assert found.shape[1] == len(BANDS)
    return found


def _rings(height: int, width: int, device: torch.device) -> Tensor:
    """The ring of each Fourier coefficient, int64 (H W,)."""
    down, across = torch.fft.fftfreq(height, device=device), torch.fft.fftfreq(width, device=device)
    radius = torch.hypot(*torch.meshgrid(down, across, indexing="ij"))
    return (radius * 2 * RINGS).long().clamp(max=RINGS - 1).flatten()
