"""Every image that the package writes is whole, and one that was cut or changed is not."""

import io
import struct
import zlib
from random import Random

import numpy as np
import pytest
from PIL import Image

from ddpm_ip.images import save_png
from ddpm_ip.sample.whole import is_whole, largest

SHAPES = [(1, 8, 8), (3, 32, 32), (4, 5, 9), (1, 1, 1), (3, 1, 700), (3, 64, 48)]


def png(tmp_path, shape, seed=0, smooth=False):
    rng = np.random.default_rng(seed)
    image = np.full(shape, 7, np.uint8) if smooth else rng.integers(0, 256, shape, dtype=np.uint8)
    save_png(image, tmp_path / "x.png")
    return (tmp_path / "x.png").read_bytes()


def npy(shape):
    file = io.BytesIO()
    np.save(file, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return file.getvalue()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("smooth", [False, True])
def test_what_is_written_is_whole(tmp_path, shape, smooth):
    content = png(tmp_path, shape, smooth=smooth)
    assert is_whole(content, ".png", shape)
    assert is_whole(npy(shape), ".npy", shape)
    assert max(len(content), len(npy(shape))) <= largest(shape)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 9), (1, 9, 8), (4, 8, 8), (1, 16, 4)])
def test_an_image_of_another_size_or_of_other_colours_is_none(tmp_path, shape):
    assert not is_whole(png(tmp_path, (1, 8, 8)), ".png", shape)
    assert not is_whole(npy((1, 8, 8)), ".npy", shape)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "I;16", "RGBA"])
def test_a_png_of_another_mode_is_none(mode):
    file = io.BytesIO()
    Image.new(mode, (8, 8)).save(file, format="PNG")
    assert not is_whole(file.getvalue(), ".png", (1, 8, 8))
    assert not is_whole(file.getvalue(), ".png", (3, 8, 8))


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "GIF", "TIFF"])
def test_another_format_under_the_name_of_a_png_is_none(kind):
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, format=kind)
    assert not is_whole(file.getvalue(), ".png", (1, 8, 8))


def test_every_cut_and_every_flipped_bit_of_a_png_is_seen(tmp_path):
    content = png(tmp_path, (3, 4, 4))
    for n in range(len(content)):
        assert not is_whole(content[:n], ".png", (3, 4, 4)), n
    for n in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[n // 8] ^= 1 << n % 8
        assert not is_whole(bytes(flipped), ".png", (3, 4, 4)), n


def test_garbage_is_seen(tmp_path):
    random, content, raw = Random(1), png(tmp_path, (1, 8, 8)), npy((1, 8, 8))
    for garbage in (b"", b"\0" * 500, random.randbytes(500), content + b"more", content * 2, b"x" + content):
        assert not is_whole(garbage, ".png", (1, 8, 8))
        assert not is_whole(garbage, ".npy", (1, 8, 8))
    for cut in (raw[:-1], raw + b"\0", raw[:100], b"\x93NUMPY" + raw):
        assert not is_whole(cut, ".npy", (1, 8, 8))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    "data", [b"", b"garbage", zlib.compress(b"\0" * 71), zlib.compress(b"\0" * 73), zlib.compress(b"\0" * 72)[:-1]]
)
def test_chunks_whose_checksums_fit_but_hold_no_image_are_seen(data):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    start, end = b"\x89PNG\r\n\x1a\n" + header, chunk(b"IEND", b"")
    assert is_whole(start + chunk(b"IDAT", zlib.compress(b"\0" * 72)) + end, ".png", (1, 8, 8))
    assert not is_whole(start + chunk(b"IDAT", data) + end, ".png", (1, 8, 8))
    assert not is_whole(start + end, ".png", (1, 8, 8))


def test_a_bomb_is_not_unfolded():
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    bomb = zlib.compress(b"\0" * 30_000_000)
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", bomb) + chunk(b"IEND", b"")
    assert len(content) < largest((1, 8, 8))
    assert not is_whole(content, ".png", (1, 8, 8))
