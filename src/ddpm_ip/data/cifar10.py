"""CIFAR-10 (A. Krizhevsky, 2009): the official Python batches, read in place, or Parquet shards of the same images."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import secrets
import tarfile
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from tqdm import tqdm

from ddpm_ip.data.batches import read_batch
from ddpm_ip.data.decode import ImageSize
from ddpm_ip.data.imageset import ImageSet, from_arrays
from ddpm_ip.data.labels import Labels
from ddpm_ip.data.parquet import Parquet
from ddpm_ip.data.source import existing, opened, refusing
from ddpm_ip.errors import DataError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
ARCHIVE, FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
MAX_BATCH = 64_000_000  # bytes; an official batch has 31 million
MAX_ARCHIVE = 1_000_000_000  # bytes, unpacked; the official archive has 186 million
MAX_MEMBERS = 1000  # the official archive has 9
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TIMEOUT = 30.0  # seconds without an answer


@dataclass(frozen=True, kw_only=True)
class Cifar10:
    """The 50,000 training or 10,000 test images, in the official order.

    Attributes:
        root: a folder that holds ``cifar-10-python.tar.gz``, or ``cifar-10-batches-py/``, or the batch files, or
            Parquet shards ``train-*.parquet`` and ``test-*.parquet`` (in their own order); or the archive itself.
        split: ``train`` or ``test``.
        download: fetch the archive to ``root`` when nothing is there.
        image_size: 32, or another height and width to resize to, or one number for both.
    """

    name: Literal["cifar10"] = "cifar10"
    root: str = "data/cifar10"
    split: Literal["train", "test"] = "train"
    download: bool = True
    image_size: ImageSize = 32

    def open(self, progress: bool = True) -> ImageSet:
        """``uint8`` (N, 3, 32, 32), labels 0..9.

        Raises:
            DataError: the images are missing and cannot be downloaded, or a file is damaged.
        """
        root = existing(self.root, "a folder of CIFAR-10", needed=False)
        wanted = BATCHES[self.split]
        archive = root if root.is_file() else root / ARCHIVE
        folder = next((path for path in (root / FOLDER, root) if any((path / name).is_file() for name in wanted)), None)
        if folder is not None:
            files = _from_folder(folder, wanted)
        elif not root.is_file() and any(root.glob(f"{self.split}-*.parquet")):
            found = Parquet(root=self.root, split=self.split, image_size=self.image_size).open(progress)
            return replace(found, classes=CLASSES)  # in the same order on the hub
        else:
            if not archive.is_file():
                if not self.download:
                    raise DataError(f"data.root: CIFAR-10 is not in {root}. {_advice(root)}")
                _download(archive, progress)
            files = _from_archive(archive, wanted)
        batches = [read_batch(data, name) for name, data in files.items()]
        pixels = np.concatenate([pixels for pixels, _ in batches])
        labels = np.concatenate([labels for _, labels in batches])
        images = from_arrays(pixels, labels, f"cifar10-{self.split}", self.image_size, progress)
        return replace(images, classes=CLASSES)

    def some_labels(self) -> Labels | None:
        """One of each."""
        return Labels(np.arange(10), CLASSES)


def _advice(root: Path) -> str:
    return (
        f"Put one of these there: the file {ARCHIVE} from {URL} (md5 {MD5}, 170 MB; it need not be unpacked), "
        f"the folder {FOLDER}/ that it holds, or Parquet shards named train-*.parquet and test-*.parquet; "
        f"or set data.root to where it is. Here: {root.absolute()}"
    )


def _from_folder(folder: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: incomplete, {', '.join(missing)} missing")
    return {name: _from_file(folder / name) for name in wanted}


def _from_file(path: Path) -> bytes:
    with refusing(f"{path}: cannot be read"), opened(path) as file:
        _check_batch_size(os.fstat(file.fileno()).st_size, path)
        return file.read(MAX_BATCH)


def _from_archive(archive: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """The wanted batches, in their order, in one walk through the archive; nothing is unpacked to disk."""
    found: dict[str, bytes] = {}
    total = 0
    advice = f"Remove it and fetch it again from {URL}"
    with (
        refusing(f"{archive}: damaged, or no archive of CIFAR-10", advice),
        opened(archive) as packed,
        tarfile.open(fileobj=_Unpacked(packed), mode="r:") as tar,
    ):
        for count, member in enumerate(tar):
            total += member.size
            if total > MAX_ARCHIVE or count >= MAX_MEMBERS:
                raise DataError(f"{archive}: unpacks to more than {MAX_ARCHIVE:,} bytes or {MAX_MEMBERS} files")
            name = member.name.rpartition("/")[2]
            content = tar.extractfile(member) if member.isreg() and name in wanted else None
            if content is not None:
                _check_batch_size(member.size, f"{archive}: {member.name}")
                found[name] = content.read()
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(f"{archive}: {', '.join(missing)} missing; is it {URL}?")
    return {name: found[name] for name in wanted}


class _Unpacked(gzip.GzipFile):
    """An unpacked stream of which no more is read at once than a batch has: headers of a tar may ask for any size."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(fileobj=file, mode="rb")

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_BATCH:
            raise ValueError(f"a header in it has more than {MAX_BATCH:,} bytes")
        return super().read(size)


def _check_batch_size(n_bytes: int, where: Path | str) -> None:
    if n_bytes > MAX_BATCH:
        raise DataError(f"{where}: {n_bytes:,} bytes, more than the limit of {MAX_BATCH:,} for a batch")


def _download(archive: Path, progress: bool) -> None:
    """Fetches the archive; it appears under its name only when complete and with the right checksum."""
    partial = archive.with_name(f".{archive.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        if _fetch(partial, progress) != MD5:
            raise OSError("the checksum of what arrived is wrong")
        os.replace(partial, archive)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"CIFAR-10 could not be downloaded ({error}). {_advice(archive.parent)}") from error
    finally:
        partial.unlink(missing_ok=True)


def _fetch(partial: Path, progress: bool) -> str:
    """Writes the body of the answer to ``partial``; returns its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(URL, timeout=TIMEOUT) as answer, open(partial, "xb") as file:
        total = int(answer.headers.get("Content-Length") or 0) or None
        with tqdm(total=total, desc=ARCHIVE, unit="B", unit_scale=True, disable=None if progress else True) as bar:
            while block := answer.read(1 << 20):
                file.write(block)
                digest.update(block)
                bar.update(len(block))
    return digest.hexdigest()
