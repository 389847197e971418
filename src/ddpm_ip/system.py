"""What systems differ in: where Windows lacks a function of POSIX, what takes its place.

Without locks on folders, file owners, links to refuse and signals to send, what these protect from is not there either;
what matters all the same (one process in a folder, a gentle stop) has another way.
"""

from __future__ import annotations

import os
from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NOT_THROUGH_LINKS = getattr(os, "O_NOFOLLOW", 0)  # flags of os.open; 0 where a system has no such
NOT_WAITING = getattr(os, "O_NONBLOCK", 0)
BYTES = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)  # as they are, and not for child processes
HAS_OWNERS = hasattr(os, "geteuid")  # and so bits that say who may write
_ACCESS, _STILL_ACTIVE = 0x1000, 259  # PROCESS_QUERY_LIMITED_INFORMATION, STILL_ACTIVE


def take_lock(handle: int) -> bool:
    """Takes the system's lock on an open file or folder, without waiting.

    Returns:
        Whether it was had; False where the system has none.

    Raises:
        BlockingIOError: another process has it.
        OSError: there are no locks there.
    """
    if fcntl is None:
        return False
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True


def belongs_to_another(found: os.stat_result, trusted: tuple[int, ...] = ()) -> bool:
    """Whether a file is another user's, who is none of ``trusted``; never where files have no owners."""
    return HAS_OWNERS and found.st_uid not in (os.geteuid(), *trusted)


def is_alive(pid: int) -> bool:
    """Whether a process of this machine lives. (On Windows signal 0 is Ctrl-C, and would be sent.)"""
    if os.name == "nt":
        return _is_alive_on_windows(pid)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def touch(handle: int, path: str | os.PathLike[str]) -> None:
    """Dates an open file now."""
    os.utime(handle if os.utime in os.supports_fd else path)


def sync(path: str | os.PathLike[str]) -> None:
    """Forces a file's bytes, or a folder's entries, to the disk; Windows opens no folders, and keeps their entries."""
    if os.name == "nt" and os.path.isdir(path):
        return
    handle = os.open(path, (os.O_RDWR if os.name == "nt" else os.O_RDONLY) | BYTES)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_alive_on_windows(pid: int) -> bool:
    import ctypes

    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    handle = kernel.OpenProcess(_ACCESS, False, pid)
    if not handle:
        return bool(kernel.GetLastError() == 5)  # access denied: it is another user's
    try:
        code = ctypes.c_ulong()
        return bool(kernel.GetExitCodeProcess(handle, ctypes.byref(code))) and code.value == _STILL_ACTIVE
    finally:
        with suppress(OSError):
            kernel.CloseHandle(handle)
