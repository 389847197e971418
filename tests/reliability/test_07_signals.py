"""SIGTERM, Ctrl-C and the signals by which clusters announce the end: the step is finished, saved, and continued from.

The exit code is 128 and the number of the signal (143 for SIGTERM, 130 for Ctrl-C); that of a launcher of several
processes is its own. A second Ctrl-C stops at once, and then the steps since the last checkpoint are lost. With several
processes all agree on the step, which takes them up to ten steps.
"""

import json
import os
import random
import signal

import pytest
from tests.tiny import (
    TORCHRUN,
    TRAIN_SCRIPT,
    alone,
    assert_same_state,
    command,
    ended,
    finish,
    forked,
    numbers,
    run,
    start,
    steps_saved,
    stop_at,
    tiny,
    two_processes,
    wait_for,
    yaml_file,
)

from ddpm_ip.train.loop import Hooks

ENDLESS = {"n_steps": 100_000, "save_freq": 100_000}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_and_sets_the_exit_code(tmp_path, number, code):
    config = yaml_file(tmp_path, **ENDLESS)
    process = command("train", "-c", config, "-e", tmp_path / "run")
    wait_for(process, f"step {random.Random(number).randint(1, 40)}/100000")
    process.send_signal(number)
    returned, output = finish(process)
    assert returned == code, output
    (step,) = steps_saved(tmp_path / "run")
    assert f"stopped by signal {int(number)} at step {step}" in output
    settings = {"n_steps": step + 3, "save_freq": 100_000}
    assert alone(lambda: run(tiny(**settings), tmp_path / "run", "latest")) == 0
    assert alone(lambda: run(tiny(**settings), tmp_path / "straight")) == 0
    assert_same_state(tmp_path / "run", tmp_path / "straight", step + 3)
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")


def test_two_processes_that_a_launcher_tells_save_together_and_go_on_exactly(tmp_path):
    process = start(*TORCHRUN, TRAIN_SCRIPT, "-c", yaml_file(tmp_path, **ENDLESS), "-e", tmp_path / "run")
    wait_for(process, f"step {random.Random(0).randint(1, 25)}/100000")
    process.terminate()
    returned, output = finish(process)
    assert returned != 0
    (step,) = steps_saved(tmp_path / "run")
    assert step % 10 == 0
    assert f"stopped by signal 15 at step {step}" in output
    check_that_two_go_on(tmp_path, step)


def check_that_two_go_on(folder, step):
    assert not (folder / "run" / "lock").exists()
    last = tiny(n_steps=step + 2, save_freq=100_000)
    for name, resume in (("run", "latest"), ("straight", None)):
        assert two_processes(lambda name=name, resume=resume: run(last, folder / name, resume)) == [0, 0]
    assert_same_state(folder / "run", folder / "straight", step + 2)
    assert numbers(folder / "run") == numbers(folder / "straight")
    assert [n[0] for n in numbers(folder / "run")] == list(range(1, step + 3))


@pytest.mark.parametrize(("told", "number"), [(0, signal.SIGINT), (1, signal.SIGUSR1)])
def test_one_of_two_processes_that_is_told_stops_both(tmp_path, told, number):
    """Whichever it is, after the same step."""
    outcomes = tmp_path / "outcomes"
    outcomes.mkdir()

    def call():
        rank = int(os.environ["RANK"])
        outcome = run(tiny(**ENDLESS), tmp_path / "run", None, stop_at(13, number) if rank == told else Hooks())
        (outcomes / str(rank)).write_text(json.dumps([outcome.step, outcome.signal]))

    assert two_processes(call) == [0, 0]
    assert [json.loads((outcomes / str(rank)).read_text()) for rank in (0, 1)] == [[20, number]] * 2
    assert steps_saved(tmp_path / "run") == [20]
    check_that_two_go_on(tmp_path, 20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_handlers_are_put_back(tmp_path, number):
    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    before, during = [signal.getsignal(n) for n in watched], []

    def on_step(step):
        during.extend(signal.getsignal(n) for n in watched)
        stop_at(3, number).on_step(step)

    outcome = run(tiny(), tmp_path, None, Hooks(on_step))
    assert (outcome.step, outcome.signal) == (3, number)
    assert steps_saved(tmp_path) == [2, 3]
    assert [signal.getsignal(n) for n in watched] == before
    assert not set(during) & set(before)
    assert not (tmp_path / "lock").exists()


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    def twice(step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            signal.getsignal(signal.SIGINT)  # both have arrived by now

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tiny(), tmp_path, None, Hooks(on_step=twice))
    assert steps_saved(tmp_path) == [2]
    assert signal.getsignal(signal.SIGINT) is before
    assert not (tmp_path / "lock").exists()


def test_a_signal_during_a_save_waits_for_it(tmp_path):
    """It is in one piece, and the run stops after that step."""

    def on_write(name):
        os.kill(os.getpid(), signal.SIGTERM)

    def call():
        outcome = run(tiny(), tmp_path, None, Hooks(on_write=on_write))
        assert (outcome.step, outcome.signal) in {(2, signal.SIGTERM), (3, signal.SIGTERM)}

    assert ended(forked(call)) == 0
    assert 2 in steps_saved(tmp_path)
    assert list((tmp_path / "ckpt").glob(".*")) == []
