"""Folder and Parquet: decoding whole sets, the cache, and reliability test 21: every bad file is listed."""

import errno
import json
import logging
import os
import re
import shutil
import sys
import threading
import time
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from ddpm_ip.data import Cifar10, Folder, Parquet, cache, decoded, parquet
from ddpm_ip.data.decode import BadImage
from ddpm_ip.data.decoded import Recipe
from ddpm_ip.data.imageset import fingerprint
from ddpm_ip.errors import DataError
from ddpm_ip.extras import how_to_install

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def open_folder(root, **options):
    return Folder(root=str(root), image_size=8, **options).open(progress=False)


def test_folder_is_recursive_sorted_and_labelled(image_folder):
    root, pixels = image_folder
    (root / "notes.txt").write_text("not looked at")
    (root / "ant" / "._0.png").write_text("hidden")
    images = open_folder(root)
    assert np.array_equal(images.pixels, pixels)
    assert images.pixels.dtype == np.uint8
    assert isinstance(images.pixels, np.memmap)
    assert images.labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert images.classes == ("ant", "bee")
    assert images.original_sizes == ((8, 8, 6),)
    assert images.fingerprint == fingerprint(pixels, np.array([0, 0, 1, 1, 1, 1]))
    with pytest.raises(ValueError, match="read-only"):
        images.pixels[0] = 0


def test_an_image_in_the_root_means_no_labels(image_folder):
    root, _ = image_folder
    shutil.copy(root / "ant" / "deeper" / "0.png", root / "z.png")
    images = open_folder(root)
    assert len(images) == 7
    assert images.labels is None


def test_folder_mode_and_mixed_sizes(make, tmp_path, rng):
    root = tmp_path / "mixed"
    root.mkdir()
    (root / "a.png").write_bytes(b"broken")
    (root / "b.png").write_bytes(make.encoded(rng.integers(0, 256, (8, 8), dtype=np.uint8)))
    (root / "c.jpg").write_bytes(make.encoded(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), "JPEG"))
    channels = {mode: open_folder(root, mode=mode, on_bad="skip").channels for mode in ("rgb", "gray", "auto")}
    assert channels == {"rgb": 3, "gray": 1, "auto": 1}
    assert set(open_folder(root, on_bad="skip").original_sizes) == {(8, 8, 1), (30, 20, 1)}


def test_more_images_than_one_chunk_stay_in_order(make, tmp_path):
    for i in range(3 * decoded.CHUNK + 5):
        (tmp_path / f"{i:03}.png").write_bytes(make.encoded(np.full((8, 8), i, np.uint8)))
    assert open_folder(tmp_path, mode="gray").pixels[:, 0, 0, 0].tolist() == list(range(3 * decoded.CHUNK + 5))


