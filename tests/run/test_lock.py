"""Of all who want to work in a folder one can; and nobody is kept out by one who is gone."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from tests.tiny import GUARD, finish, start, wait_for

from ddpm_ip import system
from ddpm_ip.errors import ConfigError
from ddpm_ip.run import lock
from ddpm_ip.run.lock import STALE, Lock

# Tries once for each line that it reads; who wins keeps the lock until it reads another.
TRIES = """
import sys
from pathlib import Path
from ddpm_ip.errors import ConfigError
from ddpm_ip.run.lock import Lock
print("ready", flush=True)
for _ in sys.stdin:
    try:
        with Lock(Path(sys.argv[1])):
            print("won", flush=True)
            sys.stdin.readline()
    except ConfigError as error:
        print("lost", str(error).replace("\\n", " "), flush=True)
        sys.stdin.readline()
    print("left", flush=True)
"""
GONE = 2**22 + 1  # more than the highest number of a process


def record(**changes):
    mine = {"pid": GONE, "host": socket.gethostname(), "machine": lock._machine(), "started": "then", "heartbeat": 1}
    return json.dumps({**mine, **changes})


NOBODYS = {
    "absent": None,
    "empty": "",
    "garbage": "\x00\xff{",
    "deep": "[" * 100_000,
    "no object": "[1]",
    "no keys": "{}",
    "wrong types": '{"pid": "1", "host": 3}',
    "version 0.1, gone": json.dumps({"schema": 1, "pid": GONE, "host": socket.gethostname()}),
    "version 0.1, a huge number": json.dumps({"pid": 10**30, "host": socket.gethostname()}),
    "killed": record(pid=os.getppid()),  # another has its number by now
    "killed in another container": record(host="container", pid=1),
}
ELSEWHERE = {
    "today's": record(host="another", machine="another"),
    "version 0.1's": '{"pid": 1, "host": "another"}',
}


def plant(path, text, age=0):
    if text is not None:
        path.write_text(text)
        moment = time.time() - age
        os.utime(path, (moment, moment))


@pytest.mark.parametrize("kind", NOBODYS)
def test_what_nobody_has_is_taken_at_once_and_removed_afterwards(tmp_path, kind):
    path = tmp_path / "lock"
    plant(path, NOBODYS[kind])
    with Lock(path):
        held = json.loads(path.read_text())
        assert (held["pid"], held["host"]) == (os.getpid(), socket.gethostname())
    assert list(tmp_path.iterdir()) == []


def test_one_at_a_time_and_the_message_says_who_and_what(tmp_path):
    with Lock(tmp_path / "lock"):
        with pytest.raises(
            ConfigError, match=rf"process {os.getpid()} on .* is sampling into {re.escape(str(tmp_path))}"
        ):
            Lock(tmp_path / "lock", doing="sampling into").__enter__()
        assert (tmp_path / "lock").exists()
    with Lock(tmp_path / "lock"):
        pass


def test_it_ends_with_the_process_that_has_it(tmp_path):
    other = start("-c", TRIES, tmp_path / "lock", stdin=subprocess.PIPE)
    wait_for(other, "ready")
    other.stdin.write("go\n")
    other.stdin.flush()
    wait_for(other, "won")
    with pytest.raises(ConfigError, match=f"process {other.pid} on .* is training in"):
        Lock(tmp_path / "lock").__enter__()
    other.send_signal(signal.SIGKILL)
    finish(other)
    assert json.loads((tmp_path / "lock").read_text())["pid"] == other.pid
    with Lock(tmp_path / "lock"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_of_processes_that_start_together_one_wins_whatever_was_there(tmp_path):
    path, kinds = tmp_path / "lock", [NOBODYS[kind] for kind in NOBODYS]
    processes = [start("-c", TRIES, path, stdin=subprocess.PIPE) for _ in range(4)]

    def tell_all():
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()

    def hear_all(expected):
        return [wait_for(process, expected) for process in processes]

    hear_all("ready")
    for turn in range(40):
        plant(path, kinds[turn % len(kinds)])
        tell_all()
        heard = [line.split()[0] for line in hear_all("")]
        assert sorted(heard) == ["lost", "lost", "lost", "won"], turn
        tell_all()
        hear_all("left")
        assert not path.exists()
    for process in processes:
        process.stdin.close()
    assert [process.wait(GUARD) for process in processes] == [0, 0, 0, 0]


@pytest.mark.parametrize("flock", [True, False])
def test_of_threads_that_start_together_one_wins(tmp_path, monkeypatch, flock):
    if not flock:
        monkeypatch.setattr(system, "fcntl", None)
        monkeypatch.setattr(lock, "SETTLE", 0.3)
    path = tmp_path / "lock"
    for turn in range(60 if flock else 3):
        plant(path, [*NOBODYS.values()][turn % 3 if flock else (0, 1, 7)[turn]])
        outcomes, begin, end = [], threading.Barrier(6), threading.Barrier(6)

        def attempt(outcomes=outcomes, begin=begin, end=end):
            begin.wait(GUARD)
            try:
                with Lock(path):
                    outcomes.append("won")
                    end.wait(GUARD)
            except ConfigError:
                outcomes.append("lost")
                end.wait(GUARD)

        threads = [threading.Thread(target=attempt) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GUARD)
        assert sorted(outcomes) == [*["lost"] * 5, "won"], turn


@pytest.mark.parametrize("kind", ELSEWHERE)
@pytest.mark.parametrize("flock", [True, False])
def test_another_machines_lock_is_refused_while_fresh_and_else_taken_over(
    tmp_path, monkeypatch, kind, flock, warnings_of
):
    if not flock:
        monkeypatch.setattr(system, "fcntl", None)
        monkeypatch.setattr(lock, "SETTLE", 0.0)
    path = tmp_path / "lock"
    plant(path, ELSEWHERE[kind], age=STALE / 2)
    with pytest.raises(ConfigError, match=r"on another is training .* sign of life is \d+ s old.* remove .*lock"):
        Lock(path).__enter__()
    assert path.read_text() == ELSEWHERE[kind]
    plant(path, ELSEWHERE[kind], age=2 * STALE)
    with Lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert "is taken over" in warnings_of()[-1]


def test_a_living_process_of_version_0_1_keeps_its_lock_however_old(tmp_path):
    other = subprocess.Popen(["sleep", "600"])
    try:
        plant(tmp_path / "lock", json.dumps({"pid": other.pid, "host": socket.gethostname()}), age=10 * STALE)
        with pytest.raises(ConfigError, match=f"process {other.pid} on .* is training"):
            Lock(tmp_path / "lock").__enter__()
    finally:
        other.kill()
        other.wait()
    with Lock(tmp_path / "lock"):
        pass


def test_who_has_it_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    path = tmp_path / "lock"
    with Lock(path):
        for _ in range(2):
            os.utime(path, (0, 0))
            seen = threading.Event()
            while path.stat().st_mtime == 0:
                seen.wait(0.01)


def test_only_ones_own_is_removed(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    with Lock(path):
        path.write_text(ELSEWHERE["today's"])
    assert path.read_text() == ELSEWHERE["today's"]
    path.unlink()
    with Lock(path):
        path.unlink()
        path.write_text("another file")
    assert path.read_text() == "another file"
    path.unlink()
    with Lock(path):
        path.unlink()


def test_folders_that_were_made_go_again_where_nothing_came_into_them(tmp_path):
    with Lock(tmp_path / "a" / "b" / "lock"):
        pass
    assert list(tmp_path.iterdir()) == []
    with Lock(tmp_path / "a" / "b" / "lock"):
        (tmp_path / "a" / "b" / "file").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_what_is_no_file_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name in ("link", "loop", "pipe", "folder", "file/lock", "link/lock", "loop/lock", "x" * 300):
        with pytest.raises(ConfigError, match=r"cannot be|symbolic link|must be a folder"):
            Lock(tmp_path / name).__enter__()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link", "loop", "pipe"]


def test_no_room_to_sign_it_leaves_no_empty_lock(tmp_path):
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom ddpm_ip.errors import ConfigError\n"
        "from ddpm_ip.run.lock import Lock\nresource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))\n"
        "try:\n    Lock(Path(sys.argv[1])).__enter__()\nexcept ConfigError as error:\n    print(error)\n"
    )
    returned, output = finish(start("-c", code, tmp_path / "run" / "lock"))
    assert returned == 0, output
    assert "lock cannot be locked: " in output
    assert list(tmp_path.iterdir()) == []
