"""The doctor: each trap is found, each has its cure, and what is broken does not break the doctor."""

import dataclasses
import hashlib
import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tests.tiny import FILES, ROOT, finish, one_thread, run, start, tiny, yaml_file

from ddpm_ip import doctor as module
from ddpm_ip.cli import main
from ddpm_ip.config import Config
from ddpm_ip.data import Digits
from ddpm_ip.doctor import doctor
from ddpm_ip.evaluate import images
from ddpm_ip.evaluate.extractors import weights
from ddpm_ip.run import checkpoint


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DDPM_IP_WEIGHTS", raising=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The average keeps 0.5^8 of the initial weights: 0.4 %."""
    with pytest.MonkeyPatch.context() as patch:
        one_thread(patch)
        folder = tmp_path_factory.mktemp("trained") / "run"
        run(tiny(n_steps=8, save_freq=4, ema_decay=0.5), folder)
    return folder


def look(config=None, folder=None, **overrides):
    """The findings by what they are about; several about one thing in a list."""
    found = {}
    for finding in doctor(config, overrides, folder):
        found.setdefault(finding.what, []).append(finding)
    return found


def levels(findings):
    return [finding.level for finding in findings]


def test_a_sound_machine(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert torch.__version__ in shown
    assert "no problems" in shown
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == 0
    assert {"torch", "accelerate", "extras", "weights", "disk", "cache", "torchvision"} <= {
        finding["what"] for finding in report["findings"]
    }


NEEDLESS = {"torchvision", "diffusers", "torch_fidelity", "matplotlib", "tensorboard", "pyarrow", "triton", "scipy"}
LOADED = """
import sys
from ddpm_ip.cli import main

assert main(["doctor", "-e", sys.argv[1]]) == 0
print("loaded", *sys.modules)
"""


def test_it_imports_no_package_that_it_only_names(trained):
    code, output = finish(start("-c", LOADED, trained))
    assert code == 0, output
    loaded = output.splitlines()[-1].split()
    assert "torch" in loaded
    assert not NEEDLESS & set(loaded)
    assert not [name for name in loaded if name.startswith(("torch._dynamo", "ddpm_ip.nn.fused", "ddpm_ip.train."))]


def test_it_reads_one_checkpoint_through_and_loads_nothing(trained, monkeypatch):
    """Neither weights nor images, and no network is built."""
    read, ordinary = [], checkpoint.sha256
    monkeypatch.setattr(checkpoint, "sha256", lambda path: read.append(path) or ordinary(path))
    for owner, name in ((torch, "load"), (checkpoint, "load_file"), (Config, "build_network"), (Digits, "open")):
        monkeypatch.setattr(owner, name, lambda *_, name=name, **__: pytest.fail(f"{name} was called"))
    assert levels(look(folder=trained)["run"]) == ["OK"]
    assert {path.parent.name for path in read} == {"step00000008"}
    assert sorted(path.name for path in read) == sorted(name for name in FILES if name != "manifest.json"), "once each"


def test_of_many_images_the_first_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOKED_AT", 5)
    monkeypatch.setattr(module, "OPENED", 2)
    (tmp_path / "images").mkdir()
    for i in range(9):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{i}.jpg")
    looked_at, opened, is_jpeg, open_image = [], [], images.is_jpeg, Image.open
    monkeypatch.setattr(images, "is_jpeg", lambda item: looked_at.append(item) or is_jpeg(item))
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or open_image(file))
    changes = {"data.name": "folder", "data.root": str(tmp_path / "images"), "data.image_size": 8, "data.mode": "rgb"}
    findings = look(yaml_file(tmp_path, {"in_channels": 3}), **changes)["data"]
    assert any("100% of the images are JPEG" in finding.text for finding in findings)
    assert (len(looked_at), len(opened)) == (5, 2)


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
    monkeypatch.setattr(module, "HASHED", 1e6)
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
    monkeypatch.setattr(module, "_has_nvidia_device", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    (finding,) = look()["torch"]
    assert finding.level == "problem"
    assert "CUDA build" in finding.cure


def test_a_check_that_breaks_is_a_finding(monkeypatch):
    monkeypatch.setitem(sys.modules, "ddpm_ip.evaluate.extractors.weights", None)
    findings = look()
    assert levels(findings["weights"]) == ["problem"]
    assert levels(findings["torch"]) == ["OK"]


def test_missing_data(tmp_path):
    config = yaml_file(tmp_path)
    gone = {"data.name": "npz", "data.root": str(tmp_path / "gone.npz"), "data.image_size": 8}
    (finding, *_) = look(config, **gone)["data"]
    assert finding.level == "problem"
    assert str(tmp_path / "gone.npz") in finding.text
    (finding, *_) = look(config, **{"data.name": "cifar10", "data.root": str(tmp_path / "gone")})["data"]
    assert finding.level == "note"


@pytest.mark.parametrize(("suffix", "found"), [("jpg", True), ("png", False)])
def test_a_jpeg_reference(tmp_path, suffix, found):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"a.{suffix}")
    (tmp_path / "images" / "notes.txt").touch()
    changes = {"data.name": "folder", "data.root": str(tmp_path / "images"), "data.image_size": 8, "data.mode": "rgb"}
    findings = look(yaml_file(tmp_path, {"in_channels": 3}), **changes)["data"]
    assert any("100% of the images are JPEG" in finding.text for finding in findings) == found
    assert not any("gray" in finding.text for finding in findings)


