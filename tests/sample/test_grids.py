"""``grid.png``: the first images as one picture; where a file of its name is somebody's, it stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_ip.sample.grids import SHOWN, STRIPS, count, write_grid
from ddpm_ip.sample.store import Store

PICTURES = [np.full((1, 8, 8), 40 * i, np.uint8) for i in range(6)]


def levels(file: Path) -> list[list[int]]:
    """The level in the middle of each image; 80 pixels are an image and a gap, eight times as large."""
    return np.asarray(Image.open(file))[56::80, 56::80].tolist()


def test_the_images_lie_in_their_order(tmp_path: Path):
    store = Store.at(tmp_path / "a", "sample", 1)
    assert write_grid(store, PICTURES, 1) == tmp_path / "a/grid.png"
    assert levels(store.grid) == [[0, 40, 80], [120, 160, 200]]
    write_grid(store, PICTURES[:1], 1)
    assert levels(store.grid) == [[0]], "the newest call is shown"


def test_a_row_is_a_class_and_strips_lie_one_below_the_other(tmp_path: Path):
    store = Store.at(tmp_path / "a", "sample", 1)
    write_grid(store, PICTURES, 2)
    assert levels(store.grid) == [[0, 80, 160], [40, 120, 200]]
    write_grid(store, PICTURES[:3], None)
    assert levels(store.grid) == [[0], [40], [80]]
    assert (count(1000, False), count(1000, True), count(5, True)) == (SHOWN, STRIPS, 5)


def test_beside_an_npz_a_file_of_the_name_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    store = Store.at(tmp_path / "a.npz", "sample", 1)
    assert write_grid(store, PICTURES, 1) == tmp_path / "a.grid.png"
    before = store.grid.read_bytes()
    assert write_grid(store, PICTURES[:2], 1) == store.grid
    assert store.grid.read_bytes() == before
    assert "was not touched" in caplog.text
