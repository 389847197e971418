"""Features of DINOv2, as torch-fidelity's extractor takes them, without ``torch.hub`` and without torchvision.

torch-fidelity gets the network through ``torch.hub``, which downloads and runs code that no checksum covers. Here the
network is our own (:mod:`ddpm_ip.evaluate.extractors.vit`), and the official weights are a file whose SHA-256 is
checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_ip.evaluate.extractors import weights
from ddpm_ip.evaluate.extractors.vit import Size, build

SIZES = {
    "dinov2-vit-s-14": Size(384, 12, 6),
    "dinov2-vit-b-14": Size(768, 12, 12),
    "dinov2-vit-l-14": Size(1024, 24, 16),
    "dinov2-vit-g-14": Size(1536, 40, 24, swiglu=True),
}
PIXELS = 224  # a side, of the images that the network sees
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in [0, 1]


class Dinov2:
    """The class token of DINOv2 after the last normalization, ``pool`` (B, 384, 768, 1024 or 1536), in float32.

    There are no classes, hence no logits and no class score, and no ``spatial``. Images of any size are resized to
    224 x 224 as TensorFlow 1 did, which is torch-fidelity's choice; other evaluators resize otherwise.

    Args:
        name: a key of :data:`SIZES`.
        device: where.
        file: the weights; by default from :func:`ddpm_ip.evaluate.extractors.weights.weights_folders`.

    Raises:
        UserError: the weights are missing, or the file is not the one that it should be.
    """

    def __init__(self, name: str, device: torch.device, file: Path | None = None) -> None:
        self.name = name
        state, self._sha256 = weights.read_weights(weights.DINOV2[name], file)
        self._network = build(SIZES[name], state).to(device)

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """``uint8`` (B, 3, H, W) to the features, ``float32``."""
        mean, deviation = (torch.tensor(c, device=images.device)[:, None, None] * 255 for c in (MEAN, DEVIATION))
        return {"pool": self._network((resize_as_tensorflow1(images.float(), PIXELS) - mean) / deviation)}

    def identity(self) -> Mapping[str, Any]:
        """What the features depend on."""
        resize = f"{PIXELS} x {PIXELS}, bilinear as TensorFlow 1"
        return {"weights_sha256": self._sha256, "resize": resize, "precision": "float32"}


def resize_as_tensorflow1(images: Tensor, side: int) -> Tensor:
    """Bilinear, with corners at corners and no filter: pixel i of the result lies at ``i * H / side`` of the image.

    Args:
        images: ``float32`` (B, C, H, W).
        side: height and width of the result.

    Returns:
        ``float32`` (B, C, side, side), equal to torch-fidelity's ``interpolate_bilinear_2d_like_tensorflow1x``.
    """
    for axis in (3, 2):
        place = torch.arange(side, dtype=torch.float32, device=images.device) * (images.shape[axis] / side)
        low = place.long()
        near = images.index_select(axis, low)
        far = images.index_select(axis, (low + 1).clamp_max(images.shape[axis] - 1))
        images = near + (far - near) * (place - low).view(side, *[1] * (3 - axis))
    return images