@pytest.mark.parametrize("kind", ["a png that is a jpeg", "parquet"])
def test_a_jpeg_is_known_by_its_bytes(tmp_path, kind):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    name = "folder"
    if kind == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        table = pa.table({"img": [{"bytes": (tmp_path / "a.jpg").read_bytes(), "path": None}]})
        pq.write_table(table, tmp_path / "images" / "train-0.parquet")
        name = "parquet"
    else:
        (tmp_path / "a.jpg").rename(tmp_path / "images" / "a.png")
    changes = {"data.name": name, "data.root": str(tmp_path / "images"), "data.image_size": 8, "data.mode": "rgb"}
    findings = look(yaml_file(tmp_path, {"in_channels": 3}), **changes)["data"]
    assert any("100% of the images are JPEG" in finding.text for finding in findings)


def test_the_split_and_the_column_of_the_configuration_are_looked_at(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "images" / "data").mkdir(parents=True)
    encoded = {}
    for suffix in ("jpg", "png"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"a.{suffix}")
        encoded[suffix] = (tmp_path / f"a.{suffix}").read_bytes()
    table = pa.table({"thumb": [{"bytes": encoded["png"]}], "photo": [{"bytes": encoded["jpg"]}]})
    pq.write_table(table, tmp_path / "images" / "data" / "test-0.parquet")
    changes = {"data.name": "parquet", "data.root": str(tmp_path / "images"), "data.split": "test"}
    changes |= {"data.image_column": "photo", "data.image_size": 8}
    findings = look(yaml_file(tmp_path, {"in_channels": 3}), **changes)
    assert any("JPEG" in finding.text for finding in findings["data"])
    assert "EMA" in findings
    findings = look(yaml_file(tmp_path, {"in_channels": 3}), **{**changes, "data.image_column": "none"})
    assert levels(findings["data"]) == ["OK", "problem"]
    assert "EMA" in findings, "one problem hides nothing else"


def test_gray_files_for_a_network_in_colour(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "images" / "a.png")
    changes = {"data.name": "folder", "data.root": str(tmp_path / "images"), "data.image_size": 8, "data.mode": "rgb"}
    findings = look(yaml_file(tmp_path, {"in_channels": 3}), **changes)["data"]
    assert any("three equal channels" in finding.text for finding in findings)
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "b.png")
    assert levels(look(yaml_file(tmp_path, {"in_channels": 3}), **changes)["data"]) == ["OK"]


