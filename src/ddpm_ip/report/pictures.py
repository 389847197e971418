"""Pictures as ``data:`` addresses, small enough that the whole page stays small."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

PAGE_BYTES = 2_000_000
"""What all pictures of a page may take together, encoded."""

MAX_SIDE = 900
MIN_SIDE = 96


def open_picture(path: Path) -> Image.Image | None:
    """Reads a picture; None if the file is damaged (a run may have been killed while writing, or copied in part)."""
    try:
        with Image.open(path) as picture:
            picture.load()
            loaded: Image.Image = picture.copy()
            return loaded
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


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
