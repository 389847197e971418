"""uint8 to [-1, 1] and back without losing or moving a level; pictures; whole files or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_ip.images import by_class, grid, save_png, to_uint8, to_unit

LEVELS = torch.arange(256, dtype=torch.uint8)


def test_every_level_comes_back() -> None:
    unit = to_unit(LEVELS)
    assert unit.dtype == torch.float32
    assert (float(unit.min()), float(unit.max())) == (-1.0, 1.0)
    assert torch.equal(to_uint8(unit), LEVELS)


@pytest.mark.parametrize("shift", [-0.49, -0.2, 0.0, 0.2, 0.49])
def test_the_way_back_rounds_to_the_nearest_level(shift: float) -> None:
    """Truncation would give the level below for every negative shift."""
    x = (LEVELS.double() + shift) / 127.5 - 1
    assert torch.equal(to_uint8(x), LEVELS)


def test_values_outside_are_clipped() -> None:
    x = torch.tensor([-9.0, -1.01, 1.01, 9.0, -torch.inf, torch.inf])
    assert to_uint8(x).tolist() == [0, 0, 255, 255, 0, 255]


def test_reduced_precision_is_widened_first() -> None:
    """bfloat16 has eight bits: arithmetic in it would lose levels that its numbers still tell apart."""
    x = torch.tensor([-1.0, -0.5, 0.0, 0.25, 1.0], dtype=torch.bfloat16)
    assert to_uint8(x).tolist() == [0, 64, 128, 159, 255]  # 63.75, 127.5 (to even), 159.375


@pytest.mark.parametrize("channels", [1, 3])
def test_the_grid_holds_every_image_in_reading_order(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 200, (5, channels, 4, 6), dtype=np.uint8)
    picture = grid(images, columns=3, gap=2, scale=1)
    assert picture.mode == ("L" if channels == 1 else "RGB")
    assert picture.size == (3 * 8 + 2, 2 * 6 + 2)
    pixels = np.asarray(picture).reshape(14, 26, channels)
    free = np.ones((14, 26), dtype=bool)
    for i in range(5):
        place = np.s_[2 + i // 3 * 6 :, 2 + i % 3 * 8 :]
        np.testing.assert_array_equal(pixels[place][:4, :6], images[i].transpose(1, 2, 0))
        free[place][:4, :6] = False
    assert (pixels[free] == 235).all()


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (4, 2), (5, 3), (10, 4)])
def test_the_grid_is_square_by_default_and_enlarges_small_images(n: int, columns: int) -> None:
    picture = grid(np.zeros((n, 1, 8, 8), dtype=np.uint8))
    rows = -(-n // columns)
    assert picture.size == (8 * (columns * 10 + 2), 8 * (rows * 10 + 2))
    assert set(np.unique(np.asarray(picture))) == {0, 235}  # nearest neighbour: no level in between


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_very_pixels(channels: int, tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (channels, 5, 7), dtype=np.uint8)
    save_png(image, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as read:
        assert read.format == "PNG"
        np.testing.assert_array_equal(np.asarray(read).reshape(5, 7, channels), image.transpose(1, 2, 0))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_png_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted while writing, the old file is still there, whole."""
    path = tmp_path / "a.png"
    save_png(np.full((1, 4, 4), 7, dtype=np.uint8), path)
    old = path.read_bytes()

    def interrupted(self: Image.Image, file: BinaryIO, **_: object) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    for name in ("a.png", "b.png"):
        with pytest.raises(KeyboardInterrupt):
            save_png(np.zeros((1, 4, 4), dtype=np.uint8), tmp_path / name)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_four_channels_are_composited_on_white() -> None:
    image = np.array([[[100, 100]], [[0, 0]], [[50, 50]], [[255, 51]]], dtype=np.uint8)  # (4, 1, 2): opaque, a fifth
    picture = np.asarray(grid(image[None], gap=0, scale=1))
    assert picture.tolist() == [[[100, 0, 50], [224, 204, 214]]]


@pytest.mark.parametrize("channels", [2, 5])
def test_other_numbers_of_channels_are_strips(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 200, (3, channels, 4, 6), dtype=np.uint8)
    picture = grid(images, columns=2, gap=2, scale=1)
    assert picture.mode == "L"
    width = channels * 7 - 1
    assert picture.size == (2 * (width + 2) + 2, 2 * (4 + 2) + 2)
    pixels = np.asarray(picture)
    for i in range(3):
        for c in range(channels):
            top, left = 2 + i // 2 * 6, 2 + i % 2 * (width + 2) + c * 7
            np.testing.assert_array_equal(pixels[top : top + 4, left : left + 6], images[i, c])
    assert (pixels[:, 8] == 235).all(), "a line between two channels"


def test_the_grid_of_wide_images_is_about_square() -> None:
    width, height = grid(np.zeros((16, 1, 8, 32), dtype=np.uint8), gap=0, scale=1).size
    assert (width, height) == (64, 64)


def test_a_png_of_four_channels_keeps_them_all(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (4, 5, 7), dtype=np.uint8)
    save_png(image, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as read:
        np.testing.assert_array_equal(np.asarray(read), image.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("n", "period", "order", "columns"),
    [
        (7, 3, [0, 3, 1, 4, 2, 5], 2),
        (9, 3, [0, 3, 6, 1, 4, 7, 2, 5, 8], 3),
        (5, 3, range(5), None),
        (4, 1, range(4), None),
    ],
)
def test_a_row_of_a_grid_is_a_class(n: int, period: int, order: Sequence[int], columns: int | None) -> None:
    images = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1) * np.ones((1, 1, 2, 3), np.uint8)
    shown, found = by_class(images, period)
    assert (shown[:, 0, 0, 0].tolist(), found) == (list(order), columns)
