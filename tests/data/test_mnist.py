"""idx files that are damaged, or declare more than they have."""

import gzip
import os
import tracemalloc

import numpy as np
import pytest

from ddpm_ip.data import Mnist
from ddpm_ip.errors import DataError

NAMES = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(magic, *shape, data=b""):
    return b"".join(n.to_bytes(4, "big") for n in (magic, *shape)) + data


def write(folder, images, pack=False):
    (folder / NAMES[1]).write_bytes(idx(0x801, 5, data=bytes(range(5))))
    (folder / (NAMES[0] + ".gz" * pack)).write_bytes(gzip.compress(images) if pack else images)


def read(folder):
    return Mnist(root=str(folder)).open(progress=False)


@pytest.mark.parametrize("pack", [True, False])
def test_a_header_that_asks_for_too_much(tmp_path, pack):
    write(tmp_path, idx(0x803, 200_000, 28, 28, data=bytes(1000)), pack)
    tracemalloc.start()
    with pytest.raises(DataError, match="unpack to 156,800,000"):
        read(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    write(tmp_path, idx(0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1), pack)
    with pytest.raises(DataError, match="more than the limit"):
        read(tmp_path)


@pytest.mark.parametrize("shape", [(5, 0, 28), (5, 28, 0), (0, 28, 28), (2**32 - 1, 0, 0)])
def test_images_without_pixels(tmp_path, shape):
    write(tmp_path, idx(0x803, *shape))
    with pytest.raises(DataError, match="there is nothing in it"):
        read(tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / NAMES[0])
    with pytest.raises(DataError, match="Put the four MNIST files there"):
        read(tmp_path)
    with pytest.raises(DataError, match="cannot be reached"):
        read("x" * 300)


@pytest.mark.parametrize("pack", [True, False])
def test_damaged_files(tmp_path, make, pack):
    images = idx(0x803, 5, 28, 28, data=np.arange(3920).astype(np.uint8).tobytes())
    path = tmp_path / (NAMES[0] + ".gz" * pack)
    write(tmp_path, images, pack)

    def one(data):
        path.write_bytes(data)
        read(tmp_path)

    make.survives(path.read_bytes(), one)
