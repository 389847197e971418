"""MNIST and its relatives (Fashion-MNIST, KMNIST, ...), from their idx files."""

from __future__ import annotations

import gzip
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from ddpm_ip.data.decode import ImageSize, UInt8
from ddpm_ip.data.imageset import ImageSet, from_arrays
from ddpm_ip.data.labels import Labels
from ddpm_ip.data.source import existing, opened, refuse_bomb, refusing
from ddpm_ip.errors import DataError

IMAGES, LABELS = 0x803, 0x801  # magic numbers: unsigned bytes in three axes, in one axis


@dataclass(frozen=True, kw_only=True)
class Mnist:
    """The idx files of MNIST, raw or gzipped, under their usual names.

    Attributes:
        root: the folder that holds them (or holds them in ``raw/`` or ``MNIST/raw/``, as torchvision keeps them).
        split: ``train`` or ``test``.
        image_size: 28, or another height and width to resize to, or one number for both.
    """

    name: Literal["mnist"] = "mnist"
    root: str = "data/mnist"
    split: Literal["train", "test"] = "train"
    image_size: ImageSize = 28

    def open(self, progress: bool = True) -> ImageSet:
        """``uint8`` (N, 1, 28, 28), labels 0..9, in the order of the file.

        Raises:
            DataError: a file is missing or damaged.
        """
        root = existing(self.root, "the folder of the MNIST files", needed=False)
        prefix = "train" if self.split == "train" else "t10k"
        images = _read(_find(root, prefix, "images-idx3"), IMAGES)
        labels = _read(_find(root, prefix, "labels-idx1"), LABELS)
        return from_arrays(images[:, None], labels, f"mnist-{self.split}", self.image_size, progress)

    def some_labels(self) -> Labels | None:
        """The labels, without the images.

        Raises:
            DataError: their file is missing or damaged.
        """
        root = existing(self.root, "the folder of the MNIST files", needed=False)
        labels = _read(_find(root, "train" if self.split == "train" else "t10k", "labels-idx1"), LABELS)
        return Labels(labels.astype(np.int64), ())


def _find(root: Path, prefix: str, kind: str) -> Path:
    wanted = f"{prefix}-{kind}-ubyte"
    for folder in (root, root / "raw", root / "MNIST" / "raw"):
        for name in (wanted, wanted.replace("-idx", ".idx")):
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    return path
    raise DataError(
        f"data.root: {wanted} or {wanted}.gz is not in {root}. Put the four MNIST files there: "
        "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz"
    )


def _read(path: Path, magic: int) -> UInt8:
    """The array of one idx file: big-endian magic number and axes, then the bytes."""
    with refusing(f"{path}: cannot be read"), opened(path) as packed:
        n_bytes = os.fstat(packed.fileno()).st_size
        if path.suffix != ".gz":
            return _parse(packed, path, magic, n_bytes)
        with gzip.GzipFile(fileobj=packed, mode="rb") as file:
            return _parse(file, path, magic, n_bytes)


def _parse(file: BinaryIO | gzip.GzipFile, path: Path, magic: int, n_bytes: int) -> UInt8:
    """The array of an open file that has ``n_bytes`` on the disk."""
    n_axes = magic & 0xFF
    header = file.read(4 * (1 + n_axes))
    if len(header) < 4 * (1 + n_axes) or int.from_bytes(header[:4], "big") != magic:
        raise DataError(f"{path}: not such an idx file: it begins with {header[:4].hex()}, not {magic:08x}")
    shape = tuple(int(axis) for axis in np.frombuffer(header, ">u4")[1:])
    expected = math.prod(shape)
    refuse_bomb(expected, n_bytes)
    if 0 in shape:
        raise DataError(f"{path}: declares {shape}: there is nothing in it")
    body = file.read(expected + 1)
    if len(body) != expected:
        found = "more" if len(body) > expected else f"{len(body):,}"
        raise DataError(f"{path}: declares {shape}, that is {expected:,} bytes, but there are {found}")
    return np.frombuffer(body, np.uint8).reshape(shape)
