"""A small file that unfolds to a large one is refused before memory is taken for it.

An image may have ``MAX_PIXELS``, an array what is allowed of an unpacked file, a member of an archive what a real one
has. Archives are read only where a data set is one (npz, CIFAR-10, MNIST), and nothing is ever unpacked to the disk, so
that names such as ``../x`` lead nowhere. Many small files are only slow. Each reader has more of these in tests/data.
"""

import gzip
import io
import resource
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tests.data.conftest import encoded, raw_png
from tests.tiny import alone

from ddpm_ip.data import Cifar10, Folder, Mnist, Npz
from ddpm_ip.errors import DataError

MEMORY, GB = 100_000_000, 1_000_000_000


def refused(open_it, words: str) -> None:
    """By a process that may take 100 MB more than it has."""

    def call():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
        with pytest.raises(DataError, match=words):
            open_it()

    assert alone(call) == 0


def open_folder(root: Path):
    return Folder(root=str(root), image_size=8, cache=str(root.parent / "cache")).open(progress=False)


@pytest.mark.parametrize(
    ("width", "height"), [(20_000, 20_000), (2**31 - 1, 1), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1)]
)
def test_a_picture_of_a_hundred_bytes(tmp_path, width, height):
    root = tmp_path / "images"
    root.mkdir()
    (root / "bomb.png").write_bytes(raw_png(width, height, 8, 2, b"\0" * 100))
    assert (root / "bomb.png").stat().st_size < 120
    refused(lambda: open_folder(root), r"1 of 1 images cannot be used:(?s:.*)bomb\.png")


def zeros(path: Path, thousands: int) -> None:
    """An npz of so many thousand black images, which deflate packs two hundredfold and more."""
    shape = f"({1000 * thousands}, 32, 32, 3)"
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("images.npy", "w") as file,
    ):
        file.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
        for _ in range(thousands):
            file.write(bytes(1000 * 32 * 32 * 3))


def test_an_archive_of_zeros(tmp_path):
    """Half a gigabyte; and one whose table of contents says 4 GB."""
    zeros(tmp_path / "a.npz", 160)
    assert (tmp_path / "a.npz").stat().st_size < 5_000_000
    refused(lambda: Npz(root=str(tmp_path / "a.npz"), image_size=32).open(progress=False), "unpack to")
    content = bytearray((tmp_path / "a.npz").read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (4_000_000_000).to_bytes(4, "little")
    (tmp_path / "b.npz").write_bytes(content)
    refused(lambda: Npz(root=str(tmp_path / "b.npz"), image_size=32).open(progress=False), r"b\.npz")


@pytest.mark.parametrize("name", ["../x.npy", "/tmp/x.npy", "..\\x.npy", "a/../../x.npy"])
def test_a_name_that_leads_elsewhere_writes_nothing(tmp_path, name):
    """It is the name of an array, and no path."""
    inside = tmp_path / "deep" / "er"
    inside.mkdir(parents=True)
    file = io.BytesIO()
    np.save(file, np.zeros((4, 8, 8, 3), np.uint8))
    with zipfile.ZipFile(inside / "a.npz", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), file.getvalue())
    assert Npz(root=str(inside / "a.npz"), image_size=8).open(progress=False).pixels.shape == (4, 3, 8, 8)
    assert [p for p in tmp_path.rglob("*") if p.is_file() and "cache" not in p.parts] == [inside / "a.npz"]
    assert not Path("/tmp/x.npy").exists()


LINKS = {"symbolic": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE, "device": tarfile.CHRTYPE}


@pytest.mark.parametrize("kind", LINKS)
def test_what_is_no_file_in_an_archive_is_not_followed(tmp_path, kind):
    (tmp_path / "secret").write_bytes(b"secret")
    member = tarfile.TarInfo("cifar-10-batches-py/test_batch")
    member.type, member.linkname = LINKS[kind], str(tmp_path / "secret")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(member)
    refused(lambda: Cifar10(root=str(tmp_path / "a.tar.gz"), split="test").open(progress=False), r"a\.tar\.gz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.gz", "secret"]


def test_an_archive_of_zeros_in_a_tar(tmp_path):
    member = tarfile.TarInfo("cifar-10-batches-py/test_batch")
    member.size = GB // 2
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        file.write(member.tobuf())
        for _ in range(member.size // 10_000_000):
            file.write(bytes(10_000_000))
    refused(lambda: Cifar10(root=str(tmp_path / "a.tar.gz"), split="test").open(progress=False), r"a\.tar\.gz")


def test_idx_of_gigabytes(tmp_path):
    shape = b"".join(n.to_bytes(4, "big") for n in (0x803, 2_000_000, 28, 28))
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
        file.write(shape)
        for _ in range(30):
            file.write(bytes(10_000_000))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes((0x801).to_bytes(4, "big") + (5).to_bytes(4, "big") + bytes(5))
    refused(lambda: Mnist(root=str(tmp_path)).open(progress=False), "train-images")


def test_many_tiny_files_take_little_memory(tmp_path):
    """They are listed by name, and decoded a chunk at a time."""
    root, content = tmp_path / "images", encoded(np.zeros((1, 1), np.uint8))
    root.mkdir()
    (root / "00000.png").write_bytes(content)
    for i in range(1, 3000):
        (root / f"{i:05}.png").hardlink_to(root / "00000.png")

    def call():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 3 * MEMORY,) * 2)
        assert len(open_folder(root)) == 3000

    assert alone(call) == 0
