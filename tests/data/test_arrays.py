"""``.npz`` and ``.npy`` files: which array is meant, what is refused before memory is taken, and damage."""

import io
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from ddpm_ip.data import Npz
from ddpm_ip.data.arrays import read_arrays, read_text, save_images
from ddpm_ip.errors import DataError

PICTURES, MASKS = np.full((4, 8, 8, 3), 200, np.uint8), np.zeros((4, 8, 8), np.uint8)
LABELS = np.array([3, 1, 2, 0])


def save(path, **arrays):
    np.savez(path / "a.npz", **arrays)
    return path / "a.npz"


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("images",), None),
        (("images", "masks", "labels"), "labels"),
        (("anything",), None),
        (("anything", "labels"), "labels"),
        (("arr_0", "arr_1"), "arr_1"),
        (("x", "y"), "y"),
        (("train_images", "train_labels"), "train_labels"),
        (("pictures", "mu", "sigma"), None),
        (("images", "sampling", "layout"), None),
    ],
)
def test_the_images_that_are_surely_meant(tmp_path, names, labels):
    arrays = {"masks": MASKS, "mu": np.zeros(7), "sigma": np.zeros((7, 7)), "layout": "channels_last", "sampling": "{}"}
    arrays |= {labels: LABELS} if labels else {}
    path = save(tmp_path, **{name: arrays.get(name, PICTURES) for name in names})
    images, found = read_arrays(path)
    assert np.array_equal(images, PICTURES.transpose(0, 3, 1, 2))
    assert (found is None) == (labels is None)
    assert found is None or found.tolist() == LABELS.tolist()


KERAS = {"x_test": PICTURES[:2], "x_train": PICTURES, "y_test": LABELS[:2], "y_train": LABELS}


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        (KERAS, [r"x_test \(uint8 \(2, 8, 8, 3\)\)", r"y_train \(int64 \(4,\)\)", "data.array: x_test"]),
        ({"masks": MASKS, "pictures": PICTURES}, [r"masks \(uint8 \(4, 8, 8\)\)", "pictures"]),
        ({"arr_0": PICTURES, "arr_1": PICTURES}, ["arr_0", "arr_1"]),
        ({"noise": PICTURES.astype(np.float32), "pictures": PICTURES}, [r"noise \(float32"]),
        ({"mu": np.zeros(7), "sigma": np.zeros((7, 7))}, ["no array in it is images", r"sigma \(float64 \(7, 7\)\)"]),
        ({"sampling": np.array("{}")}, ["no array in it"]),
    ],
)
def test_what_is_ambiguous_is_refused_and_named(tmp_path, arrays, named):
    path = save(tmp_path, **arrays)
    for reason in named:
        with pytest.raises(DataError, match=reason):
            read_arrays(path)


def test_data_array_chooses_and_labels_follow(tmp_path):
    path = save(tmp_path, **KERAS, **{"other": PICTURES[:3]}, labels=LABELS)
    for name, labels in (("x_test", [3, 1]), ("x_train", [3, 1, 2, 0]), ("other", None)):
        images = Npz(root=str(path), image_size=8, array=name).open()
        assert len(images) == {"x_test": 2, "x_train": 4, "other": 3}[name]
        assert (images.labels.tolist() if labels else images.labels) == labels
    with pytest.raises(DataError, match=r"no array 'x_val'; there is x_test \(uint8"):
        read_arrays(path, array="x_val")
    np.save(tmp_path / "b.npy", PICTURES)
    with pytest.raises(DataError, match="one array, which has no name"):
        read_arrays(tmp_path / "b.npy", array="images")


