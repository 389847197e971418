"""One process at a time, where a file is read, changed and written again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddpm_ip.system import BYTES, take_lock

PATIENCE = 60.0  # seconds that another process may take before nobody waits for it any longer


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Waits until no other process, and no other thread, is in such a block for this folder.

    The lock is one on the folder itself: it leaves no file, and ends with its owner, however that ends. Where the file
    system has no such locks, or the folder is not there or cannot be opened, nothing is locked; and a process that was
    halted in the block is not waited for without end. Files are written whole in any case. (Windows locks no folders.)
    """
    try:
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | BYTES)
    except OSError:  # whoever writes there says what is wrong
        yield
        return
    try:
        _wait(handle)
        yield
    finally:
        os.close(handle)


def _wait(handle: int) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            take_lock(handle)
            return
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:  # no locks there
            return
