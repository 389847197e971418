"""What is found in the cache is checked before it is used; else it is decoded again, and a warning says why."""

import json
import os
import shutil

import numpy as np
import pytest

from ddpm_ip.data import Folder, cache
from ddpm_ip.data.imageset import fingerprint


def open_folder(root, **options):
    return Folder(root=str(root), image_size=8, **options).open(progress=False)


@pytest.fixture
def entry(image_folder, cache_home):
    """The folder of images, its pixels, and its entry in the cache."""
    root, pixels = image_folder
    assert np.array_equal(open_folder(root).pixels, pixels)
    (folder,) = cache_home.iterdir()
    return root, pixels, folder


def flip_a_bit(folder):
    data = bytearray((folder / "pixels.npy").read_bytes())
    data[-1] ^= 1
    (folder / "pixels.npy").write_bytes(data)


def plant(folder, pixels=None, labels=None, **about):
    """Another array in place of the one that is there, with a fingerprint that fits if it can."""
    old = json.loads((folder / "set.json").read_text())
    pixels = np.load(folder / "pixels.npy", allow_pickle=False) if pixels is None else pixels
    labels = np.load(folder / "labels.npy", allow_pickle=False) if labels is None else labels
    np.save(folder / "pixels.npy", pixels)
    np.save(folder / "labels.npy", labels)
    if pixels.ndim == 4 and pixels.dtype == np.uint8 and labels.dtype == np.int64:
        old["fingerprint"] = fingerprint(pixels, labels)
    (folder / "set.json").write_text(json.dumps({**old, **about}))


def link(folder, name):
    shutil.move(folder / name, folder.parent.parent / "moved")
    (folder / name).symlink_to(folder.parent.parent / "moved")


def link_whole(folder):
    shutil.move(folder, folder.parent.parent / "moved")
    folder.symlink_to(folder.parent.parent / "moved")


def fifo(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)


OTHER = np.zeros((6, 3, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_bit, "not those that were written"),
        (lambda f: plant(f, OTHER.astype(np.float32)), r"its pixels are float32 \(6, 3, 8, 8\), not uint8"),
        (lambda f: plant(f, OTHER.transpose(0, 2, 3, 1)), r"its pixels are uint8 \(6, 8, 8, 3\)"),
        (lambda f: plant(f, OTHER[:5], np.zeros(5, np.int64)), r"its pixels are uint8 \(5, 3, 8, 8\)"),
        (lambda f: plant(f, OTHER[:, :1]), r"its pixels are uint8 \(6, 1, 8, 8\)"),
        (lambda f: plant(f, np.asfortranarray(OTHER)), "its pixels are"),
        (lambda f: plant(f, labels=np.zeros(6)), "its labels are float64"),
        (lambda f: plant(f, labels=np.zeros(5, np.int64)), r"its labels are int64 \(5,\), not int64 \(6,\)"),
        (lambda f: plant(f, fingerprint="0" * 64), "not those that were written"),
        (lambda f: plant(f, labels="../../labels.npy"), "not in labels.npy"),
        (lambda f: plant(f, bits="12"), "its bits are not a number"),
        (lambda f: plant(f, bad=[["a", "b", "c"]]), "not as it was written"),
        (lambda f: plant(f, original_sizes=[[8, 8]]), "not as it was written"),
        (lambda f: plant(f, key="0" * 24), "made for another set"),
        (lambda f: link(f, "pixels.npy"), "symbolic link|Too many levels"),
        (lambda f: link(f, "set.json"), "set.json is a symbolic link"),
        (link_whole, "is a symbolic link"),
        (lambda f: fifo(f, "pixels.npy"), "a pipe, a socket or a device"),
        (lambda f: fifo(f, "set.json"), "a pipe, a socket or a device"),
        (lambda f: f.chmod(0o777), "every user may write"),
        (lambda f: (f / "pixels.npy").chmod(0o666), "every user may write pixels.npy"),
    ],
)
def test_what_is_wrong_is_decoded_again_and_said(entry, warnings_of, damage, reason):
    root, pixels, folder = entry
    if "labels.npy" in reason:  # the labels of plant() are an array
        about = json.loads((folder / "set.json").read_text())
        (folder / "set.json").write_text(json.dumps({**about, "labels": "../../labels.npy"}))
    else:
        damage(folder)
    images = open_folder(root)
    assert np.array_equal(images.pixels, pixels)
    assert images.labels.tolist() == [0, 0, 1, 1, 1, 1]
    (said,) = warnings_of()
    assert said.startswith("images: the decoded images are not used, and decoded again: ")
    assert any(one in said for one in [reason.replace("\\", ""), *reason.split("|")]), said
    assert open_folder(root).fingerprint == images.fingerprint
    assert len(warnings_of()) == 1
    assert not folder.is_symlink()


def test_another_users_entry_is_not_used_and_stays(entry, warnings_of, monkeypatch):
    root, pixels, folder = entry
    plant(folder, OTHER)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(cache.os, "geteuid", lambda: os.getuid() + 1)
    for path in (folder, *folder.iterdir()):
        if os.getuid() == 0:
            os.chown(path, 4321, 4321)
    monkeypatch.setattr(cache.shutil, "rmtree", lambda *_, **__: None)  # as without the permission
    assert np.array_equal(open_folder(root).pixels, pixels)
    assert "belongs to another user; set data.cache to a folder of your own" in warnings_of()[0]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_all_may_write_is_not_made(image_folder, cache_home):
    old = os.umask(0)
    try:
        open_folder(image_folder[0])
    finally:
        os.umask(old)
    (folder,) = cache_home.iterdir()
    assert [path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())] == [0o755, 0o644, 0o644, 0o644]


def test_an_entry_of_version_0_1_is_used(entry, warnings_of):
    """It has neither key nor bits."""
    root, pixels, folder = entry
    about = json.loads((folder / "set.json").read_text())
    for key in ("key", "bits", "schema"):
        del about[key]
    (folder / "set.json").write_text(json.dumps(about))
    stamp = (folder / "set.json").stat().st_mtime_ns
    assert np.array_equal(open_folder(root).pixels, pixels)
    assert (folder / "set.json").stat().st_mtime_ns == stamp
    assert warnings_of() == []


def test_what_is_mapped_stays_when_the_entry_is_replaced(entry):
    root, pixels, folder = entry
    mapped = open_folder(root).pixels
    (folder / "set.json").write_text("{")
    open_folder(root)
    assert np.array_equal(mapped, pixels)


@pytest.mark.parametrize("place", ["a\0b", "~no_such_user_here/x"])
def test_a_cache_that_cannot_be(image_folder, place):
    with pytest.raises(cache.DataError, match="Give the folder by its full name"):
        open_folder(image_folder[0], cache=place)


def test_a_name_that_is_too_long_means_memory(image_folder, warnings_of):
    root, pixels = image_folder
    assert np.array_equal(open_folder(root, cache="x" * 300).pixels, pixels)
    assert "decoding to memory" in warnings_of()[0]
