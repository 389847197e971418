"""The card of an export: the hub reads its metadata, its numbers are of these weights, and its programs run."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from tests.interop.test_export import config_of, exported
from tests.tiny import ROOT, resign, tiny, tree
from tests.tiny import run as briefly

from ddpm_ip.cli import main
from ddpm_ip.files import write_rows
from ddpm_ip.run.record import Record
from ddpm_ip.run.weights import find_weights

FACTS = {"sampler": {"name": "ddim", "eta": 0.0}, "corrections": [], "clip": "rederive", "steps": 10, "spacing": "quad"}
FACTS |= {"evaluations": 10, "seed": 3}


def record(**settings: object) -> Record:
    known = {"metric": "FD-pixels", "value": 1.25, "sampling": FACTS, "n_images": 12, "extractor": "pixels"}
    known |= {"reference": "digits", "reference_sha256": "ab" * 32, "n_reference": 1797, "line": "12 samples | digits"}
    return Record(**{**known, **settings})


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, to be written to."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def card_of(run: Path, out: Path, *options: str) -> ModelCard:
    assert main(["export", str(run), "-o", str(out), *options]) == 0
    return ModelCard.load(out / "README.md")


def python_blocks(card: ModelCard) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", card.text, re.DOTALL | re.MULTILINE)


def test_the_hub_reads_every_number_with_its_protocol(run: Path) -> None:
    weights = find_weights(run).sha256
    numbers = [
        record(weights=weights),
        record(
            weights=weights,
            metric="FID",
            value=3.5,
            spread=0.25,
            extractor="inception",
            line="of Inception, " + "long " * 100 + "end",
        ),
        record(weights="0" * 64, value=99.0),
        record(value=98.0),
    ]
    write_rows(run / "results.json", [number.to_dict() for number in numbers])
    card = card_of(run, run.parent / "out", "--licence", "Apache-2.0")
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "apache-2.0", "diffusers", "unconditional-image-generation",
    )  # fmt: skip
    assert {"diffusion", "ddpm-ip"} <= set(data.tags)
    assert data.model_name == "out"
    found = {result.metric_name: result for result in data.eval_results}
    assert {name: result.metric_value for name, result in found.items()} == {"FD-pixels": 1.25, "FID": 3.5}
    assert [found[name].metric_type for name in ("FD-pixels", "FID")] == ["fd-pixels", "fid"]
    told = found["FD-pixels"]
    assert (told.dataset_name, told.dataset_args) == ("digits", {"n_images": 1797, "sha256": "ab" * 32})
    expected = {"sampler": "ddim,eta=0", "steps": 10, "spacing": "quad", "evaluations": 10, "seed": 3, "n_images": 12}
    assert told.metric_args == {
        **expected, "extractor": "pixels", "weights": weights, "protocol": "12 samples | digits",
    }  # fmt: skip
    assert "| FD-pixels | 1.25 | ddim,eta=0 | 10 | quad | 10 | 1 |" in card.text
    assert "| FID | 3.5 ± 0.25 |" in card.text
    assert "1. Protocol: 12 samples \\| digits" in card.text
    assert "2. Protocol: of Inception, long long " in card.text
    assert "long long end\n" in card.text
    assert "It is not FID" in card.text
    assert "u00a0" not in card.text
    assert not re.search("9[89]", "".join(line for line in card.text.splitlines() if line.startswith("| F")))


def test_a_distance_in_pixels_is_never_called_fid(run: Path) -> None:
    write_rows(run / "results.json", [record(weights=find_weights(run).sha256).to_dict()])
    card = card_of(run, run.parent / "out")
    (result,) = card.data.eval_results
    assert "fid" not in f"{result.metric_type} {result.metric_name}".lower()
    assert not re.search(r"^\| FID|\*\*FID", card.text, re.MULTILINE)


def test_what_it_is_and_how_it_was_trained(run: Path) -> None:
    step = next((run / "ckpt").iterdir())
    meta = json.loads((step / "meta.json").read_text())
    meta["history"] = [{"step": 4, "changes": ["perturbation.gamma: 0.3 -> 0.1", "train.batch_size: 4 -> 8"]}]
    meta["imported"] = {"format": "guided-diffusion", "licence": "mit", "sha256": "cd" * 32}
    (step / "meta.json").write_text(json.dumps(meta))
    resign(step)
    card = card_of(run, run.parent / "out")
    weights = find_weights(run)
    provenance = json.loads((run / "provenance.json").read_text())
    assert card.data.license == "mit"
    for told in (
        ", then DDPM-IP, gamma 0.1 (since step 4)**, after 6 steps", "input, gamma 0.1", "average (decay 0.9)",
        meta["data_fingerprint"], weights.sha256, provenance["hardware"], f"torch {provenance['versions']['torch']}",
        "imported", "format: guided-diffusion", "from step 4: perturbation.gamma: 0.3 -\\> 0.1", "Nothing was measured",
        "learning rate 0.01", "batches of 8 images", "images of 8 x 8 px with 1 channel:", "gamma: 0.1",
    ):  # fmt: skip
        assert told in card.text, told
    assert card.data.eval_results is None


def test_which_average_was_exported(tmp_path: Path) -> None:
    """Of several averages the chosen one goes out, and card and header say which."""
    run = tmp_path / "run"
    briefly(tiny(n_steps=4, save_freq=4, ema_decay=[0.9, 0.5], ema_power=[0.1, 0.2], ema_snapshot_freq=2), run)
    for i, (ema, said) in enumerate(
        [(None, "average (decay 0.9)"), ("0.5", "average (decay 0.5)"), ("sigma_rel=0.15", "average (sigma_rel=0.15, ")]
    ):
        out, chosen = tmp_path / f"out{i}", ["--ema", ema] if ema else []
        card = card_of(run, out, "--format", "safetensors", *chosen)
        assert said in card.text.replace("\\", "")
        assert "average with decay 0.9 and 0.5" in card.text
        wanted, found = find_weights(run, ema), find_weights(out / "model.safetensors")
        assert found.averaged == wanted.averaged
        assert all(torch.equal(tensor, found.tensors[key]) for key, tensor in wanted.tensors.items())


@pytest.mark.parametrize(
    ("licence", "metadata"),
    [
        ("cc-by-nc-4.0", {"license": "cc-by-nc-4.0"}),
        (None, {"license": "unknown"}),
        ("For study: no sale", {"license": "other", "license_name": "For study: no sale"}),
    ],
)
def test_licences(trained: Path, tmp_path: Path, licence: str | None, metadata: dict[str, str]) -> None:
    given = [] if licence is None else ["--licence", licence]
    data = card_of(trained, tmp_path / "out", "--format", "safetensors", *given).data.to_dict()
    assert {key: value for key, value in data.items() if key.startswith("license")} == metadata
    assert "library_name" not in data


def test_the_programs_of_a_card_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each Python block as it stands, in the folder; diffusers with and without classes, and this package."""
    few = {"total_steps": 4}
    exported(config_of(**few), tmp_path / "plain")
    exported(config_of(classes=3, **few), tmp_path / "classes")
    exported(config_of(**few), tmp_path / "single", format="safetensors")
    made = {}
    for folder in sorted(tmp_path.iterdir()):
        monkeypatch.chdir(folder)
        (block,) = python_blocks(ModelCard.load("README.md"))
        names: dict[str, object] = {}
        exec(compile(block, str(folder), "exec"), names)
        made[folder.name] = names["images"]
    assert made["classes"].shape == made["single"].shape == (4, 1, 8, 8)
    assert [image.size for image in made["plain"]] == [(8, 8)] * 4


