"""A run: damaged checkpoints are found, and the weights are not loaded."""

import json
import shutil

import pytest
import torch
from tests.doctor.look import levels, look
from tests.tiny import FILES

from ddpm_ip.cli import main
from ddpm_ip.config import Config
from ddpm_ip.data import Digits
from ddpm_ip.run import checkpoint


def test_it_reads_one_checkpoint_through_and_builds_nothing(trained, monkeypatch):
    """No images, and no network is built."""
    read, ordinary = [], checkpoint.sha256
    monkeypatch.setattr(checkpoint, "sha256", lambda path: read.append(path) or ordinary(path))
    for owner, name in ((torch, "load"), (Config, "build_network"), (Digits, "open")):
        monkeypatch.setattr(owner, name, lambda *_, name=name, **__: pytest.fail(f"{name} was called"))
    assert levels(look(folder=trained)["run"]) == ["OK"]
    assert {path.parent.name for path in read} == {"step00000008"}
    assert sorted(path.name for path in read) == sorted(name for name in FILES if name != "manifest.json"), "once each"


def test_a_run_that_was_stopped_early_is_judged_by_its_checkpoint(tmp_path, trained):
    folder = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(folder / "ckpt" / "step00000008")
    whole, early = look(folder=folder)["EMA"]
    assert (whole.level, early.level) == ("OK", "problem")
    assert "0.5^4" in early.text


def test_checkpoints(tmp_path, trained, capsys):
    folder = shutil.copytree(trained, tmp_path / "run")
    (finding,) = look(folder=folder)["run"]
    assert (finding.level, "step00000008 is whole" in finding.text) == ("OK", True)
    (folder / "ckpt" / "step00000008" / "ema.safetensors").write_bytes(b"")
    (finding,) = look(folder=folder)["run"]
    assert finding.level == "note"
    assert "training continues from step00000004" in finding.text
    (folder / "ckpt" / "step00000004" / "meta.json").unlink()
    (finding,) = look(folder=folder)["run"]
    assert finding.level == "problem"
    shutil.rmtree(folder / "ckpt")
    assert levels(look(folder=folder)["run"]) == ["problem"]
    capsys.readouterr()
    assert main(["doctor", "-e", str(folder)]) == 1
    printed = capsys.readouterr()
    assert "has no checkpoint" in printed.out
    assert printed.err == ""
    assert main(["doctor", "-e", str(tmp_path / "none"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"] == 1


def test_a_folder_that_is_not_there_is_one_problem(tmp_path):
    found = look(folder=tmp_path / "none")
    assert levels(found["run"]) == ["problem"]
    assert "config" not in found
