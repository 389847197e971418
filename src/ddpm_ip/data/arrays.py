"""Images that are already arrays: the embedded digits, and ``.npz`` or ``.npy`` files."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ddpm_ip.data.decode import MAX_CHANNELS, ImageSize, UInt8
from ddpm_ip.data.imageset import ImageSet, existing, from_arrays
from ddpm_ip.errors import DataError

LABEL_NAMES = ("labels", "arr_1")  # arr_1: guided-diffusion's sample files
LAYOUT = "layout"  # of the array that says which axis holds the channels

Layout = Literal["auto", "channels_first", "channels_last"]


@dataclass(frozen=True, kw_only=True)
class Digits:
    """1,797 gray 8 x 8 images of handwritten digits that come with the package (``DIGITS.md`` tells from where)."""

    name: Literal["digits"] = "digits"
    image_size: ImageSize = 8

    def open(self, progress: bool = True) -> ImageSet:
        """``uint8`` (1797, 1, 8, 8), labels 0..9."""
        with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as arrays:
            return from_arrays(arrays["images"], arrays["labels"], "digits", self.image_size, progress)


@dataclass(frozen=True, kw_only=True)
class Npz:
    """An ``.npz`` or ``.npy`` file with ``uint8`` images (N, H, W, C), (N, C, H, W) or (N, H, W), C in 1..16.

    The images are the array called ``images``, or else the first one; the labels are ``labels`` or ``arr_1``
    (guided-diffusion's name), if there. A ``.npy`` file is mapped, not loaded.

    Attributes:
        root: the file.
        image_size: height and width, or one number for both; images of another size are resized, in memory.
        layout: where the channels are, ``channels_first`` (N, C, H, W) or ``channels_last`` (N, H, W, C). ``auto``
            takes what the file says in an array ``layout``; else 1 or 3 at the last place for channels, or else 1 or 3
            at the second; else the only one of the two places that has at most 16.
    """

    name: Literal["npz"] = "npz"
    root: str
    image_size: ImageSize
    layout: Layout = "auto"

    def open(self, progress: bool = True) -> ImageSet:
        """Reads the arrays; nothing in the file is ever unpickled.

        Raises:
            DataError: the file is missing or damaged, or the array is not ``uint8`` images, or not surely so.
        """
        path = existing(self.root, "an .npz or .npy file")
        images, labels = read_arrays(path, self.layout)
        return from_arrays(images, labels, path.stem, self.image_size, progress)


def read_arrays(path: Path, layout: Layout = "auto") -> tuple[UInt8, npt.NDArray[np.integer] | None]:
    """The images of an ``.npz`` or ``.npy`` file as they are, ``uint8`` (N, C, H, W), and the labels, if any.

    Args:
        path: the file.
        layout: see :class:`Npz`.

    Raises:
        DataError: the file is damaged, the array is not ``uint8`` images, or which axis holds the channels is not sure.
    """
    try:
        images, labels, said = _arrays(path)
    except (OSError, ValueError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable .npz or .npy file: {error}") from error
    return _channels_first(images, path, said if layout == "auto" else layout), _labels(labels, path)


def _arrays(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None, str]:
    """Images, labels, and the layout that the file says."""
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False), None, "auto"
    if not zipfile.is_zipfile(path):
        raise ValueError("an .npz file is a zip archive, and this is none")
    with np.load(path, allow_pickle=False) as arrays:
        names = [name for name in arrays.files if name != LAYOUT]
        if not names:
            raise ValueError("there is no array in it")
        images = "images" if "images" in names else names[0]
        labels = next((name for name in LABEL_NAMES if name in names and name != images), None)
        said = str(arrays[LAYOUT]) if LAYOUT in arrays.files else "auto"
        return arrays[images], arrays[labels] if labels else None, said


def _channels_first(images: npt.NDArray[Any], path: Path, layout: str) -> UInt8:
    """The array as (N, C, H, W); a view, except that a copy is made of channels-last images in memory."""
    if images.dtype != np.uint8:
        raise DataError(
            f"{path}: the images are {images.dtype}, not uint8. Convert them and save again: values in [0, 1] by "
            "(x * 255).round().astype('uint8'), values in [-1, 1] by ((x + 1) * 127.5).round().astype('uint8')"
        )
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and _layout(images.shape, layout, path) == "channels_last":
        moved = images.transpose(0, 3, 1, 2)
        return moved if isinstance(images, np.memmap) else np.ascontiguousarray(moved)
    if images.ndim == 4:
        return images
    raise DataError(f"{path}: shape {images.shape} is none of (N, H, W, C), (N, C, H, W), (N, H, W)")


def _layout(shape: tuple[int, ...], layout: str, path: Path) -> str:
    """Where the channels of four axes are: as it is said, or the only reading that there is.

    Raises:
        DataError: neither axis can be that of the channels, or both can and nobody says which.
    """
    axes = {"channels_last": 3, "channels_first": 1}
    if layout not in ("auto", *axes):
        raise DataError(f"{path}: its array {LAYOUT!r} says {layout!r}; it can be {' or '.join(axes)}")
    if layout == "auto":
        usual = [name for name, axis in axes.items() if shape[axis] in (1, 3)]
        possible = usual[:1] or [name for name, axis in axes.items() if 1 <= shape[axis] <= MAX_CHANNELS]
    else:
        possible = [layout] if 1 <= shape[axes[layout]] <= MAX_CHANNELS else []
    if len(possible) == 1:
        return possible[0]
    if possible:
        raise DataError(
            f"{path}: shape {shape} can mean {shape[3]} channels of {shape[1]} x {shape[2]} pixels or {shape[1]} of "
            f"{shape[2]} x {shape[3]}: say which by data.layout, channels_last or channels_first. For all who read the "
            f"file, save it with the answer: np.savez(path, images=images, {LAYOUT}='channels_last')"
        )
    where = "the second or the last axis" if layout == "auto" else f"an axis as in {layout}"
    raise DataError(f"{path}: shape {shape} has no place for channels: 1 to {MAX_CHANNELS} of them, at {where}")


def _labels(labels: npt.NDArray[Any] | None, path: Path) -> npt.NDArray[np.integer] | None:
    if labels is not None and not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: the labels are {labels.dtype}, not integers")
    return labels
