"""Training in this process: stopping and going on, failures, and what is refused."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.tiny import (
    assert_same_state,
    contents,
    largest_difference,
    meta,
    numbers,
    run,
    step_folder,
    steps_saved,
    tiny,
    tree,
    weights,
    yaml_file,
)

from ddpm_ip.cli import main
from ddpm_ip.config import from_dict, merge
from ddpm_ip.errors import CheckpointError, ConfigError, DataError, UserError
from ddpm_ip.objective import Objective
from ddpm_ip.run import checkpoint
from ddpm_ip.settings import Wanted
from ddpm_ip.train import loop, path
from ddpm_ip.train.loop import Hooks
from ddpm_ip.train.step import TrainStep

LONG = {"n_steps": 24, "batch_size": 128, "print_freq": 5, "save_freq": 24, "lr_warmup": 20}  # an epoch: 14.04 steps


def stop_at(step, number=signal.SIGTERM):
    return Hooks(on_step=lambda done: os.kill(os.getpid(), number) if done == step else None)


class Crash(Exception):
    pass


def crash_at(step):
    def hook(done):
        if done == step:
            raise Crash

    return Hooks(on_step=hook)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Runs of 24 steps without interruption, by micro-batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda pid: {0})
        folders = {}
        for micro in (0, 50):
            folders[micro] = tmp_path_factory.mktemp(f"straight{micro}") / "run"
            run(tiny(**LONG, micro_batch=micro), folders[micro])
    return folders


@pytest.mark.parametrize(("micro", "stops"), [(0, [1]), (0, [7]), (0, [12]), (50, [3, 14, 15])])
def test_a_run_that_goes_on_is_the_run_that_never_stopped(tmp_path, straight, micro, stops):
    config = tiny(**LONG, micro_batch=micro)
    for i, at in enumerate(stops):
        outcome = run(config, tmp_path / "run", "latest" if i else None, stop_at(at))
        assert (outcome.step, outcome.signal) == (at, signal.SIGTERM)
    assert run(config, tmp_path / "run", "latest").signal is None
    assert_same_state(tmp_path / "run", straight[micro], 24)
    assert numbers(tmp_path / "run") == numbers(straight[micro])
    assert [n[0] for n in numbers(straight[micro])] == [5, 10, 15, 20, 24]


def test_a_run_that_crashed_goes_on_from_the_last_checkpoint(tmp_path):
    config = tiny(n_steps=9, save_freq=3)
    run(config, tmp_path / "straight")
    with pytest.raises(Crash):
        run(config, tmp_path / "run", None, crash_at(8))
    assert steps_saved(tmp_path / "run") == [3, 6]
    assert len(numbers(tmp_path / "run")) == 7
    run(config, tmp_path / "run", "latest")
    assert_same_state(tmp_path / "run", tmp_path / "straight", 9)
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")


def test_dropout_is_at_work(tmp_path):
    """Else the tests above would not notice masks that differ after resuming. (At first zeros hide them.)"""
    run(tiny(n_steps=4), tmp_path / "a")
    run(tiny({"dropout": 0.0}, n_steps=4), tmp_path / "b")
    assert numbers(tmp_path / "a")[3][1] != numbers(tmp_path / "b")[3][1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handled_and_the_handlers_are_put_back(tmp_path, number):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    outcome = run(tiny(), tmp_path, None, stop_at(3, number))
    assert (outcome.step, outcome.signal) == (3, number)
    assert steps_saved(tmp_path) == [2, 3]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    assert not (tmp_path / "lock").exists()


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    def twice(step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            signal.getsignal(signal.SIGINT)  # both have arrived by now

    with pytest.raises(KeyboardInterrupt):
        run(tiny(), tmp_path, None, Hooks(on_step=twice))
    assert steps_saved(tmp_path) == [2]


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_training(tmp_path):
    now, seen = [0], {}

    def on_step(step):
        now[0] = step
        if step == 5:  # after the failure at step 4
            seen["saved"] = steps_saved(tmp_path)
            seen["names"] = [p.name for p in (tmp_path / "ckpt").iterdir()]
            seen["newest"] = checkpoint.newest(tmp_path / "ckpt").step

    def on_write(name):
        if now[0] == 4:
            raise OSError(28, "No space left on device")

    run(tiny(), tmp_path, None, Hooks(on_step, on_write))
    assert seen == {"saved": [2], "names": ["step00000002"], "newest": 2}
    assert steps_saved(tmp_path) == [2, 6]
    text = (tmp_path / "log.txt").read_text()
    assert "No space left on device" in text
    assert "the next attempt is in 2 steps" in text


def test_the_last_checkpoint_must_be_written(tmp_path):
    now = [0]

    def on_write(name):
        if now[0] == 6:
            raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match=r"step00000006.*No space left"):
        run(tiny(), tmp_path, None, Hooks(lambda step: now.__setitem__(0, step), on_write))
    assert sorted(p.name for p in (tmp_path / "ckpt").iterdir()) == ["step00000002", "step00000004"]


def test_a_last_checkpoint_that_fails_is_exit_code_1(tmp_path, monkeypatch, capsys):
    def full(tensors, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    assert main(["train", "-c", str(yaml_file(tmp_path, n_steps=1)), "-e", str(tmp_path / "run")]) == 1
    assert "error: cannot write the checkpoint" in capsys.readouterr().err


def test_retention_in_a_run(tmp_path):
    run(tiny(n_steps=11, save_freq=1, keep_last=3, keep_every=4), tmp_path)
    assert steps_saved(tmp_path) == [4, 8, 9, 10, 11]


def test_going_on_from_an_earlier_checkpoint_keeps_what_is_then_made(tmp_path):
    """-r PATH of an earlier step: a later -r latest must go on with the new branch, not with the abandoned one."""
    run(tiny(save_freq=1, n_steps=6, keep_last=6), tmp_path)
    config = from_dict(merge(tree(save_freq=1, n_steps=6), {"train.optim.lr": 0.01}))
    with pytest.raises(Crash):
        run(config, tmp_path, str(step_folder(tmp_path, 2)), crash_at(5))
    found = checkpoint.newest(tmp_path / "ckpt")
    assert found.step == 4
    assert found.meta["config"]["train"]["optim"]["lr"] == 0.01


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(tmp_path):
    config = tiny(n_steps=8)
    run(config, tmp_path / "straight")
    with pytest.raises(Crash):
        run(config, tmp_path / "run", None, crash_at(7))
    file = step_folder(tmp_path / "run", 6) / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    run(config, tmp_path / "run", "latest")
    assert_same_state(tmp_path / "run", tmp_path / "straight", 8)
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")


def test_two_damaged_checkpoints_do_not_push_out_the_new_ones(tmp_path):
    """Retention counts by step: what is damaged and later must not take the place of what is whole and new."""
    with pytest.raises(Crash):
        run(tiny(n_steps=8, keep_every=2), tmp_path, None, crash_at(7))
    for step in (4, 6):
        (step_folder(tmp_path, step) / "model.safetensors").write_bytes(b"")
    with pytest.raises(Crash):
        run(tiny(n_steps=8, save_freq=1), tmp_path, "latest", crash_at(4))
    assert checkpoint.newest(tmp_path / "ckpt").step == 3


def test_when_all_checkpoints_are_damaged_nothing_starts_anew(tmp_path):
    run(tiny(n_steps=4), tmp_path)
    for step in (2, 4):
        (step_folder(tmp_path, step) / "ema.safetensors").unlink()
    before = contents(tmp_path / "ckpt"), numbers(tmp_path)
    with pytest.raises(CheckpointError, match=r"(?s)step00000004: ema\.safetensors.*step00000002: ema\.safetensors"):
        run(tiny(n_steps=4), tmp_path, "latest")
    assert (contents(tmp_path / "ckpt"), numbers(tmp_path)) == before


def test_latest_in_an_empty_folder_starts_at_0_and_says_so(tmp_path):
    assert run(tiny(n_steps=1), tmp_path / "new", "latest").step == 1
    text = (tmp_path / "new" / "log.txt").read_text()
    assert "-r latest: there is no checkpoint" in text
    assert "starting at step 0" in text


def test_the_best_is_continued(tmp_path, monkeypatch):
    """From the step whose weights were the best; later checkpoints are set aside. Without one there is an error."""
    run(tiny(n_steps=4), tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"-r best: .*best holds no checkpoint.*train\.eval\.every"):
        run(tiny(n_steps=4), tmp_path / "none", "best")
    with pytest.raises(ConfigError, match="-r best continues the run in a folder"):
        run(tiny(), None, "best")
    folder = tmp_path / "run"
    config = tiny(n_steps=4, save_freq=1, keep_last=9)
    run(config, folder)
    shutil.copytree(step_folder(folder, 2), folder / "best" / "step00000002")
    run(tiny(n_steps=4, save_freq=1, keep_last=9), tmp_path / "straight")
    assert run(config, folder, "best").step == 4
    assert (folder / "ckpt" / "superseded-step00000003").is_dir()
    assert_same_state(folder, tmp_path / "straight", 4)
    assert run(config, folder, str(folder / "best" / "step00000002")).step == 4


def test_a_resumed_average_warms_up_as_an_uninterrupted_one(tmp_path):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    run(tiny(n_steps=6, ema_warmup=True), straight)
    run(tiny(n_steps=3, ema_warmup=True), resumed)
    run(tiny(n_steps=6, ema_warmup=True), resumed, "latest")
    assert_same_state(straight, resumed, 6)


def test_latest_needs_a_folder():
    with pytest.raises(ConfigError, match="-e"):
        run(tiny(), None, "latest")


def test_a_run_that_is_done_does_nothing(tmp_path):
    run(tiny(n_steps=2), tmp_path)
    kept = [tmp_path / name for name in ("config.yaml", "provenance.json", "metrics.jsonl")]
    before = contents(tmp_path / "ckpt"), [path.read_bytes() for path in kept]
    assert run(tiny(n_steps=2, print_freq=2), tmp_path, "latest").step == 2
    assert (contents(tmp_path / "ckpt"), [path.read_bytes() for path in kept]) == before, "what it says stays true"
    assert "nothing to do" in (tmp_path / "log.txt").read_text()


def test_the_same_command_again_is_refused_and_touches_nothing(tmp_path, capsys):
    command = ["train", "-c", str(yaml_file(tmp_path, n_steps=2)), "-e", str(tmp_path / "run")]
    assert main(command) == 0
    before = contents(tmp_path / "run")
    assert len(before) >= 9
    assert main(command) == 2
    assert "-r latest" in capsys.readouterr().err
    assert contents(tmp_path / "run") == before


def test_a_run_started_from_another_folder_is_not_written_into_a_third(tmp_path):
    run(tiny(n_steps=2), tmp_path / "a")
    run(tiny(n_steps=2), tmp_path / "b")
    before = contents(tmp_path / "b")
    with pytest.raises(ConfigError, match="holds a run already"):
        run(tiny(n_steps=4), tmp_path / "b", str(tmp_path / "a"))
    assert contents(tmp_path / "b") == before
    assert run(tiny(n_steps=4), tmp_path / "c", str(tmp_path / "a")).step == 4
    assert steps_saved(tmp_path / "c") == [4]


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path):
    run(tiny(n_steps=2), tmp_path)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (tmp_path / "lock").write_text(
        json.dumps({"pid": other.pid, "host": socket.gethostname()})
    )  # as version 0.1 has it
    before = contents(tmp_path)
    try:
        with pytest.raises(ConfigError, match=f"process {other.pid} on .* is training in"):
            run(tiny(n_steps=4), tmp_path, "latest")
        assert contents(tmp_path) == before
    finally:
        other.communicate(b"\n")
    assert run(tiny(n_steps=4), tmp_path, "latest").step == 4, "the lock of a process that is gone is taken over"
    assert not (tmp_path / "lock").exists()


def test_the_lock_of_a_run_says_that_it_trains_and_is_there_while_it_does(tmp_path):
    seen = []
    run(
        tiny(n_steps=1),
        tmp_path,
        hooks=Hooks(on_step=lambda step: seen.append(json.loads((tmp_path / "lock").read_text()))),
    )
    assert seen[0]["host"] == socket.gethostname()
    assert not (tmp_path / "lock").exists()


def test_a_changed_learning_rate_is_allowed_and_logged(tmp_path):
    run(tiny(n_steps=2), tmp_path)
    changed = from_dict(merge(tree(n_steps=4), {"train.optim.lr": 0.005}))
    assert run(changed, tmp_path, "latest").step == 4
    assert "train.optim.lr: 0.0002 -> 0.005" in (tmp_path / "log.txt").read_text()
    assert [n[3] for n in numbers(tmp_path)] == [0.0002, 0.0002, 0.005, 0.005]


@pytest.mark.parametrize(
    ("key", "value", "difference"),
    [
        ("model.dim", 16, "model.dim: the run has 8, asked for is 16"),
        ("diffusion.total_steps", 500, "diffusion.total_steps: the run has 1000, asked for is 500"),
        ("diffusion.objective", "pred_v", "diffusion.objective: the run has 'pred_eps', asked for is 'pred_v'"),
        ("train.ema_decay", 0.5, "train.ema_decay: the run has 0.9, asked for is 0.5"),
    ],
)
def test_another_network_or_diffusion_is_refused_with_the_difference(tmp_path, key, value, difference):
    run(tiny(n_steps=2), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=difference):
        run(from_dict(merge(tree(n_steps=4), {key: value})), tmp_path, "latest")
    assert contents(tmp_path) == before


def test_other_data_are_refused_unless_they_are_meant(tmp_path):
    pictures = tmp_path / "images"
    pictures.mkdir()

    def draw(first):
        for i in range(16):
            Image.new("L", (8, 8), first + i).save(pictures / f"{i}.png")

    draw(0)
    data = {"name": "folder", "root": str(pictures), "image_size": 8, "mode": "gray"}
    run(from_dict({**tree(n_steps=2), "data": data}), tmp_path / "run")
    draw(100)
    changed = from_dict({**tree(n_steps=4), "data": data})
    with pytest.raises(CheckpointError, match=r"the images of images are not those .*--change data"):
        run(changed, tmp_path / "run", "latest")
    assert steps_saved(tmp_path / "run") == [2]
    run(Wanted(config=changed, change=("data.root",)), tmp_path / "run", "latest")
    assert steps_saved(tmp_path / "run") == [2, 4]
    (entry,) = meta(tmp_path / "run", 4)["history"]
    assert entry["step"] == 2
    assert "data: " in entry["changes"][-1]


def test_a_batch_that_cannot_be_shared_is_refused():
    config = tiny(batch_size=7)
    with pytest.raises(ConfigError, match="batch_size 7 is not divisible by the 2 processes"):
        loop.check(config, config.data.open(), 2)


def test_images_that_do_not_fit_the_network_are_refused(tmp_path):
    from PIL import Image

    for size in ([6, 9], [9, 6]):
        config = from_dict(merge(tree(), {"data.image_size": size}))
        with pytest.raises(ConfigError, match=rf"images of {size[0]}x{size[1]} cannot be halved 1 times"):
            loop.check(config, config.data.open(progress=False), 1)
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    data = {"name": "folder", "root": str(tmp_path), "image_size": 8, "mode": "rgba", "cache": str(tmp_path / "cache")}
    config = from_dict({**tree(), "data": data})
    with pytest.raises(DataError, match=r"4 channels, model.in_channels is 1: set --data.mode gray to convert, or set"):
        loop.check(config, config.data.open(progress=False), 1)


def test_micro_batches_compute_the_whole_batch(tmp_path):
    still = {"dropout": 0.0}
    settings = {"n_steps": 10, "save_freq": 10, "optim": {"lr": 1e-3, "eps": 1e-3}}  # eps: Adam divides rounding noise
    for name, micro in (("whole", 0), ("even", 4), ("odd", 3)):
        run(tiny(still, **settings, micro_batch=micro), tmp_path / name)
    run(tiny(still, n_steps=1, optim=settings["optim"]), tmp_path / "first")
    whole = weights(tmp_path / "whole", 10)
    assert largest_difference(whole, weights(tmp_path / "first", 1)) > 1e-3, "ten steps should move the weights"
    assert largest_difference(whole, weights(tmp_path / "even", 10)) < 1e-5
    assert largest_difference(whole, weights(tmp_path / "odd", 10)) < 1e-5


def watch(monkeypatch):
    """Notes what a step that failed did to network, average and optimizer."""
    ordinary, touched = TrainStep.__call__, []

    def state(step):
        return {f"{g}.{k}": v.clone() for g, group in step.state.tensors().items() for k, v in group.items()}

    def call(step):
        before = state(step)
        try:
            return ordinary(step)
        except UserError:
            touched.append([k for k, v in state(step).items() if not torch.equal(v, before[k])])
            raise

    monkeypatch.setattr(TrainStep, "__call__", call)
    return touched


def test_a_loss_that_is_not_finite_stops_the_run_before_it_does_harm(tmp_path, monkeypatch):
    ordinary = Objective.__call__

    def poisoned(self, denoiser, x0, draws, cond):
        losses = ordinary(self, denoiser, x0, draws, cond)
        return losses if draws.step != 4 else losses._replace(per_sample=losses.per_sample * torch.nan)

    monkeypatch.setattr(Objective, "__call__", poisoned)
    touched = watch(monkeypatch)
    with pytest.raises(UserError, match="not finite at step 4"):
        run(tiny(), tmp_path)
    assert touched == [[]]
    assert checkpoint.newest(tmp_path / "ckpt").step == 4
    assert all(bool(torch.isfinite(v).all()) for v in weights(tmp_path, 4).values())


def test_gradients_that_are_not_finite_stop_the_run(tmp_path, monkeypatch):
    ordinary = TrainStep._clip

    def poisoned(self):
        for p in self.state.network.parameters():
            p.grad.mul_(float("inf") if self.state.step == 2 else 1)
        return ordinary(self)

    monkeypatch.setattr(TrainStep, "_clip", poisoned)
    touched = watch(monkeypatch)
    with pytest.raises(UserError, match="not finite at step 2"):
        run(tiny(clip_grad_norm=None), tmp_path)
    assert touched == [[]]
    assert checkpoint.newest(tmp_path / "ckpt").step == 2


def test_a_learning_rate_that_diverges_is_an_error_exit(tmp_path, capsys):
    command = ["train", "-c", str(yaml_file(tmp_path, save_freq=1, n_steps=50)), "-e", str(tmp_path / "run")]
    assert main([*command, "--train.optim.lr", "1e30"]) != 0
    assert "train.optim.lr" in capsys.readouterr().err
    found = checkpoint.newest(tmp_path / "run" / "ckpt")
    assert all(bool(torch.isfinite(v).all()) for v in found.tensors("model").values())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
        RuntimeError("Triton Error [CUDA]: invalid argument"),
        MemoryError("Unable to allocate 1 TiB"),
    ],
    ids=str,
)
def test_too_little_memory_names_the_settings_and_is_exit_code_3(tmp_path, monkeypatch, capsys, error):
    ordinary = TrainStep.__call__

    def call(self):
        if self.state.step == 2:
            raise error
        return ordinary(self)

    monkeypatch.setattr(TrainStep, "__call__", call)
    assert main(["train", "-c", str(yaml_file(tmp_path)), "-e", str(tmp_path / "run")]) == 3
    message = capsys.readouterr().err.split("error: ")[1]
    for setting in (
        "8 images of 8 x 8 pixels",
        "--train.micro_batch 4",
        "--train.mixed_precision bf16",
        "--train.batch_size",
    ):
        assert setting in message
    assert checkpoint.newest(tmp_path / "run" / "ckpt").step == 2
    assert not (tmp_path / "run" / "lock").exists()


def test_a_log_that_was_cut_off_is_repaired(tmp_path):
    config = tiny(n_steps=8)
    run(config, tmp_path / "straight")
    with pytest.raises(Crash):
        run(config, tmp_path / "run", None, crash_at(8))
    file = tmp_path / "run" / "metrics.jsonl"
    assert [n[0] for n in numbers(tmp_path / "run")] == [1, 2, 3, 4, 5, 6, 7]
    file.write_bytes(file.read_bytes()[:-9])
    run(config, tmp_path / "run", "latest")
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")
    assert [n[0] for n in numbers(tmp_path / "run")] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_log_with_a_kept_line_cut_off_still_reads(tmp_path):
    run(tiny(n_steps=2), tmp_path)
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    run(tiny(n_steps=4), tmp_path, "latest")
    assert [n[0] for n in numbers(tmp_path)] == [1, 3, 4]


def test_what_a_run_leaves(tmp_path):
    run(tiny(n_steps=2, sample_freq=2), tmp_path)
    present = {p.name for p in Path(tmp_path).iterdir()}
    assert present == {"config.yaml", "log.txt", "metrics.jsonl", "tensorboard", "ckpt", "samples", "provenance.json"}
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["step00000002.png"]
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record["data"]["count"] == 1797
    assert record["versions"]["torch"]


def test_an_average_that_forgets_too_slowly_is_warned_of(tmp_path):
    """0.9999 over a few steps leaves an untrained network: the samples would be noise, and nobody would know why."""
    for decay, warned in ((0.9999, True), (0.0, False)):
        run(tiny(n_steps=2, ema_decay=decay), tmp_path / str(decay))
        assert ("lower train.ema_decay" in (tmp_path / str(decay) / "log.txt").read_text()) is warned


def test_a_fast_path_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    """Here, without a GPU, it is compared in Triton's interpreter and then cannot be recorded; the plain path runs."""
    pytest.importorskip("triton")
    run(tiny(n_steps=3), tmp_path / "plain")
    reasons = []
    monkeypatch.setattr(path, "why_not_fast", lambda *given: None)
    monkeypatch.setattr(path, "in_one_line", lambda error: reasons.append(error) or str(error))
    run(tiny(n_steps=3), tmp_path / "fallen")
    assert len(reasons) == 1
    assert "CUDA" in str(reasons[0]) or "cuda" in str(reasons[0])
    assert_same_state(tmp_path / "fallen", tmp_path / "plain", 3)
    assert numbers(tmp_path / "fallen") == numbers(tmp_path / "plain")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sampling.spacing": "quad", "train.sample_freq": 2, "train.sample_steps": 100}, "train.sample_steps: 100"),
        ({"sampling.spacing": "quad", "train.eval.every": 2, "train.eval.steps": 200}, "train.eval.steps: 200"),
        ({"sampling.sampler.var_type": "learned_range", "train.sample_freq": 2}, "network with learned variance"),
        ({"sampling.corrections": [{"name": "epsilon_scaling"}] * 2, "train.sample_freq": 2}, "is given twice"),
    ],
)
def test_images_that_cannot_be_made_are_told_before_the_first_step(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        run(from_dict(merge(tree(), change)), tmp_path / "run", hooks=Hooks(on_step=lambda step: pytest.fail("a step")))
