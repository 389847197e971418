"""CIFAR-10's batches are recorded and never unpickled. Reliability test 23."""

import pickle
import tracemalloc

import numpy as np
import pytest

from ddpm_ip.data.batches import MD5, record
from ddpm_ip.data.batches import read_batch as read
from ddpm_ip.errors import DataError


def batch(make):
    return make.cifar_batches("test")["test_batch"]


def test_pixels_and_labels(make, warnings_of):
    data, pixels, labels = batch(make)
    found = read(data, "test_batch")
    assert np.array_equal(found[0], pixels)
    assert found[1].tolist() == labels
    assert warnings_of() == ["CIFAR-10 test_batch: not the official file (its MD5 is another); read without trust"]
    assert len(set(MD5.values())) == 6
    assert all(len(bytes.fromhex(digest)) == 16 for digest in MD5.values())


def test_axes_in_the_other_order(make):
    _, pixels, _ = batch(make)
    flat = np.asfortranarray(pixels.reshape(len(pixels), -1))
    stored = pickle.dumps({b"data": flat, b"labels": [1, 2, 3, 4]}, protocol=4)
    assert np.array_equal(read(stored, "x")[0], pixels)


@pytest.mark.parametrize(
    "data",
    [
        b"r\xff\xff\xff\x7fK\x01.",  # LONG_BINPUT of a huge number: 1.5 GB for pickle.loads
        b"K\x01r\xff\xff\xff\x7f.",
        b"\x80\x04K\x01p2000000000\n.",
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb.",
        b"cnumpy\ndtype\n(U\x02V8K\x00K\x01tR(K\x03U\x01|N(U\x01at}U\x01aK\x01sK\x08K\x01K\x10tb.",
        b"cnumpy\nndarray\n(K\xfftR.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # BINBYTES8 of 2^63 bytes
        b"\x96\xff\xff\xff\xff\xff\xff\x00\x00.",  # BYTEARRAY8
        b"\x8b\xff\xff\xff\x7f1.",  # LONG4
        b"L" + b"9" * 100_000 + b"L\n.",
        b"(" * 1000 + b".",
        b"]" + b"]a" * 3,
        b"\x80\x02}q\x00h\x00h\x00s.",
        b"]q\x00h\x00a.",
        b"2.",
        b"0.",
        b"a.",
        b"cos\nsystem\n(U\x04truetR.",
        b"\x8c\x02os\x8c\x06system\x93.",
        b"Pperson\n.",
        b"",
    ],
)
def test_hostile_pickles_are_refused_in_little_memory(data):
    tracemalloc.start()
    with pytest.raises(DataError, match=r"test_batch: refused, not an official batch: .*Fetch the official archive"):
        read(data, "test_batch")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_deep_nesting_and_many_opcodes_are_bounded():
    with pytest.raises(DataError, match="holds no keys"):
        read(b"]" * 200_000 + b"a" * 199_999 + b".", "x")
    with pytest.raises(DataError, match="more than 500,000 opcodes"):
        read(b"N" * 500_001, "x")


@pytest.mark.parametrize("name", [b"cbuiltins\neval\n.", b"c__builtin__\ngetattr\n.", b"cnumpy\nload\n."])
def test_only_four_names_are_known(name):
    with pytest.raises(ValueError, match="which no image batch needs"):
        record(name)


@pytest.mark.parametrize("labels", [[-1], [10], [2**70], [1.5], [True], ["1"], [None], [[1]], (1,), {b"a": 1}])
def test_labels_are_whole_numbers_of_ten_classes(labels):
    data = pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": labels}, protocol=4)
    with pytest.raises(DataError, match="refused"):
        read(data, "x")


def test_damaged_batches(make):
    make.survives(batch(make)[0], lambda data: read(data, "test_batch"))
