"""A run that is killed at any moment continues from its newest whole checkpoint and ends with the same bytes.

Not promised: that nothing is computed twice (the steps since that checkpoint are), nor that the text log has no gaps.
The next start removes what a save left that was cut off. ``python -m tests.stress`` kills every program, many times.
"""

import json
import os
import random
import signal
import time

from tests.tiny import Forked, assert_same_state, finish, numbers, run, steps_saved, tiny, wait_for

from ddpm_ip.train.loop import Hooks


def begin_again_and_again(config, folder, times):
    """Begins the run, each time in a process of its own, forked so that PyTorch is imported once.

    A run stops after each step and each file that it writes, and says what of cut-off saves is there, until it reads a
    byte; at the end of its input it continues alone.
    """

    def halt(where):
        left = sorted(path.name for path in (folder / "ckpt").glob(".tmp-*"))
        print("halted at", json.dumps([os.getpid(), where, left]), flush=True)
        os.read(0, 1)

    for _ in range(times):
        if (process := os.fork()) == 0:
            run(config, folder, "latest", Hooks(on_step=halt, on_write=halt))
            os._exit(0)
        print("run ended", os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def halted(runs) -> tuple[int, int | str, list[str]]:
    """The next place where a run stands: its process, the step or the file, and what cut-off saves are there."""
    return json.loads(wait_for(runs, "halted at").removeprefix("halted at"))


def test_kill_9_at_random_places_changes_nothing(tmp_path):
    """Half of the kills come while a run stands at such a place, half somewhere on the way to the next one."""
    settings = {"n_steps": 40, "save_freq": 2, "print_freq": 3}
    run(tiny(**settings), tmp_path / "straight")
    folder, rng, kills = tmp_path / "run", random.Random(1), 12
    runs = Forked(lambda: begin_again_and_again(tiny(**settings), folder, kills + 1))
    cut_off = 0
    for kill in range(kills):
        for place in range(rng.randint(1, 13)):  # a step and its files are 5 places, and 120 make a run
            process, where, left = halted(runs)
            if place == 0:
                assert isinstance(where, int)
                assert left == [], "what the process before left is gone with the first step"
            runs.stdin.write("\n")
            runs.stdin.flush()
        if kill % 2:
            process, where, left = halted(runs)  # and there it stands
            assert isinstance(where, int) or len(left) == 1
            cut_off += len(left)
        else:
            time.sleep(rng.uniform(0, 0.02))
        os.kill(process, signal.SIGKILL)
        assert wait_for(runs, "run ended").strip() == f"run ended {-signal.SIGKILL}"
    assert cut_off >= 3, "some kills should come while a checkpoint is written"
    code, output = finish(runs)
    assert (code, output.splitlines()[-1]) == (0, "run ended 0"), output
    assert_same_state(folder, tmp_path / "straight", 40)
    assert numbers(folder) == numbers(tmp_path / "straight")
    assert steps_saved(folder) == [38, 40]
    assert list((folder / "ckpt").glob(".*")) == []
    assert not (folder / "lock").exists()
