"""CIFAR-10 (A. Krizhevsky, 2009): the official Python batches, read in place, or Parquet shards of the same images."""

from __future__ import annotations

import hashlib
import http.client
import os
import pickle
import tarfile
import urllib.request
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
from tqdm import tqdm

from ddpm_ip.data.decode import ImageSize, UInt8
from ddpm_ip.data.imageset import ImageSet, Int64, from_arrays
from ddpm_ip.data.parquet import Parquet
from ddpm_ip.errors import DataError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
ARCHIVE, FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
MAX_BATCH = 64_000_000  # bytes; an official batch has 31 million
MAX_ARCHIVE = 1_000_000_000  # bytes, unpacked; the official archive has 186 million
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
        root, wanted = Path(self.root).expanduser(), BATCHES[self.split]
        archive = root if root.is_file() else root / ARCHIVE
        folder = next((path for path in (root / FOLDER, root) if any((path / name).is_file() for name in wanted)), None)
        if folder is not None:
            files = _from_folder(folder, wanted)
        elif not root.is_file() and any(root.glob(f"{self.split}-*.parquet")):
            return Parquet(root=self.root, split=self.split, image_size=self.image_size).open(progress)
        else:
            if not archive.is_file():
                if not self.download:
                    raise DataError(f"data.root: CIFAR-10 is not in {root}. {_advice(root)}")
                _download(archive, progress)
            files = _from_archive(archive, wanted)
        batches = [_read_batch(BytesIO(data), name) for name, data in files.items()]
        pixels = np.concatenate([pixels for pixels, _ in batches])
        labels = np.concatenate([labels for _, labels in batches])
        return from_arrays(pixels, labels, f"cifar10-{self.split}", self.image_size, progress)


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
    for name in wanted:
        _check_batch_size((folder / name).stat().st_size, folder / name)
    try:
        return {name: (folder / name).read_bytes() for name in wanted}
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error}") from error


def _from_archive(archive: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """The wanted batches, in their order, in one walk through the archive; nothing is unpacked to disk."""
    found: dict[str, bytes] = {}
    total = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                total += member.size
                if total > MAX_ARCHIVE:
                    raise DataError(f"{archive}: unpacks to more than {MAX_ARCHIVE:,} bytes; not CIFAR-10")
                name = member.name.rpartition("/")[2]
                content = tar.extractfile(member) if member.isfile() and name in wanted else None
                if content is not None:
                    _check_batch_size(member.size, f"{archive}: {member.name}")
                    found[name] = content.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: damaged ({error}). Remove it and fetch it again from {URL}") from error
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(f"{archive}: {', '.join(missing)} missing; is it {URL}?")
    return {name: found[name] for name in wanted}


def _check_batch_size(n_bytes: int, where: Path | str) -> None:
    if n_bytes > MAX_BATCH:
        raise DataError(f"{where}: {n_bytes:,} bytes, more than the limit of {MAX_BATCH:,} for a batch")


def _empty_array(*_: object) -> Any:
    # Stands for numpy's _reconstruct, whose arguments would let a file ask for an array of any size.
    return np.empty(0, dtype=np.uint8)


class _BatchUnpickler(pickle.Unpickler):
    """Knows the four names that pickled arrays need, and refuses every other: no file can make it run anything."""

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "dtype"): np.dtype,
        ("numpy", "ndarray"): None,  # only ever an argument of _reconstruct
        ("numpy.core.multiarray", "_reconstruct"): _empty_array,
        ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image batch needs")
        return self.ALLOWED[module, name]


def _read_batch(file: BinaryIO, name: str) -> tuple[UInt8, Int64]:
    """``uint8`` (N, 3, 32, 32) and ``int64`` (N,) of one batch."""
    try:
        batch = _BatchUnpickler(file, encoding="bytes").load()
        pixels, labels = batch[b"data"], np.asarray(batch[b"labels"], dtype=np.int64)
        fits = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape == (len(labels), 3072)
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(f"CIFAR-10 {name}: refused, not an official batch: {error}") from error
    if not fits:
        raise DataError(f"CIFAR-10 {name}: data and labels do not fit together, or data is not uint8 (N, 3072)")
    return pixels.reshape(-1, 3, 32, 32), labels


def _download(archive: Path, progress: bool) -> None:
    """Fetches the archive; it appears under its name only when complete and with the right checksum."""
    partial = archive.with_name(f".{archive.name}.{os.getpid()}.partial")
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
    with urllib.request.urlopen(URL, timeout=TIMEOUT) as answer, open(partial, "wb") as file:
        total = int(answer.headers.get("Content-Length") or 0) or None
        with tqdm(total=total, desc=ARCHIVE, unit="B", unit_scale=True, disable=None if progress else True) as bar:
            while block := answer.read(1 << 20):
                file.write(block)
                digest.update(block)
                bar.update(len(block))
    return digest.hexdigest()
