r"""The energy of images by frequency band, in two ways.

Haar: an image is the sum of its blocks' means and of what each finer level adds. ``haar0`` is the coarsest (blocks of
8 x 8 pixels), ``haar3`` the finest (what blocks of 2 x 2 pixels do not say).
Radial: the squared Fourier coefficients by distance from the middle of the spectrum, in rings of equal width up to the
Nyquist frequency; ``ring0`` has the mean, and the corners of the spectrum are in the last one.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ddpm_ip.exposure.curves import BANDS, LEVELS, RINGS
from ddpm_ip.sampler.correction.bands import low_band


def energies(images: Tensor) -> Tensor:
    """The energy of each image in each of ``BANDS``, as a share of its number of values: float32 (B, bands).

    The mean of its squares is the sum over Haar's bands where 8 divides height and width, and the sum over rings.

    Args:
        images: float32 (B, C, H, W).
    """
    images = images.float()
    coarse = [low_band(images, level) for level in range(LEVELS)]  # finest first
    details = [finer - coarser for finer, coarser in pairwise(coarse)]
    haar = torch.stack([band.square().flatten(1).mean(1) for band in (coarse[-1], *reversed(details))], dim=1)
    power = torch.fft.fft2(images, norm="ortho").abs().square().mean(dim=1) / (images.shape[2] * images.shape[3])
    ring = _rings(images.shape[2], images.shape[3], images.device)
    radial = torch.zeros(len(images), RINGS, device=images.device).index_add_(1, ring, power.flatten(1))
    found = torch.cat((haar, radial), dim=1)
    assert found.shape[1] == len(BANDS)
    return found


def finest_of_noise(height: int, width: int) -> float:
    """What :func:`energies` says of standard normal noise in Haar's finest band, in the mean.

    Taking away the mean of its block leaves a pixel 3/4 of its variance; at an edge the block holds zeros, too.
    """
    share = low_band(torch.ones(1, 1, height, width, dtype=torch.float64), 1)
    return float((0.5 + share / 4).mean())


def _rings(height: int, width: int, device: torch.device) -> Tensor:
    """The ring of each Fourier coefficient, int64 (H W,)."""
    down, across = torch.fft.fftfreq(height, device=device), torch.fft.fftfreq(width, device=device)
    radius = torch.hypot(*torch.meshgrid(down, across, indexing="ij"))
    return (radius * 2 * RINGS).long().clamp(max=RINGS - 1).flatten()