def test_an_empty_folder_is_no_data(tmp_path):
    (tmp_path / "images").mkdir()
    root = {"data.root": str(tmp_path / "images"), "data.image_size": 8}
    (finding, *_) = look(yaml_file(tmp_path), **{"data.name": "folder", **root})["data"]
    assert (finding.level, "is empty" in finding.text) == ("problem", True)
    (finding, *_) = look(yaml_file(tmp_path), **{"data.name": "cifar10", "data.root": root["data.root"]})["data"]
    assert (finding.level, "fetches" in finding.text) == ("note", True)


def test_an_extractor_that_training_would_miss(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_IP_WEIGHTS", str(tmp_path / "weights"))
    config = yaml_file(tmp_path)
    for name, level in (("inception", "problem"), ("dinov2-vit-s-14", "problem"), ("pixels", None)):
        findings = look(config, **{"train.eval.every": 5, "train.eval.extractor": name}).get("train.eval", [])
        assert levels(findings) == ([level] if level else [])
    assert "train.eval" not in look(config, **{"train.eval.extractor": "inception"})
    monkeypatch.setattr(module, "_version", lambda package: None if package == "torch-fidelity" else "1")
    findings = look(config, **{"train.eval.every": 5, "train.eval.extractor": "inception"})["train.eval"]
    assert "torch-fidelity is not installed" in findings[-1].text


def test_an_extractor_that_does_not_take_the_channels(tmp_path):
    config = yaml_file(tmp_path, {"in_channels": 5})
    texts = [f.text for f in look(config, **{"train.eval.every": 5, "train.eval.extractor": "inception"})["train.eval"]]
    assert "inception takes RGB or gray images, not 5 channels: training does not start" in texts
    assert "train.eval" not in look(config, **{"train.eval.every": 5})
    assert any("do not take them" in f.text for f in look(config)["data"] if f.level == "note")


def test_images_and_network_that_do_not_go_together(tmp_path):
    def problems(**changes):
        return [f.text for f in look(yaml_file(tmp_path), **changes)["data"] if f.level == "problem"]

    assert problems(**{"data.image_size": [6, 10]}) == []
    assert problems(**{"data.image_size": [6, 9]}) == ["images of 6x9 cannot be halved 1 times (model.dim_mults)"]
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    changes = {"data.name": "folder", "data.root": str(tmp_path), "data.image_size": 8}
    assert problems(**changes, **{"data.mode": "gray"}) == []
    (text,) = problems(**changes, **{"data.mode": "rgba"})
    assert text == "data.mode rgba gives 4 channels, model.in_channels is 1"


def test_torch_fidelity_is_missed(monkeypatch):
    for version, level in ((None, "note"), ("0.4.0", "OK")):
        monkeypatch.setattr(module, "_version", lambda package, version=version: version)
        assert levels(look()["torch-fidelity"]) == [level]


def test_a_gray_reference(tmp_path):
    texts = [finding.text for finding in look(yaml_file(tmp_path))["data"]]
    assert any("gray" in text for text in texts)


def test_an_average_that_has_not_forgotten_its_start(tmp_path, trained):
    (finding,) = look(yaml_file(tmp_path, n_steps=40, ema_decay=0.9))["EMA"]
    assert finding.level == "problem"
    assert "at least 44 steps" in finding.cure
    suggested = float(finding.cure.split("--train.ema_decay ")[1].split()[0])
    for decay in (suggested, suggested + 1e-4):
        (finding,) = look(yaml_file(tmp_path, n_steps=40, ema_decay=decay))["EMA"]
        assert finding.level == ("OK" if decay == suggested else "problem")
    assert levels(look(folder=trained)["EMA"]) == ["OK"]


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
    assert "sampling takes step00000004" in finding.text
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
    assert json.loads(capsys.readouterr().out)["problems"] == 2


def test_overrides_need_a_configuration(capsys):
    assert main(["doctor", "--train.n_steps", "3"]) == 2
    assert "-c" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_configurations_have_no_trap(path):
    assert levels(look(path)["EMA"]) == ["OK"]
