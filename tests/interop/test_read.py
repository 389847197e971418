"""A file from anybody is read as tensors, or refused in words; nothing of it is run."""

import argparse
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.tiny import alone

from ddpm_ip.errors import CheckpointError
from ddpm_ip.interop import read


class Evil:
    """Leaves a sentinel if it is unpickled."""

    def __init__(self, sentinel):
        self.sentinel = str(sentinel)

    def __reduce__(self):
        return (open, (self.sentinel, "w"))


def good():
    return {"model": OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.ones(4, dtype=torch.float16)), "step": 3}


def saved(path, content=None, **options):
    torch.save(good() if content is None else content, path, **options)
    return path


def everything(path):
    return [read.numbers(state) for state in read.states(path)]


def refused(path, *words):
    with pytest.raises(CheckpointError) as caught:
        everything(path)
    said = str(caught.value)
    assert path.name in said
    assert len(said) < 2000
    for word in words:
        assert word in said


def test_what_is_honest_is_read(tmp_path):
    content = {"a": 1, "list": [torch.ones(2)], "opt": {"state": {0: {"m": torch.ones(3)}}, "lr": 0.1}, **good()}
    content["p"] = torch.nn.Parameter(torch.ones(2))
    (state,) = [s for s in read.states(saved(tmp_path / "a.pt", content)) if s.where == "model"]
    found = read.numbers(state)
    assert found["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert {t.dtype for t in found.values()} == {torch.float32}
    found["a"] += 1  # its own memory, not the file's
    assert read.numbers(read.states(tmp_path / "a.pt")[0])["a"][0, 0] == 0


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ""])
def test_the_kind_of_a_file_is_told_by_its_content(tmp_path, suffix):
    assert read.states(saved(tmp_path / f"a{suffix}"))[0].where == "model"
    save_file(good()["model"], tmp_path / f"b{suffix}")
    assert read.states(tmp_path / f"b{suffix}")[0].tensors["b"].tolist() == [1] * 4
    refused(saved(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("place", ["beside", "instead", "key", "within a list"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_pickle_is_named_and_not_run(tmp_path, place, protocol):
    evil = Evil(tmp_path / "sentinel")
    contents = {"beside": {**good(), "args": evil}, "instead": evil, "key": {"model": {"a": evil}}}
    contents["within a list"] = [good(), [evil]]
    path = saved(tmp_path / "a.pt", contents[place], pickle_protocol=protocol)
    refused(path, "io.open", "Nothing of it was run", "save_file")
    assert not (tmp_path / "sentinel").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_bare_or_an_old_pickle_is_not_opened(tmp_path, monkeypatch, legacy):
    monkeypatch.setattr(torch, "load", lambda *given, **more: pytest.fail("it was opened"))
    path, evil = tmp_path / "a.bin", Evil(tmp_path / "sentinel")
    if legacy:
        torch.save(evil, path, _use_new_zipfile_serialization=False)
        refused(path, "before version 1.6", "save_file")
    else:
        path.write_bytes(pickle.dumps(evil))
        refused(path, "bare pickle", "save_file")
    assert not (tmp_path / "sentinel").exists()


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (np.float64(3.5), "numpy"),
        (argparse.Namespace(lr=1), "argparse.Namespace"),
        (bytearray(10), "bytearray"),
        (pytest.approx, "pytest"),
        (torch.optim.Adam([torch.ones(1, requires_grad=True)]), "torch.optim.adam.Adam"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_honest_objects_are_refused_by_name_too(tmp_path, more, name):
    refused(saved(tmp_path / "a.pt", {**good(), "more": more}), name, "holds more than tensors", "save_file")


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {m.filename: archive.read(m) for m in archive.infolist()}


def archived(path, files, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_bombs(tmp_path):
    """What declares more than it has, in its archive, or in its tensors."""
    files = members(saved(tmp_path / "good.pt"))
    deflated = archived(tmp_path / "a.pt", {**files, "good/data/9": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert deflated.stat().st_size < 1_000_000
    refused(deflated, "packed")
    refused(archived(tmp_path / "b.pt", {**files, "good/constants.pkl": b"."}), "TorchScript")
    refused(archived(tmp_path / "c.pt", {"x/a": b"1"}), "none of torch.save")
    refused(archived(tmp_path / "d.pt", {**files, "other/data.pkl": b"."}), "none of torch.save")
    refused(archived(tmp_path / "e.pt", {"good/data.pkl": bytes(33_000_000)}), "pickle has 33 MB")
    shared = torch.ones(1)
    expanded = {f"w{i}": shared.expand(1000, 1000, 1000) for i in range(3)}
    path = saved(tmp_path / "f.pt", expanded)
    assert path.stat().st_size < 10_000
    refused(path, "which it does not have")
    big = torch.ones(1000)
    refused(saved(tmp_path / "g.pt", {f"w{i}": big for i in range(2000)}), "which it does not have")


def test_a_table_of_contents_is_bounded(tmp_path):
    path = archived(tmp_path / "a.pt", {f"x/data/{i:0200d}": b"" for i in range(8000)})
    refused(path, "table of contents")


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "a picture", "a folder", "a pipe", "absent", "a tar"])
def test_what_is_no_file_of_weights(tmp_path, kind):
    path = tmp_path / "a.pt"
    contents = {"empty": b"", "text": b"hello", "a picture": b"\x89PNG\r\n", "a tar": b"model" + bytes(600)}
    words = {"empty": "is empty", "cut": "cut off", "absent": "a.pt"}.get(kind, "")
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "cut":
        whole = saved(path).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    refused(path, words)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
def test_what_git_leaves_in_place_of_a_large_file_is_told(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 228000000\n")
    refused(path, "git lfs pull")


@pytest.mark.parametrize(
    "kind", [torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.complex64), torch.eye(3).to_sparse()]
)
def test_tensors_that_are_no_weights(tmp_path, kind):
    refused(saved(tmp_path / "a.pt", {"a": kind, "b": torch.ones(2)}), "a.pt")


def test_damaged_bytes_are_told_or_do_no_harm(tmp_path):
    """Every bit of the pickle and of the archive's tables may be another one; in a process of little memory."""
    whole = saved(tmp_path / "good.pt").read_bytes()
    expected = read.numbers(read.states(tmp_path / "good.pt")[0])
    path, draws = tmp_path / "a.pt", np.random.default_rng(0)

    def call():
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 200_000_000,) * 2)
        told = 0
        for _ in range(300):
            content = bytearray(whole)
            for place in draws.integers(0, len(whole), draws.integers(1, 4)):
                content[place] ^= 1 << draws.integers(8)
            path.write_bytes(content if draws.random() < 0.8 else content[: draws.integers(len(whole))])
            try:
                everything(path)
            except CheckpointError:
                told += 1
        assert told > 50

    assert alone(call) == 0
    assert expected["a"].shape == (2, 3)


def test_a_deep_or_a_recursive_tree_ends(tmp_path):
    deep, node = {}, {}
    deep["a"] = node
    for _ in range(200):
        node["b"] = node = {}
    node.update(good()["model"])
    assert read.states(saved(tmp_path / "a.pt", {**deep, **good()}))[0].where == "model"
    ring = {}
    ring["ring"] = ring
    assert read.states(saved(tmp_path / "b.pt", ring)) == []


def test_memory_is_not_taken_for_what_lies_beside(tmp_path):
    """The file is mapped: an optimizer's state of 100 MB beside the weights costs none."""
    beside = {"optimizer": {"state": {0: torch.zeros(25_000_000)}}}
    saved(tmp_path / "a.pt", {"model": {"a": torch.ones(10)}, **beside})

    def call():
        import resource

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (state,) = read.states(tmp_path / "a.pt")
        assert read.numbers(state)["a"].tolist() == [1] * 10
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB

    assert alone(call) == 0
    (tmp_path / "a.pt").unlink()


def test_a_pickle_whose_storage_is_not_there(tmp_path):
    files = members(saved(tmp_path / "good.pt"))
    lost = {name: content for name, content in files.items() if not name.endswith("/data/0")}
    refused(archived(tmp_path / "a.pt", lost), "torch cannot read it")
    short = {name: (content[:4] if name.endswith("/data/0") else content) for name, content in files.items()}
    refused(archived(tmp_path / "b.pt", short), "does not have")
    assert read.states(archived(tmp_path / "c.pt", files))[0].where == "model"
