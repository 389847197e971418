"""Labels: where each source has them, what becomes of names and of sparse numbers, and what is wrong with a file."""

import json
import re
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_ip.data import Cifar10, Digits, Folder, Mnist, Npz, Parquet, arrays, labels
from ddpm_ip.data.imageset import from_arrays
from ddpm_ip.data.inspect import inspect
from ddpm_ip.data.labels import by_file, by_prefix, check_labels, numbered, without_images
from ddpm_ip.errors import DataError

FILES = ["ant/0.png", "ant/1.png", "bee/2.png"]
PICTURES = np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3)


def read(tmp_path, *lines, join="\n"):
    path = tmp_path / "labels.csv"
    path.write_text(join.join(lines), encoding="utf-8")
    return by_file(path, FILES, tmp_path)


# ---------------------------------------------------------------------------------------------------- CSV files


@pytest.mark.parametrize("join", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "lines",
    [
        ("ant/0.png,3", "ant/1.png,7", "bee/2.png,3"),
        ("bee/2.png,3", "", "ant/1.png,7", "ant/0.png,3", ""),
        ("file,label", "ant/0.png,3", "ant/1.png,7", "bee/2.png,3"),
        ("\ufeffClass,who,File_Name", "3,me,ant/0.png", "7,,ant/1.png", "3,me,bee/2.png"),
        ("path;label", "./ant/0.png;3", "ant\\1.png;7", "bee//2.png;3"),
        ("image\ttarget", "ant/0.png\t 3", "ant/1.png\t7.0", "bee/2.png\t3."),
        ("file,species", "ant/0.png,3", "ant/1.png,7", "bee/2.png,3"),
        ('"ant/0.png","3"', '"ant/1.png","7"', '"bee/2.png","3"'),
    ],
)
def test_columns_are_found_and_numbers_kept(tmp_path, lines, join):
    found = read(tmp_path, *lines, join=join)
    assert (found.numbers.tolist(), found.classes, found.numbers.dtype) == ([3, 7, 3], (), np.int64)


def test_names_are_sorted_and_numbered(tmp_path):
    found = read(tmp_path, "file,label", "ant/0.png,zebra", "ant/1.png,Ape", "bee/2.png,zebra")
    assert (found.numbers.tolist(), found.classes) == ([1, 0, 1], ("Ape", "zebra"))
    mixed = read(tmp_path, "file,label", "ant/0.png,10", "ant/1.png,9", "bee/2.png,none")
    assert mixed.classes == ("10", "9", "none"), "one name makes all of them names"


@pytest.mark.parametrize(
    ("lines", "reasons"),
    [
        (("ant/0.png,1", "bee/2.png,1"), ["without a label: 1 (ant/1.png)", "Every image needs one line"]),
        (("ant/0.png,1", "ant/1.png, ", "bee/2.png,1"), ["without a label: 1 (ant/1.png)"]),
        (("ant/0.png,1", "./ant/0.png,1", "ant/1.png,2", "bee/2.png,1"), ["several lines: 1 (ant/0.png)"]),
        (
            ("0.png,1", *(f"x{i}.png,1" for i in range(9))),
            ["of no image: 10 (0.png, x0.png, x1.png, x2.png, x3.png, ...)", "without a label: 3", "as in ant/0.png"],
        ),
        (("a,b,c", "ant/0.png,1,2"), ["its first line (a, b, c) names no columns file and label, and there are 3"]),
        (("file,label,class", "ant/0.png,1,1"), ["names several columns that can be"]),
        (("file,label", "ant/0.png"), ["line 2 has 1 columns: 'ant/0.png'", "two columns, file and label"]),
        (("file,label", '"ant/0.png,1'), ["not a readable CSV file"]),
        (("file,label", "ant/0.png,1", "ant/1.png,1", f"bee/2.png,{2**63}"), ["label 9223372036854775808, larger"]),
        (("file,label", "x" * 200_000 + ",1"), ["not a readable CSV file of labels: field larger"]),
        (("",), ["without a label: 3"]),
    ],
)
def test_a_file_that_does_not_fit_is_told_of_by_name(tmp_path, lines, reasons):
    with pytest.raises(DataError) as caught:
        read(tmp_path, *lines)
    assert [reason for reason in reasons if reason not in str(caught.value)] == []
    assert len(str(caught.value)) < 2000


