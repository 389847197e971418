"""What all readers of data share: files opened without waiting, limits checked before memory is taken, one error."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ddpm_ip.errors import DataError
from ddpm_ip.plain import reason
from ddpm_ip.system import NOT_THROUGH_LINKS, NOT_WAITING

MAX_ARRAY = 16_000_000_000  # bytes that one packed array may unpack to: it is held in memory
# Packed pictures never shrink to a hundredth; a bomb of zeros shrinks to a thousandth. What is small may.
HARMLESS, MAX_RATIO = 100_000_000, 100


def existing(root: str, what: str, needed: bool = True) -> Path:
    """``root`` as a path, ``~`` expanded.

    Args:
        root: what a person gave.
        what: what should be there.
        needed: whether it must be there already.

    Raises:
        DataError: nothing is there, or it cannot be reached.
    """
    try:
        path = Path(root).expanduser()
        path.stat()
    except FileNotFoundError:
        if not needed:
            return path
        raise DataError(f"data.root: {path} does not exist; it should be {what}") from None
    except (OSError, ValueError, RuntimeError) as error:  # too long, a loop of links, a zero byte, no such home
        raise DataError(f"data.root: {root[:200]} cannot be reached: {reason(error)}. It should be {what}") from None
    return path


@contextmanager
def opened(path: Path, links: bool = True) -> Iterator[BinaryIO]:
    """A regular file, opened for reading; a pipe, a socket or a device is refused rather than waited for.

    Args:
        path: the file.
        links: whether it may be a symbolic link.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | NOT_WAITING | (0 if links else NOT_THROUGH_LINKS))

    with open(os.fspath(path), "rb", opener=opener) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is a pipe, a socket or a device, not a file")
        yield file


def head(path: Path, n_bytes: int) -> bytes:
    """What a file begins with; nothing if it is no regular file or cannot be read."""
    try:
        with opened(path) as file:
            return file.read(n_bytes)
    except (OSError, ValueError):
        return b""


@contextmanager
def refusing(what: str, advice: str = "") -> Iterator[None]:
    """Reports whatever goes wrong while bytes are interpreted that may be damaged or made to do harm.

    Args:
        what: the file and what it should be, such as ``a.npz: not a readable .npz file``.
        advice: what to do about it, as a sentence.

    Raises:
        DataError: in place of any other exception.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a decoder that is fed garbage may raise anything
        said = "it needs more memory than there is" if isinstance(error, MemoryError) else reason(error)
        raise DataError(f"{what}: {said or type(error).__name__}{'. ' * bool(advice)}{advice}") from error


def refuse_bomb(n_bytes: int, packed: int) -> None:
    """Refuses what would unpack to far more than pictures do, before memory is taken for it.

    Args:
        n_bytes: unpacked, as the file declares it.
        packed: bytes in the file.

    Raises:
        ValueError: more than :data:`MAX_ARRAY`, or above :data:`HARMLESS` and more than :data:`MAX_RATIO` times packed.
    """
    if n_bytes > MAX_ARRAY:
        raise ValueError(
            f"it declares {n_bytes:,} bytes, more than the limit of {MAX_ARRAY:,}. Save the images by np.save as an "
            ".npy file, which is not held in memory"
        )
    if n_bytes > HARMLESS and n_bytes > MAX_RATIO * packed:
        raise ValueError(
            f"{packed:,} bytes declare that they unpack to {n_bytes:,}, as no pictures do (at most {MAX_RATIO} times). "
            "If it is yours, save it unpacked"
        )
