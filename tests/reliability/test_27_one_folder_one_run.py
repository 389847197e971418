"""In one folder one process trains. Another is refused and told who; a lock whose owner is gone is in nobody's way.

Not promised: over a network file system whose locks do not work. Races of many starts, other machines and what else
may lie in the place of a lock are in tests/run/test_lock.py and ``python -m tests.stress --part races``.
"""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from tests.tiny import alone, contents, ended, forked, run, steps_saved, tiny, yaml_file

from ddpm_ip.cli import main
from ddpm_ip.errors import ConfigError
from ddpm_ip.train.loop import Hooks


def halt():
    os.kill(os.getpid(), signal.SIGSTOP)


def test_the_second_is_refused_and_the_stale_lock_taken_over(tmp_path, capsys):
    """The first is in the middle of a step; then it is killed, and its lock stays."""
    config, folder = yaml_file(tmp_path, n_steps=6), tmp_path / "run"
    process = forked(lambda: run(tiny(n_steps=6), folder, None, Hooks(lambda step: halt() if step == 3 else None)))
    assert os.WIFSTOPPED(os.waitpid(process, os.WUNTRACED)[1])
    before = contents(folder)
    for resume in ([], ["-r", "latest"]):
        assert main(["train", "-c", str(config), "-e", str(folder), *resume]) == 2
        said = capsys.readouterr().err
        assert f"process {process} on {socket.gethostname()}" in said
        assert "is training in" in said
    assert contents(folder) == before
    os.kill(process, signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL
    held = json.loads((folder / "lock").read_text())
    assert (held["pid"], held["host"]) == (process, socket.gethostname())
    assert alone(lambda: run(tiny(n_steps=6), folder, "latest")) == 0
    assert steps_saved(folder) == [4, 6]
    assert not (folder / "lock").exists()


def test_a_lock_of_version_0_1(tmp_path):
    run(tiny(n_steps=2), tmp_path)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (tmp_path / "lock").write_text(json.dumps({"pid": other.pid, "host": socket.gethostname()}))
    before = contents(tmp_path)
    try:
        with pytest.raises(ConfigError, match=f"process {other.pid} on .* is training in"):
            run(tiny(n_steps=4), tmp_path, "latest")
        assert contents(tmp_path) == before
    finally:
        other.communicate(b"\n")
    assert run(tiny(n_steps=4), tmp_path, "latest").step == 4, "the lock of a process that is gone is taken over"
    assert not (tmp_path / "lock").exists()


def test_the_lock_is_there_while_it_trains(tmp_path):
    seen = []
    run(tiny(n_steps=2), tmp_path, None, Hooks(lambda step: seen.append(json.loads((tmp_path / "lock").read_text()))))
    assert [(held["pid"], held["host"]) for held in seen] == [(os.getpid(), socket.gethostname())] * 2
    assert not (tmp_path / "lock").exists()
