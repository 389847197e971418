"""Where numbers come from: versions, hardware, commit and command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ddpm_ip.apple import refused
from ddpm_ip.cores import nodes, usable

HIDDEN = "--train.alert_command"


def provenance() -> dict[str, Any]:
    """Versions, hardware, commit and command of this process."""
    program = Path(sys.argv[0])
    as_module = (program.parent.name, program.name) == ("ddpm_ip", "__main__.py")
    return {
        "command": " ".join(["python -m ddpm_ip" if as_module else program.name, *_shown(sys.argv[1:])]),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **versions("ddpm-ip", "torch", "accelerate", "numpy", "pillow"),
        },
        "hardware": hardware(),
        "git": _git(),
    }


def _shown(words: list[str]) -> list[str]:
    """The words of a command line without the command for alerts, which may hold a password."""
    found, before = [], ""
    for word in words:
        option, equals, _ = word.partition("=")
        found.append("..." if before == HIDDEN else f"{HIDDEN}=..." if equals and option == HIDDEN else word)
        before = word
    return found


def earlier(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A record and those of the processes before it, the newest first; a list, since a run may be resumed often.

    (Version 0.1 wrote each inside the one after it.) Only the newest record has the history: each would have the whole
    of it, and a thousand of them would be half a million entries.
    """
    before = record.get("earlier")
    if isinstance(before, Mapping):
        later = earlier(before)
    else:
        later = [dict(one) for one in before if isinstance(one, Mapping)] if isinstance(before, list) else []
    return [{k: v for k, v in one.items() if k not in ("earlier", "history")} for one in (record, *later)]


def hardware() -> str:
    """The GPUs that the processes of this program use, one each, or the CPU and the cores that it may use."""
    if torch.cuda.is_available():
        used, there = int(os.environ.get("WORLD_SIZE", "1")), torch.cuda.device_count()
        others = f" (of {there} here)" if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) < there else ""
        return f"{used} x {torch.cuda.get_device_name()}{others}" + (f" on {n} nodes" if (n := nodes()) > 1 else "")
    if torch.backends.mps.is_available() and not refused():
        return f"Apple GPU (mps), {_cpu_name()}"
    cores, there, threads = usable(), os.cpu_count() or 1, torch.get_num_threads()
    some = f"{cores} of {there}" if cores < there else f"{there}"
    return f"{some} CPU cores ({_cpu_name()}), {threads} thread{'s' * (threads != 1)}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions(*names: str) -> dict[str, str]:
    """The versions of those of some packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git() -> dict[str, Any] | None:
    """The commit of the source tree that runs, if it is one."""

    def git(*args: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(
            ["git", "-C", str(here), *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):  # an installed copy inside somebody else's repository
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
