"""The machine: each trap is found, each has its cure."""

import dataclasses
import hashlib
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from tests.doctor.look import levels, look

from ddpm_ip.doctor import machine
from ddpm_ip.evaluate.extractors import weights
from ddpm_ip.extras import how_to_install


def test_a_torchvision_that_does_not_fit_is_found_in_another_process(tmp_path, monkeypatch):
    package = tmp_path / "site" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(package.parent)
    (finding,) = look()["torchvision"]
    assert finding.level == "problem"
    assert "operator torchvision::nms does not exist" in finding.text
    assert "pip uninstall torchvision" in finding.cure
    assert "torchvision" not in sys.modules
    (package / "__init__.py").write_text("__version__ = '0.99'")
    (finding,) = look()["torchvision"]
    assert (finding.level, "0.99" in finding.text) == ("OK", True)


def test_weights_are_absent_damaged_or_sound(tmp_path, monkeypatch):
    (finding,) = look()["weights"]
    assert finding.level == "note"
    assert str(tmp_path / "home/.cache/ddpm-ip/weights") in finding.cure
    assert weights.INCEPTION.name in finding.text
    content = b"not the Inception"
    monkeypatch.setenv("DDPM_IP_WEIGHTS", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / weights.INCEPTION.name).write_bytes(content)
    (finding,) = look()["weights"]
    assert finding.level == "problem"
    assert hashlib.sha256(content).hexdigest()[:8] in finding.text
    sound = dataclasses.replace(weights.INCEPTION, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(weights, "INCEPTION", sound)
    assert levels(look()["weights"]) == ["OK"]


def test_dinov2_is_mentioned_and_missed_by_nobody(tmp_path, monkeypatch):
    (finding,) = look()["DINOv2"]
    assert (finding.level, finding.cure) == ("OK", None)
    assert str(tmp_path / "home/.cache/ddpm-ip/weights") in finding.text
    monkeypatch.setenv("DDPM_IP_WEIGHTS", str(tmp_path))
    for name in ("dinov2-vit-s-14", "dinov2-vit-b-14"):
        file = weights.DINOV2[name]
        (tmp_path / file.name).write_bytes(b"some weights")
        sha256 = hashlib.sha256(b"some weights").hexdigest()
        monkeypatch.setitem(weights.DINOV2, name, dataclasses.replace(file, sha256=sha256))
    (finding,) = look()["DINOv2"]
    assert (finding.level, finding.text) == (
        "OK", f"dinov2-vit-s-14 (SHA-256 {sha256[:8]}), dinov2-vit-b-14 (SHA-256 {sha256[:8]})"
    )  # fmt: skip
    (tmp_path / file.name).write_bytes(b"some damage")
    damaged, sound = look()["DINOv2"]
    assert (damaged.level, sound.level) == ("problem", "OK")
    assert file.url in damaged.cure
    assert "vit-b" not in sound.text


def test_a_file_that_takes_long_to_read_is_known_by_its_size(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_IP_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(machine, "HASHED", 1e6)
    file = weights.DINOV2["dinov2-vit-g-14"]
    for megabytes, level in ((file.megabytes, "OK"), (4000, "problem")):
        with open(tmp_path / file.name, "wb") as large:
            large.truncate(megabytes * 10**6)  # takes no room
        (finding,) = look()["DINOv2"]
        assert finding.level == level
        assert f"{megabytes:,} MB" in finding.text


@pytest.mark.parametrize(("free", "level"), [(0.5e9, "problem"), (3e9, "note"), (50e9, "OK")])
def test_a_full_disk(monkeypatch, free, level):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    findings = look()
    assert levels([*findings["disk"], *findings["cache"]]) == [level, level]


def test_a_gpu_beside_a_cpu_torch(monkeypatch):
    monkeypatch.setattr(machine, "_has_nvidia_device", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    (finding,) = look()["torch"]
    assert finding.level == "problem"
    assert "CUDA build" in finding.cure


def test_an_extra_that_is_absent_comes_with_the_command_that_fits_this_installation(monkeypatch):
    monkeypatch.setattr(machine, "installed", lambda package: None if package in ("pyarrow", "matplotlib") else "1")
    there, absent = look()["extras"]
    assert (there.level, absent.level) == ("OK", "note")
    assert absent.cure == f"if wanted: {how_to_install('plot', 'parquet')}"


def test_torch_fidelity_is_missed(monkeypatch):
    for version, level in ((None, "note"), ("0.4.0", "OK")):
        monkeypatch.setattr(machine, "installed", lambda package, version=version: version)
        assert levels(look()["torch-fidelity"]) == [level]
