"""Files that several processes read, change and write again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from tests.tiny import finish, start, wait_for

from ddpm_ip import turns
from ddpm_ip.turns import alone

ADD = """
import json, pathlib, sys
from ddpm_ip.turns import alone
path, name = pathlib.Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for i in range(30):
    with alone(path.parent):
        rows = json.loads(path.read_text())
        path.write_text(json.dumps([*rows, f"{name} {i}"]))
"""
HOLD = """
import pathlib, signal, sys
from ddpm_ip.turns import alone
with alone(pathlib.Path(sys.argv[1])):
    print("inside", flush=True)
    signal.pause()
"""


def test_processes_that_add_to_one_file_lose_nothing(tmp_path: Path) -> None:
    import subprocess

    path = tmp_path / "rows.json"
    path.write_text("[]")
    processes = [start("-c", ADD, path, name, stdin=subprocess.PIPE) for name in "abcd"]
    for process in processes:
        wait_for(process, "ready")
    for process in processes:
        code, output = finish(process)  # which closes its input
        assert code == 0, output
    assert sorted(json.loads(path.read_text())) == sorted(f"{name} {i}" for name in "abcd" for i in range(30))


def test_threads_take_turns_too(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(50):
            with alone(tmp_path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert list(tmp_path.iterdir()) == []


def test_a_turn_ends_with_its_owner(tmp_path: Path) -> None:
    process = start("-c", HOLD, tmp_path)
    wait_for(process, "inside")
    process.kill()
    finish(process)
    with alone(tmp_path):
        pass


def test_one_who_was_halted_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.1)
    with alone(tmp_path), alone(tmp_path):
        pass


def test_what_cannot_be_locked_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "gone", tmp_path / "file", tmp_path / ("a" * 300)):
        with alone(path):
            pass
    with pytest.raises(KeyError), alone(tmp_path):
        raise KeyError
    with alone(tmp_path):
        pass
