r"""How far images are from real ones, without any network: a distance that a small sample determines.

Of each image, in gray and two differences of colours (of other channels as they are): the mean, and in each of four
bands of frequencies (:mod:`ddpm_ip.exposure.bands`) the logarithm of its energy and how it is spread, ``E|x| / rms``.
Each number is divided by its deviation over real images (one that is the same in all of them has no unit, and is left
out); the mismatch is the Frechet distance of the two Gaussians

    |mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^{1/2}).

It sees noise that was left over, detail and contrast that are lost, and colours that drift: what exposure bias does. It
does not see what an image shows. The measure is this project's; how it ranks against FD-C56: docs/exposure-bias.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_ip.exposure.bands import split
from ddpm_ip.precise import precise

COLOURS = ((1 / 3, 1 / 3, 1 / 3), (0.5, 0.0, -0.5), (-0.25, 0.5, -0.25))
QUIET = 1e-5  # energy that is added, less than that of steps of 1/255
SAME = 1e-3  # deviation of a number that is the same in all real images, such as a difference of colours in gray ones


def statistics(images: Tensor) -> Tensor:
    """The numbers of each image, float64 (B, 9 C).

    Args:
        images: float32 (B, C, H, W) in [-1, 1].
    """
    if images.shape[1] == 3:
        images = torch.einsum("ij,bjhw->bihw", torch.tensor(COLOURS, device=images.device), images)
    parts = split(images)
    mean = images.mean(dim=(2, 3))
    parts[0] = parts[0] - mean[:, :, None, None]
    found = [mean]
    for part in parts:
        energy = part.square().mean(dim=(2, 3)) + QUIET
        found += [energy.log(), part.abs().mean(dim=(2, 3)) / energy.sqrt()]
    return precise(torch.cat(found, dim=1))


@dataclass(frozen=True)
class Mismatch:
    """The distance to real images.

    Args:
        mean, covariance: of the scaled statistics of real images, float64 (S,) and (S, S).
        scale: what each is divided by, (S,); infinite where it is left out.
    """

    mean: Tensor
    covariance: Tensor
    scale: Tensor

    @classmethod
    def to(cls, real: Tensor) -> Mismatch:
        """The distance to images of which the statistics are given, float64 (N, S), N >= 2."""
        scale = real.std(dim=0)
        scale = scale.where(scale > SAME, torch.inf)
        scaled = real / scale
        return cls(scaled.mean(dim=0), torch.cov(scaled.T), scale)

    def __call__(self, found: Tensor) -> float:
        """Of images of which the statistics are given, float64 (N, S), N >= 2."""
        scaled = found / self.scale
        mean, covariance = scaled.mean(dim=0), torch.cov(scaled.T)
        values, vectors = torch.linalg.eigh(self.covariance)
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        cross = torch.linalg.eigvalsh(root @ covariance @ root).clamp(min=0).sqrt().sum()
        difference = mean - self.mean
        distance = difference @ difference + self.covariance.trace() + covariance.trace() - 2 * cross
        return max(0.0, float(distance))