def test_bytes_of_strangers(tmp_path, monkeypatch, make):
    path = tmp_path / "labels.csv"
    good = b"file,label\nant/0.png,1\nant/1.png,2\nbee/2.png,1\n"

    def one(data):
        path.write_bytes(data)
        return by_file(path, FILES, tmp_path)

    make.survives(good, one, n=40)
    with pytest.raises(DataError, match="not a text file"):
        one(b"\xff\xfe" + good)
    monkeypatch.setattr(labels, "MAX_CSV", len(good) - 1)
    with pytest.raises(DataError, match="more than"):
        one(good)


NAMES = st.text("ab7 ,;\"'\n\té\\._", min_size=1, max_size=6).map(str.strip).filter(bool)


@given(st.lists(NAMES, min_size=1, max_size=6))
def test_numbers_of_names_give_the_names_again(names):
    found = numbered(names, "here")
    if found.classes:
        assert [found.classes[number] for number in found.numbers] == names
        assert list(found.classes) == sorted(set(names))
    else:
        assert [float(name) for name in names] == found.numbers.tolist()


# ----------------------------------------------------------------------------------------------------- folders


def opened(root, **options):
    return Folder(root=str(root), image_size=8, **options).open(progress=False)


def test_a_csv_file_of_a_folder(image_folder, cache_home, tmp_path, monkeypatch):
    root, pixels = image_folder
    lines = [f"{'ant' if i < 2 else 'bee'}/deeper/{i}.png,{5 - i}" for i in range(6)]
    (root / "labels.csv").write_text("\n".join(lines))
    (root / "ant" / "deeper" / "6.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"without a label: 1 \(ant/deeper/6.png\)"):
        opened(root, labels="labels.csv", on_bad="skip")
    (root / "labels.csv").write_text("\n".join([*lines, "ant/deeper/6.png,9"]))
    images = opened(root, labels="labels.csv", on_bad="skip")
    assert images.labels.tolist() == [5, 4, 3, 2, 1, 0], "the label of an unusable file goes with it"
    assert np.array_equal(images.pixels, pixels)
    monkeypatch.chdir(root)
    for name in ("./labels.csv", str(root / "labels.csv")):
        assert opened(root, labels=name, on_bad="skip").fingerprint == images.fingerprint
    assert len(list(cache_home.iterdir())) == 1


def test_the_cache_follows_the_labels_and_old_sets_keep_theirs(image_folder, cache_home):
    root, _ = image_folder
    plain = opened(root)
    (key,) = (path.name for path in cache_home.iterdir())
    assert plain.classes == ("ant", "bee")
    table = root.parent / "table.csv"
    found = []
    for first in ("cat", "dog", "ape"):
        names = [first, *["dog"] * 5]
        rows = zip(sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png")), names, strict=True)
        table.write_text("file,label\n" + "".join(f"{name},{label}\n" for name, label in rows))
        found.append(opened(root, labels=str(table)))
    assert [images.labels.tolist() for images in found] == [[0, 1, 1, 1, 1, 1], [0] * 6, [0, 1, 1, 1, 1, 1]]
    assert found[0].classes == ("cat", "dog")
    assert found[2].classes == ("ape", "dog"), "the names are not those of the cache"
    assert found[0].fingerprint == found[2].fingerprint
    assert len({plain.fingerprint, found[0].fingerprint, found[1].fingerprint}) == 3
    assert len(list(cache_home.iterdir())) == 3
    (cache_home / key).rename(cache_home.parent / key)
    assert opened(root).fingerprint == plain.fingerprint
    assert (cache_home / key).is_dir(), "without labels the key is what it was"


def test_the_first_part_of_the_name_is_the_class(tmp_path, make):
    assert by_prefix(["a/cat_1.png", "dog_2_3.png", "b/cat_.png", "10_x.png", "9_x.png"]).classes == (
        "10",
        "9",
        "cat",
        "dog",
    )
    for name in ("dog_1", "cat_2", "dog_3"):
        (tmp_path / f"{name}.png").write_bytes(make.encoded(PICTURES[0]))
    images = opened(tmp_path, labels="prefix", cache=str(tmp_path / "cache"))
    assert (images.labels.tolist(), images.classes) == ([0, 1, 1], ("cat", "dog"))
    (tmp_path / "bird.png").write_bytes(make.encoded(PICTURES[0]))
    with pytest.raises(DataError, match=r"1 of 4 names have none: bird.png\. Rename"):
        opened(tmp_path, labels="prefix", cache=str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["gone.csv", "a\0b", "~nobody-there/x.csv", "x" * 5000, "."])
def test_no_such_file_of_labels(image_folder, name):
    with pytest.raises(DataError, match=r"data\.labels: .* should be a CSV file of labels, or prefix"):
        opened(image_folder[0], labels=name)


# ------------------------------------------------------------------------------------------------------- arrays


def test_named_labels_of_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", images=PICTURES, y=np.array([4, 9, 4]), kind=np.array(["b", "a", "b"]), far=2**63)
    np.save(tmp_path / "b.npy", PICTURES)
    np.save(tmp_path / "labels.npy", np.array([[2], [0], [1]]))

    def one(file, **options):
        return Npz(root=str(tmp_path / file), image_size=8, **options)

    plain = one("a.npz").open()
    assert (plain.labels, one("a.npz").some_labels()) == (None, None)
    for file, name, expected, classes in (
        ("a.npz", "y", [4, 9, 4], ()),
        ("a.npz", "kind", [1, 0, 1], ("a", "b")),
        ("a.npz", "labels.npy", [2, 0, 1], ()),
        ("b.npy", "labels.npy", [2, 0, 1], ()),
        ("b.npy", str(tmp_path / "labels.npy"), [2, 0, 1], ()),
    ):
        source = one(file, labels=name)
        images = source.open()
        assert (images.labels.tolist(), images.classes) == (expected, classes)
        assert source.some_labels().numbers.tolist() == expected
        assert images.fingerprint != plain.fingerprint
    np.savez(tmp_path / "adm.npz", PICTURES, np.array([1, 2, 3]))
    assert one("adm.npz").some_labels().numbers.tolist() == one("adm.npz").open().labels.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("file", "given", "reason"),
    [
        ("a.npz", "z", "data.labels: there is no array 'z'; there is images, wrong, far"),
        ("a.npz", "wrong", "labels of shape"),
        ("a.npz", "far", "label 9223372036854775808, larger than int64"),
        ("a.npz", "images", "labels of shape"),
        ("b.npy", "y", "data.labels: y does not exist"),
        ("b.npy", "b.npy", "labels of shape"),
        ("b.npy", "c.npy", "c.npy: not a readable .npy file of labels"),
    ],
)
def test_labels_of_arrays_that_are_none(tmp_path, file, given, reason):
    np.savez(tmp_path / "a.npz", images=PICTURES, wrong=np.arange(4), far=np.full(3, 2**63, np.uint64))
    np.save(tmp_path / "b.npy", PICTURES)
    (tmp_path / "c.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match=re.escape(reason)):
        Npz(root=str(tmp_path / file), image_size=8, labels=given).open()


def test_a_file_of_labels_is_bounded(tmp_path, monkeypatch):
    np.save(tmp_path / "b.npy", PICTURES)
    np.save(tmp_path / "labels.npy", np.arange(3))
    monkeypatch.setattr(arrays, "MAX_LABELS", 23)
    with pytest.raises(DataError, match="more than 23 bytes"):
        Npz(root=str(tmp_path / "b.npy"), image_size=8, labels="labels.npy").open()


# ------------------------------------------------------------------------------------------------------ Parquet


def parquet(tmp_path, make, columns, metadata=None):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for i, column in enumerate(columns):
        data = [make.encoded(picture) for picture in PICTURES[: len(column)]]
        table = pa.table({"image": data, "label": column})
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / f"train-{i}.parquet")
    return Parquet(root=str(tmp_path), image_size=8, cache=str(tmp_path / "cache"), label_column="label")


def test_texts_of_a_column_are_names_over_all_shards(tmp_path, make):
    source = parquet(tmp_path, make, [["dog", "cat", "dog"], ["ant", "dog"]])
    images = source.open(progress=False)
    assert (images.labels.tolist(), images.classes) == ([2, 1, 2, 0, 2], ("ant", "cat", "dog"))
    assert (source.some_labels().numbers.tolist(), source.some_labels().classes) == ([0, 1, 2], images.classes)
    numbers = parquet(tmp_path, make, [["10", "9", "10"], ["2", "2"]])
    assert numbers.open(progress=False).labels.tolist() == [10, 9, 10, 2, 2], "texts of numbers are numbers"
    parquet(tmp_path, make, [["dog"], [3]])
    with pytest.raises(DataError, match="holds texts here or in"):
        source.open(progress=False)


@pytest.mark.parametrize(
    ("feature", "names"),
    [
        ({"_type": "ClassLabel", "names": ["ant", "bee", "cat"]}, ("ant", "bee", "cat")),
        ({"_type": "Value", "dtype": "int64"}, ()),
        ({"_type": "ClassLabel", "names": {"ant": 1}}, ()),
        ({"_type": "ClassLabel", "names": [1, 2]}, ()),
        (None, ()),
    ],
)
def test_names_that_hugging_face_left(tmp_path, make, feature, names):
    said = json.dumps({"info": {"features": {"label": feature, "image": {"_type": "Image"}}}}) if feature else "{"
    source = parquet(tmp_path, make, [[2, 0, 2]], {"huggingface": said})
    images = source.open(progress=False)
    assert (images.labels.tolist(), images.classes) == ([2, 0, 2], names)
    assert source.some_labels().numbers.tolist() == [0, 2]


# ------------------------------------------------------------------------- known sets, and whether a network fits


def test_sets_whose_classes_are_known(tmp_path):
    assert Digits().some_labels().numbers.tolist() == np.unique(Digits().open().labels).tolist()
    assert Cifar10(root=str(tmp_path)).some_labels().classes[3] == "cat"
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 3) + bytes([26, 1, 3]))
    assert Mnist(root=str(tmp_path)).some_labels().numbers.tolist() == [26, 1, 3]


