"""Single small arrays of an ``.npz`` file: bounded in size before memory is taken, and never unpickled."""

from __future__ import annotations

import zipfile
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ddpm_ip.errors import DataError
from ddpm_ip.plain import reason

HEADER = 20_000  # bytes that an array may need beside its numbers


def array_names(path: Path) -> frozenset[str]:
    """The names of the arrays of an ``.npz`` file; none of anything else, and of what cannot be read."""
    if path.suffix != ".npz" or not path.is_file():  # not of a pipe, which would be waited for
        return frozenset()
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except Exception:  # a zip that is garbage may raise anything; whoever reads it says what is wrong with it
        return frozenset()


def read_array(path: Path, name: str, largest: int) -> npt.NDArray[Any]:
    """One array of an ``.npz`` file.

    Args:
        path: the file.
        name: of the array.
        largest: bytes that its numbers may take.

    Raises:
        DataError: it is not there, larger, damaged, or of objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("it is compressed in a way that NumPy never writes")
            with archive.open(member) as file:
                content = file.read(largest + HEADER + 1)
        if len(content) > largest + HEADER:
            raise ValueError(f"it has more than {largest:,} bytes")
        return _array(content)
    except Exception as error:  # what is garbage may raise anything
        raise DataError(f"{path}: its array {name!r} cannot be read: {reason(error)}") from error


def _array(content: bytes) -> npt.NDArray[Any]:
    """What a ``.npy`` file holds. NumPy itself takes the memory that a header asks for before it looks for numbers."""
    stream = BytesIO(content)
    form = np.lib.format
    headers = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    shape, fortran, dtype = headers[form.read_magic(stream)](stream)
    if dtype.hasobject or min(shape, default=1) < 0 or prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"it is {dtype} {shape}, which its {len(content)} bytes do not hold")
    return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")
