"""What a sampling leaves to the weights is looked up beside them, or measured and kept there."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from tests.tiny import contents, tiny

import ddpm_ip as ip
from ddpm_ip.cli import main
from ddpm_ip.errors import ConfigError
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.weights import find_weights
from ddpm_ip.sample import analytic, filled
from ddpm_ip.sample.program import SampleOptions, sample
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.schedule import Schedule

ANALYTIC = Sampling(ip.Ancestral("analytic"), steps=3, block=4)


@pytest.fixture
def weights(trained, tmp_path, monkeypatch):
    """A run that may be written to; few images and times are measured."""
    monkeypatch.setattr(filled, "IMAGES_ON_A_CPU", 6)
    monkeypatch.setattr(analytic, "TIMES", 4)
    return shutil.copytree(trained, tmp_path / "run")


def store_of(weights) -> Measured:
    found = find_weights(weights)
    return Measured.of(found.sha256, Path(found.origin))


def make(weights, folder, sampling=ANALYTIC, config=None):
    sample(config or tiny(), weights, folder, SampleOptions(4, sampling))
    return contents(folder)


def never(*args, **kwargs):
    raise AssertionError("nothing may be measured here")


def test_the_network_is_measured_once_and_kept_beside_the_weights(weights, tmp_path, monkeypatch):
    made = make(weights, tmp_path / "a")
    file = store_of(weights).file("analytic")
    assert file.parent.parent == weights / "measured"
    there = json.loads(file.read_text())
    assert len(there["times"]) == len(there["norm"]) == len(there["residual"]) == 4
    settings = there["settings"]
    assert (settings["images"], settings["data"], settings["precision"]) == (6, "digits", "no")
    monkeypatch.setattr(analytic, "measure", never)
    assert make(weights, tmp_path / "b") == made
    facts = json.loads((tmp_path / "b" / "sampling.json").read_text())
    assert facts["sampler"]["var_type"] == "analytic"
    assert facts["sampler"]["gammas"].startswith("sha256:")


def test_the_norm_and_the_residual_are_two_variances(weights, tmp_path):
    store_of(weights).write("analytic", {"times": [0, 999], "norm": [1.0, 1.0], "residual": [0.5, 0.5]}, {})
    kinds = ("fixed_small", "analytic", "analytic_residual")
    made = [
        make(weights, tmp_path / kind, Sampling(ip.Ancestral(kind), steps=3, block=4))["000000.png"] for kind in kinds
    ]
    assert made[0] == made[1] != made[2]  # a Gamma of 1 leaves nothing of x_0, and the posterior's variance alone


def test_the_command_and_python_give_the_same_bytes(weights, tmp_path):
    given = ["--weights", str(weights), "--n_samples", "4", "--save_dir", str(tmp_path / "a"), "--batch_size", "4"]
    assert main(["sample", *given, "--var_type", "analytic", "--steps", "3"]) == 0
    walk = ip.load(weights).sample(4, sampler=ip.Ancestral("analytic"), steps=3, block=4)
    walk.save(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_learned_variance_is_no_hindrance(tmp_path, monkeypatch):
    monkeypatch.setattr(filled, "IMAGES_ON_A_CPU", 6)
    monkeypatch.setattr(analytic, "TIMES", 4)
    run = ip.new(tiny(n_steps=1, save_freq=1), tmp_path / "run", diffusion={"var_type": "learned_range"}).train()
    assert run.sample(2, sampler=ip.Ancestral("analytic"), steps=3, block=2).images.shape == (2, 1, 8, 8)


def test_what_cannot_be_kept_is_used_and_said(weights, tmp_path, capsys):
    (weights / "measured").write_text("")  # in the place of the folder
    made = make(weights, tmp_path / "a")
    assert "measured again by the next call" in capsys.readouterr().err
    (weights / "measured").unlink()
    assert make(weights, tmp_path / "b") == made


def test_data_that_are_not_there_are_said(weights, tmp_path):
    away = ip.new(tiny(), data={"name": "folder", "root": str(tmp_path / "nowhere"), "image_size": 8, "mode": "gray"})
    with pytest.raises(ConfigError, match=r"(?s)on its training images.*nowhere.*copy .*analytic\.json"):
        make(weights, tmp_path / "a", config=away.config)
    assert not (weights / "measured").exists()
    make(weights, tmp_path / "b")
    make(weights, tmp_path / "a", config=away.config)  # measured meanwhile


@pytest.mark.parametrize(
    "damage",
    [
        {"norm": [0.5]},
        {"norm": [0.5, 0.5, None, 0.5]},
        {"times": [0, 5, 3, 999]},
        {"times": [0, 1, 2, 998]},
        {"times": []},
        {"times": {}},
    ],
    ids=str,
)
def test_damaged_numbers_are_refused(weights, tmp_path, damage):
    file = store_of(weights).write("analytic", {"times": [0, 1, 2, 999], "norm": [0.5] * 4, "residual": [0.5] * 4}, {})
    make(weights, tmp_path / "a")
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(ConfigError, match=r"analytic\.json.*Remove it, and it is measured again"):
        make(weights, tmp_path / "b")


def test_numbers_above_1_are_said(weights, tmp_path, capsys):
    store_of(weights).write("analytic", {"times": [0, 999], "norm": [0.5, 1.2], "residual": [0.5] * 2}, {})
    make(weights, tmp_path / "a")
    assert "Gamma_t is up to 1.200" in capsys.readouterr().err


def test_training_refuses_it_before_the_first_step(tmp_path):
    """Its weights change with every step."""
    for every in ({"sample_freq": 2}, {"eval": {"every": 2, "extractor": "pixels"}}):
        run = ip.new(
            tiny(**every), tmp_path / "run", sampling={"sampler": {"name": "ancestral", "var_type": "analytic"}}
        )
        with pytest.raises(ConfigError, match=r"during training .* finished weights.* choose fixed_small"):
            run.train()
        assert not (tmp_path / "run" / "ckpt").exists()


def test_the_table_has_it_as_a_row(weights, monkeypatch):
    rows = ["--variance", "analytic", "fixed_small", "--steps", "3", "2", "--n_samples", "4", "--batch_size", "4"]
    assert main(["table", "-e", str(weights), "--extractor", "pixels", *rows]) == 0
    monkeypatch.setattr(analytic, "measure", never)
    assert main(["table", "-e", str(weights), "--extractor", "pixels", *rows]) == 0
    text = (weights / "table" / "table.txt").read_text()
    assert re.search("^analytic +[0-9.]+ +[0-9.]+$", text, re.MULTILINE)
    cells = [json.loads(file.read_text())["sampler"] for file in (weights / "table").glob("*/cell-*.json")]
    assert len(cells) == 4
    assert sum(str(sampler.get("gammas")).startswith("sha256:") for sampler in cells) == 2


# --- times -----------------------------------------------------------------------------------------------------------


def test_times_that_were_found_are_looked_up(tmp_path):
    store, schedule = Measured.of("0" * 64, tmp_path), Schedule(100)
    with pytest.raises(ConfigError, match=r"no times for 3 steps .* `ddpm-ip times --weights \.\.\. --steps 3`"):
        filled.optimised_times(3, store, schedule)
    store.write("times-3", {"times": [99, 50.5, 1]}, {})
    assert filled.optimised_times(3, store, schedule) == (99.0, 50.5, 1.0)
    with pytest.raises(ConfigError, match="needs a number of steps"):
        filled.optimised_times(None, store, schedule)
    with pytest.raises(ConfigError, match=r"no 3 falling times in 0\.\.49"):
        filled.optimised_times(3, store, Schedule(50))
    os.rename(store.file("times-3"), store.file("times-2"))
    with pytest.raises(ConfigError, match="no 2 falling times"):
        filled.optimised_times(2, store, schedule)
    other = Measured(store.folder, "1" * 64)
    with pytest.raises(ConfigError, match=r"for other weights .*ddpm-ip times"):
        filled.optimised_times(2, other, schedule)


@pytest.mark.parametrize("times", [[5, 7, 1], [5, 5, 1], [5, 3, -1], [5, "3", 1], [5, True, 0]])
def test_damaged_times_are_refused(tmp_path, times):
    store = Measured.of("0" * 64, tmp_path)
    store.write("times-3", {"times": times}, {})
    with pytest.raises(ConfigError, match=r"no 3 falling times in 0\.\.999"):
        filled.optimised_times(3, store, Schedule())
