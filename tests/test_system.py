"""Where what only POSIX has is missing, as on Windows, everything still works, and nothing is used by accident."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tiny import run, tiny

import ddpm_ip
from ddpm_ip import files, signals, system, turns
from ddpm_ip.cli import main
from ddpm_ip.sweep import jobs

PACKAGE = Path(ddpm_ip.__file__).parent
# Modules of Python's library, and names in those that are there, which Windows does not have (typeshed says so).
MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog", "crypt", "nis", "readline"}
NAMES = {
    "os": {
        "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "chown", "fork", "forkpty", "fchmod",
        "getegid", "geteuid", "getgid", "getloadavg", "getpgid", "getpgrp", "getsid", "getuid", "killpg",
        "lchown", "mkfifo", "nice", "openpty", "posix_fadvise", "posix_fallocate", "posix_spawn", "pread",
        "preadv", "pwrite", "sched_getaffinity", "sched_setaffinity", "sched_yield", "setsid", "setuid",
        "statvfs", "sync", "sysconf", "uname", "wait", "wait4", "WNOHANG",
    },
    "signal": {
        "SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP",
        "SIGUSR1", "SIGUSR2", "alarm", "pause", "pthread_kill", "pthread_sigmask", "setitimer", "siginterrupt",
        "sigwait",
    },
    "time": {"clock_gettime", "tzset"},
    "socket": {"AF_UNIX", "socketpair"},
}  # fmt: skip
LATER = {
    "os.fork",
    "os.statvfs",
    "os.uname",
    "os.wait",
    "socket.socketpair",
}  # names that other packages use in this process
# Where they are used, each asks first whether they are there.
ASKED = {"cores.py", "estimate.py", "tracking/command.py"}


def used(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in NAMES.get(node.value.id, ()):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module in NAMES:
            yield from (f"{node.module}.{a.name}" for a in node.names if a.name in NAMES[node.module])


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield str(node.module)


def test_only_rooms_that_ask_first_use_what_windows_lacks() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if names := {*used(tree), *imported(tree)}:
            found[path.relative_to(PACKAGE).as_posix()] = names
    assert found.pop("system.py") == {"os.geteuid", "fcntl"}
    assert set(found) == ASKED, found


@pytest.mark.parametrize(
    "line", ["import fcntl", "from os import fork", "import os\nos.pread(1, 2, 3)", "import signal\nsignal.SIGKILL"]
)
def test_the_rule_sees_them(line: str) -> None:
    tree = ast.parse(line)
    assert [*used(tree), *imported(tree)]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Windows lacks is gone from this process, as far as nothing but this package needs it."""
    for module, names in NAMES.items():
        for name in names:
            if f"{module}.{name}" not in LATER:
                monkeypatch.delattr(sys.modules[module], name, raising=False)
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(system, "fcntl", None)
    monkeypatch.setattr(system, "HAS_OWNERS", False)
    for name in ("NOT_THROUGH_LINKS", "NOT_WAITING", "BYTES"):
        monkeypatch.setattr(system, name, 0)
    monkeypatch.setattr(os, "supports_fd", set())


def test_a_run_trains_and_is_sampled_and_judged_there(without: None, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(tiny(n_steps=2, save_freq=2), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.partial"))
    assert main(["sample", "--weights", "run", "--n_samples", "2", "--steps", "2", "--save_dir", "out"]) == 0
    assert main(["evaluate", "out", "--reference", "digits", "--extractor", "pixels"]) == 0
    assert main(["export", "run", "-o", "exported"]) == 0


def test_blocks_and_files_without_locks_and_flags(without: None, tmp_path: Path) -> None:
    with turns.alone(tmp_path):
        files.append_text(tmp_path / "a.txt", "one\n")
    (tmp_path / "a.txt").write_text("one\ntw")
    files.append_text(tmp_path / "a.txt", "three\n")
    assert (tmp_path / "a.txt").read_text() == "one\ntw\nthree\n"
    assert not system.take_lock(0)
    assert not system.belongs_to_another(os.stat_result([0o100666, 1, 1, 1, 99999, 1, 1, 0, 0, 0]))


def test_windows_has_one_of_the_signals_before_a_machine_is_taken_away() -> None:
    assert signal.SIGTERM in signals.PREEMPTION


def test_on_windows_a_process_is_asked_to_stop_by_its_input_and_ended_at_once_otherwise(monkeypatch) -> None:
    """Signals end it there, without a word."""
    code = "import sys; sys.stdin.read(); print('saved')"
    for number, said in ((signal.SIGTERM, b"saved\n"), (jobs.AT_ONCE, b"")):
        with jobs.Child([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            with monkeypatch.context() as patch:
                patch.setattr(jobs.os, "name", "nt")
                patch.setattr(subprocess.Popen, "terminate", lambda self: os.kill(self.pid, signal.SIGKILL))
                child.send_signal(number)
            assert child.stdout is not None
            assert child.stdout.read() == said
