"""Digits, CIFAR-10, MNIST, npz: images that need no decoding. Reliability test 23: evil pickles."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import tracemalloc
import urllib.error
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from ddpm_ip.data import Cifar10, DataConfig, Digits, Mnist, Npz, cifar10
from ddpm_ip.data.decode import fit
from ddpm_ip.data.imageset import fingerprint, from_arrays
from ddpm_ip.errors import DataError


def test_every_variant_has_its_own_name():
    names = [variant.__dataclass_fields__["name"].default for variant in get_args(DataConfig)]
    assert names == ["digits", "cifar10", "mnist", "folder", "parquet", "npz", "unknown"]


def test_digits():
    digits = Digits().open()
    assert digits.pixels.shape == (len(digits), digits.channels, digits.height, digits.width) == (1797, 1, 8, 8)
    assert digits.pixels.dtype == np.uint8
    assert digits.labels.dtype == np.int64
    assert np.unique(digits.labels).tolist() == list(range(10))
    assert digits.name == "digits"
    assert Digits().open().fingerprint == digits.fingerprint


def test_images_are_read_only():
    digits = Digits().open()
    with pytest.raises(ValueError, match="read-only"):
        digits.pixels[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        digits.labels[0] = 0


def test_another_size_is_resized():
    digits = Digits(image_size=16).open(progress=False)
    assert digits.pixels.shape == (1797, 1, 16, 16)
    assert digits.fingerprint != Digits().open().fingerprint
    with pytest.raises(DataError, match="image_size must be at least 1"):
        Digits(image_size=0).open()


def test_fingerprint_sees_shape_pixels_and_labels_but_not_layout(rng):
    pixels, labels = rng.integers(0, 256, (4, 3, 8, 8), dtype=np.uint8), np.arange(4)
    other = pixels.copy()
    other[3, 2, 7, 7] ^= 1
    swapped = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    same = fingerprint(pixels, labels)
    assert fingerprint(swapped, labels) == same
    prints = {same, fingerprint(other, labels), fingerprint(pixels, labels + 1), fingerprint(pixels, None)}
    assert len(prints | {fingerprint(pixels.reshape(4, 3, 4, 16), labels)}) == 5


# ---------------------------------------------------------------------------------------------------- CIFAR-10


def expected(batches):
    pixels = np.concatenate([pixels for _, pixels, _ in batches.values()])
    return pixels, [label for *_, labels in batches.values() for label in labels]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("place", ["cifar-10-batches-py/", "", "archive", "the archive itself"])
def test_cifar10_wherever_it_lies(make, tmp_path, split, place):
    batches, root = make.cifar_batches(split), tmp_path / "cifar"
    if "archive" in place:
        shuffled = {f"cifar-10-batches-py/{name}": batches[name][0] for name in reversed(batches)}
        archive = make.tar_gz(root / "cifar-10-python.tar.gz", {"cifar-10-batches-py/readme.html": b"x", **shuffled})
        root = archive if "itself" in place else root
    else:
        (root / place).mkdir(parents=True)
        for name, (data, *_) in batches.items():
            (root / place / name).write_bytes(data)
    images, (pixels, labels) = Cifar10(root=str(root), split=split, download=False).open(), expected(batches)
    assert np.array_equal(images.pixels, pixels)
    assert images.labels.tolist() == labels
    assert images.name == f"cifar10-{split}"


def test_cifar10_reads_batches_pickled_by_python_2(tmp_path):
    """The official files are protocol 2 with byte strings and numpy.core names: written here opcode by opcode."""
    data = np.arange(3072, dtype=np.uint8)
    raw = data.tobytes()

    def short(text):  # SHORT_BINSTRING, what Python 2 wrote for str
        return b"U" + bytes([len(text)]) + text

    dtype = (
        b"cnumpy\ndtype\n"
        + short(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + short(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R"
    state = b"(K\x01K\x01M\x00\x0c\x86" + dtype + b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    pickled = b"\x80\x02}(" + short(b"data") + empty + state + short(b"labels") + b"](K\x07eu."
    (tmp_path / "test_batch").write_bytes(pickled)
    images = Cifar10(root=str(tmp_path), split="test").open()
    assert np.array_equal(images.pixels.ravel(), data)
    assert images.labels.tolist() == [7]


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_evil_batch_is_refused_and_runs_nothing(tmp_path, protocol):
    sentinel = tmp_path / "owned"
    for call in ((os.system, f"touch {sentinel}"), (eval, f"open({str(sentinel)!r}, 'w')"), (np.load, str(sentinel))):
        (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Evil(*call), b"labels": []}, protocol=protocol))
        with pytest.raises(DataError, match="test_batch: refused"):
            Cifar10(root=str(tmp_path), split="test").open()
    assert not sentinel.exists()


def test_batch_cannot_ask_for_a_huge_array(tmp_path):
    call = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x8a\x06\x00\x00\x00\x00\x00\x7f\x85U\x01b\x87R"
    (tmp_path / "test_batch").write_bytes(b"\x80\x02}(U\x04data" + call + b"U\x06labels]u.")
    with pytest.raises(DataError, match="test_batch: refused"):
        Cifar10(root=str(tmp_path), split="test").open()


@pytest.mark.parametrize(
    "batch",
    [
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
        {b"data": np.zeros((1, 3071), np.uint8), b"labels": [1]},
        {b"data": np.zeros((1, 3072), np.float32), b"labels": [1]},
        {b"data": "text", b"labels": [1]},
        {b"labels": [1]},
        [1, 2],
    ],
)
def test_cifar10_batch_that_does_not_fit(tmp_path, batch):
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol=4))
    with pytest.raises(DataError, match="test_batch"):
        Cifar10(root=str(tmp_path), split="test").open()


def test_cifar10_damaged_or_incomplete(make, tmp_path):
    (tmp_path / "data_batch_2").write_bytes(b"")
    with pytest.raises(DataError, match="data_batch_1, data_batch_3, data_batch_4, data_batch_5 missing"):
        Cifar10(root=str(tmp_path)).open()
    archive = make.tar_gz(tmp_path / "a" / "cifar-10-python.tar.gz", {"x/test_batch": os.urandom(5000)})
    with pytest.raises(DataError, match=r"data_batch_1.* missing"):
        Cifar10(root=str(archive)).open()
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(DataError, match="damaged"):
        Cifar10(root=str(archive), split="test").open()


def test_cifar10_archive_limits(make, tmp_path, monkeypatch):
    archive = make.tar_gz(tmp_path / "cifar-10-python.tar.gz", {"x/test_batch": bytes(100_000)})
    monkeypatch.setattr(cifar10, "MAX_BATCH", 50_000)
    with pytest.raises(DataError, match="limit of 50,000 for a batch"):
        Cifar10(root=str(archive), split="test").open()
    monkeypatch.setattr(cifar10, "MAX_ARCHIVE", 60_000)
    with pytest.raises(DataError, match="unpacks to more than 60,000"):
        Cifar10(root=str(archive), split="test").open()


def bomb(kind):
    """A tar with headers that ask for 100 MB, or with 20,000 members."""
    if kind == "members":
        empty = tarfile.TarInfo("x").tobuf()
        return gzip.compress(empty * 20_000)
    info = tarfile.TarInfo("x")
    info.size, info.type = 100_000_000, tarfile.XHDTYPE if kind == "pax" else tarfile.GNUTYPE_LONGNAME
    return gzip.compress(info.tobuf() + bytes(100_000_000), 1)


@pytest.mark.parametrize("kind", ["pax", "long name", "members"])
def test_cifar10_headers_are_bounded(tmp_path, kind):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(bomb(kind))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"a\.tar\.gz: (damaged|unpacks to more)"):
        Cifar10(root=str(path), split="test").open()
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("packed", [True, False])
def test_cifar10_damaged_archives(make, tmp_path, packed):
    data = make.tar_gz(
        tmp_path / "a.tar.gz", {"x/test_batch": make.cifar_batches("test")["test_batch"][0]}
    ).read_bytes()
    path = tmp_path / "b.tar.gz"

    def read(damaged):
        path.write_bytes(damaged if packed else gzip.compress(damaged, 1))
        Cifar10(root=str(path), split="test").open(progress=False)

    make.survives(data if packed else gzip.decompress(data), read)


class Answer(io.BytesIO):
    headers: dict = {}  # noqa: RUF012


def test_cifar10_download(make, tmp_path, monkeypatch):
    batches = make.cifar_batches("test")
    body = make.tar_gz(tmp_path / "elsewhere.tar.gz", {f"x/{k}": v[0] for k, v in batches.items()}).read_bytes()
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(body).hexdigest())
    monkeypatch.setattr(cifar10.urllib.request, "urlopen", lambda url, timeout: Answer(body))
    root = tmp_path / "new" / "folder"
    images = Cifar10(root=str(root), split="test").open(progress=False)
    assert np.array_equal(images.pixels, expected(batches)[0])
    assert [path.name for path in root.iterdir()] == ["cifar-10-python.tar.gz"]


def offline(url, timeout):
    raise urllib.error.URLError("no route to host")


@pytest.mark.parametrize("answer", [offline, lambda url, timeout: Answer(b"an error page")])
def test_cifar10_download_failure_says_what_to_do(tmp_path, monkeypatch, answer):
    monkeypatch.setattr(cifar10.urllib.request, "urlopen", answer)
    with pytest.raises(DataError) as caught:
        Cifar10(root=str(tmp_path / "new")).open(progress=False)
    message = str(caught.value)
    for part in ("could not be downloaded", cifar10.URL, cifar10.MD5, str(tmp_path / "new"), "cifar-10-batches-py/"):
        assert part in message
    assert "no route to host" in message or "checksum" in message
    assert list((tmp_path / "new").iterdir()) == []


def test_cifar10_without_download(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10.urllib.request, "urlopen", None)
    with pytest.raises(DataError, match=r"is not in .*Put one of these there.*cifar-10-python.tar.gz"):
        Cifar10(root=str(tmp_path), download=False).open()


# ------------------------------------------------------------------------------------------------------- MNIST


def idx(array, magic):
    return b"".join(n.to_bytes(4, "big") for n in (magic, *array.shape)) + array.tobytes()


def write_mnist(folder, images, labels, prefix="train", dot="-", pack=False):
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array, magic in (("images", images, 0x803), ("labels", labels, 0x801)):
        data, name = idx(array, magic), f"{prefix}-{kind}{dot}idx{array.ndim}-ubyte"
        (folder / (name + ".gz" * pack)).write_bytes(gzip.compress(data) if pack else data)


@pytest.fixture
def digits28(rng):
    return rng.integers(0, 256, (5, 28, 28), dtype=np.uint8), np.array([3, 1, 4, 1, 5], np.uint8)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize(("place", "dot"), [("", "-"), ("", "."), ("MNIST/raw", "-")])
def test_mnist(tmp_path, digits28, place, dot, pack):
    write_mnist(tmp_path / place, *digits28, dot=dot, pack=pack)
    write_mnist(tmp_path / place, digits28[0][:2], digits28[1][:2], prefix="t10k", dot=dot, pack=pack)
    train, test = Mnist(root=str(tmp_path)).open(), Mnist(root=str(tmp_path), split="test").open()
    assert np.array_equal(train.pixels[:, 0], digits28[0])
    assert train.labels.tolist() == [3, 1, 4, 1, 5]
    assert len(test) == 2


def test_mnist_missing_or_damaged(tmp_path, digits28):
    with pytest.raises(DataError, match="Put the four MNIST files there: train-images-idx3-ubyte"):
        Mnist(root=str(tmp_path)).open()
    write_mnist(tmp_path, *digits28)
    path = tmp_path / "train-images-idx3-ubyte"
    good = path.read_bytes()
    for bad, reason in [
        (good[:-1], "there are 3,919"),
        (good + b"\0", "there are more"),
        (b"\0\0\x08\x01" + good[4:], "begins with 00000801"),
        (good[:4] + b"\xff" * 12, "more than the limit"),
        (b"", "begins with"),
    ]:
        path.write_bytes(bad)
        with pytest.raises(DataError, match=reason):
            Mnist(root=str(tmp_path)).open()
    path.unlink()
    (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(good)[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        Mnist(root=str(tmp_path)).open()


# --------------------------------------------------------------------------------------------------------- npz


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_npz_layouts(tmp_path, rng, layout, suffix):
    pixels = rng.integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    stored, path = pixels if layout == "NCHW" else pixels.transpose(0, 2, 3, 1), tmp_path / f"set{suffix}"
    np.save(path, stored) if suffix == ".npy" else np.savez(path, stored)
    images = Npz(root=str(path), image_size=8).open()
    assert np.array_equal(images.pixels, pixels)
    assert images.labels is None
    assert images.fingerprint == fingerprint(pixels, None)


@pytest.mark.parametrize("names", [("images", "labels"), ("arr_0", "arr_1")])
def test_npz_names_and_gray(tmp_path, rng, names):
    images, labels = rng.integers(0, 256, (5, 8, 8), dtype=np.uint8), np.array([0, 1, 2, 1, 0])
    np.savez(
        tmp_path / "a.npz",
        **{"arr_9": np.zeros(3)} if names[0] == "images" else {},
        **dict(zip(names, (images, labels), strict=True)),
    )
    found = Npz(root=str(tmp_path / "a.npz"), image_size=8).open()
    assert np.array_equal(found.pixels[:, 0], images)
    assert found.labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"float32, not uint8.*\* 255"),
        (np.zeros((2, 8, 8, 4, 1), np.uint8), "none of"),
        (np.zeros((2, 17, 3, 18), np.uint8), "no place for channels"),
        (
            np.zeros((2, 8, 8, 4), np.uint8),
            "can mean 4 channels of 8 x 8 pixels or 8 of 8 x 4: say which by data.layout",
        ),
        (np.zeros((2, 16, 1, 16), np.uint8), "can mean"),
        (np.zeros((0, 8, 8, 3), np.uint8), "no image"),
        (np.array([{}, {}], dtype=object), "not a readable"),
    ],
)
def test_npz_refuses(tmp_path, array, reason):
    np.savez(tmp_path / "a.npz", images=array)
    with pytest.raises(DataError, match=reason):
        Npz(root=str(tmp_path / "a.npz"), image_size=8).open()


def test_npz_missing_damaged_or_with_other_labels(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(DataError, match="does not exist"):
        Npz(root=str(path), image_size=8).open()
    path.write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(DataError, match="not a readable"):
        Npz(root=str(path), image_size=8).open()
    np.savez(path, images=np.zeros((2, 8, 8), np.uint8), labels=np.zeros(3, int))
    with pytest.raises(DataError, match="2 images, but labels of shape"):
        Npz(root=str(path), image_size=8).open()


def numbered(*shape):
    """Every number occurs once: a wrong axis cannot go unseen."""
    return np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "options", "axis"),
    [
        ((1, 4, 5, 3), {}, 3),  # as ever: 1 or 3 at the last place first
        ((1, 3, 5, 2), {}, 1),
        ((1, 3, 4, 3), {}, 3),
        ((1, 3, 4, 3), {"layout": "channels_first"}, 1),
        ((1, 2, 3, 17), {}, 1),  # the only reading
        ((1, 17, 3, 4), {}, 3),
        ((1, 4, 4, 4), {"layout": "channels_first"}, 1),
        ((1, 4, 4, 4), {"layout": "channels_last"}, 3),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_npz_channels(tmp_path, shape, options, axis, suffix):
    array, path = numbered(*shape), tmp_path / f"a{suffix}"
    np.save(path, array) if suffix == ".npy" else np.savez(path, images=array)
    expected = array if axis == 1 else array.transpose(0, 3, 1, 2)
    images = Npz(root=str(path), image_size=expected.shape[2:], **options).open()
    assert np.array_equal(images.pixels, expected)
    assert images.shape == expected.shape[1:]


@pytest.mark.parametrize(("said", "axis"), [("channels_first", 1), ("channels_last", 3)])
def test_npz_says_its_layout_itself(tmp_path, said, axis):
    array, path = numbered(1, 4, 5, 6), tmp_path / "a.npz"
    np.savez(path, layout=said, x=array)
    expected = array if axis == 1 else array.transpose(0, 3, 1, 2)
    assert np.array_equal(Npz(root=str(path), image_size=expected.shape[2:]).open().pixels, expected)
    other = "channels_last" if axis == 1 else "channels_first"
    swapped = Npz(root=str(path), image_size=5, layout=other).open()
    assert swapped.channels == (6 if axis == 1 else 4), "the configuration has the last word"


def test_npz_with_an_impossible_layout(tmp_path):
    np.savez(tmp_path / "a.npz", images=numbered(1, 17, 3, 3), layout="NHWC")
    with pytest.raises(DataError, match="says 'NHWC'; it can be channels_last or channels_first"):
        Npz(root=str(tmp_path / "a.npz"), image_size=3).open()
    with pytest.raises(DataError, match="no place for channels: 1 to 16 of them, at an axis as in channels_first"):
        Npz(root=str(tmp_path / "a.npz"), image_size=3, layout="channels_first").open()


def test_every_channel_is_resized_like_a_gray_image(tmp_path, rng):
    array = rng.integers(0, 256, (2, 5, 20, 30), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=array, layout="channels_first")
    images = Npz(root=str(tmp_path / "a.npz"), image_size=(6, 10)).open(progress=False)
    assert images.shape == (5, 6, 10)
    for c in range(5):
        np.savez(tmp_path / "gray.npz", images=array[:, c])
        gray = Npz(root=str(tmp_path / "gray.npz"), image_size=(6, 10)).open(progress=False)
        assert np.array_equal(images.pixels[:, c], gray.pixels[:, 0])


def test_colour_arrays_are_resized_as_the_files_are(rng):
    image = rng.integers(0, 256, (13, 17, 3), dtype=np.uint8)
    expected = np.asarray(fit(Image.fromarray(image), 8))
    assert np.array_equal(
        from_arrays(image.transpose(2, 0, 1)[None], None, "x", 8).pixels[0], expected.transpose(2, 0, 1)
    )


def test_digits_of_another_height(rng):
    digits = Digits(image_size=(8, 4)).open(progress=False)
    assert np.array_equal(digits.pixels, Digits().open().pixels[..., 2:6])
    with pytest.raises(DataError, match="image_size must be at least 1"):
        Digits(image_size=(8, 0)).open()
