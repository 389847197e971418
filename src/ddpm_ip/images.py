"""Images outside and inside: ``uint8`` on disk and in evaluation, ``float32`` in [-1, 1] in the network.

:func:`to_unit` and :func:`to_uint8` are the only two places where one becomes the other. The way back *rounds* to the
nearest of the 256 levels (as torchvision's ``save_image`` and diffusers do; guided-diffusion truncates, which darkens
every image by half a level and moves the FID).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ddpm_ip.files import writing

UInt8 = npt.NDArray[np.uint8]
PICTURES = (1, 3, 4)  # numbers of channels that a PNG can hold: gray, RGB, RGBA


def to_unit(images: Tensor) -> Tensor:
    """``uint8`` images in 0..255 to ``float32`` in [-1, 1]; any shape."""
    return images.float() / 127.5 - 1.0


def to_uint8(x: Tensor) -> Tensor:
    """Floating-point images in [-1, 1] (values outside are clipped) to ``uint8``, rounded; any shape."""
    return ((x.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def grid(images: UInt8, columns: int | None = None, gap: int = 2, scale: int | None = None) -> Image.Image:
    """Lays images out on a light background, row by row.

    One channel is shown as gray, three as RGB, four as RGBA composited on white; of any other number each image is a
    strip of its channels in gray, from left to right.

    Args:
        images: ``uint8`` (N, C, H, W) with N >= 1.
        columns: images in a row; by default as many as make the picture about square.
        gap: pixels between two images, before scaling.
        scale: whole-number enlargement (nearest neighbour); by default small images are enlarged to about 64 pixels.

    Returns:
        A grayscale or RGB picture.
    """
    scale = scale or max(1, round(64 / max(images.shape[2:])))
    images = _shown(images)
    n, channels, height, width = images.shape
    columns = min(n, columns or math.ceil(math.sqrt(n * height / width)))
    rows = math.ceil(n / columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 235, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    picture = Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def by_class(images: UInt8, period: int) -> tuple[UInt8, int | None]:
    """Images that are of ``period`` classes in turn, in an order for :func:`grid` that makes each row one class.

    Args:
        images: ``uint8`` (N, C, H, W).
        period: number of classes.

    Returns:
        As many of the images as make whole rows, and the columns. Where that would be less than two images a class, or
        there is one class, all images as they are, and no columns.
    """
    columns = len(images) // period
    if period < 2 or columns < 2:
        return images, None
    rows = images[: columns * period].reshape(columns, period, *images.shape[1:]).swapaxes(0, 1)
    return rows.reshape(columns * period, *images.shape[1:]), columns


def _shown(images: UInt8) -> UInt8:
    """Images of any number of channels as gray or RGB ones, see :func:`grid`."""
    n, channels, height, width = images.shape
    if channels in (1, 3):
        return images
    if channels == 4:
        alpha = images[:, 3:] / 255
        composited: UInt8 = (images[:, :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
        return composited
    strips = np.full((n, 1, height, channels, width + 1), 235, dtype=np.uint8)  # a pixel of background after each
    strips[:, 0, :, :, :width] = images.transpose(0, 2, 1, 3)
    return strips.reshape(n, 1, height, -1)[..., :-1]


def save_png(picture: Image.Image | UInt8, path: Path, advice: str = "") -> None:
    """Writes a PNG so that it appears whole or not at all.

    It is not flushed to the disk, which would take longer than making a small image: after a power failure it may be
    empty, and is made again.

    Args:
        picture: a Pillow image, or ``uint8`` (C, H, W) with C in :data:`PICTURES`.
        path: the file; its folder is made if need be.
        advice: what to do if it cannot be written.

    Raises:
        UserError: it cannot be written.
    """
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture[0] if picture.shape[0] == 1 else picture.transpose(1, 2, 0))
    with writing(path, advice=advice, durable=False) as file:
        picture.save(file, format="PNG")
