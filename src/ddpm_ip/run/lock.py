"""At most one process works in a folder."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from ddpm_ip.errors import ConfigError
from ddpm_ip.files import json_line
from ddpm_ip.places import make_folder, refuse_special
from ddpm_ip.plain import UNREADABLE, parse_json, reason, remedy, shown
from ddpm_ip.system import BYTES, NOT_THROUGH_LINKS, NOT_WAITING, is_alive, take_lock, touch

log = logging.getLogger("ddpm_ip.lock")

HEARTBEAT = 15.0  # seconds between two signs of life
STALE = 180.0  # seconds without one after which another machine's process is taken to be gone
SETTLE = 1.0  # seconds in which processes that start together, where there is no flock, have all signed
_NO_FLOCK = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL}


class Lock:
    """While entered, no other process has the same lock.

    It is the system's lock on the file (flock), which ends with the process that has it, however that ends. The file
    says who has it, for the message, and a thread touches it every :data:`HEARTBEAT` seconds: where the system's lock
    does not reach, on another machine that shares the folder, a lock that was not touched for :data:`STALE` seconds is
    taken over, and a fresh one is refused. The same goes for all processes where the file system has no flock. An empty
    or damaged file is nobody's lock. On leaving, the file is removed, if it is still one's own.

    A lock of version 0.1 had neither flock nor heartbeat: one of a process of this machine is judged by whether that
    process lives, one of another machine by its age.

    Args:
        path: the file; its folder is made if need be.
        doing: what is done in the folder, for the message: "training in".

    Raises:
        ConfigError: on entering: another process has the lock, or it cannot be taken; says who has it and what to do.
    """

    def __init__(self, path: Path, doing: str = "training in") -> None:
        self.path = path
        self._doing = doing
        self._handle = -1
        self._record = b""
        self._left = threading.Event()
        self._made: list[Path] = []

    def __enter__(self) -> Lock:
        refuse_special(self.path, ConfigError)
        self._made = [folder for folder in self.path.parents if not os.path.lexists(folder)]
        make_folder(self.path.parent, ConfigError)
        try:
            while not self._take():
                pass
        except BaseException as error:
            self._remove_folders()
            if not isinstance(error, OSError):
                raise
            raise ConfigError(f"{shown(self.path)} cannot be locked: {reason(error)}. {remedy(error)}") from error
        self._left.clear()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._left.set()
        self._thread.join()
        handle, self._handle = self._handle, -1
        mine = False
        with suppress(OSError):  # as the folder is gone, it may be
            mine = _same(handle, self.path) and _content(handle) == self._record
            if mine and os.name != "nt":
                os.unlink(self.path)
        os.close(handle)
        with suppress(OSError):
            if mine and os.name == "nt":  # which removes no open file
                os.unlink(self.path)
        self._remove_folders()

    def _remove_folders(self) -> None:
        """Removes the folders that were made, where nothing came into them: a start that failed leaves nothing."""
        with suppress(OSError):
            for folder in self._made:
                os.rmdir(folder)

    def _take(self) -> bool:
        """Takes the lock; False if the file was removed meanwhile, and another try is worth it."""
        flags = os.O_RDWR | os.O_CREAT | NOT_THROUGH_LINKS | NOT_WAITING | BYTES
        handle, exclusive = os.open(self.path, flags, 0o666), False
        try:
            exclusive = self._flock(handle)
            if not _same(handle, self.path):
                os.close(handle)
                return False
            self._judge(handle, exclusive)
            self._sign(handle)
            if not exclusive:
                time.sleep(SETTLE)  # who signed last has it
                if _content(handle) != self._record:
                    self._refuse(_holder(handle), "")
        except BaseException:
            with suppress(OSError):
                if exclusive and os.fstat(handle).st_size == 0 and _same(handle, self.path):
                    os.unlink(self.path)  # there was no room to sign it
            os.close(handle)
            raise
        self._handle = handle
        return True

    def _flock(self, handle: int) -> bool:
        """Whether the system's lock was had; False where it has none."""
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        try:
            return take_lock(handle)
        except BlockingIOError:
            self._refuse(_holder(handle), "")
        except OSError as error:
            if error.errno in _NO_FLOCK:
                return False
            raise
        return False

    def _judge(self, handle: int, exclusive: bool) -> None:
        """Refuses a lock that another process has, though the system says nothing of it."""
        held = _holder(handle)
        if held is None and exclusive:
            return
        if held is not None and exclusive and not held.old and held.machine == _machine():
            return  # or it would have the system's lock
        if held is not None and held.host == socket.gethostname():
            if not _alive(held.pid):
                return
            if held.old:
                self._refuse(held, f"; if that process is something else by now, remove {shown(self.path)}")
        age = max(0.0, _now(self.path.parent) - os.fstat(handle).st_mtime)
        if age < STALE and os.fstat(handle).st_size:
            more = f". Its last sign of life is {age:.0f} s old; after {STALE:.0f} s without one the lock is taken over"
            self._refuse(held, f"{more}. If it is gone for certain, remove {shown(self.path)}")
        if held is not None:
            log.warning(
                "the lock of process %d on %s, which has given no sign of life for %.0f s, is taken over",
                held.pid, shown(held.host), age,
            )  # fmt: skip

    def _sign(self, handle: int) -> None:
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "machine": _machine(), "started": started}
        self._record = json_line({**mine, "heartbeat": HEARTBEAT, "id": os.urandom(8).hex()}).encode()
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        try:
            if os.write(handle, self._record) < len(self._record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(handle, 0)
            raise

    def _refuse(self, held: _Holder | None, more: str) -> None:
        who = "another process" if held is None else f"process {held.pid} on {shown(held.host)}"
        since = f" since {shown(held.started)}" if held is not None and held.started else ""
        raise ConfigError(
            f"{who} is {self._doing} {shown(self.path.parent)}{since}. Wait for it, or choose another folder{more}"
        )

    def _beat(self) -> None:
        while not self._left.wait(HEARTBEAT):
            try:
                if _content(self._handle) != self._record or not _same(self._handle, self.path):
                    log.error("%s was taken over or removed: another process may be %s %s, too", self.path,
                              self._doing, self.path.parent)  # fmt: skip
                    return
                touch(self._handle, self.path)
            except OSError:  # as when the disk is full or away for a moment; the next beat may be heard
                continue


class _Holder(NamedTuple):
    """Who has a lock, as its file says; ``old`` if version 0.1 wrote it."""

    pid: int
    host: str
    machine: str
    started: str
    old: bool


def _holder(handle: int) -> _Holder | None:
    try:
        held = parse_json(_content(handle).decode())
        if not isinstance(held, Mapping) or type(held.get("pid")) is not int or not isinstance(held.get("host"), str):
            return None
    except UNREADABLE:
        return None
    texts = {key: value for key, value in held.items() if isinstance(value, str)}
    machine = texts.get("machine", texts["host"])
    return _Holder(held["pid"], texts["host"], machine, texts.get("started", ""), "heartbeat" not in held)


def _content(handle: int) -> bytes:
    os.lseek(handle, 0, os.SEEK_SET)
    return os.read(handle, 10_000)


def _same(handle: int, path: Path) -> bool:
    """Whether an open file is still the one at that path."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(handle))


def _machine() -> str:
    """What tells machines apart between two starts: containers on one machine have different host names."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read(100).strip()
    except OSError:
        return socket.gethostname()


def _now(folder: Path) -> float:
    """The time by the clock that dates files in a folder, which may be another machine's."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _alive(pid: int) -> bool:
    return pid > 0 and pid != os.getpid() and is_alive(pid)
