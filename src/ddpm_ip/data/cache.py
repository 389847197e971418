"""Decoded sets on the disk: a folder ``<cache>/<key>/`` with ``pixels.npy``, ``labels.npy`` and ``set.json``.

It is written under a temporary name and renamed, so it is there whole or not at all. The key is a hash of everything
the pixels depend on: names, sizes, times and permissions of the files, the decode settings, and :data:`VERSION`.

What is found there is checked before it is used: the owner (this user or root; not all may write), that nothing is a
link, the key, shapes, types, and the fingerprint, which means that every pixel is read once. That costs some 0.9 s a GB
on one core besides reading (measured), each time a set is opened, and is always done: the alternative is to train on
whatever is there. The pixels are then mapped from the file that was checked. An entry is never written again but
replaced as a whole, so another process that decodes again does not change what is mapped.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ddpm_ip.data.decode import BadImage, UInt8, height_width
from ddpm_ip.data.imageset import ImageSet, Int64, fingerprint
from ddpm_ip.data.listing import Listing, Recipe
from ddpm_ip.data.npy import map_npy
from ddpm_ip.data.source import opened, refusing
from ddpm_ip.errors import DataError, UserError
from ddpm_ip.files import read_json, write_json
from ddpm_ip.plain import reason
from ddpm_ip.system import HAS_OWNERS, belongs_to_another

log = logging.getLogger("ddpm_ip.data")

VERSION = 1  # raise it whenever decode.py gives other pixels
STALE = 3600.0  # seconds after which an unfinished decode that nobody writes to is taken for dead
PIXELS, LABELS, ABOUT = "pixels.npy", "labels.npy", "set.json"


class Unwritable(UserError):
    """The cache has no room for a set's description."""