@pytest.mark.parametrize(
    ("given", "classes", "reason"),
    [
        (None, 10, "no labels to tell the network"),
        ([0, -1], 10, "has the label -1"),
        (range(10), 9, "set --classes.count 10"),
        (range(1, 11), 10, r"up to 10 \(10 different ones occur: numbered from 0, they need 10\).*count 11"),
        ([3, 7], 2, r"up to 7 \(2 different ones occur: numbered from 0, they need 2\).*count 8"),
        (range(10), 10, None),
        ([3, 7], 8, None),
    ],
)
def test_labels_and_classes_go_together(given, classes, reason):
    numbers = None if given is None else np.array(given)
    if reason is None:
        check_labels(numbers, "mine", classes)
    else:
        with pytest.raises(DataError, match=f"mine .*{reason}|{reason}"):
            check_labels(numbers, "mine", classes)


def test_classes_without_images_are_named(tmp_path):
    assert without_images(np.array([1, 0, 1]), 2) == ""
    assert without_images(np.array([3, 7]), 8) == "6 of 8 classes have no images: 0, 1, 2, 4, 5, ..."
    assert without_images(np.array([0]), 2**31 - 1).startswith("2,147,483,646 of 2,147,483,647 classes")
    for numbers, line in (([3, 7, 7], "classes.count     8; 6 of 8"), ([-1, 0, 1], "classes.count     none: there is")):
        text = inspect(from_arrays(PICTURES.transpose(0, 3, 1, 2), np.array(numbers), "m", 8), tmp_path / "sheet.png")
        assert line in text
    assert "classes.count" not in inspect(Digits().open(), tmp_path / "sheet.png")
