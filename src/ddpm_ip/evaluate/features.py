"""Features of images that a distance is taken in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ddpm_ip.errors import ConfigError
from ddpm_ip.images import UInt8


def pixels(images: UInt8) -> npt.NDArray[np.float64]:
    """The images themselves: ``uint8`` (N, C, H, W) to (N, C H W) in [0, 1].

    Exact, needs no weights, and sees what it sees: means, contrasts and correlations of pixels, not objects. The
    Fréchet distance in these features is called FD-pixels; it is no FID.
    """
    return images.reshape(len(images), -1).astype(np.float64) / 255


# STAND-IN for what is below, to be replaced on merging.
@dataclass(frozen=True)
class Extractor:
    """What features are taken by."""

    name: str


def find_extractor(name: str, device: torch.device) -> Extractor:
    """The extractor of a name."""
    if name != "pixels":
        raise ConfigError(f"unknown extractor {name!r}: choose pixels")
    return Extractor(name)
