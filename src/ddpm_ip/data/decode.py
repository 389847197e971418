"""One image file, or its bytes, to ``uint8`` (C, H, W): always the right pixels, or an error that names the file.

What happens to the kinds of image that are found in the wild:

==============================  =====================================================================================
gray, 1-bit                     one channel, black 0 and white 255; repeated three times where RGB is asked for
LA, RGBA, transparent palette   composited on **white**
CMYK, YCbCr, palette            converted to RGB; colour profiles are not applied
16-bit gray                     scaled to 8 bits (``round(v / 257)``), not clipped; a transparent colour becomes white
16-bit RGB(A), 16-bit gray + A  Pillow reads the upper 8 bits
10, 12, 14 bits in 16           scaled as 16 bits, nearly black; :data:`BITS` says how many bits an image uses
HEIF                            read by pillow-heif where that is installed
float (TIFF)                    [0, 1] scaled to 0..255; values outside, or not finite, are refused
32-bit integer                  refused: its scale is unknown
EXIF orientation                applied
animation, several pages        the first picture
more than ``MAX_PIXELS``        refused from the header, before memory is allocated
truncated, empty, not an image  refused
no pixels (0 x 0)               refused
==============================  =====================================================================================

RGB becomes gray by the luma of ITU-R BT.601, as Pillow's ``convert("L")`` does.

Where four channels are asked for, nothing is composited: every image becomes RGBA, and one without transparency is
opaque (255). When such an image is resized, colours are weighted with their opacity, so that what cannot be seen does
not bleed in.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from ddpm_ip.errors import DataError

UInt8 = npt.NDArray[np.uint8]
ImageSize = int | tuple[int, int]  # of a square, or height and width

MAX_CHANNELS = 16
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> what Pillow calls it: what an image file can hold

# 8000 x 8000; as RGB 192 MB for each decoding thread. Below Pillow's own limit of 89 million, which only warns.
MAX_PIXELS = 64_000_000

# Only formats with a signature and a decoder of their own: EPS, for one, would start Ghostscript.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")

MAX_SCANS = 100  # of a progressive JPEG

STRIP = 256  # rows that are composited or scaled at once

BITS = "ddpm_ip.bits"  # in the ``info`` of a read image that had 16 bits: how many its largest value needs


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used: where it is (file, or shard and row) and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class UnusableImage(DataError):
    """One image cannot be used; ``bad`` holds the place and the reason."""

    def __init__(self, where: str, reason: str) -> None:
        self.bad = BadImage(where, reason)
        super().__init__(str(self.bad))


def height_width(image_size: ImageSize) -> tuple[int, int]:
    """The height and the width that ``data.image_size`` means.

    Raises:
        DataError: one is below 1.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) < 1:
        raise DataError(f"data.image_size must be at least 1, not {image_size}")
    return height, width


def decode(
    source: Path | bytes, where: str, image_size: ImageSize, channels: int = 3, center_crop: int | None = None
) -> UInt8:
    """One image, read, cropped, resized and converted.

    Args:
        source: a file, or the bytes of one.
        where: what the image is called in an error.
        image_size: height and width of the result, or the one number that they are.
        channels: 1 (gray), 3 (RGB) or 4 (RGBA).
        center_crop: side of the square that is cut out of the middle first.

    Returns:
        ``uint8`` (channels, height, width).

    Raises:
        UnusableImage: (a ``DataError``) with ``where`` and the reason.
    """
    return place(read(source, where, channels == 4), where, image_size, channels, center_crop)


def place(image: Image.Image, where: str, image_size: ImageSize, channels: int, center_crop: int | None) -> UInt8:
    """The second half of :func:`decode`: from a read image to ``uint8`` (channels, height, width).

    Raises:
        UnusableImage: it is too small for the crop, or cannot be resized.
    """
    if center_crop is not None:
        if center_crop > min(image.size):
            raise UnusableImage(where, f"{image.width} x {image.height} is smaller than center_crop {center_crop}")
        image = image.crop(_middle(image.size, center_crop, center_crop))
    try:
        return to_chw(fit(image, image_size), channels)
    except (ArithmeticError, MemoryError, ValueError, OSError) as error:
        raise UnusableImage(where, f"{image.width} x {image.height} pixels cannot be resized: {error}") from error


def read(
    source: Path | bytes, where: str, alpha: bool = False, before: Callable[[int], None] = lambda pixels: None
) -> Image.Image:
    """The upright 8-bit image in its own size: mode ``L`` if the file is gray, else ``RGB``; with ``alpha`` ``RGBA``.

    Its ``info`` has :data:`BITS` if the file had 16 bits a pixel. ``before`` is called with the number of pixels before
    memory is taken for them.

    Raises:
        UnusableImage: anything is wrong with it.
    """
    if not isinstance(source, (Path, bytes)):  # a text, which Pillow would take for the name of a file
        raise UnusableImage(where, f"{type(source).__name__} instead of the bytes of an image file")
    try:
        if isinstance(source, Path) and not os.path.isfile(source):  # also a named pipe: opening one waits without end
            raise UnusableImage(where, "a broken link" if source.is_symlink() else "not a regular file")
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=formats()) as image:
            _check_pixels(image.size, where)
            before(image.width * image.height)
            if image.info.get("progressive"):
                _check_scans(source, where)
            deep = any(";16" in repr(tile[3]) for tile in image.tile)
            ImageOps.exif_transpose(image, in_place=True)
            found = _eight_bit(image, where, alpha)
            if deep and BITS not in found.info:
                found.info[BITS] = _bits_of_upper_half(found)
            return found
    except UnusableImage:
        raise
    except UnidentifiedImageError:
        raise UnusableImage(where, _not_an_image(source)) from None
    except Exception as error:  # a decoder that is fed garbage may raise anything
        raise UnusableImage(where, f"{error or type(error).__name__}") from error


