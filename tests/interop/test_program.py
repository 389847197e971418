"""A network from elsewhere as a person uses it: imported, or given to a command as it is."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tests.interop.originals import Pesser, Sizes, XyfJason, random
from tests.tiny import contents, one_thread, step_folder, steps_saved

import ddpm_ip
from ddpm_ip.cli import main
from ddpm_ip.doctor import doctor
from ddpm_ip.errors import CheckpointError, ConfigError
from ddpm_ip.interop import hub
from ddpm_ip.interop.find import find_weights
from ddpm_ip.report.compare import describe
from ddpm_ip.report.run import Run
from ddpm_ip.run.checkpoint import sha256
from ddpm_ip.run.identity import identity

SIZES = Sizes(channels=1)
ASKED = ["--data.image_size", "8", "--diffusion.total_steps", "20"]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A checkpoint of xyfJASON's repository."""
    path = tmp_path_factory.mktemp("theirs") / "ema_model.pt"
    torch.save({"model": random(XyfJason(SIZES)).state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def run(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported") / "run"
    with pytest.MonkeyPatch.context() as patch:
        one_thread(patch)
        assert main(["import", str(theirs), "-e", str(folder), "--licence", "MIT", *ASKED]) == 0
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    one_thread(monkeypatch)


def sampled(folder: Path, *given) -> dict[str, bytes]:
    command = ["sample", "--n_samples", "2", "--steps", "3", "--batch_size", "2", "--save_dir", str(folder)]
    assert main([*command, *map(str, given)]) == 0
    return {name: content for name, content in contents(folder).items() if name[0].isdigit()}


def test_what_is_kept_of_where_weights_are_from(theirs, run):
    own = identity(run)
    assert own.step == 0
    kept = dict(own.imported)
    assert kept.pop("date") > "2020"
    assert kept.pop("assumed")[0].startswith("model.")
    expected = {"format": "xyfJASON", "origin": str(theirs), "files": ["ema_model.pt"], "sha256": sha256(theirs)}
    assert kept == {**expected, "licence": "MIT", "averaged": True}
    assert json.loads((run / "provenance.json").read_text())["imported"] == own.imported
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"] == {"name": "unknown", "image_size": 8}
    assert (config["model"]["padding"], config["model"]["norm_eps"]) == ("both", 1e-5)
    model, average = (load_file(step_folder(run, 0) / f"{part}.safetensors") for part in ("model", "ema"))
    assert all(torch.equal(model[k], average[k]) for k in model)


def test_it_is_told_as_imported_and_not_as_trained(theirs, run):
    said = describe(Run.load(run))
    assert said == f"imported from {theirs} (xyfJASON, licence MIT)"
    found = [(f.what, f.text) for f in doctor(None, {}, run)]
    assert any(what == "run" and "imported from" in text for what, text in found)
    assert any(what == "data" and "nothing says on which images" in text for what, text in found)
    assert [text for what, text in found if what == "EMA" and "newest checkpoint" in text] == []


def test_images_are_the_same_from_the_file_and_from_the_run(theirs, run, tmp_path):
    """And from Python."""
    direct = sampled(tmp_path / "a", "--weights", theirs, *ASKED)
    assert direct == sampled(tmp_path / "b", "--weights", run)
    assert len(direct) == 2
    loaded = ddpm_ip.load(theirs, **{"data.image_size": 8, "diffusion.total_steps": 20})
    images = loaded.sample(2, steps=3, block=2).images
    assert (images == ddpm_ip.load(run).sample(2, steps=3, block=2).images).all()
    assert ddpm_ip.new(init_from=theirs).config.model == loaded.config.model
    facts = json.loads((tmp_path / "a" / "sampling.json").read_text())
    assert facts["weights"] == sha256(theirs)
    assert facts["averaged"] is True


def test_a_configuration_that_leaves_out_what_the_source_says(theirs, run, tmp_path, capsys):
    """As ``configs/ddpm_ip_cifar10.yaml`` does of padding and eps: the source decides, and a line says so."""
    file, weights = tmp_path / "c.yaml", tmp_path / "ema_model.safetensors"
    save_file(torch.load(theirs)["model"], weights)
    model = {"in_channels": 1, "dim": 32, "dim_mults": [1, 2], "use_attn": [False, True], "num_res_blocks": 1}
    tree = {"data": {"name": "digits"}, "model": model, "diffusion": {"total_steps": 20}}
    file.write_text(yaml.safe_dump({**tree, "perturbation": {"name": "input"}}))
    found = sampled(tmp_path / "a", "--weights", weights, "-c", file)
    said = capsys.readouterr().err
    assert "is of the format xyfJASON, which decides: model.padding both, model.norm_eps 1e-05" in said
    assert found == sampled(tmp_path / "b", "--weights", run)
    file.write_text(yaml.safe_dump({**tree, "model": {**model, "padding": "right_below"}}))
    with pytest.raises(ConfigError, match=r"model\.padding: the network has 'both', asked for is 'right_below'"):
        find_weights(weights, file)


def test_a_table_a_report_and_times(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (tmp_path / "digits.yaml").write_text("data: {name: digits}")
    measured = ["--extractor", "pixels", "--n_samples", "4", "--steps", "2", "--rows", "ddim,eta=0"]
    given = ["--reference", str(tmp_path / "digits.yaml"), "--batch_size", "4"]
    assert main(["table", "-e", str(folder), *measured, *given]) == 0
    assert "imported from" in (folder / "table" / "table.md").read_text()
    assert main(["report", str(folder), "-o", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "licence MIT" in page
    assert "trained for" not in page
    assert ", on unknown" not in page
    assert main(["times", "--weights", str(folder), "--steps", "2", "--n", "2"]) == 0


def test_training_goes_on_from_it(run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    command = ["train", "-r", "latest", "-e", str(folder), "--train.n_steps", "2", "--train.batch_size", "4"]
    command += ["--train.sample_freq", "0", "--perturbation.name", "input"]
    assert main([*command, "--change", "perturbation"]) == 1
    assert "--data.name" in capsys.readouterr().err
    assert main([*command, "--data.name", "digits", "--change", "perturbation", "data"]) == 0
    said = capsys.readouterr().err
    assert "holds no optimizer: it starts from scratch" in said
    assert "initial weights" not in said
    assert steps_saved(folder) == [0, 2]
    assert identity(folder).imported == identity(run).imported
    said = describe(Run.load(folder))
    assert said.startswith("imported from")
    assert said.endswith("then input perturbation, γ = 0.1 (since step 0)")
    record = json.loads((folder / "provenance.json").read_text())
    assert record["imported"]["licence"] == "MIT"
    assert record["earlier"][0]["imported"] == record["imported"]
    assert all(f.level != "problem" for f in doctor(None, {}, folder) if f.what == "run")


def test_another_run_begins_with_it(theirs, run, tmp_path):
    """``--init-from``, of the folder and of the file itself: where they are from goes along."""
    file = tmp_path / "c.yaml"
    config = identity(run).config
    few = {"n_steps": 1, "batch_size": 4, "sample_freq": 0}
    file.write_text(yaml.safe_dump({**config, "data": {"name": "digits"}, "train": few}))
    for name, source in (("a", run), ("b", theirs)):
        folder = tmp_path / name
        assert main(["train", "-c", str(file), "-e", str(folder), "--init-from", str(source)]) == 0
        kept = identity(folder).imported
        assert (kept["sha256"], kept["format"]) == (sha256(theirs), "xyfJASON")
        assert kept["licence"] == ("MIT" if source is run else "unknown")
        begun, given = (load_file(step_folder(f, 0) / "ema.safetensors") for f in (folder, run))
        assert all(torch.equal(begun[k], v) for k, v in given.items())


def test_a_file_has_no_several_averages(theirs, capsys, tmp_path):
    command = ["sample", "--weights", str(theirs), "--n_samples", "1", "--save_dir", str(tmp_path / "a")]
    assert main([*command, "--ema", "0.999"]) == 2
    assert "no run with several averages" in capsys.readouterr().err


def test_a_used_folder_is_not_touched(theirs, run, tmp_path, capsys):
    before = contents(run)
    assert main(["import", str(theirs), "-e", str(run)]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert contents(run) == before
    assert main(["import", str(tmp_path / "absent.pt"), "-e", str(tmp_path / "run")]) == 1
    assert main(["import", str(run), "-e", str(tmp_path / "run")]) == 1
    assert "is taken by every command as it is" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_licence_is_unknown_where_nobody_says_it(tmp_path):
    torch.save(random(Pesser(SIZES)).state_dict(), tmp_path / "weights.ckpt")
    assert main(["import", str(tmp_path / "weights.ckpt"), "-e", str(tmp_path / "run"), *ASKED]) == 0
    kept = identity(tmp_path / "run").imported
    assert (kept["licence"], kept["averaged"], kept["format"]) == ("unknown", "unknown", "pytorch_diffusion")
    assert find_weights(tmp_path / "run").averaged == "unknown"


def test_a_name_on_the_hub(theirs, tmp_path, monkeypatch):
    def listed(self, name):
        if name != "somebody/network":
            raise OSError("404: no such repository")
        return ["README.md", "ema_model.pt", "code.py"]

    def fetched(name, allow_patterns):
        assert "*.py" not in allow_patterns
        return str(theirs.parent)

    monkeypatch.chdir(tmp_path)
    fake = SimpleNamespace(HfApi=type("HfApi", (), {"list_repo_files": listed}), snapshot_download=fetched)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    monkeypatch.setattr(hub, "find_spec", lambda name: fake)
    given = {"data.image_size": 8}
    assert find_weights(Path("somebody/network"), None, given).sha256 == sha256(theirs)
    with pytest.raises(CheckpointError, match=r"nobody/network does not exist here.*404"):
        find_weights(Path("nobody/network"))
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"huggingface_hub fetches it: pip install .*hub"):
        find_weights(Path("somebody/network"))
    (tmp_path / "runs").mkdir()
    assert not hub.is_name(Path("runs/mistyped"))
    assert not hub.is_name(Path("a/b.pt"))