def test_labels_of_keras_and_labels_beyond_int64(tmp_path):
    assert read_arrays(save(tmp_path, x=PICTURES, y=LABELS[:, None]))[1].tolist() == LABELS.tolist()
    path = save(tmp_path, images=PICTURES, labels=np.full(4, 2**63, np.uint64))
    with pytest.raises(DataError, match="label 9223372036854775808, larger than int64"):
        Npz(root=str(path), image_size=8).open()
    for labels in (np.zeros(4), np.zeros(4, bool), np.array(list("abcd"))):
        with pytest.raises(DataError, match="not integers"):
            read_arrays(save(tmp_path, images=PICTURES, labels=labels))


def test_text_among_arrays(tmp_path):
    path = save(tmp_path, images=PICTURES, sampling=np.array('{"a": "é"}'), number=np.array(3), long="x" * 250_001)
    assert read_text(path, "sampling") == '{"a": "é"}'
    assert read_text(path, "layout") is None
    assert read_text(tmp_path / "b.npy", "sampling") is None
    for name in ("number", "long", "images"):
        with pytest.raises(DataError, match=f"'{name}' is not text, or is too long"):
            read_text(path, name)


def member(name, data, **changes):
    """A zip file of one member, and changes of its entry in the table of contents."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", changes.pop("method", zipfile.ZIP_DEFLATED)) as archive:
        archive.writestr(name, data)
        info = archive.infolist()[0]
        for key, value in changes.items():
            setattr(info, key, value)
        archive._didModify = True
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text, data=b"\0" * 64):
    padded = text.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + data


@pytest.mark.parametrize("shape", [(150_000_000,), (50_000, 1000, 3), (1, 2**20, 150)])
def test_a_bomb_is_refused_before_memory_is_taken(tmp_path, shape):
    whole = int(np.prod(shape))
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w") as file:
        file.write(header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}", b""))
        for _ in range(whole // 1_000_000):
            file.write(bytes(1_000_000))
        file.write(bytes(whole % 1_000_000))
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"unpack to {whole:,}"):
        read_arrays(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (9000000000, 8, 8), }"), "declares"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (9, 8, 8), }"), "576 bytes, and ho"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 8, 8), }"), " 0 bytes, and ho"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 8, 8), }"), "objects are never unpickled"),
        (header("{'descr': '<f99', 'fortran_order': False, 'shape': (1, 8, 8), }"), "not a kind of number"),
        (header("{'descr': '|u1', 'fortran_order': 1, 'shape': (1, 8, 8), }"), "not that of an array"),
        (header("{'descr': '|u1', 'shape': (1, 8, 8), 'shape': (1, 8, 8), }"), "not that of an array"),
        (header("(" * 5000), "not that of an array"),
        (header("-" * 9000 + "1"), "not that of an array"),
        (header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'1, ' * 40}), }}"), "axes"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "far too long"),
        (b"", "does not begin"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_header_that_lies(tmp_path, data, reason, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data if suffix == ".npy" else member("images.npy", data))
    with pytest.raises(DataError, match=reason if suffix == ".npy" else "a.npz: "):
        read_arrays(path)


@pytest.mark.parametrize("change", [{"flag_bits": 1}, {"method": zipfile.ZIP_LZMA}, {"method": zipfile.ZIP_BZIP2}])
def test_other_kinds_of_zip_are_refused(tmp_path, change):
    (tmp_path / "a.npz").write_bytes(member("images.npy", npy(PICTURES), **change))
    with pytest.raises(DataError, match="not a readable"):
        read_arrays(tmp_path / "a.npz")


def test_two_arrays_of_one_name_and_a_huge_table_of_contents(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", npy(PICTURES))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("images.npy", npy(PICTURES))
    with pytest.raises(DataError, match="two of its arrays have the name 'images'"):
        read_arrays(path)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(20_000):
            archive.writestr(f"{i:05}", b"")
    with pytest.raises(DataError, match="table of contents"):
        read_arrays(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_what_is_no_file_is_not_waited_for(tmp_path, suffix):
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"loop{suffix}").symlink_to(f"loop{suffix}")
    for name in ("pipe", "folder", "loop", "x" * 300):
        with pytest.raises(DataError, match=name[:40]):
            Npz(root=str(tmp_path / f"{name}{suffix}"), image_size=8).open()


@pytest.mark.parametrize("kind", ["npy", "npz", "packed"])
def test_damaged_files(tmp_path, make, kind):
    arrays = {"images": PICTURES, "labels": LABELS, "sampling": "{}", "layout": "channels_last"}
    file = io.BytesIO()
    np.save(file, PICTURES) if kind == "npy" else (np.savez if kind == "npz" else np.savez_compressed)(file, **arrays)
    path = tmp_path / ("a.npy" if kind == "npy" else "a.npz")

    def read(data):
        path.write_bytes(data)
        read_text(path, "sampling")
        Npz(root=str(path), image_size=8).open(progress=False)

    make.survives(file.getvalue(), read)


def test_a_message_about_arrays_is_short_whatever_they_are_called(tmp_path):
    path = save(tmp_path, **{"x" * 50_000: PICTURES, "\x1b[31mred": MASKS})
    for options in ({}, {"array": "y" * 50_000}):
        with pytest.raises(DataError) as found:
            read_arrays(path, **options)
        assert len(str(found.value)) < 1500
        assert "\x1b" not in str(found.value)


def test_spans_of_time_are_no_labels(tmp_path):
    path = save(tmp_path, images=PICTURES, labels=LABELS.astype("m8[s]"))
    with pytest.raises(DataError, match=r"the labels are timedelta64\[s\], not integers"):
        read_arrays(path)


def test_images_of_ones_own_are_kept_in_a_file_and_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)
    data = save_images("mine.npz", images, [0, 1, 2, 1, 0])
    assert data == Npz(root=str(tmp_path / "mine.npz"), image_size=(6, 8))
    images[0] = 0  # the caller's own array can still be written to, and the file holds what it held
    found, before = data.open(), (tmp_path / "mine.npz").read_bytes()
    assert found.labels.tolist() == [0, 1, 2, 1, 0]
    assert np.array_equal(found.pixels[1:], images.transpose(0, 3, 1, 2)[1:])
    assert found.pixels[0].any()
    assert save_images(tmp_path / "mine.npz", found.pixels, found.labels) == data
    for other in (images, found.pixels[:4]):
        with pytest.raises(DataError, match=r"mine\.npz holds other images already, and was not touched"):
            save_images("mine.npz", other)
    assert (tmp_path / "mine.npz").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.npz"]


def test_ambiguous_images_of_ones_own_keep_the_layout_that_they_had(tmp_path):
    gray = np.random.default_rng(0).integers(0, 256, (4, 9, 9), dtype=np.uint8)
    assert np.array_equal(save_images(tmp_path / "gray.npz", gray).open().pixels, gray[:, None])
    strips = np.random.default_rng(0).integers(0, 256, (4, 3, 9, 3), dtype=np.uint8)
    assert np.array_equal(save_images(tmp_path / "a.npz", strips).open().pixels, strips.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("name", "images", "labels", "message"),
    [
        ("a.npy", np.zeros((2, 8, 8), np.uint8), None, "does not end in .npz"),
        ("a.npz", np.zeros((2, 8, 8)), None, r"float64, not uint8.*\(x \* 255\)"),
        ("a.npz", np.zeros((8, 8), np.uint8), None, r"shape \(8, 8\) is none of"),
        ("a.npz", np.zeros((0, 8, 8), np.uint8), None, "no image"),
        ("a.npz", np.zeros((2, 8, 8), np.uint8), [1], "2 images, but labels"),
        ("a.npz", np.zeros((2, 8, 8), np.uint8), [0.5, 1], "not integers"),
    ],
)
def test_what_are_no_images_of_ones_own(tmp_path, name, images, labels, message):
    with pytest.raises(DataError, match=message):
        save_images(tmp_path / name, images, labels)
    assert list(tmp_path.iterdir()) == []