def fit(image: Image.Image, image_size: ImageSize) -> Image.Image:
    """The largest part of the wanted proportions in the middle, resized; untouched if the size is right already.

    For a square that part is the largest square. Antialiased bicubic, with a box filter before it (``reducing_gap``)
    when much smaller. Cutting before resizing is the same picture as scaling the image until it covers height and width
    and cutting out the middle, without ever holding the ends of a very long image.
    """
    height, width = height_width(image_size)
    if image.size == (width, height):
        return image
    if image.width * height >= image.height * width:  # too wide, or just right: all of its height is used
        box = _middle(image.size, image.height * width / height, image.height)
    else:
        box = _middle(image.size, image.width, image.width * height / width)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)


def to_chw(image: Image.Image, channels: int) -> UInt8:
    """A Pillow image as ``uint8`` (channels, H, W), converted to gray (1), RGB (3) or RGBA (4)."""
    array = np.asarray(image.convert(MODES[channels]))
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _middle(size: tuple[int, int], width: float, height: float) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what lies in the middle; it begins at a whole pixel."""
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


@lru_cache(maxsize=1)
def formats() -> tuple[str, ...]:
    """The formats that can be read here, as Pillow names them."""
    try:
        import pillow_heif
    except (ImportError, OSError):  # it is optional
        pass
    else:
        pillow_heif.register_heif_opener()
        if hasattr(pillow_heif, "register_avif_opener"):  # before 1.0, when Pillow had none
            pillow_heif.register_avif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_pixels(size: tuple[int, int], where: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise UnusableImage(where, f"declares {size[0]} x {size[1]} pixels, more than the limit of {MAX_PIXELS:,}")
    if min(size) < 1:
        raise UnusableImage(where, f"declares {size[0]} x {size[1]} pixels: there are none")


def _check_scans(source: Path | bytes, where: str) -> None:
    """Refuses a JPEG that goes over its pixels again and again: libjpeg would take minutes."""
    data = source if isinstance(source, bytes) else source.read_bytes()
    if data.count(b"\xff\xda") > MAX_SCANS:
        raise UnusableImage(where, f"a progressive JPEG of more than {MAX_SCANS} scans, where 10 are usual")


def _not_an_image(source: Path | bytes) -> str:
    n_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
    return "no image in a known format (" + ", ".join(formats()) + ")" if n_bytes else "empty"


def _eight_bit(image: Image.Image, where: str, alpha: bool) -> Image.Image:
    if image.mode == "F":
        image = _from_float(np.asarray(image), where)
    elif image.mode.startswith("I"):
        image = _from_16_bit(image, where)
    bits = image.info.get(BITS)
    gray = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        image = _converted(image, "RGBA") if alpha else _on_white(image, "L" if gray else "RGB")
    else:
        image = _converted(image, "L" if gray else "RGB")
        image = _converted(image, "RGBA") if alpha else image
    if bits is not None:
        image.info[BITS] = bits
    return image


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """A loaded image in a mode; itself, not a copy, if it has that mode already."""
    image.load()
    return image if image.mode == mode else image.convert(mode)


def _on_white(image: Image.Image, mode: str) -> Image.Image:
    """A transparent image on white, in a mode; strip by strip, as a large one takes much memory."""
    canvas = Image.new(mode, image.size)
    for top in range(0, image.height, STRIP):
        box = 0, top, image.width, min(top + STRIP, image.height)
        part = image.crop(box).convert("RGBA")
        canvas.paste(Image.alpha_composite(Image.new("RGBA", part.size, "white"), part).convert(mode), box)
    return canvas


def _bits_of_upper_half(image: Image.Image) -> int:
    """Bits that the largest color value needs, of 16 of which the upper 8 are here; 8 stands for up to 8."""
    extrema = image.convert("RGB").getextrema()
    return 8 + max(int(high) for _, high in extrema).bit_length()  # type: ignore[misc]


def _from_float(values: npt.NDArray[np.float32], where: str) -> Image.Image:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 1.0):  # written so that NaN is refused too
        raise UnusableImage(where, f"float pixels from {low:g} to {high:g}; only 0 to 1 is understood")
    return Image.fromarray(_by_strips(values, lambda part: np.rint(part * 255.0)))


def _by_strips(values: npt.NDArray[Any], convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> UInt8:
    """``convert`` of each value, as ``uint8``; strip by strip, as a large image takes much memory."""
    out = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), STRIP):
        out[top : top + STRIP] = convert(values[top : top + STRIP])
    return out


def _from_16_bit(image: Image.Image, where: str) -> Image.Image:
    # Pillow's mode "I" is 32-bit, but for PNG and PPM it holds 16-bit values (older versions open them so).
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise UnusableImage(where, "32-bit integer pixels, whose scale is unknown; save it with 8 or 16 bits")
    values = np.asarray(image)
    gray = _by_strips(values, lambda part: (part.astype(np.int64) + 128) // 257)
    if "transparency" in image.info:
        opaque = (values != image.info["transparency"]).astype(np.uint8) * 255
        gray = np.stack([gray, opaque], axis=-1)
    found = Image.fromarray(gray)
    found.info[BITS] = int(values.max()).bit_length()
    return found
