"""A save that is cut off, wherever, leaves no checkpoint under its name; the one before stays, and is continued.

Not promised: that the folder is clean at once. What a killed process was writing lies under a name of its own until the
next start of the run.
"""

import os
import signal

import pytest
from tests.tiny import FILES, Crash, alone, assert_same_state, contents, ended, forked, numbers, run, step_folder, tiny

from ddpm_ip.errors import OutOfMemory
from ddpm_ip.run import checkpoint
from ddpm_ip.train.loop import Hooks

CONFIG = tiny(n_steps=6, save_freq=2)
WRITTEN = [name for name in FILES if name != "manifest.json"]  # in this order, and a hook follows each


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert alone(lambda: run(CONFIG, folder)) == 0
    return folder


def in_the_second_save(name, do) -> Hooks:
    """Does something once that file of the checkpoint of step 4 is written."""
    now = [0]

    def on_write(written):
        if (now[0], written) == (4, name):
            do()

    return Hooks(lambda step: now.__setitem__(0, step), on_write)


def check_what_is_left(folder):
    assert not step_folder(folder, 4).exists()
    found = checkpoint.newest(folder / "ckpt")
    assert (found.step, found.path) == (2, step_folder(folder, 2))


def check_that_it_goes_on(folder, straight):
    before, left = contents(step_folder(folder, 2)), []
    look = Hooks(lambda step: left.append((step, contents(step_folder(folder, 2)) == before, unfinished(folder))))
    run(CONFIG, folder, "latest", look)
    assert left[:2] == [(3, True, []), (4, True, [])]
    assert_same_state(folder, straight, 6)
    assert numbers(folder) == numbers(straight)
    assert unfinished(folder) == []


def unfinished(folder):
    return sorted(path.name for path in (folder / "ckpt").glob(".*"))


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize(
    ("raised", "seen"), [(Crash, Crash), (KeyboardInterrupt, KeyboardInterrupt), (MemoryError, OutOfMemory)]
)
def test_a_writer_that_raises(tmp_path, straight, name, raised, seen):
    def fail():
        raise raised("in the middle of a checkpoint")

    with pytest.raises(seen):
        run(CONFIG, tmp_path, None, in_the_second_save(name, fail))
    check_what_is_left(tmp_path)
    if (name, raised) == (WRITTEN[0], Crash):
        check_that_it_goes_on(tmp_path, straight)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_process_that_is_halted_and_then_killed(tmp_path, straight, name):
    """What a reader sees meanwhile, and what the next start does."""
    halt = in_the_second_save(name, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    process = forked(lambda: run(CONFIG, tmp_path, None, halt))
    assert os.WIFSTOPPED(os.waitpid(process, os.WUNTRACED)[1])
    check_what_is_left(tmp_path)
    assert len(unfinished(tmp_path)) == 1
    os.kill(process, signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL
    check_what_is_left(tmp_path)
    check_that_it_goes_on(tmp_path, straight)
