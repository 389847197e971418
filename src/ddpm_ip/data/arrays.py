"""Images that are already arrays: the embedded digits, and ``.npz`` or ``.npy`` files."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ddpm_ip.data.decode import UInt8
from ddpm_ip.data.imageset import ImageSet, existing, from_arrays
from ddpm_ip.errors import DataError

LABEL_NAMES = ("labels", "arr_1")  # arr_1: guided-diffusion's sample files


@dataclass(frozen=True, kw_only=True)
class Digits:
    """1,797 gray 8 x 8 images of handwritten digits that come with the package (``DIGITS.md`` tells from where)."""

    name: Literal["digits"] = "digits"
    image_size: int = 8

    def open(self, progress: bool = True) -> ImageSet:
        """``uint8`` (1797, 1, 8, 8), labels 0..9."""
        with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as arrays:
            return from_arrays(arrays["images"], arrays["labels"], "digits", self.image_size, progress)


@dataclass(frozen=True, kw_only=True)
class Npz:
    """An ``.npz`` or ``.npy`` file with ``uint8`` images (N, H, W, C), (N, C, H, W) or (N, H, W).

    The images are the array called ``images``, or else the first one; the labels are ``labels`` or ``arr_1``
    (guided-diffusion's name), if there. A ``.npy`` file is mapped, not loaded.

    Attributes:
        root: the file.
        image_size: height and width; images of another size are resized, in memory.
    """

    name: Literal["npz"] = "npz"
    root: str
    image_size: int

    def open(self, progress: bool = True) -> ImageSet:
        """Reads the arrays; nothing in the file is ever unpickled.

        Raises:
            DataError: the file is missing or damaged, or the array is not ``uint8`` images.
        """
        path = existing(self.root, "an .npz or .npy file")
        images, labels = read_arrays(path)
        return from_arrays(images, labels, path.stem, self.image_size, progress)


def read_arrays(path: Path) -> tuple[UInt8, npt.NDArray[np.integer] | None]:
    """The images of an ``.npz`` or ``.npy`` file as they are, ``uint8`` (N, C, H, W), and the labels, if any.

    Raises:
        DataError: the file is damaged, or the array is not ``uint8`` images.
    """
    try:
        images, labels = _arrays(path)
    except (OSError, ValueError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable .npz or .npy file: {error}") from error
    return _channels_first(images, path), _labels(labels, path)


def _arrays(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False), None
    if not zipfile.is_zipfile(path):
        raise ValueError("an .npz file is a zip archive, and this is none")
    with np.load(path, allow_pickle=False) as arrays:
        if not arrays.files:
            raise ValueError("there is no array in it")
        images = "images" if "images" in arrays.files else arrays.files[0]
        labels = next((name for name in LABEL_NAMES if name in arrays.files and name != images), None)
        return arrays[images], arrays[labels] if labels else None


def _channels_first(images: npt.NDArray[Any], path: Path) -> UInt8:
    """The array as (N, C, H, W); a view, except that a copy is made of channels-last images in memory."""
    if images.dtype != np.uint8:
        raise DataError(
            f"{path}: the images are {images.dtype}, not uint8. Convert them and save again: values in [0, 1] by "
            "(x * 255).round().astype('uint8'), values in [-1, 1] by ((x + 1) * 127.5).round().astype('uint8')"
        )
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] in (1, 3):
        moved = images.transpose(0, 3, 1, 2)
        return moved if isinstance(images, np.memmap) else np.ascontiguousarray(moved)
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return images
    raise DataError(f"{path}: shape {images.shape} is none of (N, H, W, C), (N, C, H, W), (N, H, W) with C = 1 or 3")


def _labels(labels: npt.NDArray[Any] | None, path: Path) -> npt.NDArray[np.integer] | None:
    if labels is not None and not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: the labels are {labels.dtype}, not integers")
    return labels
