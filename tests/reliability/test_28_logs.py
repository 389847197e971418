"""``metrics.jsonl`` has each step once, whatever ended the run; of a kill its last line may be cut, and nothing else.

Not promised: that the text log and TensorBoard have no gaps and no line twice. Damage of logs is in
tests/run/test_log.py, a full disk there too.
"""

import json
import os
import random
import signal
import time

import pytest
from tests.tiny import alone, crash_at, ended, forked, numbers, run, tiny
from tqdm import tqdm
from tqdm.std import TqdmDefaultWriteLock

CONFIG = tiny(n_steps=40, save_freq=4)


def lines(folder):
    """Those that parse, and how many others there are at the end and elsewhere."""
    found, cut = [], []
    for line in (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True):
        try:
            assert line.endswith(b"\n")
            found.append(json.loads(line)["step"])
            assert cut == [], "only the last may be cut"
        except (ValueError, AssertionError):
            cut.append(line)
    assert len(cut) <= 1
    return found


@pytest.mark.parametrize("seed", range(3))
def test_after_kills_at_any_moment_each_step_is_there_once(tmp_path, seed):
    rng, reached = random.Random(seed), 0
    run(CONFIG, tmp_path / "straight")
    for _ in range(3):
        process = forked(lambda: run(CONFIG, tmp_path / "run", "latest"))
        log = tmp_path / "run" / "metrics.jsonl"
        while reached < 36 and (len(log.read_bytes().splitlines()) if log.exists() else 0) <= reached:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(process, signal.SIGKILL)
        assert ended(process) in (0, -signal.SIGKILL)
        found = lines(tmp_path / "run")
        assert found == list(range(1, len(found) + 1))
        reached = max(reached, len(found))
    run(CONFIG, tmp_path / "run", "latest")
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")
    assert [n[0] for n in numbers(tmp_path / "run")] == list(range(1, 41))


def test_a_process_that_is_killed_while_it_writes_stops_no_other():
    """Of the tests themselves: a lock that a forked process shared would stay taken."""
    tqdm.get_lock()

    def writes():
        with tqdm.get_lock():
            os.kill(os.getpid(), signal.SIGKILL)

    assert alone(writes) == -signal.SIGKILL
    assert TqdmDefaultWriteLock.mp_lock.acquire(timeout=10)
    TqdmDefaultWriteLock.mp_lock.release()


@pytest.mark.parametrize("cut", [1, 9, 60])
def test_a_last_line_that_is_cut_is_written_again(tmp_path, cut):
    config = tiny(n_steps=8)
    run(config, tmp_path / "straight")
    process = forked(lambda: run(config, tmp_path / "run", None, crash_at(8)))
    assert ended(process) == 1
    file = tmp_path / "run" / "metrics.jsonl"
    assert lines(tmp_path / "run") == [1, 2, 3, 4, 5, 6, 7]
    file.write_bytes(file.read_bytes()[:-cut])
    run(config, tmp_path / "run", "latest")
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")
    assert lines(tmp_path / "run") == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_line_of_a_step_that_is_kept_is_lost_if_it_was_cut(tmp_path):
    """The weights are there, the step is not taken again; what follows has lines of its own."""
    run(tiny(n_steps=2), tmp_path)
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    run(tiny(n_steps=4), tmp_path, "latest")
    assert [n[0] for n in numbers(tmp_path)] == [1, 3, 4]
