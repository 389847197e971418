"""Training in processes of its own: kills, signals, and several processes."""

import json
import os
import random
import signal
import subprocess
import time

import pytest
import torch
from tests.tiny import (
    TORCHRUN,
    TRAIN_SCRIPT,
    assert_same_state,
    finish,
    largest_difference,
    numbers,
    run,
    start,
    steps_saved,
    tiny,
    wait_for,
    weights,
    yaml_file,
)

from ddpm_ip.run import checkpoint
from ddpm_ip.train.loop import Hooks

# Begins the run again and again, each time in a process of its own, forked so that PyTorch is imported once. A run
# stops after each step and each file that it writes, until it reads a byte; at the end of its input it continues alone.
RUNS = """
import os, sys
import torch._dynamo, torch.utils.tensorboard
from pathlib import Path
from ddpm_ip.config import load
from ddpm_ip.train.loop import Hooks, train

def halt(where):
    print("halted at", where, os.getpid(), flush=True)
    os.read(0, 1)

config = load(sys.argv[1])
for _ in range(int(sys.argv[3])):
    if (process := os.fork()) == 0:
        train(config, Path(sys.argv[2]), "latest", Hooks(on_step=halt, on_write=halt))
        os._exit(0)
    print("run ended", os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


def test_kill_9_at_random_places_changes_nothing(tmp_path):
    """The kill comes somewhere on the way to the next place where the run stops, or there, and so never too late."""
    settings = {"n_steps": 30, "save_freq": 2, "print_freq": 3}
    run(tiny(**settings), tmp_path / "straight")
    config, folder, rng, kills = yaml_file(tmp_path, **settings), tmp_path / "run", random.Random(1), 6
    runs = start("-c", RUNS, config, folder, kills + 1, stdin=subprocess.PIPE)
    for _ in range(kills):
        for _ in range(rng.randint(1, 13)):  # a step and its files are 5 places, and 90 make a run
            process = int(wait_for(runs, "halted at").split()[-1])
            runs.stdin.write("\n")
            runs.stdin.flush()
        time.sleep(rng.uniform(0, 0.02))
        os.kill(process, signal.SIGKILL)
        assert wait_for(runs, "run ended").strip() == f"run ended {-signal.SIGKILL}"
    code, output = finish(runs)
    assert (code, output.splitlines()[-1]) == (0, "run ended 0"), output
    assert_same_state(folder, tmp_path / "straight", 30)
    assert numbers(folder) == numbers(tmp_path / "straight")
    assert steps_saved(folder) == [28, 30]
    assert list((folder / "ckpt").glob(".*")) == []
    assert not (folder / "lock").exists()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_and_sets_the_exit_code(tmp_path, number, code):
    config = yaml_file(tmp_path, n_steps=100_000, save_freq=100_000)
    process = start(TRAIN_SCRIPT, "-c", config, "-e", tmp_path / "run")
    wait_for(process, "step 1/100000")
    process.send_signal(number)
    returned, output = finish(process)
    assert returned == code, output
    (step,) = steps_saved(tmp_path / "run")
    assert f"stopped by signal {int(number)} at step {step}" in output
    settings = {"n_steps": step + 3, "save_freq": 100_000}
    run(tiny(**settings), tmp_path / "run", "latest")
    run(tiny(**settings), tmp_path / "straight")
    assert_same_state(tmp_path / "run", tmp_path / "straight", step + 3)
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")


def test_what_was_ignored_at_the_start_stays_ignored(tmp_path):
    """As SIGHUP is under nohup."""
    config = yaml_file(tmp_path, n_steps=100_000, save_freq=100_000)
    code = "import runpy, signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nsys.argv = sys.argv[1:]\n"
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    process = start("-c", code, TRAIN_SCRIPT, "-c", config, "-e", tmp_path / "run")
    wait_for(process, "step 1/100000")
    process.send_signal(signal.SIGHUP)
    wait_for(process, "step ")
    process.send_signal(signal.SIGUSR2)
    returned, output = finish(process)
    assert returned == 140, output
    assert "stopped by signal 12 at step" in output


def test_one_of_two_processes_that_is_told_stops_both(tmp_path):
    config = yaml_file(tmp_path, {"dropout": 0.0}, n_steps=100_000, save_freq=100_000)
    process = start(*TORCHRUN, TRAIN_SCRIPT, "-c", config, "-e", tmp_path / "run")
    wait_for(process, "step 1/100000")
    os.kill(json.loads((tmp_path / "run" / "lock").read_text())["pid"], signal.SIGUSR1)
    returned, output = finish(process)
    assert returned != 0
    (step,) = steps_saved(tmp_path / "run")
    assert f"stopped by signal 10 at step {step}" in output


def test_sigterm_to_two_processes_saves_and_the_run_goes_on(tmp_path):
    still = {"dropout": 0.0}
    config = yaml_file(tmp_path, still, n_steps=100_000, save_freq=100_000)
    process = start(*TORCHRUN, TRAIN_SCRIPT, "-c", config, "-e", tmp_path / "run")
    wait_for(process, "step 1/100000")
    process.terminate()
    returned, output = finish(process)
    assert returned != 0
    (step,) = steps_saved(tmp_path / "run")
    assert step % 10 == 0
    assert f"stopped by signal 15 at step {step}" in output
    assert not (tmp_path / "run" / "lock").exists()
    outcome = run(tiny(still, n_steps=step + 2, save_freq=100_000), tmp_path / "run", "latest")
    assert (outcome.step, outcome.signal) == (step + 2, None)
    assert [n[0] for n in numbers(tmp_path / "run")] == list(range(1, step + 3))


def test_two_processes_train_as_one(tmp_path):
    still = {"dropout": 0.0}
    settings = {"n_steps": 10, "save_freq": 10, "optim": {"lr": 1e-3, "eps": 1e-3}}  # eps: Adam divides rounding noise
    config = yaml_file(tmp_path, still, **settings)
    code, output = finish(start(*TORCHRUN, TRAIN_SCRIPT, "-c", config, "-e", tmp_path / "two"))
    assert code == 0, output
    first = []
    run(tiny(still, **settings), tmp_path / "one", None, Hooks(on_step=first.append))
    assert first == list(range(1, 11))
    for name in ("model", "ema"):
        assert largest_difference(weights(tmp_path / "one", 10, name), weights(tmp_path / "two", 10, name)) < 1e-5
    one, two = torch.tensor(numbers(tmp_path / "one")), torch.tensor(numbers(tmp_path / "two"))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    assert checkpoint.newest(tmp_path / "two" / "ckpt").meta["count"] == 0
    run(tiny(still, **{**settings, "optim": {"lr": 1e-9}}), tmp_path / "still")
    assert largest_difference(weights(tmp_path / "one", 10), weights(tmp_path / "still", 10)) > 1e-3, "it has learned"
