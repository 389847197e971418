"""Weights of the package: found by name where nothing else has it, never written to, copied where something is kept."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from tests.tiny import contents

import ddpm_ip as ip
from ddpm_ip.cli import main
from ddpm_ip.errors import ConfigError
from ddpm_ip.files import read_json
from ddpm_ip.run import builtin
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.record import flatten
from ddpm_ip.sample.store import sample_files

DIGITS = builtin.FOLDER / "digits"


@pytest.fixture(autouse=True)
def untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty folder to work in; the package is afterwards as it was."""
    monkeypatch.chdir(tmp_path)
    before = contents(builtin.FOLDER)
    yield
    assert contents(builtin.FOLDER) == before


def test_the_digits_are_small_and_say_how_they_were_made():
    assert "digits" in builtin.names()
    assert sum(map(len, contents(DIGITS).values())) < 500_000
    told = read_json(DIGITS / "provenance.json")
    assert "ddpm-ip train" in told["command"]
    assert told["weights"]["FD-pixels"]["images"] > 0
    run = ip.load("digits")
    assert (run.config.model.dim, run.config.perturbation.gamma) == (16, 0.1)
    assert {tensor.dtype for tensor in run._weights.tensors.values()} == {torch.bfloat16}


def test_a_name_is_found_where_nothing_has_it(tmp_path: Path):
    assert builtin.found(Path("digits")) == DIGITS
    assert builtin.found(Path("elsewhere/digits")) == Path("elsewhere/digits")
    (tmp_path / "digits").mkdir()
    assert builtin.found(Path("digits")) == Path("digits")


def test_what_is_kept_is_kept_in_a_copy(tmp_path: Path):
    store = Measured.of("0" * 64, DIGITS / "ckpt")
    assert store.folder.is_relative_to(tmp_path / "digits")
    assert not (tmp_path / "digits").exists(), "nothing is made before something is kept"
    store.at_home().write("times-5", {}, {})
    kept = contents(tmp_path / "digits")
    assert kept.pop("times-5.json")
    assert kept == contents(DIGITS)
    assert builtin.taken(Path("digits")) == Path("digits")
    shutil.rmtree(tmp_path / "digits")
    assert builtin.taken(Path("digits")) == Path("digits")
    assert contents(tmp_path / "digits") == contents(DIGITS)


def test_a_copy_that_cannot_be_made_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(source: Path, place: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(ConfigError, match=r"digits cannot be made: No space left on device\. Free some space"):
        builtin.taken(Path("digits"))
    assert list(tmp_path.iterdir()) == []


def test_the_name_alone_makes_samples_and_a_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["sample", "--weights", "digits", "--n_samples", "3", "--steps", "2"]) == 0
    (folder,) = (tmp_path / "digits/samples").iterdir()
    assert len(sample_files(folder)) == 3
    assert (folder / "grid.png").is_file()
    assert str(folder.relative_to(tmp_path) / "grid.png") in capsys.readouterr().err
    assert flatten(read_json(folder / "sampling.json"))["sampler.name"] == "ddim"


def test_a_run_of_the_package_is_not_trained_further():
    run = ip.load("digits")
    assert run.folder is None
    with pytest.raises(ConfigError, match="weights alone"):
        run.train(100_000)