def test_the_command_of_a_card_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(config_of(), tmp_path / "single", format="safetensors")
    monkeypatch.chdir(tmp_path / "single")
    (line,) = re.findall(r"^ddpm-ip (.*)$", Path("README.md").read_text(), re.MULTILINE)
    assert main(line.split()) == 0
    assert len([name for name in os.listdir("samples") if name[0].isdigit()]) == 16


def test_text_from_outside_is_text(tmp_path: Path) -> None:
    """A licence or a folder's name makes no link, no HTML, no line of its own, and no metadata."""
    text = "x](http://a) <b>|`\n---\ntags: [owned]"
    exported(config_of(), tmp_path / "<i>_name_", format="safetensors", licence=text)
    card = ModelCard.load(tmp_path / "<i>_name_" / "README.md")
    assert card.data.to_dict()["license_name"] == text
    assert "owned" not in card.data.tags
    assert "\n# \\<i\\>\\_name\\_\n" in card.text
    assert "| Licence | x\\](http://a) \\<b\\>\\|\\`\\\\n---\\\\ntags: \\[owned\\] |" in card.text


def test_a_run_of_version_0_1_has_a_card(tmp_path: Path) -> None:
    legacy = ROOT / "tests/legacy/v0.1/run"
    card = card_of(legacy, tmp_path / "out")
    own = find_weights(legacy).sha256
    assert {result.metric_args["weights"] for result in card.data.eval_results} == {own}
    assert {result.metric_name for result in card.data.eval_results} == {"FD-pixels"}
    assert len(card.data.eval_results) > 1


def test_a_damaged_file_of_results_costs_its_numbers_alone(run: Path) -> None:
    (run / "results.json").write_text("{")
    assert "Nothing was measured" in card_of(run, run.parent / "out").text


def test_the_data_set_is_the_hub_s_where_it_has_one(tmp_path: Path) -> None:
    from ddpm_ip.config import from_dict

    network = {**tree()["model"], "in_channels": 3}
    config = from_dict({**tree(), "data": {"name": "cifar10", "root": "nowhere"}, "model": network})
    exported(config, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out/README.md")
    assert card.data.datasets == ["cifar10"]
    assert json.loads((tmp_path / "out/unet/config.json").read_text())["sample_size"] == 32
