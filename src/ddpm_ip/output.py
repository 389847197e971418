"""What a command prints: visible, whatever the terminal can show, and never worth more than the command's work.

Nothing heavy is imported before there is something to print, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from ddpm_ip.errors import OutOfMemory, UserError
from ddpm_ip.memory import is_out_of_memory

LAUNCHED = ("TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")  # torchrun and accelerate-launch set these
LONGEST = 20_000  # characters of an error message


def say(text: str) -> None:
    """Prints a text on standard output. If nobody reads it any more (``| head``), the command continues.

    Raises:
        UserError: it cannot be written, as when it goes to a file on a full disk.
    """
    from ddpm_ip.plain import reason, remedy, visible

    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = visible(text).encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _give_up(sys.stdout)
    except OSError as error:
        _give_up(sys.stdout)
        raise UserError(f"standard output cannot be written: {reason(error)}. {remedy(error)}") from error


def complain(text: str) -> None:
    """Prints an error message on standard error, if that can be written.

    Under a launcher another line explains the traceback that will follow: accelerate-launch and torchrun print one
    for every exit code but 0, and no program that they start can keep them from it.
    """
    from ddpm_ip.plain import visible

    text = visible(text)
    with suppress(OSError, ValueError):
        print(f"error: {text if len(text) <= LONGEST else text[:LONGEST] + ' ...'}", file=sys.stderr)
        if any(name in os.environ for name in LAUNCHED):
            print("(That is all there is to know: a traceback below is the launcher's own.)", file=sys.stderr)


def told(error: Exception) -> UserError | None:
    """What a person is told about an error: what, where, and what to do; None if it is a fault of this program."""
    from ddpm_ip.plain import reason, remedy, shown

    if isinstance(error, UserError):
        return error
    if is_out_of_memory(error):
        said = f"{type(error).__name__}: {reason(error)}"
        return OutOfMemory(f"there is too little memory ({said}): take fewer images at once, or smaller ones")
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{shown(_name(error.filename))}: "
        return UserError(f"{where}{reason(error)}. {remedy(error)}")
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # Python before 3.13
        return UserError(f"{shown(error)}. Remove the symbolic link that leads back to itself, or choose another place")
    return None


def _name(file: object) -> object:
    return os.fsdecode(file) if isinstance(file, (str, bytes, os.PathLike)) else file


def flush() -> None:
    """Flushes what was printed at the end of a command; what cannot be written any more is let go."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _give_up(stream)


def _give_up(stream: TextIO) -> None:
    """Discards the rest; otherwise the interpreter would try to write it once more at its end, and complain."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
