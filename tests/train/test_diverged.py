"""A run whose numbers are no longer finite saves nothing, and what it says is true of the disk."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import resign, run, step_folder, steps_saved, tiny, weights, yaml_file

from ddpm_ip.cli import main
from ddpm_ip.errors import CheckpointError, Diverged
from ddpm_ip.run import checkpoint
from ddpm_ip.train.step import TrainStep


def poison(monkeypatch, step, part, value=float("nan")):
    """Puts such a number into a part of the state in that step, as an optimizer's overflow does."""
    ordinary = TrainStep.__call__

    def call(self):
        result = ordinary(self)
        if self.state.step == step:
            tensor = max(self.state.tensors()[part].values(), key=torch.numel)
            with torch.no_grad():
                tensor[(0,) * tensor.ndim] = value
        return result

    monkeypatch.setattr(TrainStep, "__call__", call)


def named(error, folder: Path) -> int | None:
    """The step of the checkpoint that an error names, which is there and finite."""
    found = re.search(r"finite is (\S+) \(step (\d+)\)", str(error))
    if found is None:
        return None
    assert checkpoint.read(Path(found[1])).step == int(found[2])
    assert Path(found[1]).parent == folder / "ckpt"
    return int(found[2])


@pytest.mark.parametrize("lr", ["1e39", "1e300"])
def test_a_learning_rate_that_ruins_the_first_step_saves_nothing_and_says_so(tmp_path, capsys, lr):
    config = yaml_file(tmp_path, save_freq=1, n_steps=20)
    command = ["train", "-c", str(config), "-e", str(tmp_path / "run"), "--train.optim.lr", lr]
    assert main(command) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the state after step 1 is not finite (" in said
    assert f"There is no checkpoint in {tmp_path / 'run' / 'ckpt'} yet" in said
    assert "train.optim.lr" in said
    assert steps_saved(tmp_path / "run") == []
    assert not list((tmp_path / "run").rglob("*.safetensors"))


@pytest.mark.parametrize("part", ["model", "ema", "optimizer"])
@pytest.mark.parametrize("save_freq", [1, 2])
def test_the_newest_finite_checkpoint_is_named(tmp_path, monkeypatch, part, save_freq):
    """Whatever is not finite, at the step itself or at the next save."""
    poison(monkeypatch, 3, part, float("inf"))
    with pytest.raises(Diverged, match="finite") as caught:
        run(tiny(save_freq=save_freq, n_steps=10), tmp_path)
    assert named(caught.value, tmp_path) == max(steps_saved(tmp_path)) == 2
    assert f"-r latest -e {tmp_path}" in str(caught.value)
    monkeypatch.undo()
    assert run(tiny(save_freq=save_freq, n_steps=4), tmp_path, "latest").step == 4


def test_the_last_step_is_not_saved_either(tmp_path, monkeypatch):
    poison(monkeypatch, 6, "model")
    with pytest.raises(Diverged, match="the state after step 6 is not finite"):
        run(tiny(), tmp_path)
    assert steps_saved(tmp_path) == [2, 4]


@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_the_best_weights_are_not_replaced_by_ruined_ones(tmp_path, monkeypatch, part):
    """An evaluation between two saves: nothing that is not finite gets into best/."""
    poison(monkeypatch, 3, part)
    with pytest.raises(Diverged, match="finite") as caught:
        run(tiny(save_freq=2, n_steps=4, eval={"every": 3, "n_samples": 8, "steps": 2}), tmp_path)
    assert named(caught.value, tmp_path) == 2
    assert not list((tmp_path / "best").glob("step*"))


@pytest.mark.parametrize(
    "settings", [{"sample_freq": 2}, {"eval": {"every": 2, "n_samples": 8, "steps": 2}}], ids=["preview", "evaluation"]
)
def test_images_during_training_that_are_not_finite_are_neither_shown_nor_measured(tmp_path, monkeypatch, settings):
    """Of weights that are finite, but so large that no image comes out."""
    poison(monkeypatch, 2, "ema", 1e38)
    with pytest.raises(Diverged, match="the averaged network does not make images: what comes out is not finite"):
        run(tiny(n_steps=4, **settings), tmp_path)
    assert steps_saved(tmp_path) == [2]
    assert not list(tmp_path.glob("samples/*"))
    assert not (tmp_path / "evaluations.jsonl").exists()


def ruin(folder, step, part="model"):
    """What version 0.1 left of a run that had diverged."""
    tensors = load_file(step_folder(folder, step) / f"{part}.safetensors")
    max(tensors.values(), key=torch.numel).fill_(float("nan"))
    save_file(tensors, step_folder(folder, step) / f"{part}.safetensors")
    resign(step_folder(folder, step))


def test_a_run_of_version_0_1_that_was_ruined_continues_from_before(tmp_path, warnings_of):
    run(tiny(n_steps=6), tmp_path)
    ruin(tmp_path, 6)
    before = weights(tmp_path, 4)
    assert run(tiny(n_steps=6), tmp_path, "latest").step == 6
    assert steps_saved(tmp_path) == [4, 6]
    assert all(bool(v.isfinite().all()) for v in weights(tmp_path, 6).values())
    assert all(torch.equal(v, before[k]) for k, v in weights(tmp_path, 4).items())
    text = (tmp_path / "log.txt").read_text()
    assert "step00000006 is later than step 4, where the run continues" in text
    for step in (4, 6):
        ruin(tmp_path, step, "ema")
    with pytest.raises(CheckpointError, match=r"(?s)step00000006.*step00000004.*start again in another folder"):
        run(tiny(n_steps=8), tmp_path, "latest")


def test_a_step_that_a_scaler_skips_is_no_divergence(tmp_path):
    """Infinite gradients under fp16: the norm is infinite, the weights are not, and the run is saved."""
    from ddpm_ip.engine import start_engine
    from ddpm_ip.run.folder import RunFolder
    from ddpm_ip.sample.generator import Model
    from ddpm_ip.train.followed import follow
    from ddpm_ip.train.loop import _save, build
    from ddpm_ip.train.run import Run

    config = tiny()
    engine, images = start_engine(None), config.data.open(progress=False)
    state, _ = build(config, images, engine)
    state.scaler = torch.amp.GradScaler("cpu")
    state.step, state.sums.count = 1, 1
    state.sums.total += torch.tensor([0.5, float("inf")])
    the_run = Run(config, RunFolder(tmp_path), images, state, Model(config, state.ema.network, engine))
    metrics = follow(the_run, None)
    _save(the_run, None, metrics, must_succeed=True)
    assert steps_saved(tmp_path) == [1]
    state.scaler = None
    with pytest.raises(Diverged, match="gradient norm \\(inf\\)"):
        _save(the_run, None, metrics, must_succeed=True)
    metrics.close()


def test_weights_that_are_finite_and_ruined_are_not_advised_for_ever(tmp_path, capsys):
    """After a step of 1e30 the loss overflows at once, whatever the learning rate: the one before is named."""
    config, folder = yaml_file(tmp_path, save_freq=1, n_steps=2), tmp_path / "run"
    assert main(["train", "-c", str(config), "-e", str(folder)]) == 0
    again = ["train", "-e", str(folder), "-r", "latest", "--train.n_steps", "6"]
    assert main([*again, "--train.optim.lr", "1e30"]) == 1
    for _ in range(2):
        capsys.readouterr()
        assert main([*again, "--train.optim.lr", "1e-5"]) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"It continued from {step_folder(folder, 3)} and made no other" in said
        assert "is ruined, though its numbers are finite" in said
    earlier = re.search(r"before it \(-r (\S+) -e (\S+)\)", said)
    assert (Path(earlier[1]), Path(earlier[2])) == (step_folder(folder, 2), folder)
    assert main(["train", "-e", earlier[2], "-r", earlier[1], "--train.n_steps", "4"]) == 0


def test_if_there_is_none_before_it_the_run_is_to_start_again(tmp_path, capsys):
    config, folder = yaml_file(tmp_path, save_freq=1, n_steps=3), tmp_path / "run"
    assert main(["train", "-c", str(config), "-e", str(folder), "--train.optim.lr", "1e30"]) == 1
    assert main(["train", "-e", str(folder), "-r", "latest", "--train.optim.lr", "1e-5"]) == 1
    assert "there is none before it; then start again in another folder (-e)" in capsys.readouterr().err
