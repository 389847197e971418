"""Runs that begin with the weights of another: what they take, what they say, and that they need it no more."""

import json
import shutil

import pytest
import torch
from tests.tiny import (
    Crash,
    assert_same_state,
    briefly_trained,
    crash_at,
    meta,
    run,
    step_folder,
    tiny,
    weights,
    yaml_file,
)

from ddpm_ip import notebook
from ddpm_ip.cli import main
from ddpm_ip.errors import CheckpointError, ConfigError
from ddpm_ip.run.identity import identity
from ddpm_ip.settings import Wanted


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return briefly_trained(tmp_path_factory.mktemp("source"))


def tuned(source, **settings):
    options = {f"train.{key}": value for key, value in settings.items()}
    return Wanted(options={"perturbation.gamma": 0.2, "train.n_steps": 4, **options}, init_from=source)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def test_it_begins_with_the_average_and_says_so(source, tmp_path):
    """Network and averages; the optimizer with nothing; settings of the source with the options on top."""
    run(tuned(source, keep_every=1, ema_decay=[0.9, 0.5]), tmp_path)
    average = weights(source, 6, "ema")
    assert not same(average, weights(source, 6))
    assert all(same(average, weights(tmp_path, 0, part)) for part in ("model", "ema", "ema_2"))
    assert not (step_folder(tmp_path, 0) / "optimizer.safetensors").exists()
    found = meta(tmp_path, 4)
    assert found["config"]["perturbation"]["gamma"] == 0.2
    assert found["config"]["train"]["optim"]["lr"] == 1e-2, "as the source"
    origin = found["init_from"]
    files = json.loads((step_folder(source, 6) / "manifest.json").read_text())
    assert origin["path"] == str(step_folder(source, 6))
    assert (origin["step"], origin["averaged"]) == (6, True)
    assert origin["sha256"] == files["ema.safetensors"]["sha256"]
    assert json.loads((tmp_path / "provenance.json").read_text())["init_from"] == origin
    assert identity(tmp_path).init_from == origin
    told = found["history"][0]
    assert told["step"] == 0
    assert told["changes"][0].startswith(f"weights: initial -> those of {origin['path']} at step 6")
    assert "initial weights" not in (tmp_path / "log.txt").read_text(), "what is left in the average is no noise"


def test_another_file_gives_the_network_itself(source, tmp_path):
    run(tuned(step_folder(source, 6) / "model.safetensors", keep_every=1), tmp_path)
    assert same(weights(tmp_path, 0), weights(source, 6))
    assert (meta(tmp_path, 4)["init_from"]["step"], meta(tmp_path, 4)["init_from"]["averaged"]) == (6, False)


def test_it_continues_to_the_bit_without_its_source(source, tmp_path):
    """Where it was killed before the first checkpoint of its own steps."""
    copy = shutil.copytree(source, tmp_path / "source")
    run(tuned(copy, sample_freq=2), tmp_path / "straight")
    with pytest.raises(Crash):
        run(tuned(copy, sample_freq=2), tmp_path / "killed", hooks=crash_at(1))
    shutil.rmtree(copy)
    run(Wanted(), tmp_path / "killed", "latest")
    assert_same_state(tmp_path / "straight", tmp_path / "killed", 4)
    assert meta(tmp_path / "killed", 4)["init_from"] == meta(tmp_path / "straight", 4)["init_from"]
    assert sorted(p.name for p in (tmp_path / "killed/samples").iterdir()) == ["step00000002.png", "step00000004.png"]
    assert meta(tmp_path / "killed", 4)["history"] == meta(tmp_path / "straight", 4)["history"]


def test_weights_of_another_network_are_told_with_the_settings_that_differ(source, tmp_path):
    config = yaml_file(tmp_path, {"dim": 16})
    with pytest.raises(CheckpointError, match=r"do not fit[\s\S]*model\.dim: trained with 8, asked for is 16"):
        run(Wanted(file=config, init_from=source), tmp_path / "run")
    assert not (tmp_path / "run/ckpt").exists()
    assert not (tmp_path / "run/config.yaml").exists()


def test_another_meaning_of_the_weights_is_warned_of(source, tmp_path):
    wanted = tuned(source)
    run(Wanted(options={**wanted.options, "diffusion.objective": "pred_v"}, init_from=source), tmp_path)
    text = (tmp_path / "log.txt").read_text()
    assert "diffusion.objective: trained with 'pred_eps', asked for is 'pred_v'" in text


def test_it_is_for_new_runs(source, tmp_path, capsys):
    given = ["train", "--init-from", str(source), "-e", str(source)]
    assert main([*given, "-r", "latest"]) == 2
    assert "--init-from begins a new run, and -r continues one" in capsys.readouterr().err
    assert main(given) == 2
    assert "holds a run already" in capsys.readouterr().err
    alone = shutil.copy(step_folder(source, 6) / "ema.safetensors", tmp_path / "alone.safetensors")
    with pytest.raises(ConfigError, match="nothing says how these weights were trained; give -c"):
        run(Wanted(init_from=alone), tmp_path / "run")
    assert run(Wanted(config=tiny(n_steps=1), init_from=alone), tmp_path / "run").step == 1


def test_from_python(source, tmp_path):
    one = notebook.new(exp_dir=tmp_path / "run", init_from=source, train={"n_steps": 2, "keep_every": 1})
    assert one.train().step == 2
    assert same(weights(tmp_path / "run", 0), weights(source, 6, "ema"))
    assert one.train(3).step == 3
    with pytest.raises(ConfigError, match="needs a configuration"):
        notebook.new()
