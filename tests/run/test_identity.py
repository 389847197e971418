"""What a run is: its newest checkpoint says it, and config.yaml only where there is none."""

import json
import os
import shutil

import pytest
from tests.tiny import run, step_folder, tiny

from ddpm_ip.errors import ConfigError
from ddpm_ip.run.identity import changes_in, identity, since


@pytest.fixture
def trained(tmp_path):
    run(tiny(n_steps=4, save_freq=2), tmp_path / "run")
    (tmp_path / "run/config.yaml").write_text("data: {name: digits}\nperturbation: {name: none}\n")
    return tmp_path / "run"


@pytest.mark.parametrize("place", ["", "ckpt", "ckpt/step00000004", "ckpt/step00000004/ema.safetensors"])
def test_the_newest_checkpoint_says_it(trained, place):
    found = identity(trained / place)
    assert found.config["perturbation"]["name"] == "input"
    assert found.config["perturbation"]["gamma"] == 0.1
    assert (found.step, found.origin) == (4, step_folder(trained, 4) / "meta.json")


@pytest.mark.parametrize("damage", [b"", b"{}", b"{", b"\xff\xfe"])
@pytest.mark.parametrize("file", ["meta.json", "manifest.json"])
def test_a_damaged_checkpoint_says_nothing(trained, file, damage):
    (step_folder(trained, 4) / file).write_bytes(damage)
    assert identity(trained).step == 2


@pytest.mark.parametrize("file", ["meta.json", "manifest.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "folder"])
def test_what_is_no_file_is_neither_waited_for_nor_read(trained, file, kind):
    path = step_folder(trained, 4) / file
    path.unlink()
    {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "loop": lambda: path.symlink_to(path),
        "folder": path.mkdir,
    }[kind]()
    assert identity(trained).step == 2


def test_without_a_checkpoint_the_folder_says_it(trained):
    shutil.rmtree(trained / "ckpt")
    found = identity(trained)
    assert found.config["perturbation"] == {"name": "none"}
    assert (found.step, found.origin) == (None, trained / "config.yaml")


@pytest.mark.parametrize("place", ["none", "samples", "log.txt/none"])
def test_what_belongs_to_no_run_is_told(trained, place):
    (trained / "samples").mkdir(exist_ok=True)
    with pytest.raises(ConfigError, match="belongs to no folder of a run"):
        identity(trained / place)


def test_a_name_tells_since_when_it_is_true():
    history = [{"step": 3, "changes": ["seed: 0 -> 1"]}, {"step": 5, "changes": ["perturbation.gamma: 0.1 -> 0.2"]}]
    assert since(history, "perturbation") == " (since step 5)"
    assert since(history[:1], "perturbation") == ""
    assert since([*history, {"step": 9, "changes": ["perturbation.name: 'input' -> 'none'"]}], "perturbation") == (
        " (since step 9)"
    )


@pytest.mark.parametrize("found", [None, 3, "text", {}, [3, None, []], [{"step": True, "changes": []}], [{"step": 1}]])
def test_a_forged_history_is_none(found):
    assert changes_in({"history": found}) == []


def test_version_0_1_has_none():
    assert changes_in(json.loads("{}")) == []
