"""What may be chosen lies below the folder, and nothing else can be named."""

import os
import shutil

import pytest

from ddpm_ip import options
from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler import AnySampler
from ddpm_ip.texts import chain_overrides, sampler_overrides
from ddpm_ip.ui import choices
from ddpm_ip.ui.choices import CORRECTION_EXAMPLES, SAMPLER_EXAMPLES, Choices
from ddpm_ip.variants import variant_name, variants


@pytest.fixture
def folder(tmp_path, trained):
    """A run two folders down, a file of weights, and what is neither."""
    root = tmp_path / "mine"
    shutil.copytree(trained, root / "runs/one")
    (root / "weights").mkdir()
    shutil.copy(root / "runs/one/ckpt/step00000006/ema.safetensors", root / "weights/a.safetensors")
    (root / "weights/notes.txt").write_text("")
    shutil.copy(root / "runs/one/config.yaml", root / "weights")
    (root / "runs/begun").mkdir()
    (root / "runs/begun/config.yaml").write_text("data: {name: digits}\n")
    return root


NAMES = ["runs/one", "runs/one/ckpt/step00000006", "weights/a.safetensors"]


def test_runs_their_checkpoints_and_files(folder):
    found = Choices(folder)
    assert found.names() == NAMES
    assert [found.path(name) for name in NAMES] == [folder / name for name in NAMES]


def test_a_run_by_itself(folder):
    assert Choices(folder / "runs/one").names() == [".", "ckpt/step00000006"]
    assert Choices(folder / "runs/one").path(".") == folder / "runs/one"


def test_weights_that_come_later_are_there(folder):
    found = Choices(folder)
    shutil.copytree(folder / "runs/one", folder / "runs/two")
    assert "runs/two" in found.names()
    shutil.rmtree(folder / "runs/two")
    with pytest.raises(ConfigError, match="no weights 'runs/two'"):
        found.path("runs/two")


@pytest.mark.parametrize(
    "name",
    ["../other/run", "runs/../runs/one", "runs/begun", "runs", "weights/notes.txt", "", None, 3, ["runs/one"], "a/b"],
)
def test_no_other_name_is_a_path(folder, name):
    shutil.copytree(folder / "runs/one", folder.parent / "other/run")
    with pytest.raises(ConfigError, match="there are no weights"):
        Choices(folder).path(name)
    with pytest.raises(ConfigError, match="there are no weights"):
        Choices(folder).path(str(folder.parent / "other/run"))


@pytest.mark.parametrize("link", ["runs/linked", "runs/one/ckpt/step00000008", "weights/b.safetensors", "linked"])
def test_links_are_not_followed(folder, link):
    """A run that has some is left out as a whole."""
    elsewhere = folder.parent / "elsewhere"
    shutil.copytree(folder / "runs/one", elsewhere)
    target = elsewhere / "ckpt/step00000006" if "ckpt" in link else elsewhere
    os.symlink(target / "ema.safetensors" if link.endswith(".safetensors") else target, folder / link)
    expected = NAMES[2:] if link.startswith("runs/one") else NAMES
    assert Choices(folder).names() == expected


def test_a_folder_that_is_a_link_is_what_it_leads_to(folder):
    os.symlink(folder, folder.parent / "link")
    assert Choices(folder.parent / "link").names() == NAMES


@pytest.mark.parametrize("part", ["runs/one/ckpt", "runs/one/ckpt/step00000006"])
def test_a_part_of_a_run_needs_the_rest(folder, part):
    with pytest.raises(ConfigError, match="part of a run"):
        Choices(folder / part)


def test_there_must_be_a_folder(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        Choices(tmp_path / "missing")
    with pytest.raises(ConfigError, match="Train a run there"):
        Choices(tmp_path).path("x")


def test_the_list_has_an_end(folder, monkeypatch):
    monkeypatch.setattr(choices, "MOST", 2)
    assert Choices(folder).names() == NAMES[:2]
    monkeypatch.setattr(choices, "DEPTH", 0)
    assert Choices(folder).names() == []


def test_examples_can_be_read_and_have_all_methods():
    named = {sampler_overrides(text)["sampling.sampler.name"] for text in SAMPLER_EXAMPLES}
    assert {variant_name(method) for method in variants(AnySampler)} <= named
    chains = [chain_overrides(text)["sampling.corrections"] for text in CORRECTION_EXAMPLES]
    assert {one["name"] for chain in chains for one in chain} >= {*options.CORRECTIONS} - {"auto"}
