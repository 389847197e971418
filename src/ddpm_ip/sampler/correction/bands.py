"""Frequency bands of images, and which rows of a plan end a step: for corrections of the state.

The low band of a Haar transform of level k holds the sums of blocks of 2^k x 2^k pixels, over 2^k. Put back alone, with
all other bands zero, it is the image of these blocks' means; so no wavelet package is needed. What lies beyond the
right and the lower edge is zero, as in the mode "zero" of wavelet packages: images may have any size.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from ddpm_ip.sampler.base import Plan


def low_band(images: Tensor, level: int = 1) -> Tensor:
    """What the low band holds of images (B, C, H, W), as such images.

    Args:
        images: of any height and width.
        level: blocks of ``2^level`` pixels a side; 0 are the images themselves.
    """
    if level == 0:
        return images
    block, (height, width) = 2**level, images.shape[-2:]
    whole = pad(images, (0, -width % block, 0, -height % block))
    return interpolate(avg_pool2d(whole, block), scale_factor=float(block))[..., :height, :width]


def first_visits(plan: Plan) -> list[int]:
    """For each row, the first row of its step (V,): a step of several visits begins where that asks."""
    found, first = [], 0
    for row, finished in enumerate(plan.state.tolist()):
        found.append(first)
        first = row + 1 if finished else first
    return found


def noisy_ends(plan: Plan) -> Tensor:
    """(V,) bool: the row ends a step, and not with the clean image."""
    return plan.state & (plan.after[:, 1] > 0)
