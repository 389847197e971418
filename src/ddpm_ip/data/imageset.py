"""What every source opens to: an :class:`ImageSet`, ``uint8`` images with random access and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from ddpm_ip.data.decode import BadImage, UInt8, fit, to_chw
from ddpm_ip.errors import DataError

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, all of one size, ready to be indexed.

    Attributes:
        pixels: read-only ``uint8`` (N, C, H, W), in memory or a memory map, C = 1 or 3, H = W. C-contiguous except
            when it is a view of a channels-last ``.npy`` file.
        labels: ``int64`` (N,), or None.
        name: what a person calls the set, such as ``cifar10-train``.
        fingerprint: SHA-256 over shape, pixels and labels, in hexadecimal; equal sets have equal fingerprints wherever
            they come from.
        bad: the images that could not be used and were left out.
        classes: the names of labels 0, 1, ..., where the source has names.
        original_sizes: (width, height, how many) before resizing, the most frequent first; empty if there was nothing
            to decode.
    """

    pixels: UInt8
    labels: Int64 | None
    name: str
    fingerprint: str
    bad: tuple[BadImage, ...] = ()
    classes: tuple[str, ...] = ()
    original_sizes: tuple[tuple[int, int, int], ...] = ()

    def __len__(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def channels(self) -> int:
        """1 (gray) or 3 (RGB)."""
        return int(self.pixels.shape[1])

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.pixels.shape[2])


def from_arrays(
    pixels: UInt8, labels: npt.NDArray[np.integer] | None, name: str, image_size: int, progress: bool = True
) -> ImageSet:
    """An :class:`ImageSet` of images that are already an array.

    Args:
        pixels: ``uint8`` (N, C, H, W) with C = 1 or 3; used as it is when H = W = ``image_size``, else each image is
            brought to that size by :func:`ddpm_ip.data.decode.fit`, in memory.
        labels: integers (N,), or None.
        name: the name of the set.
        image_size: the wanted height and width.
        progress: show a bar while resizing.

    Raises:
        DataError: there is no image, or labels and images differ in number.
    """
    if len(pixels) == 0:
        raise DataError(f"{name}: there is no image in it")
    if labels is not None and labels.shape != (len(pixels),):
        raise DataError(f"{name}: {len(pixels)} images, but labels of shape {labels.shape}")
    if pixels.shape[2:] != (image_size, image_size):
        pixels = _fit_all(pixels, name, image_size, progress)
    numbers = None if labels is None else labels.astype(np.int64)
    for array in (pixels, numbers):
        if array is not None:
            array.setflags(write=False)
    return ImageSet(pixels, numbers, name, fingerprint(pixels, numbers))


def subset(images: ImageSet, indices: Int64) -> ImageSet:
    """Some images of a set, in memory, as a set of its own; ``indices`` int64 (n,)."""
    pixels = np.ascontiguousarray(images.pixels[indices])
    labels = None if images.labels is None else np.ascontiguousarray(images.labels[indices])
    for array in (pixels, labels):
        if array is not None:
            array.setflags(write=False)
    name = f"{len(pixels)} of {images.name}"
    return replace(images, pixels=pixels, labels=labels, name=name, fingerprint=fingerprint(pixels, labels))


def fingerprint(pixels: UInt8, labels: Int64 | None) -> str:
    """SHA-256 (hexadecimal) over the shape, the pixels (N, C, H, W) and the labels; the memory layout plays no part."""
    digest = hashlib.sha256(repr(tuple(map(int, pixels.shape))).encode())
    for chunk in chunks(pixels):
        digest.update(np.ascontiguousarray(chunk).data)
    digest.update(b"no labels" if labels is None else np.ascontiguousarray(labels, dtype="<i8").tobytes())
    return digest.hexdigest()


def chunks(pixels: UInt8, n_bytes: int = 16_000_000) -> Iterator[UInt8]:
    """Consecutive parts of about ``n_bytes``, so that a set larger than memory can be walked through."""
    step = max(1, n_bytes // max(1, pixels[0].nbytes))
    for start in range(0, len(pixels), step):
        yield pixels[start : start + step]


def check_image_size(image_size: int) -> None:
    """Refuses what is no size.

    Raises:
        DataError: ``image_size`` is below 1.
    """
    if image_size < 1:
        raise DataError(f"data.image_size must be at least 1, not {image_size}")


def existing(root: str, what: str) -> Path:
    """``root`` as a path, ``~`` expanded.

    Raises:
        DataError: nothing is there; ``what`` says what should be.
    """
    path = Path(root).expanduser()
    if not path.exists():
        raise DataError(f"data.root: {path} does not exist; it should be {what}")
    return path


def _fit_all(pixels: UInt8, name: str, image_size: int, progress: bool) -> UInt8:
    check_image_size(image_size)
    out = np.empty((len(pixels), pixels.shape[1], image_size, image_size), dtype=np.uint8)
    for i, image in enumerate(tqdm(pixels, desc=f"resizing {name}", unit="img", disable=None if progress else True)):
        picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
        out[i] = to_chw(fit(picture, image_size), len(image))
    return out
