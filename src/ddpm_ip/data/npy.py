"""NumPy's files, ``.npy`` and ``.npz``, read without trust: the header first, memory afterwards, never an object.

A header is a Python dictionary as text (the format is described in ``numpy.lib.format``). NumPy evaluates it as an
expression; here it is matched by a pattern that allows only what an array of plain numbers or text needs. The size that
a header declares must be the size that is there.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ddpm_ip.data.source import opened, refuse_bomb
from ddpm_ip.plain import quoted

MAX_TEXT = 1_000_000  # bytes of a text among the arrays
MAX_HEADER = 10_000  # bytes; NumPy's own limit
BLOCK = 1_000_000  # bytes read from an archive at once, of which its table of contents may have as many

_ENTRY = r"""["'](descr|fortran_order|shape)["']\s*:\s*(True|False|["'][^"']{1,20}["']|\([\d\sL,]*\))"""
_HEADER = re.compile(rf"\{{\s*(?:{_ENTRY}\s*(?:,\s*)?){{3}}\}}\s*")
_PLAIN = re.compile(r"[<>=|]?(?:\?|[bB]|[biufcUSmM]\d{1,7}(?:\[\w{1,5}\])?)")


class Header(NamedTuple):
    """What an ``.npy`` file says about its array.

    Attributes:
        shape: at most 32 axes.
        dtype: of plain numbers or text.
        fortran: whether the first axis varies fastest.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def n_bytes(self) -> int:
        """Of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"

    def array(self, data: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """The array of these bytes, ``uint8`` (n_bytes,)."""
        array: npt.NDArray[Any] = np.ndarray(self.shape, self.dtype, data, order="F" if self.fortran else "C")
        return array


def read_header(file: BinaryIO) -> Header:
    """The header at the beginning of a file, whose position is then the first byte of the array.

    Raises:
        ValueError: it is none, or not that of an array of plain numbers or text.
    """
    start = file.read(8)
    if len(start) < 8 or start[:6] != b"\x93NUMPY" or start[6] not in (1, 2, 3):
        raise ValueError("it does not begin as an array of NumPy does")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    text = file.read(length) if length <= MAX_HEADER else b""
    if not text or len(text) < length:
        raise ValueError("the header of its array is cut off, or far too long")
    matched = _HEADER.fullmatch(text.decode("latin-1"))
    entries = dict(re.findall(_ENTRY, text.decode("latin-1"))) if matched else {}
    descr = entries.get("descr", "").strip("\"'")
    if len(entries) != 3 or not entries["shape"].startswith("(") or entries["fortran_order"] not in ("True", "False"):
        raise ValueError("its header is not that of an array of numbers")
    if not _PLAIN.fullmatch(descr):
        raise ValueError(f"it holds {descr!r}, not plain numbers; objects are never unpickled")
    shape = tuple(int(axis.rstrip("L")) for axis in re.findall(r"\d+L?", entries["shape"]))
    if len(shape) > 32 or math.prod(max(1, axis) for axis in shape) >= 2**62:
        raise ValueError(f"it declares {len(shape)} axes and more numbers than there can be")
    try:
        return Header(shape, np.dtype(descr), entries["fortran_order"] == "True")
    except TypeError:
        raise ValueError(f"it holds {descr!r}, which is not a kind of number") from None


def map_npy(file: BinaryIO) -> npt.NDArray[Any]:
    """The array of an open ``.npy`` file, as a read-only memory map of that very file.

    Raises:
        ValueError: it is none, or not of the size that it declares.
        OSError: it cannot be read.
    """
    header = read_header(file)
    start, end = file.tell(), file.seek(0, 2)
    if header.n_bytes != end - start:
        raise ValueError(f"it declares {header}, {header.n_bytes:,} bytes, and holds {end - start:,}")
    if not header.n_bytes:  # nothing can be mapped
        return header.array(np.empty(0, np.uint8))
    order: Any = "F" if header.fortran else "C"
    mapped: npt.NDArray[Any] = np.memmap(file, header.dtype, "r", start, header.shape, order)
    return mapped


class Archive:
    """The arrays of an open ``.npz`` file; none is read before it is asked for.

    Attributes:
        headers: of the arrays by name, in the order of the file; what cannot be an array of plain numbers is None.
    """

    def __init__(self, file: zipfile.ZipFile, n_bytes: int) -> None:
        self._file, self._n_bytes = file, n_bytes
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in file.infolist():
            if not member.filename.endswith(".npy"):
                continue
            name = member.filename.removesuffix(".npy")
            if name in self._members:
                raise ValueError(f"two of its arrays have the name {quoted(name)}")
            self._members[name] = member
        self.headers = {name: self._header(name) for name in self._members}

    def read(self, name: str) -> npt.NDArray[Any]:
        """An array, in memory.

        Raises:
            ValueError: it is damaged, no array of plain numbers, or a bomb; or anything that a damaged archive raises.
        """
        with self._open(name) as file:
            header = read_header(file)
            self._refuse_size(name, header, file.tell())
            data, filled = np.empty(header.n_bytes, np.uint8), 0
            while block := file.read(BLOCK):  # to its end, where the checksum is compared
                data[filled : filled + len(block)] = np.frombuffer(block, np.uint8)
                filled += len(block)
        if filled != header.n_bytes:
            raise ValueError(f"its array {quoted(name)} is cut off")
        return header.array(data)

    def text(self, name: str) -> str | None:
        """The text of an array without axes; None if there is no such array.

        Raises:
            ValueError: it is no text, or has more than a million bytes; or anything that a damaged archive raises.
        """
        if name not in self._members:
            return None
        header = self.headers[name]
        if header is None or header.shape or header.dtype.kind != "U" or header.n_bytes > MAX_TEXT:
            raise ValueError(f"its array {quoted(name)} is not text, or is too long")
        return str(self.read(name)[()])

    def _header(self, name: str) -> Header | None:
        try:
            with self._open(name) as file:
                return read_header(file)
        except ValueError:
            return None

    @contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        member = self._members[name]
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"its array {quoted(name)} is packed as NumPy packs none (method {member.compress_type})")
        with self._file.open(member) as file:
            yield file  # type: ignore[misc]

    def _refuse_size(self, name: str, header: Header, start: int) -> None:
        member = self._members[name]
        if header.n_bytes != member.file_size - start:
            found = member.file_size - start
            raise ValueError(f"its array {quoted(name)} declares {header}, {header.n_bytes:,} bytes, and has {found:,}")
        refuse_bomb(header.n_bytes, min(member.compress_size, self._n_bytes))


@contextmanager
def archive(path: Path) -> Iterator[Archive]:
    """An ``.npz`` file.

    Raises:
        ValueError: it is none; or anything else that a damaged archive raises.
        OSError: it cannot be read.
    """
    with opened(path) as file:
        n_bytes = file.seek(0, 2)
        if not zipfile.is_zipfile(file):
            raise ValueError("an .npz file is a zip archive, and this is none")
        with zipfile.ZipFile(Blocks(file)) as packed:
            yield Archive(packed, n_bytes)


class Blocks(io.BufferedIOBase):
    """A file of which no large part is read at once: ``zipfile`` reads a table of contents of any declared size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int | None = -1, /) -> bytes:
        found = self._file.read(BLOCK + 1 if size is None or not 0 <= size <= BLOCK else size)
        if len(found) > BLOCK:
            raise ValueError(f"its table of contents has more than {BLOCK:,} bytes")
        return found

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True