def test_folder_that_is_not_one(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no image file"):
        open_folder(tmp_path)


# ----------------------------------------------------------------------------------------------------- bad files


@pytest.fixture
def with_bad(image_folder, make):
    """The folder of six good images, and five bad ones in class ``ant``; returns (folder, names of the bad)."""
    root, _ = image_folder
    folder = root / "ant"
    (folder / "a_text.png").write_text("hello")
    (folder / "b_empty.png").touch()
    (folder / "c_cut.png").write_bytes((root / "ant" / "deeper" / "0.png").read_bytes()[:100])
    (folder / "d_link.png").symlink_to("nowhere")
    (folder / "e_bomb.png").write_bytes(make.raw_png(20_000, 20_000, 8, 2, b"\0" * 100))
    (folder / "x.png").mkdir()  # a folder with the name of an image is a folder
    return root, ["a_text.png", "b_empty.png", "c_cut.png", "d_link.png", "e_bomb.png"]


def test_error_lists_all_bad_files_at_once(with_bad, cache_home):
    root, bad = with_bad
    with pytest.raises(DataError, match=r"5 of 11 images cannot be used:(?s:.*)data\.on_bad: skip") as caught:
        open_folder(root)
    for name in bad:
        assert f"{root / 'ant' / name}: " in str(caught.value)
    assert list(cache_home.iterdir()) == []


def test_skip_leaves_them_out_and_records_them(with_bad, image_folder, caplog):
    (root, bad), (_, pixels) = with_bad, image_folder
    images = open_folder(root, on_bad="skip")
    assert np.array_equal(images.pixels, pixels)
    assert images.labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert [os.path.basename(one.where) for one in images.bad] == bad
    assert all(one.reason for one in images.bad)
    again = open_folder(root, on_bad="skip")
    assert again.bad == images.bad
    assert "5 unusable images left out" in caplog.text
    with pytest.raises(DataError, match="5 of 11"):  # the cache of the lenient run does not hide them
        open_folder(root)


def test_a_repaired_file_is_noticed(with_bad):
    root, bad = with_bad
    assert len(open_folder(root, on_bad="skip")) == 6
    for name in bad:
        (root / "ant" / name).unlink()
    assert len(open_folder(root)) == 6


def test_unreadable_permission(image_folder):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    root, _ = image_folder
    (root / "ant" / "deeper" / "0.png").chmod(0)
    with pytest.raises(DataError, match=r"0\.png: .*ermission"):
        open_folder(root)
    (root / "ant" / "deeper" / "0.png").chmod(0o644)
    assert len(open_folder(root)) == 6


def test_printed_list_is_capped(tmp_path):
    for i in range(25):
        (tmp_path / f"{i:02}.png").touch()
    with pytest.raises(DataError, match="25 of 25") as caught:
        open_folder(tmp_path, on_bad="skip")  # nothing is left: an error in either mode
    assert str(caught.value).count("empty") == 20
    assert "... and 5 more" in str(caught.value)
    assert "on_bad" not in str(caught.value)


# --------------------------------------------------------------------------------------------------------- cache


def test_second_open_decodes_nothing_and_says_so(image_folder, monkeypatch, caplog):
    root, _ = image_folder
    first = open_folder(root)
    monkeypatch.setattr(decoded, "_decode_one", None)
    with caplog.at_level(logging.INFO, "ddpm_ip.data"):
        second = open_folder(root)
    assert np.array_equal(first.pixels, second.pixels)
    assert second.fingerprint == first.fingerprint
    assert second.original_sizes == first.original_sizes
    assert "6 decoded images found in" in caplog.text


def test_whatever_changes_the_pixels_changes_the_key(image_folder, cache_home):
    root, _ = image_folder
    path = root / "ant" / "deeper" / "0.png"

    def count():
        return len(list(cache_home.iterdir()))

    open_folder(root)
    open_folder(root, mode="gray")
    open_folder(root, center_crop=4)
    assert count() == 3
    os.utime(path, ns=(0, 0))
    open_folder(root)
    path.rename(path.with_name("00.png"))
    open_folder(root)
    assert count() == 5


def test_cache_appears_whole_or_not_at_all(image_folder, cache_home, monkeypatch):
    root, _ = image_folder
    monkeypatch.setattr(cache.Entry, "write_about", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_folder(root)
    assert list(cache_home.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncate", "no pixels", "json", "key", "no sidecar"])
def test_damaged_cache_is_made_again(image_folder, cache_home, damage):
    root, pixels = image_folder
    open_folder(root)
    (folder,) = cache_home.iterdir()
    if damage == "truncate":
        os.truncate(folder / "pixels.npy", 300)
    elif damage == "no pixels":
        (folder / "pixels.npy").unlink()
    elif damage == "no sidecar":
        (folder / "set.json").unlink()
    else:
        (folder / "set.json").write_text("{" if damage == "json" else json.dumps({"labels": None}))
    assert np.array_equal(open_folder(root).pixels, pixels)
    assert [path.name for path in cache_home.iterdir()] == [folder.name]


def test_what_a_killed_decode_left_is_swept_when_old(image_folder, cache_home):
    root, _ = image_folder
    open_folder(root)
    (folder,) = cache_home.iterdir()
    shutil.rmtree(folder)
    old, young = cache_home / f"{folder.name}.old.partial", cache_home / f"{folder.name}.young.partial"
    for left in (old, young):
        left.mkdir()
    hours_ago = time.time() - 2 * cache.STALE
    os.utime(old, (hours_ago, hours_ago))
    open_folder(root)
    assert {path.name for path in cache_home.iterdir()} == {folder.name, young.name}


def test_cache_in_a_chosen_folder(image_folder, tmp_path, cache_home):
    images = open_folder(image_folder[0], cache=str(tmp_path / "mine"))
    assert (tmp_path / "mine") in Path(images.pixels.filename).parents
    assert not cache_home.exists()


def test_a_faster_process_is_no_trouble(image_folder, cache_home, monkeypatch):
    root, pixels = image_folder
    write = cache.Entry.write_about

    def slow(*arguments):
        monkeypatch.setattr(cache.Entry, "write_about", write)
        open_folder(root)  # the other process
        write(*arguments)

    monkeypatch.setattr(cache.Entry, "write_about", slow)
    assert np.array_equal(open_folder(root).pixels, pixels)
    assert len(list(cache_home.iterdir())) == 1


def no_room(path):
    return shutil._ntuple_diskusage(10, 10, 0)


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("trouble", ["a file in the way", "no room", "full while writing"])
def test_without_a_cache_small_sets_go_to_memory(image_folder, cache_home, monkeypatch, caplog, trouble):
    root, pixels = image_folder
    if trouble == "a file in the way":
        cache_home.parent.write_text("not a folder")
    elif trouble == "no room":
        monkeypatch.setattr(cache.shutil, "disk_usage", no_room)
    else:
        monkeypatch.setattr(cache.Entry, "write_about", full)
    images = open_folder(root)
    assert np.array_equal(images.pixels, pixels)
    assert not images.pixels.flags.writeable
    assert images.fingerprint == fingerprint(pixels, images.labels)
    assert "decoding to memory" in caplog.text
    monkeypatch.setattr(decoded, "MEMORY_LIMIT", 100)
    with pytest.raises(DataError, match=r"Set data\.cache to a folder"):
        open_folder(root)


# ------------------------------------------------------------------------------------------------------- Parquet


def write_shards(make, root, pixels, labels, names, struct=True, **columns):
    root.mkdir(parents=True, exist_ok=True)
    for name, rows in zip(names, np.array_split(np.arange(len(pixels)), len(names)), strict=True):
        data = [make.encoded(pixels[i].transpose(1, 2, 0)) for i in rows]
        images = [{"bytes": one, "path": None} for one in data] if struct else data
        table = {"id": [f"{i}" for i in rows], "img": images, "label": [labels[i] for i in rows]}
        pq.write_table(pa.table(table), root / name, row_group_size=2)


@pytest.fixture
def shards(make, tmp_path, rng):
    pixels, labels, root = rng.integers(0, 256, (9, 3, 8, 8), dtype=np.uint8), list(range(9)), tmp_path / "shards"
    write_shards(make, root, pixels, labels, ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"])
    write_shards(make, root / "deep", pixels[:3], labels, ["test.parquet"], struct=False)
    return root, pixels


def open_parquet(root, **options):
    return Parquet(root=str(root), image_size=8, **options).open(progress=False)


def test_parquet_shards_and_columns_are_found(shards):
    root, pixels = shards
    train, test = open_parquet(root), open_parquet(root, split="test")
    assert np.array_equal(train.pixels, pixels)
    assert train.labels.tolist() == list(range(9))
    assert train.name == "shards-train"
    assert np.array_equal(test.pixels, pixels[:3])
    one = open_parquet(root / "deep" / "test.parquet", image_column="img", label_column="label")
    assert one.fingerprint == test.fingerprint


def test_cifar10_from_parquet(make, tmp_path, rng):
    pixels = rng.integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    write_shards(make, tmp_path, pixels, [5, 6, 7], ["test-00000-of-00001.parquet"])
    images = Cifar10(root=str(tmp_path), split="test", download=False).open(progress=False)
    assert np.array_equal(images.pixels, pixels)
    assert images.labels.tolist() == [5, 6, 7]


def test_shards_that_name_no_split_are_all_taken(make, tmp_path, rng):
    pixels = rng.integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    write_shards(make, tmp_path, pixels, list(range(4)), ["0000.parquet", "0001.parquet"])
    assert np.array_equal(open_parquet(tmp_path).pixels, pixels)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"split": "validation"}, "no Parquet file of the split 'validation'.*there is"),
        ({"image_column": "picture"}, "no column 'picture'; there is id, img, label"),
        ({"image_column": "id"}, "not the bytes of image files"),
        ({"label_column": "img"}, "not integers or texts"),
    ],
)
def test_parquet_mistakes(shards, options, reason):
    with pytest.raises(DataError, match=reason):
        open_parquet(shards[0], **options)


