"""What this process may use of the machine: CPU cores and memory, as the system, a container and the user say."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable(groups: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """CPU cores that this process may keep busy: those it may run on, of which a container's quota may leave fewer.

    Args:
        groups: where the control groups are mounted.
        membership: the file that says which of them this process belongs to.

    Returns:
        At least 1. (A quota of 1.5 cores gives 2: rounded up, so that none of it is left unused.)
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [q for folder in _folders(groups, membership) if (q := _quota(folder)) is not None]
    return max(1, min([allowed, *(math.ceil(q) for q in quotas)]))


def main_memory(groups: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes that this process can have at most: those of the machine, a container's limit, its own (``ulimit -v``).

    Args:
        groups, membership: see :func:`usable`.

    Returns:
        None if nothing says it.
    """
    found = [limit for folder in _folders(groups, membership, "memory") if (limit := _memory_limit(folder)) is not None]
    with suppress(AttributeError, ValueError, OSError, ImportError):  # not on Windows
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        import resource

        own = resource.getrlimit(resource.RLIMIT_AS)[0]
        found += [own] if own != resource.RLIM_INFINITY else []
    return min(found, default=None)


def threads_said(environment: Mapping[str, str] = os.environ, parent: Mapping[str, str] | None = None) -> int | None:
    """The number of threads that the user asks for with ``OMP_NUM_THREADS``; None if there is no such wish.

    Launchers set it to 1 where the user says nothing, which would leave a process with one core. So a 1 under a
    launcher counts only if the launcher itself was started with it.

    Args:
        environment: of this process.
        parent: what the process that started this one was started with; looked up by default.
    """
    said = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if not said.isdecimal() or int(said) < 1:
        return None
    launched = "TORCHELASTIC_RUN_ID" in environment or "ACCELERATE_MIXED_PRECISION" in environment
    if said == "1" and launched:
        parent = _started_with(os.getppid()) if parent is None else parent
        return 1 if "OMP_NUM_THREADS" in parent else None
    return int(said)


def threads() -> int:
    """Threads that this process computes with on the CPU: as many as the user says, else its share of the cores."""
    return threads_said() or max(1, usable() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _folders(groups: Path, membership: Path, what: str = "cpu") -> list[Path]:
    """The folders of the control groups that limit ``what`` of this process: its own, and all above it."""
    found = {groups, groups / what, groups / "cpu,cpuacct"}
    for line in (_text(membership) or "").splitlines():
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "", "/")
        if controllers and what not in controllers.split(","):
            continue
        own = Path(path.lstrip("/"))
        if ".." not in own.parts:  # a group outside of what the container sees
            found |= {groups / controllers / up for up in (own, *own.parents)}
    return sorted(found)


def _quota(folder: Path) -> float | None:
    """Cores that a control group grants, by version 2 or 1 of the interface; None for no limit."""
    both = _text(folder / "cpu.max") or f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
    try:
        limit, period = map(int, both.split())
        return limit / period if limit > 0 else None
    except (ValueError, ZeroDivisionError):  # "max", absent, or something else
        return None


def _memory_limit(folder: Path) -> int | None:
    """Bytes that a control group grants, by version 2 or 1 of the interface; None for no limit."""
    said = (_text(folder / "memory.max") or _text(folder / "memory.limit_in_bytes") or "").strip()
    return int(said) if said.isdecimal() and int(said) > 0 else None


def _text(path: Path) -> str | None:
    """What the system says in one of its files; None if there is no such file."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return None


def _started_with(process: int) -> dict[str, str]:
    """The environment that a process was started with, as far as the system tells."""
    try:
        entries = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)


def nodes() -> int:
    """Machines that the processes of this program run on, as the launcher says."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    return max(1, world // int(os.environ.get("LOCAL_WORLD_SIZE", str(world))))
