"""Training in processes of its own: kills, signals, and several processes."""

import random
import signal
import time

import pytest
import torch
from tests.tiny import (
    TORCHRUN,
    TRAIN_SCRIPT,
    assert_same_state,
    end_group,
    finish,
    largest_difference,
    numbers,
    run,
    start,
    steps_saved,
    tiny,
    weights,
    yaml_file,
)

from ddpm_ip.run import checkpoint
from ddpm_ip.train.loop import Hooks

SLOW_RUN = """
import sys, time
from pathlib import Path
from ddpm_ip.config import load
from ddpm_ip.train.loop import Hooks, train

def on_step(step):
    print("step", flush=True)
    time.sleep(0.02)

hooks = Hooks(on_step, on_write=lambda name: time.sleep(0.02))
train(load(sys.argv[1]), Path(sys.argv[2]), "latest", hooks)
"""


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        if time.monotonic() > end:
            end_group(process)
            pytest.fail("nothing happened:\n" + process.communicate()[0])
        time.sleep(0.02)


def test_kill_9_at_random_times_changes_nothing(tmp_path):
    settings = {"n_steps": 30, "save_freq": 2, "print_freq": 3}
    run(tiny(**settings), tmp_path / "straight")
    config, folder, rng = yaml_file(tmp_path, **settings), tmp_path / "run", random.Random(1)
    for _ in range(5):
        process = start("-c", SLOW_RUN, config, folder)
        assert any(line.strip() == "step" for line in process.stdout), "it has begun to train"
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run should be too long to end before the kill"
    code, output = finish(start("-c", SLOW_RUN, config, folder))
    assert code == 0, output
    assert_same_state(folder, tmp_path / "straight", 30)
    assert numbers(folder) == numbers(tmp_path / "straight")
    assert steps_saved(folder) == [28, 30]
    assert list((folder / "ckpt").glob(".*")) == []
    assert not (folder / "lock").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_sets_the_exit_code(tmp_path, number, code):
    config = yaml_file(tmp_path, n_steps=100_000, save_freq=100_000)
    process = start(TRAIN_SCRIPT, "-c", config, "-e", tmp_path / "run")
    wait_for((tmp_path / "run" / "metrics.jsonl").exists, process)
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


def test_sigterm_to_two_processes_saves_and_the_run_goes_on(tmp_path):
    still = {"dropout": 0.0}
    config = yaml_file(tmp_path, still, n_steps=100_000, save_freq=100_000)
    process = start(*TORCHRUN, TRAIN_SCRIPT, "-c", config, "-e", tmp_path / "run")
    wait_for((tmp_path / "run" / "metrics.jsonl").exists, process)
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