def test_bad_rows_are_named(tmp_path, make, rng):
    good = make.encoded(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    pq.write_table(pa.table({"image": [good, b"junk", None, good]}), tmp_path / "a.parquet")
    images = open_parquet(tmp_path, on_bad="skip")
    assert len(images) == 2
    assert images.labels is None
    assert [bad.where.rpartition("/")[2] for bad in images.bad] == ["a.parquet row 1", "a.parquet row 2"]
    with pytest.raises(DataError, match="2 of 4 images"):
        open_parquet(tmp_path)


def test_damaged_shard(shards):
    path = shards[0] / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"train-00001-of-00002\.parquet: not a readable Parquet file"):
        open_parquet(shards[0])


def test_without_pyarrow(shards, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=re.escape(how_to_install("parquet"))):
        open_parquet(shards[0])


def test_the_key_of_a_square_is_that_of_version_0_1():
    """What was decoded before there were two numbers is found again, however the square is said."""
    for image_size in (8, (8, 8)):
        assert repr(astuple(Recipe(image_size, "rgb"))) == "(8, 'rgb', None)"
    assert repr(astuple(Recipe((8, 12), "rgba", 6))) == "((8, 12), 'rgba', 6)"


def test_a_square_said_by_two_numbers_is_found_in_the_cache(image_folder, cache_home):
    first, second = (Folder(root=str(image_folder[0]), image_size=size).open(progress=False) for size in (8, (8, 8)))
    assert len(list(cache_home.iterdir())) == 1
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("on_disk", [True, False])
def test_height_and_width(image_folder, tmp_path, monkeypatch, on_disk):
    root, pixels = image_folder
    (tmp_path / "file").touch()
    cache = tmp_path / "cache" if on_disk else tmp_path / "file"
    images = Folder(root=str(root), image_size=(6, 8), cache=str(cache)).open(progress=False)
    assert images.shape == (images.channels, images.height, images.width) == (3, 6, 8)
    assert np.array_equal(images.pixels, pixels[:, :, 1:7])
    assert images.original_sizes == ((8, 8, 6),)


