"""Small data sets made on the spot; the decode cache of every test is a folder of its own."""

import io
import pickle
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_ip.errors import DataError


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "ddpm-ip"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def encoded(array, kind="PNG", **options) -> bytes:
    """An array (or Pillow image) as the bytes of an image file."""
    file = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(file, kind, **options)
    return file.getvalue()


def raw_png(width, height, depth, color, rows: bytes) -> bytes:
    """A PNG written by hand: for what Pillow cannot write (16-bit RGB, false sizes)."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def cifar_batches(split, rows=4):
    """name -> (pickled bytes, pixels, labels) of small batches like the official ones."""
    rng, out = np.random.default_rng(1), {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]:
        data, labels = rng.integers(0, 256, (rows, 3072), dtype=np.uint8), rng.integers(0, 10, rows).tolist()
        batch = {b"batch_label": b"a batch", b"labels": labels, b"data": data, b"filenames": [b"a.png"] * rows}
        out[name] = (pickle.dumps(batch, protocol=4), data.reshape(-1, 3, 32, 32), labels)
    return out


def tar_gz(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def image_folder(tmp_path, rng):
    """Six 8 x 8 PNG images in two classes; returns (folder, pixels (6, 3, 8, 8) in sorted order)."""
    root, pixels = tmp_path / "images", rng.integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    for i, image in enumerate(pixels):
        path = root / ("ant" if i < 2 else "bee") / "deeper" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image.transpose(1, 2, 0)))
    return root, pixels


def mutations(data: bytes, n: int):
    """``n`` damaged copies, the same each time: bits, bytes, cuts, gaps and insertions, mostly near either end."""
    rng = np.random.default_rng(len(data))
    for _ in range(n):
        damaged = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            size = max(1, len(damaged))
            near = int(rng.integers(min(size, 200)))
            where = (near, size - 1 - near, int(rng.integers(size)))[rng.integers(3)]
            some = rng.integers(0, 256, rng.integers(1, 9), dtype=np.uint8).tobytes()
            kind = rng.integers(5)
            if kind == 0:
                damaged[where : where + 1] = bytes([(damaged[where : where + 1] or b"\0")[0] ^ 1 << rng.integers(8)])
            elif kind == 1:
                damaged[where : where + len(some)] = some
            elif kind == 2:
                del damaged[where:]
            elif kind == 3:
                del damaged[where : where + len(some)]
            else:
                damaged[where:where] = some
        yield bytes(damaged)


def survives(data: bytes, read, n: int = 60) -> None:
    """Damaged copies are read, or refused with a sentence; nothing else happens."""
    read(data)
    refused = 0
    for damaged in mutations(data, n):
        try:
            read(damaged)
        except DataError:
            refused += 1
    assert refused


class Helpers:
    survives = staticmethod(survives)
    encoded = staticmethod(encoded)
    raw_png = staticmethod(raw_png)
    cifar_batches = staticmethod(cifar_batches)
    tar_gz = staticmethod(tar_gz)


@pytest.fixture
def make():
    return Helpers
