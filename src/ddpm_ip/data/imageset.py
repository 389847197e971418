"""What every source opens to: an :class:`ImageSet`, ``uint8`` images with random access and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from ddpm_ip.data.decode import BadImage, ImageSize, UInt8, fit, height_width
from ddpm_ip.data.passed_over import PassedOver
from ddpm_ip.errors import DataError

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images, all of one size, ready to be indexed: what ``open()`` of each source gives.

    Attributes:
        pixels: read-only ``uint8`` (N, C, H, W), in memory or a memory map, C in 1..16. C-contiguous except when it is
            a view of a channels-last ``.npy`` file.
        labels: ``int64`` (N,), or None.
        name: what a person calls the set, such as ``cifar10-train``.
        fingerprint: SHA-256 over shape, pixels and labels, in hexadecimal; equal sets have equal fingerprints wherever
            they come from.
        bad: the images that could not be used and were left out.
        classes: the names of labels 0, 1, ..., where the source has names.
        original_sizes: (width, height, number of images) before resizing, the most frequent first; empty if there was
            nothing to decode.
        passed_over: files next to the images that were not taken.
        bits: of the images that had 16 bits, how many of them the largest value needs, at least 8 of those in color;
            None if there was no such image.
    """

    pixels: UInt8
    labels: Int64 | None
    name: str
    fingerprint: str
    bad: tuple[BadImage, ...] = ()
    classes: tuple[str, ...] = ()
    original_sizes: tuple[tuple[int, int, int], ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    bits: int | None = None

    def __repr__(self) -> str:
        labels = "" if self.labels is None else ", with labels"
        return f"<{self.name}: {len(self):,} images {' x '.join(map(str, self.shape))}{labels}>"

    def __len__(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of each image."""
        channels, height, width = map(int, self.pixels.shape[1:])
        return channels, height, width

    @property
    def hint(self) -> str:
        """What to do if images of 10, 12 or 14 bits seem to be in files of 16; empty if they do not."""
        likely = next((bits for bits in (8, 10, 12, 14) if 0 < (self.bits or 0) <= bits), None)
        if likely is None:
            return ""
        return (
            f"the images of 16 bits use {likely} bits at most: no value reaches {2**likely:,} of 65,536, so that the "
            f"brightest becomes at most {(2**likely - 1 + 128) // 257} of 255. If they were taken with {likely} bits, "
            f"multiply their pixels by {2 ** (16 - likely)} and save them again"
        )

    @property
    def channels(self) -> int:
        """1 is gray, 3 RGB, 4 RGBA or four of any kind."""
        return self.shape[0]

    @property
    def height(self) -> int:
        """In pixels."""
        return self.shape[1]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.shape[2]


def from_arrays(
    pixels: UInt8, labels: npt.NDArray[np.integer] | None, name: str, image_size: ImageSize, progress: bool = True
) -> ImageSet:
    """An :class:`ImageSet` of images that are already an array.

    Args:
        pixels: ``uint8`` (N, C, H, W); used as it is when H and W are the wanted ones, else each image is brought to
            that size by :func:`ddpm_ip.data.decode.fit`, one channel like the other, in memory.
        labels: integers (N,), or None.
        name: the name of the set.
        image_size: the wanted height and width, or the one number that they are.
        progress: show a bar while resizing.

    Raises:
        DataError: there is no image, images have no pixels, labels and images differ in number, a label is beyond
            int64, or the size is not possible.
    """
    if len(pixels) == 0:
        raise DataError(f"{name}: there is no image in it")
    if 0 in pixels.shape:
        raise DataError(f"{name}: images of shape {pixels.shape[1:]} have no pixels")
    if labels is not None and labels.shape != (len(pixels),):
        raise DataError(f"{name}: {len(pixels)} images, but labels of shape {labels.shape}")
    if labels is not None and int(labels.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{name}: there is the label {labels.max()}, larger than int64 can hold")
    if pixels.shape[2:] != height_width(image_size):
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


def _fit_all(pixels: UInt8, name: str, image_size: ImageSize, progress: bool) -> UInt8:
    out = np.empty((*pixels.shape[:2], *height_width(image_size)), dtype=np.uint8)
    for i, image in enumerate(tqdm(pixels, desc=f"resizing {name}", unit="img", disable=None if progress else True)):
        for c, channel in enumerate(image):
            out[i, c] = fit(Image.fromarray(np.ascontiguousarray(channel)), image_size)
    return out
