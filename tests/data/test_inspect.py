"""What a person is told about a set of images."""

import numpy as np
from PIL import Image

from ddpm_ip.data import Digits, Folder
from ddpm_ip.data.imageset import from_arrays
from ddpm_ip.data.inspect import inspect


def line(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


def test_numbers_are_right(tmp_path, rng):
    pixels = rng.integers(3, 200, (50, 3, 16, 16), dtype=np.uint8)
    pixels[7] = pixels[9] = pixels[1]
    images = from_arrays(pixels, np.arange(50) % 2, "mine", 16)
    text = inspect(images, tmp_path / "new" / "sheet.png")
    unit = pixels.astype(np.float64) / 255
    for name, values in (("mean", unit.mean(axis=(0, 2, 3))), ("std", unit.std(axis=(0, 2, 3)))):
        assert line(text, name).split()[1:] == [f"{value:.4f}" for value in values]
    assert line(text, "mine") == "mine: 50 images, 3 x 16 x 16, uint8"
    assert line(text, "min, max").split()[-2:] == ["3,", "199"]
    assert line(text, "exact duplicates").split()[-1] == "2"
    assert line(text, "labels") == "labels            2 classes, 25 to 25 images each"
    assert images.fingerprint in text


def test_contact_sheet_is_the_same_each_time(tmp_path):
    digits = Digits().open()
    for name in ("a.png", "b.png"):
        inspect(digits, tmp_path / name, n=9)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.width == sheet.height


def test_unusable_files_and_original_sizes_are_shown(tmp_path, make, rng):
    root = tmp_path / "images"
    for name, shape in {"cat/a": (8, 8, 3), "cat/b": (40, 30, 3), "dog/c": (8, 8, 3)}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.png").write_bytes(make.encoded(rng.integers(0, 256, shape, dtype=np.uint8)))
    for i in range(30):
        (root / "dog" / f"empty{i}.png").touch()
    images = Folder(root=str(root), image_size=16, on_bad="skip").open(progress=False)
    text = inspect(images, tmp_path / "sheet.png")
    assert line(text, "unusable").split()[-1] == "30"
    assert text.count(".png: empty") == 30
    assert line(text, "original sizes").startswith("original sizes    2 different; shorter side 8 to 30, median 8; 2 ")
    assert line(text, "  8 x 8").split()[-1] == "2"
    assert line(text, "  30 x 40").split()[-1] == "1"
    assert line(text, "  0 ").split()[-2:] == ["2", "cat"]


def test_a_set_without_labels(tmp_path):
    text = inspect(from_arrays(np.zeros((1, 1, 8, 8), np.uint8), None, "one", 8), tmp_path / "sheet.png")
    assert line(text, "labels").split() == ["labels", "none"]
    assert "original sizes" not in text


def test_many_channels_and_no_square(tmp_path, rng):
    pixels = rng.integers(0, 256, (5, 5, 6, 10), dtype=np.uint8)
    text = inspect(from_arrays(pixels, None, "deep", (6, 10)), tmp_path / "sheet.png")
    assert line(text, "deep") == "deep: 5 images, 5 x 6 x 10, uint8"
    assert line(text, "mean").split()[1:] == [f"{v:.4f}" for v in (pixels / 255).mean(axis=(0, 2, 3))]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.mode == "L"


def test_an_image_is_enlarged_when_a_side_is_too_short(tmp_path, make, rng):
    (tmp_path / "images").mkdir()
    for i, (height, width) in enumerate([(6, 9), (5, 20), (6, 10), (12, 20)]):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        (tmp_path / "images" / f"{i}.png").write_bytes(make.encoded(image))
    images = Folder(root=str(tmp_path / "images"), image_size=(6, 10)).open(progress=False)
    assert line(inspect(images, tmp_path / "sheet.png"), "original sizes").endswith("; 2 images were enlarged")
