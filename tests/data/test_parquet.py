"""Parquet files that mean harm, or whose labels are no whole numbers."""

import os

import numpy as np
import pytest

from ddpm_ip.data import Parquet, source
from ddpm_ip.errors import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def open_parquet(root, **options):
    return Parquet(root=str(root), image_size=8, **options).open(progress=False)


@pytest.fixture
def images(make, rng):
    return [make.encoded(image) for image in rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)]


@pytest.fixture
def secret(make, tmp_path):
    """An image of this machine that no Parquet file may make a training image."""
    path = tmp_path / "secret.png"
    path.write_bytes(make.encoded(np.full((8, 8, 3), 7, np.uint8)))
    return str(path)


def test_a_column_of_texts_in_a_later_shard_is_no_path(tmp_path, images, secret):
    (tmp_path / "shards").mkdir()
    pq.write_table(pa.table({"image": images}), tmp_path / "shards" / "train-0.parquet")
    pq.write_table(pa.table({"image": [secret] * 3}), tmp_path / "shards" / "train-1.parquet")
    for on_bad in ("error", "skip"):
        with pytest.raises(DataError, match=r"train-1.parquet: no column holds|holds string, not the bytes"):
            open_parquet(tmp_path / "shards", on_bad=on_bad)


@pytest.mark.parametrize("kind", [pa.struct([("bytes", pa.binary()), ("path", pa.string())])])
def test_the_path_next_to_missing_bytes_is_not_followed(tmp_path, images, secret, kind):
    rows = [{"bytes": images[0], "path": secret}, {"bytes": None, "path": secret}]
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet row 1: empty"):
        open_parquet(tmp_path / "a.parquet")
    assert len(open_parquet(tmp_path / "a.parquet", on_bad="skip")) == 1


@pytest.mark.parametrize("twice", ["image", "label"])
@pytest.mark.parametrize("options", [{}, {"image_column": "image", "label_column": "label"}])
def test_two_columns_of_one_name_are_refused(tmp_path, images, twice, options):
    columns = {"image": pa.array(images), "label": pa.array([1, 2, 3])}
    names = [*columns, twice]
    pq.write_table(pa.Table.from_arrays([columns[name] for name in names], names), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=f"columns have the name '{twice}'"):
        open_parquet(tmp_path / "a.parquet", **options)


def test_texts_alone_are_refused(tmp_path, secret):
    struct = pa.struct([("bytes", pa.string()), ("path", pa.string())])
    for column in (pa.array([secret]), pa.array([{"bytes": secret, "path": secret}], struct)):
        pq.write_table(pa.table({"image": column}), tmp_path / "a.parquet")
        for options in ({}, {"image_column": "image"}):
            with pytest.raises(DataError, match=r"no column holds|not the bytes of image files"):
                open_parquet(tmp_path / "a.parquet", **options)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (pa.array([0.0, 1.5, 2.0]), r"row 1: the label 1\.5 of the column 'label' is not a whole number"),
        (pa.array([0.0, float("nan"), 2.0]), "row 1: the label nan"),
        (pa.array([0.0, float("inf"), 2.0]), "row 1: the label inf"),
        (pa.array([0.0, 1e300, 2.0]), "row 1: the label 1e"),
        (pa.array([1, 2, 2**63], pa.uint64()), "row 2: the label 9223372036854775808"),
        (pa.array([1, None, 2]), "row 1: no value in the label column 'label'"),
        (pa.array([True, False, True]), "holds bool, not integers"),
        (pa.array(["1", None, "3"]), "row 1: no value in the label column 'label'"),
        (pa.array([[1], [2], [3]]), "holds list<.*: int64>, not integers or texts"),
    ],
)
def test_labels_are_never_cut(tmp_path, images, labels, reason):
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=reason):
        open_parquet(tmp_path / "a.parquet", label_column="label")


def test_whole_labels_of_floats_are_taken_if_asked_for(tmp_path, images, warnings_of):
    pq.write_table(pa.table({"image": images, "label": [3.0, 0.0, -2.0]}), tmp_path / "a.parquet")
    assert open_parquet(tmp_path / "a.parquet", label_column="label").labels.tolist() == [3, 0, -2]
    assert warnings_of() == []
    assert open_parquet(tmp_path / "a.parquet").labels is None
    assert "the column label holds double, not integers: no labels are read" in warnings_of()[0]


def test_floats_in_a_later_shard_are_not_cut(tmp_path, images):
    (tmp_path / "shards").mkdir()
    for name, labels in (("train-0", [0, 1, 2]), ("train-1", [0.5, 1.0, 2.0])):
        table = pa.table({"image": images, "label": labels})
        pq.write_table(table, tmp_path / "shards" / f"{name}.parquet")
    with pytest.raises(DataError, match=r"train-1.parquet row 0: the label 0\.5"):
        open_parquet(tmp_path / "shards")
    pq.write_table(pa.table({"image": images}), tmp_path / "shards" / "train-1.parquet")
    with pytest.raises(DataError, match=r"train-1.parquet: there is no column 'label'"):
        open_parquet(tmp_path / "shards")


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "HARMLESS", 1_000_000)
    zeros = pa.array([bytes(1_000_000 + i) for i in range(4)], pa.binary())
    pq.write_table(pa.table({"image": zeros}), tmp_path / "a.parquet", compression="gzip", use_dictionary=False)
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    with pytest.raises(DataError, match="as no pictures do"):
        open_parquet(tmp_path / "a.parquet", on_bad="skip")


def test_what_is_no_file_is_not_waited_for(tmp_path, images):
    os.mkfifo(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").mkdir()  # as Spark writes them
    pq.write_table(pa.table({"image": images}), tmp_path / "b.parquet" / "part-0.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: not a readable Parquet file: it is a pipe"):
        open_parquet(tmp_path)
    (tmp_path / "a.parquet").unlink()
    assert len(open_parquet(tmp_path)) == 3


def test_damaged_files(tmp_path, make, images):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": images, "label": [1, 2, 3]}), path)

    def read(data):
        path.write_bytes(data)
        open_parquet(path, on_bad="skip")

    make.survives(path.read_bytes(), read)
