"""Features of images that a distance is taken in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ddpm_ip.images import UInt8


def pixels(images: UInt8) -> npt.NDArray[np.float64]:
    """The images themselves: ``uint8`` (N, C, H, W) to (N, C H W) in [0, 1].

    Exact, needs no weights, and sees what it sees: means, contrasts and correlations of pixels, not objects. The
    Fréchet distance in these features is called FD-pixels; it is no FID.
    """
    return images.reshape(len(images), -1).astype(np.float64) / 255
