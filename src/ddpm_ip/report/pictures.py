"""Pictures as ``data:`` addresses, small enough that the whole page stays small."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm_ip.files import read_bytes

PAGE_BYTES = 2_000_000
"""What all pictures of a page may take together, encoded."""

LARGEST = 64_000_000
"""Bytes of a file, and pixels of a picture, that are looked at."""

KINDS = ("PNG", "JPEG")
MOST_ENLARGED, LARGEST_EXACT = 16, 12_000_000
MAX_SIDE = 900
MIN_SIDE = 96


def open_picture(path: Path) -> Image.Image | None:
    """Reads a picture, as gray or RGB; None if it is damaged (a run may have been killed while writing, or copied in
    part), far too large, or something else.
    """
    try:
        content = io.BytesIO(read_bytes(path, LARGEST))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(content, formats=KINDS) as picture:
                if picture.width * picture.height > LARGEST:
                    return None
                picture.load()
                loaded: Image.Image = picture.copy() if picture.mode in ("L", "RGB") else picture.convert("RGB")
                return loaded
    except Exception:  # of a damaged file, decoders raise anything
        return None


def contact_sheet(files: Sequence[Path], columns: int = 8) -> Image.Image | None:
    """The first pictures of a folder of samples, row by row on a light background; None if none can be read."""
    pictures = [picture for path in files[: columns**2] if (picture := open_picture(path))]
    if not pictures:
        return None
    width, height = (min(side, MAX_SIDE // columns) for side in pictures[0].size)
    scale, gap = max(1, round(64 / max(width, height))), 2
    rows = math.ceil(len(pictures) / columns)
    columns = min(columns, len(pictures))
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), (235, 235, 235))
    for i, picture in enumerate(pictures):
        place = gap + (i % columns) * (width + gap), gap + (i // columns) * (height + gap)
        sheet.paste(picture if picture.size == (width, height) else picture.resize((width, height)), place)
    return sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST)


def data_uri(picture: Image.Image, limit: int) -> str:
    """A picture as a ``data:`` address of at most about ``limit`` characters.

    Lossless if that fits (small images enlarged by whole numbers compress well); otherwise JPEG of high quality, and
    only then fewer pixels.
    """
    room = limit * 3 // 4  # base64 writes three bytes as four characters
    picture = _fit(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"), MAX_SIDE)
    kind, encoded = "png", _encode(picture, "PNG")
    if len(encoded) > room:
        kind, encoded = "jpeg", _encode(picture, "JPEG", quality=88, subsampling=0)
    while len(encoded) > room and max(picture.size) > MIN_SIDE:
        shrink = min(0.9, (room / len(encoded)) ** 0.5)
        picture = _fit(picture, max(MIN_SIDE, int(max(picture.size) * shrink)))
        encoded = _encode(picture, "JPEG", quality=88, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"


def pixel_exact(picture: Image.Image) -> Image.Image:
    """A picture in its own pixels: without the whole-number enlargement that the grids of small images have.

    A browser enlarges it again by a whole number (:func:`enlargement`), so that each pixel stays a square.
    """
    pixels = np.asarray(picture)
    if pixels.size > LARGEST_EXACT:
        return picture
    for factor in range(MOST_ENLARGED, 1, -1):
        if pixels.shape[0] % factor or pixels.shape[1] % factor:
            continue
        small = pixels[::factor, ::factor]
        if not np.array_equal(small[:1].repeat(factor, axis=1), pixels[:1]):  # most are told by their first row
            continue
        if np.array_equal(small.repeat(factor, axis=0).repeat(factor, axis=1), pixels):
            return Image.fromarray(small.copy())
    return picture


def upper_half(picture: Image.Image) -> Image.Image:
    """The upper rows of a grid of images, cut along the background between two rows; all of it where there is none."""
    pixels = np.asarray(picture)
    same = (pixels == pixels[0, 0]).reshape(len(pixels), -1).all(axis=1)
    rows = np.flatnonzero(same[: len(pixels) // 2 + 2])
    cut = int(rows[-1]) + 1 if rows.size else 0
    return picture.crop((0, 0, picture.width, cut)) if cut > 0.3 * len(pixels) else picture


def enlargement(picture: Image.Image, width: int) -> int:
    """By which whole number a picture is shown, to be about so many CSS pixels wide; 1 for a larger one."""
    return max(1, width // picture.width)


def lossless(picture: Image.Image, limit: int) -> Image.Image:
    """The upper part of a grid that a page has room for without loss; at least a quarter of it."""
    for share in (1.0, 0.75, 0.5, 0.25):
        part = picture.crop((0, 0, picture.width, max(1, round(picture.height * share))))
        if len(_encode(part, "PNG")) <= limit * 3 // 4:
            return part
    return part


def _fit(picture: Image.Image, side: int) -> Image.Image:
    if max(picture.size) <= side:
        return picture
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _encode(picture: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
