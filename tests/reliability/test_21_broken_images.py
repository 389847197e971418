"""Images that cannot be used are told before the first step, all in one error; or left out, and that is written down.

``data.on_bad`` is ``error`` unless it is said to be ``skip``. Training never meets one later: pixels are decoded once,
before it begins. Not promised: a picture that is cut off in a way that its format calls complete is a picture. More is
in tests/data/test_decoded.py, with one kind each in tests/data/test_decode.py.
"""

import json
import os

import numpy as np
import pytest
import yaml
from tests.data.conftest import encoded
from tests.tiny import meta, tree

from ddpm_ip.cli import main

GOOD, BAD = 20, ["cut.png", "empty.png", "link.png", "loop.png", "text.png"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    root = tmp_path / "images"
    root.mkdir()
    for i in range(GOOD):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        (root / f"{i:02}.png").write_bytes(encoded(pixels))
    (root / "cut.png").write_bytes((root / "00.png").read_bytes()[:-30])
    (root / "empty.png").touch()
    (root / "text.png").write_text("hello")
    (root / "link.png").symlink_to("nowhere")
    (root / "loop.png").symlink_to("loop.png")
    (root / "folder.png").mkdir()  # is a folder, whatever its name
    return root


def command(tmp_path, root, *options):
    data = {"name": "folder", "root": str(root), "image_size": 8, "mode": "gray"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**tree(n_steps=3), "data": data}))
    return main(["train", "-c", str(tmp_path / "c.yaml"), "-e", str(tmp_path / "run"), *options])


def test_one_error_lists_them_all_and_nothing_is_made(tmp_path, folder, capsys):
    assert command(tmp_path, folder) == 1
    said = capsys.readouterr().err
    assert f"{len(BAD)} of {GOOD + len(BAD)} images cannot be used:" in said
    for name in BAD:
        assert f"{folder / name}: " in said
    assert "folder.png" not in said
    assert "data.on_bad: skip" in said
    assert not list((tmp_path / "run").rglob("step*"))
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_skip_counts_and_lists_them_in_the_folder_of_the_run(tmp_path, folder):
    assert command(tmp_path, folder, "--data.on_bad", "skip") == 0
    assert f"{len(BAD)} unusable images left out" in (tmp_path / "run" / "log.txt").read_text()
    data = json.loads((tmp_path / "run" / "provenance.json").read_text())["data"]
    assert data["count"] == GOOD
    assert data["left_out"]["count"] == len(BAD)
    for name, line in zip(BAD, data["left_out"]["files"], strict=True):
        assert str(folder / name) in line
    first = meta(tmp_path / "run", 3)["data_fingerprint"]
    for name in BAD:
        os.unlink(folder / name)
    assert main(["train", "-e", str(tmp_path / "run"), "-r", "latest", "--train.n_steps", "4"]) == 0
    assert meta(tmp_path / "run", 4)["data_fingerprint"] == first, "the images are those that were good"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path, folder, capsys):
    (folder / "03.png").chmod(0)
    assert command(tmp_path, folder) == 1
    assert "Permission denied" in capsys.readouterr().err