def test_rgba(tmp_path, make, rng):
    pixels = rng.integers(0, 256, (3, 4, 8, 12), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    for i, image in enumerate(pixels):
        (tmp_path / "images" / f"{i}.png").write_bytes(make.encoded(image.transpose(1, 2, 0)))
    images = Folder(root=str(tmp_path / "images"), image_size=(8, 12), mode="rgba").open(progress=False)
    assert np.array_equal(images.pixels, pixels)
    assert Folder(root=str(tmp_path / "images"), image_size=(8, 12), mode="auto").open(progress=False).channels == 3


def test_large_images_wait_for_each_other(monkeypatch, make):
    """Forty blank images of 8000 x 8000 are 8 MB of files, and 20 GB at once."""
    monkeypatch.setattr(decoded, "usable", lambda: 8)
    monkeypatch.setattr(decoded, "DECODING", 50)  # 400 pixels by 8 threads
    small, large = (make.encoded(np.zeros((side, side), np.uint8)) for side in (8, 30))
    now, most, lock = [0], [0], threading.Lock()

    def place(image, *rest):
        with lock:
            now[0] += image.width * image.height
            most[0] = max(most[0], now[0])
        time.sleep(0.002)
        with lock:
            now[0] -= image.width * image.height
        return np.zeros((1, 8, 8), np.uint8)

    monkeypatch.setattr(decoded, "place", place)
    items = [decoded.Item(str(i), large if i % 5 == 0 else small, None) for i in range(100)]
    found = list(decoded.decode_all(iter(items), Recipe(8, "gray"), 1))
    assert [one.size[0] for one in found] == [30 if i % 5 == 0 else 8 for i in range(100)]
    assert most[0] == 900  # a large one alone, as it has more than all may have together


def test_as_many_threads_as_the_container_has_cores(monkeypatch, make):
    """Not as the machine has, which may be a hundred times as many."""
    monkeypatch.setattr(decoded, "usable", lambda: 3)
    threads, pool = [], decoded.ThreadPoolExecutor
    monkeypatch.setattr(decoded, "ThreadPoolExecutor", lambda n, **more: threads.append(n) or pool(n, **more))
    item = decoded.Item("an image", make.encoded(np.zeros((8, 8), np.uint8)), None)
    assert len(list(decoded.decode_all(iter([item] * 9), Recipe(8, "gray"), 1))) == 9
    assert threads == [3]


@pytest.mark.parametrize(("size", "junk", "under_way"), [(1, 0, 4 * 33), (8, 0, 90), (8, 1000, 9), (200, 0, 2)])
def test_what_waits_for_its_turn_is_bounded_in_bytes(monkeypatch, make, size, junk, under_way):
    """Decoded pixels, and files in memory, as from Parquet, where 3,000 rows may share one value of 20 MB."""
    monkeypatch.setattr(decoded, "usable", lambda: 2)
    monkeypatch.setattr(decoded, "AHEAD", 9_000)
    monkeypatch.setattr(decoded, "CHUNK", 33)
    image, begun = make.encoded(np.zeros((8, 8), np.uint8)) + b"x" * junk, []
    items = (begun.append(i) or decoded.Item(str(i), image, None) for i in range(3000))
    next(decoded.decode_all(items, Recipe(size, "gray"), 1))
    assert len(begun) <= under_way


def test_an_image_that_cannot_be_read_gives_back_what_it_took(make):
    image = make.encoded(np.zeros((200, 200), np.uint8))
    items = [decoded.Item(str(i), image[: len(image) - 20], None) for i in range(50)]
    memory = decoded.Memory(1)
    assert all(isinstance(decoded._decode_one(item, Recipe(8, "gray"), 1, memory), BadImage) for item in items)
    assert memory._pixels == 0


def test_a_parquet_value_that_many_rows_share_is_not_copied_for_all(tmp_path, monkeypatch, make):
    """In a file a value is there once; in memory each row has its own."""
    rows = []
    monkeypatch.setattr(parquet, "BATCH", 3_000_000)
    image = make.encoded(np.zeros((8, 8, 3), np.uint8)) + b"x" * 1_000_000
    pq.write_table(pa.table({"img": pa.array([image] * 40, pa.binary())}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 3_000_000
    wrapped = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda self, batch_size, **rest: rows.append(batch_size) or wrapped(self, batch_size, **rest),
    )
    assert len(Parquet(root=str(tmp_path / "a.parquet"), image_size=8).open(progress=False)) == 40
    assert rows in ([1], [2])


def test_two_columns_of_one_name_are_refused(tmp_path, make):
    image = make.encoded(np.zeros((8, 8, 3), np.uint8))
    columns = [pa.array([image]), pa.array([1]), pa.array([2])]
    pq.write_table(pa.Table.from_arrays(columns, ["img", "label", "label"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="two of its columns have the name 'label'"):
        Parquet(root=str(tmp_path / "a.parquet"), image_size=8).open(progress=False)


def test_a_message_about_columns_is_short_whatever_they_are(tmp_path):
    names = ["x" * 10_000, "\x1b[31mred", *map(str, range(1000))]
    pq.write_table(pa.table({name: [1] for name in names}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"no column holds encoded images .* and 982 more") as found:
        Parquet(root=str(tmp_path / "a.parquet"), image_size=8).open(progress=False)
    assert len(str(found.value)) < 1000
    assert "\x1b" not in str(found.value)
