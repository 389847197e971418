"""Training in this process: stopping and going on, failures, and what is refused."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tests.tiny import (
    Crash,
    assert_same_state,
    contents,
    crash_at,
    numbers,
    options,
    run,
    step_folder,
    steps_saved,
    tiny,
    tree,
    yaml_file,
)

from ddpm_ip.cli import main
from ddpm_ip.config import from_dict, merge
from ddpm_ip.errors import CheckpointError, ConfigError, DataError
from ddpm_ip.run import checkpoint
from ddpm_ip.sample import program
from ddpm_ip.sample.program import sample
from ddpm_ip.train import loop, path
from ddpm_ip.train.loop import Hooks


def test_going_on_from_an_earlier_checkpoint_keeps_what_is_then_made(tmp_path):
    """-r PATH of an earlier step: a later -r latest must go on with the new branch, not with the abandoned one."""
    run(tiny(save_freq=1, n_steps=6, keep_last=6), tmp_path)
    config = from_dict(merge(tree(save_freq=1, n_steps=6), {"train.optim.lr": 0.01}))
    with pytest.raises(Crash):
        run(config, tmp_path, str(step_folder(tmp_path, 2)), crash_at(5))
    found = checkpoint.newest(tmp_path / "ckpt")
    assert found.step == 4
    assert found.meta["config"]["train"]["optim"]["lr"] == 0.01


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


def test_a_batch_that_cannot_be_shared_is_refused():
    config = tiny(batch_size=7)
    with pytest.raises(ConfigError, match="batch_size 7 is not divisible by the 2 processes"):
        loop.check(config, config.data.open(), 2)


def test_images_that_do_not_fit_the_network_are_refused(tmp_path):

    for size in ([6, 9], [9, 6]):
        config = from_dict(merge(tree(), {"data.image_size": size}))
        with pytest.raises(ConfigError, match=rf"images of {size[0]}x{size[1]} cannot be halved 1 times"):
            loop.check(config, config.data.open(progress=False), 1)
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    data = {"name": "folder", "root": str(tmp_path), "image_size": 8, "mode": "rgba", "cache": str(tmp_path / "cache")}
    config = from_dict({**tree(), "data": data})
    with pytest.raises(DataError, match=r"4 channels, model.in_channels is 1: set --data.mode gray to convert, or set"):
        loop.check(config, config.data.open(progress=False), 1)


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
        ({"sampling.steps": 2000}, "the section sampling.*2000; choose 1..1000"),
        ({"sampling.spacing": "quad", "train.sample_freq": 2, "train.sample_steps": 100}, "train.sample_steps: 100"),
        ({"sampling.spacing": "quad", "train.eval.every": 2, "train.eval.steps": 200}, "train.eval.steps: 200"),
        ({"sampling.sampler.var_type": "learned_range", "train.sample_freq": 2}, "network with learned variance"),
        ({"sampling.corrections": [{"name": "epsilon_scaling"}] * 2, "train.sample_freq": 2}, "is given twice"),
    ],
)
def test_images_that_cannot_be_made_are_told_before_the_first_step(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        run(from_dict(merge(tree(), change)), tmp_path / "run", hooks=Hooks(on_step=lambda step: pytest.fail("a step")))


def test_a_schedule_that_does_not_end_in_noise_is_told_of(tmp_path, capfd):
    config = from_dict(merge(tree(n_steps=1, save_freq=1), {"diffusion.total_steps": 100}))
    run(config, tmp_path / "run")
    text = (tmp_path / "run" / "log.txt").read_text()
    assert "alpha_bar is 0.36 at" in text
    assert "--diffusion.beta_end 0.19" in text
    program._warn_of.cache_clear()
    capfd.readouterr()
    for name in ("a", "b"):
        sample(config, tmp_path / "run", tmp_path / name, options(n_samples=1, respace_steps=2))
    assert capfd.readouterr().err.count("alpha_bar is 0.36 at") == 1, "once a process"
    run(tiny(n_steps=1, save_freq=1), tmp_path / "other")
    assert "alpha_bar" not in (tmp_path / "other" / "log.txt").read_text()


def test_the_grid_is_announced_before_it_is_sampled(monkeypatch, caplog):
    """On a CPU it can take minutes, in which nothing else is printed."""
    config = tiny(**{"n_samples": 5})
    state = SimpleNamespace(step=7)
    said = []

    def sampled(model, sampling, n):
        said.extend(caplog.messages)
        return np.zeros((n, 1, 8, 8), np.uint8)

    monkeypatch.setattr(loop, "preview", sampled)
    with caplog.at_level("INFO", "ddpm_ip.train"):
        loop._sample(SimpleNamespace(config=config, averaged=None, state=state), None)
    assert said == ["sampling 5 images for the grid of step 7"]
