"""Too little memory: how it shows, on a CPU and on a GPU, and how it is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ddpm_ip.errors import OutOfMemory, UserError

# What PyTorch, its libraries, numpy and Triton say where they have no class of their own for it; in lower case.
_SAID = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "failed to allocate",
    "not enough memory",
    "bad_alloc",
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
    "storage size calculation overflowed",
    "array is too big",
    "maximum allowed dimension exceeded",
    "canuse32bitindexmath",
    "triton error [cuda]: invalid argument",  # more blocks than a launch can have
    "invalid configuration argument",
)
_NAMES = {"MemoryError", "OutOfMemoryError"}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that what was asked for is too large for the memory, or for the numbers that index it.

    Errors for people do not count: whoever made one from such an error has said so already.
    """
    if isinstance(error, UserError):
        return False
    if any(kind.__name__ in _NAMES for kind in type(error).__mro__):
        return True
    if not isinstance(error, (RuntimeError, ValueError, OSError)):  # what PyTorch, numpy and the system raise
        return False
    try:
        said = str(error).lower()
    except Exception:  # somebody's own error, that cannot even say what it is
        return False
    return any(words in said for words in _SAID)


@contextmanager
def enough_memory(advice: Callable[[], str]) -> Iterator[None]:
    """A block that may need more memory than there is.

    Args:
        advice: what it was for, how large it was, and what to change; a sentence without its stop.

    Raises:
        OutOfMemory: in place of any error that :func:`is_out_of_memory`.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise OutOfMemory(f"{advice()}. (What failed: {said[:200]})") from error
