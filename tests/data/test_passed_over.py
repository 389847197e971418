"""What is among the images and is not taken is counted, named, and said how to use."""

import os
import sys
import types

import numpy as np
import pytest
from PIL import Image

from ddpm_ip.data import Folder, decode
from ddpm_ip.data.inspect import inspect
from ddpm_ip.data.passed_over import is_taken, passed_over
from ddpm_ip.errors import DataError


@pytest.fixture(autouse=True)
def formats_again():
    decode.formats.cache_clear()
    yield
    decode.formats.cache_clear()


def fill(root, make):
    """Four images that are taken, under rarer names; and files that are not."""
    picture = np.zeros((8, 8, 3), np.uint8)
    png, jpeg = make.encoded(picture), make.encoded(picture, "JPEG")
    files = {"a.jpe": jpeg, "b.JFIF": jpeg, "c.apng": png, "d.tif": make.encoded(picture, "TIFF")}
    files |= {"e.heic": b"x", "f.HEIC": b"x", "g.tga": b"x", "no_suffix": png, "h.png.1": png, "i.jpg_large": jpeg}
    files |= {"j.dat": b"II*\0", "k": b"\0\0\0\x18ftypheic", "l.bin": b"BM1234\0\0\0\0", "m": b"P6 1 1 255\nabc"}
    files |= {
        "n.txt": png,
        "o.json": b"{}",
        ".p.png": png,
        "q": b"BMP is no picture",
        "r": b"",
        "s.orig": b"RIFF1234WEBP",
    }
    root.mkdir()
    for name, data in files.items():
        (root / name).write_bytes(data)
    (root / "elsewhere").mkdir()
    (root / "link").symlink_to("elsewhere")
    os.mkfifo(root / "pipe")
    return root


EXPECTED = [  # of pillow-heif nothing is installed
    ("PNG images without a usual suffix", 2, ("h.png.1", "no_suffix"), "rename them to end in .png"),
    (".heic files", 2, ("e.heic", "f.HEIC"), "pip install pillow-heif, or convert them to PNG"),
    ("BMP images without a usual suffix", 1, ("l.bin",), "rename them to end in .bmp"),
    (".tga files", 1, ("g.tga",), "convert them to PNG"),
    ("HEIF images without a usual suffix", 1, ("k",), "pip install pillow-heif, or convert them to PNG"),
    ("JPEG images without a usual suffix", 1, ("i.jpg_large",), "rename them to end in .jpg"),
    ("PNM images without a usual suffix", 1, ("m",), "rename them to end in .ppm"),
    ("TIFF images without a usual suffix", 1, ("j.dat",), "rename them to end in .tif"),
    ("WebP images without a usual suffix", 1, ("s.orig",), "rename them to end in .webp"),
    ("links to folders", 1, ("link",), "links are not followed: give the folder itself, or copy it"),
    ("other files", 6, (".p.png", "n.txt", "o.json", "pipe", "q"), ""),
]


def test_everything_is_counted_and_named(tmp_path, make, monkeypatch, warnings_of):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    images = Folder(root=str(fill(tmp_path / "images", make)), image_size=8).open(progress=False)
    assert len(images) == 4
    found = {(one.kind, one.count, one.names, one.advice) for one in images.passed_over}
    assert found == set(EXPECTED)
    assert [bool(one.advice) for one in images.passed_over] == [True] * 10 + [False]
    (line,) = warnings_of()
    assert line.startswith("images: 12 files look like images and were passed over: ")
    assert "1 .tga files (g.tga): convert them to PNG" in line
    text = inspect(images, tmp_path / "sheet.png")
    assert "passed over       12 that look like images" in text
    assert "  6 other files (.p.png, n.txt, o.json, pipe, q, ...)" in text
    again = Folder(root=str(tmp_path / "images"), image_size=8).open(progress=False)  # from the cache
    assert again.passed_over == images.passed_over


def test_a_folder_of_nothing_but_these_says_so(tmp_path, make):
    (tmp_path / "a.tga").write_bytes(b"x")
    (tmp_path / "b").write_bytes(make.encoded(np.zeros((8, 8), np.uint8)))
    with pytest.raises(DataError, match=r"no image file below .*2 files look like images.*a\.tga.*rename them"):
        Folder(root=str(tmp_path), image_size=8).open()


def test_heif_is_read_if_pillow_heif_is_there(tmp_path, monkeypatch, make):
    """A stand-in registers a format of its own under that name, as pillow-heif does."""

    def register():
        def accept(start):
            return start[4:12] == b"ftypheic"

        def opener(file, name):
            image = Image.new("RGB", (8, 8), "red")
            image.format = "HEIF"
            image.tile = []
            return image

        Image.register_open("HEIF", opener, accept)

    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    try:
        images = Folder(root=str(tmp_path), image_size=8).open(progress=False)
        assert images.pixels[0, :, 0, 0].tolist() == [255, 0, 0]
        assert images.passed_over == ()
    finally:
        Image.OPEN.pop("HEIF", None)
        Image.ID.remove("HEIF")


def test_many_of_a_kind_are_one_line(tmp_path):
    paths = [tmp_path / f"{i}.cr2" for i in range(30)]
    (found,) = passed_over(paths, tmp_path)
    assert str(found) == "30 .cr2 files (0.cr2, 1.cr2, 10.cr2, 11.cr2, 12.cr2, ...): convert them to PNG"
    assert not is_taken("0.cr2")
    assert not is_taken(".0.png")


@pytest.mark.parametrize("root", ["x" * 300, "a\0b", "~no_such_user_here/x"])
def test_names_that_cannot_be(root):
    with pytest.raises(DataError, match="cannot be reached"):
        Folder(root=root, image_size=8).open()


def test_the_grid_of_samples_is_no_sample_and_not_worth_a_word(tmp_path, make):
    """Beside the mark of `ddpm-ip sample` alone: elsewhere an image may be called so."""
    (tmp_path / "more").mkdir()
    for name in ("000000.png", "grid.png", "more/grid.png"):
        (tmp_path / name).write_bytes(make.encoded(np.zeros((8, 8, 3), np.uint8)))
    (tmp_path / "sampling.json").write_text("{}")
    listing = Folder(root=str(tmp_path), image_size=8).listing()
    found = [item.where for item in listing.items()]
    assert found == [str(tmp_path / "000000.png"), str(tmp_path / "more/grid.png")]
    assert [one.names for one in listing.passed_over] == [("sampling.json",)]
