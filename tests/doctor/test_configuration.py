"""A configuration: traps in its data, its average and its evaluation are found, each with its cure."""

import pytest
from PIL import Image
from tests.doctor.look import levels, look
from tests.tiny import ROOT, yaml_file

from ddpm_ip.doctor import configuration
from ddpm_ip.evaluate import images
from ddpm_ip.extras import how_to_install
from ddpm_ip.tracking import trackers


def test_of_many_images_the_first_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(configuration, "LOOKED_AT", 5)
    monkeypatch.setattr(configuration, "OPENED", 2)
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
    monkeypatch.setattr(configuration, "installed", lambda package: None if package == "torch-fidelity" else "1")
    findings = look(config, **{"train.eval.every": 5, "train.eval.extractor": "inception"})["train.eval"]
    assert "torch-fidelity is not installed" in findings[-1].text


def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "is_installed", lambda name: name == "mlflow")
    config = yaml_file(tmp_path)
    (finding,) = look(config, **{"train.trackers": ["mlflow", "wandb"]})["train.trackers"]
    assert finding.level == "problem"
    assert finding.text == "train.trackers: wandb is not installed; training does not start"
    assert how_to_install("wandb") in finding.cure
    assert "train.trackers" not in look(config)


def test_an_extractor_that_does_not_take_the_channels(tmp_path):
    config = yaml_file(tmp_path, {"in_channels": 5})
    texts = [f.text for f in look(config, **{"train.eval.every": 5, "train.eval.extractor": "inception"})["train.eval"]]
    assert "inception takes RGB or gray images, not 5 channels: training does not start" in texts
    assert "train.eval" not in look(config, **{"train.eval.every": 5})
    assert any("do not take them" in f.text for f in look(config)["data"] if f.level == "note")


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling.steps": 2000},
        {"sampling.afs": True, "train.sample_freq": 2},
        {"sampling.spacing": "optimised", "train.eval.every": 2},
    ],
)
def test_images_that_cannot_be_made(tmp_path, changes):
    """What training would refuse."""
    (finding,) = look(yaml_file(tmp_path), **changes)["sampling"]
    assert finding.level == "problem"
    assert finding.text.endswith("training does not start")


def test_images_and_network_that_do_not_go_together(tmp_path):
    def problems(**changes):
        return [f.text for f in look(yaml_file(tmp_path), **changes)["data"] if f.level == "problem"]

    assert problems(**{"data.image_size": [6, 10]}) == []
    assert problems(**{"data.image_size": [6, 9]}) == ["images of 6x9 cannot be halved 1 times (model.dim_mults)"]
    adm = {"model.name": "adm", "model.in_channels": 1, "model.dim_mults": [0.5, 1, 1], "data.image_size": 10}
    assert problems(**adm) == ["images of 10x10 cannot be halved 2 times (model.dim_mults)"]
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    changes = {"data.name": "folder", "data.root": str(tmp_path), "data.image_size": 8}
    assert problems(**changes, **{"data.mode": "gray"}) == []
    (text,) = problems(**changes, **{"data.mode": "rgba"})
    assert text == "data.mode rgba gives 4 channels, model.in_channels is 1"


@pytest.mark.parametrize("name", ["unet", "adm"])
def test_a_network_that_there_cannot_be(tmp_path, name):
    sizes = {"name": name, "in_channels": 1, "dim": 8, "dim_mults": [1, 2], "use_attn": [False, True], "num_groups": 4}
    config = yaml_file(tmp_path, {**sizes, "head_channels": 5})
    (finding,) = [found for found in look(config)["data"] if found.level == "problem"]
    assert finding.text == "model width 16, which has attention, is not divisible by head_channels 5"


def test_an_imported_network_with_classes_is_no_problem(tmp_path):
    """Of which images it was trained on nothing is known, and so neither of their labels."""
    found = look(yaml_file(tmp_path), **{"data.name": "unknown", "data.image_size": 8, "classes.count": 10})
    assert "classes" not in found
    assert levels(found["data"])[0] == "note"


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


def test_each_of_several_averages_is_looked_at_and_those_by_power_functions_need_not_be(tmp_path):
    slow, fast = look(yaml_file(tmp_path, n_steps=40, ema_decay=[0.9, 0.5], ema_power=[0.1]))["EMA"]
    assert levels([slow, fast]) == ["problem", "OK"]
    assert slow.text.startswith("the average of decay 0.9 keeps 0.015 of the initial weights")
    assert fast.text.startswith("the average of decay 0.5 keeps")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_configurations_have_no_trap(path):
    assert levels(look(path)["EMA"]) == ["OK"]


def test_a_schedule_that_does_not_end_in_noise(tmp_path):
    assert "schedule" not in look(yaml_file(tmp_path))
    (finding,) = look(yaml_file(tmp_path), **{"diffusion.total_steps": 200})["schedule"]
    assert (finding.level, "alpha_bar is 0.13" in finding.text) == ("note", True)
    assert finding.cure == "For a new training choose --diffusion.beta_end 0.098 or --diffusion.beta_schedule cosine"
    assert "schedule" not in look(yaml_file(tmp_path), **{"diffusion.total_steps": 200, "diffusion.beta_end": 0.098})


def test_classes_and_data(tmp_path):
    def found(count, **changes):
        return look(yaml_file(tmp_path), **{"classes.count": count, **changes})["classes"]

    assert "classes" not in look(yaml_file(tmp_path))
    assert levels(found(10)) == ["OK"]
    (finding,) = found(4)
    assert (finding.level, "--classes.count 10" in finding.text) == ("problem", True)
    (finding,) = found(12)
    assert (finding.level, "2 of 12 classes have no images: 10, 11" in finding.text) == ("note", True)
    for name in ("a_1", "b_1"):
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    folder = {"data.name": "folder", "data.root": str(tmp_path), "data.image_size": 8}
    assert "no labels" in found(2, **folder)[0].text
    assert levels(found(2, **folder, **{"data.labels": "prefix"})) == ["OK"]
    assert "gone.csv does not exist" in found(2, **folder, **{"data.labels": "gone.csv"})[0].text
    assert "classes" not in look(yaml_file(tmp_path), **{"classes.count": 2, **folder, "data.root": "gone"})