@dataclass(frozen=True)
class Entry:
    """Where a set is, or would be.

    Attributes:
        folder: ``<cache>/<key>``.
        listing: the files.
        recipe: the decode settings.
    """

    folder: Path
    listing: Listing
    recipe: Recipe

    def load(self, own: bool = False) -> ImageSet | None:
        """The set, if it is there and is what it should be; else None, and a warning says why.

        Args:
            own: this process has just written it: who else might write there is not checked, since some disks know no
                owners.
        """
        if not os.path.lexists(self.folder):
            return None
        try:
            with refusing(f"{self.folder}"):
                return self._load(own)
        except DataError as error:
            log.warning("%s: the decoded images are not used, and decoded again: %s", self.listing.name, error)
            return None

    def make_room(self, needed: int) -> None:
        """Makes the cache folder, and tidies it.

        Raises:
            OSError: it cannot be written, or has fewer than ``needed`` bytes free.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._sweep()
        free = shutil.disk_usage(self.folder.parent).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"{free / 1e9:.1f} GB free")

    def partial(self) -> Path:
        """A new private folder with a temporary name.

        Raises:
            OSError: it cannot be made.
        """
        return Path(tempfile.mkdtemp(prefix=f"{self.folder.name}.", suffix=".partial", dir=self.folder.parent))

    def put_in_place(self, partial: Path, replace: bool) -> bool:
        """Gives the finished folder its name; with ``replace`` also if there is one, which was found to be useless.

        Returns:
            Whether it has it; another process may have been faster, whose set is the same.

        Raises:
            OSError: the name cannot be given.
        """
        for file in partial.iterdir():
            file.chmod(0o644)  # whatever the umask: what all may write is not trusted
        partial.chmod(0o755)  # it was made private; a cache folder may be shared
        if replace and self.folder.is_symlink():
            self.folder.unlink()
        elif replace:
            shutil.rmtree(self.folder, ignore_errors=True)
        try:
            os.rename(partial, self.folder)
        except OSError:
            if not os.path.exists(self.folder / ABOUT):
                raise
            return False
        return True

    def write_about(self, partial: Path, labels: Int64 | None, about: Mapping[str, Any]) -> None:
        """Writes the labels, and what there is to say besides the pixels.

        Raises:
            OSError, Unwritable: there is no room.
        """
        if labels is not None:
            np.save(partial / LABELS, labels)
        with opened(partial / PIXELS) as file:
            found = fingerprint(map_npy(file), labels)
        named = {"key": self.folder.name, "fingerprint": found, "labels": None if labels is None else LABELS}
        write_json(partial / ABOUT, {**named, **about}, error=Unwritable)

    def write_header(self, file: BinaryIO, n: int, channels: int) -> None:
        """The beginning of ``pixels.npy`` for so many images."""
        # NumPy leaves spare space in the header for a growing first axis, so that it can be written again in place.
        shape = (n, channels, *height_width(self.recipe.image_size))
        np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": "|u1"})

    def _load(self, own: bool) -> ImageSet:
        if not own:
            for path in (self.folder, self.folder / ABOUT):
                _trust(path.lstat(), path)
        about = read_json(self.folder / ABOUT, {"fingerprint": str, "bad": list, "original_sizes": list}, links=False)
        if about.get("key", self.folder.name) != self.folder.name:
            raise ValueError("it was made for another set")
        if about.get("labels") not in (None, LABELS):
            raise ValueError(f"its labels are said to be in {str(about['labels'])[:80]!r}, not in {LABELS}")
        bits = about.get("bits")
        if not (bits is None or (type(bits) is int and 0 <= bits <= 16)):
            raise ValueError("its bits are not a number")
        pixels = self._array(PIXELS, own)
        labels = np.array(self._array(LABELS, own)) if about["labels"] else None
        bad = tuple(BadImage(*_typed(pair, (str, str))) for pair in about["bad"])
        sizes = tuple(_typed(size, (int, int, int)) for size in about["original_sizes"])
        self._check(pixels, labels, len(bad))
        if labels is not None:
            labels.setflags(write=False)
        if fingerprint(pixels, labels) != about["fingerprint"]:
            raise ValueError("its pixels or labels are not those that were written")
        known = self.listing
        return ImageSet(
            pixels, labels, known.name, about["fingerprint"], bad, known.classes, sizes, known.passed_over, bits
        )

    def _array(self, name: str, own: bool) -> Any:
        with opened(self.folder / name, links=False) as file:
            if not own:
                _trust(os.fstat(file.fileno()), self.folder / name)
            return map_npy(file)

    def _check(self, pixels: UInt8, labels: Int64 | None, n_bad: int) -> None:
        """Whether these can be the pixels and labels of this set.

        Raises:
            ValueError: they cannot.
        """
        n, size = self.listing.count - n_bad, height_width(self.recipe.image_size)
        shapes = [(n, channels, *size) for channels in self.recipe.possible_channels]
        if pixels.dtype != np.uint8 or pixels.shape not in shapes or n < 1 or not pixels.flags.c_contiguous:
            raise ValueError(f"its pixels are {pixels.dtype} {pixels.shape}, not uint8 {shapes[0]}")
        if labels is not None and (labels.dtype != np.int64 or labels.shape != (n,)):
            raise ValueError(f"its labels are {labels.dtype} {labels.shape}, not int64 {(n,)}")

    def _sweep(self) -> None:
        """Removes what a killed process left of the same set."""
        for partial in self.folder.parent.glob(f"{self.folder.name}.*.partial"):
            with suppress(OSError):  # its owner has just finished
                age = time.time() - max(file.stat().st_mtime for file in (partial, *partial.iterdir()))
                if age > STALE:
                    shutil.rmtree(partial, ignore_errors=True)


def find(listing: Listing, recipe: Recipe, cache: str | None) -> Entry:
    """Where a set is, or would be.

    Args:
        listing: the files.
        recipe: the decode settings.
        cache: the cache folder; by default ``$XDG_CACHE_HOME/ddpm-ip`` or ``~/.cache/ddpm-ip``.

    Raises:
        DataError: the folder cannot have that name.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ddpm-ip"
    try:
        folder = Path(cache or default).expanduser()
        if "\0" in str(folder):
            raise ValueError("a zero byte in a name")
    except (RuntimeError, ValueError) as error:  # or there is no such home
        raise DataError(f"data.cache: {cache or default}: {reason(error)}. Give the folder by its full name") from None
    # fsencode: file names are bytes, and need not be valid text.
    parts = [str(VERSION), repr(astuple(recipe)), *listing.identity]
    key = hashlib.sha256(b"\n".join(map(os.fsencode, parts))).hexdigest()[:24]
    return Entry(folder / key, listing, recipe)


def _trust(found: os.stat_result, path: Path) -> None:
    """Refuses what somebody else has written, or could.

    Raises:
        ValueError: it is a link, another user's, or all may write it.
    """
    if stat.S_ISLNK(found.st_mode):
        raise ValueError(f"{path.name} is a symbolic link")
    if belongs_to_another(found, trusted=(0,)):
        raise ValueError(f"{path.name} belongs to another user; set data.cache to a folder of your own")
    if HAS_OWNERS and found.st_mode & stat.S_IWOTH:
        raise ValueError(f"every user may write {path.name}; set data.cache to a folder of your own")


def _typed(values: Any, types: tuple[type, ...]) -> tuple[Any, ...]:
    if not isinstance(values, list) or tuple(map(type, values)) != types:
        raise TypeError("its description is not as it was written")
    return tuple(values)
