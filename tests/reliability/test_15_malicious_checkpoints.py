"""A checkpoint can be anything: it is refused with a sentence, runs no code, and takes less than 100 MB of memory.

Also where the hashes of its manifest fit. Somebody who may write to the folder can put other finite weights of the same
shapes there; hashes notice damage, they are no signatures. More forged headers are in tests/run/test_tensors.py, more
forged states in tests/train/test_state.py, and ``python -m tests.stress`` makes them up by the thousand.
"""

import json
import os
import pickle
import resource
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import FILES, alone, contents, resign, run, step_folder, tiny

from ddpm_ip.errors import CheckpointError
from ddpm_ip.run import checkpoint

MEMORY = 100_000_000


class Evil:
    """Leaves a sentinel if it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = str(sentinel)

    def __reduce__(self):
        return (open, (self.sentinel, "w"))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "run"
    assert alone(lambda: run(tiny(n_steps=2), folder)) == 0
    return folder


@pytest.fixture
def victim(good, tmp_path):
    shutil.copytree(good, tmp_path / "run")
    return step_folder(tmp_path / "run", 2)


def refused(victim: Path, word: str = "") -> None:
    """By a training that continues it and by sampling, in a process of little memory; nothing is left or started."""
    sentinel, before = victim.parents[2] / "sentinel", contents(victim.parents[2])

    def call():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
        for read in (
            lambda: run(tiny(n_steps=4), victim.parents[1], "latest"),
            lambda: checkpoint.find(victim).tensors("ema") and checkpoint.read(victim),
        ):
            with pytest.raises(CheckpointError) as caught:
                read()
            assert "step00000002" in str(caught.value)
            assert word in str(caught.value)
            assert len(str(caught.value)) < 5000

    assert alone(call) == 0
    assert not sentinel.exists()
    after = contents(victim.parents[2])
    assert {name: content for name, content in after.items() if name != "run/log.txt"} == {
        name: content for name, content in before.items() if name != "run/log.txt"
    }


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_under_each_name_is_not_executed(victim, tmp_path, name, kind):
    evil = Evil(tmp_path / "sentinel")
    if kind == "pickle":
        (victim / name).write_bytes(pickle.dumps(evil))
    else:
        torch.save({"conv_in.weight": evil}, victim / name)
    if name != "manifest.json":
        resign(victim)
    refused(victim, name)


@pytest.mark.parametrize("name", ["model.pt", "custom_checkpoint_0.pkl", "random_states_0.pkl", "optimizer.bin"])
def test_a_pickle_beside_the_files_is_not_looked_at_nor_may_the_manifest_name_it(victim, tmp_path, name):
    (victim / name).write_bytes(pickle.dumps(Evil(tmp_path / "sentinel")))
    assert checkpoint.read(victim).step == 2
    assert not (tmp_path / "sentinel").exists()
    resign(victim)
    refused(victim, "and nothing else")


def tensors(header: dict | bytes, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


FORGED = {
    "overlapping offsets": tensors({"a": entry(0, 16, [4]), "b": entry(8, 24, [4])}, bytes(24)),
    "the same bytes twice": tensors({"a": entry(0, 16, [4]), "b": entry(0, 16, [4])}, bytes(16)),
    "a hole": tensors({"a": entry(0, 8, [2]), "b": entry(16, 24, [2])}, bytes(24)),
    "a header of 90 MB that is not there": tensors({}, b"", 90_000_000),
    "a header of 8 EB": tensors({}, b"", 2**63 - 1),
    "a header of 60 MB": tensors(b'{"a":' + b" " * 60_000_000 + b"1}", b""),
    "4 GB": tensors({"a": entry(0, 4 * 2**30, [2**30])}, bytes(16)),
    "a shape of 4 GB on 16 bytes": tensors({"a": entry(0, 16, [2**30])}, bytes(16)),
    "a product that overflows": tensors({"a": entry(0, 16, [2**32, 2**32])}, bytes(16)),
    "nested deeply": tensors(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", b""),
    "a negative shape": tensors({"a": entry(0, 16, [-4])}, bytes(16)),
    "no UTF-8": tensors(b"\xff\xfe\xfd", b""),
    "a tail": tensors({"a": entry(0, 16, [4])}, bytes(16) + b"PK\x03\x04more"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_table_of_tensors(victim, kind):
    (victim / "ema.safetensors").write_bytes(FORGED[kind])
    resign(victim)
    refused(victim, "ema.safetensors")


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.float8_e4m3fn, torch.complex64])
def test_numbers_of_another_kind(victim, dtype):
    named = load_file(victim / "ema.safetensors")
    save_file({name: torch.zeros(v.shape).to(dtype) for name, v in named.items()}, victim / "ema.safetensors")
    resign(victim)

    def call():
        with pytest.raises(CheckpointError, match="ema"):
            run(tiny(n_steps=4), victim.parents[1], "latest")

    assert alone(call) == 0


JSON = {
    "nested lists": b"[" * 100_000 + b"]" * 100_000,
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a number of a million digits": b'{"step": ' + b"9" * 1_000_000 + b"}",
    "a huge text": b'{"a": "' + b"x" * 90_000_000 + b'"}',
    "no object": b"[1, 2]",
    "no JSON": b"\x80\x04\x95",
}


@pytest.mark.parametrize("name", ["meta.json", "manifest.json"])
@pytest.mark.parametrize("kind", JSON)
def test_json_that_is_a_bomb(victim, name, kind):
    (victim / name).write_bytes(JSON[kind])
    if name == "meta.json":
        resign(victim)
    refused(victim, name)


@pytest.mark.parametrize("path", ["../../config.yaml", "/etc/hostname", "../x", "a/b.safetensors", "..", ""])
def test_a_manifest_that_leads_elsewhere(victim, path):
    manifest = json.loads((victim / "manifest.json").read_text())
    content = b"" if not (victim / path).is_file() else (victim / path).read_bytes()
    manifest[path] = {"bytes": len(content), "sha256": checkpoint.hashlib.sha256(content).hexdigest()}
    (victim / "manifest.json").write_text(json.dumps(manifest))
    refused(victim, "manifest.json")


@pytest.mark.parametrize("name", FILES)
def test_a_symbolic_link_in_place_of_a_file(victim, tmp_path, name):
    os.rename(victim / name, tmp_path / "elsewhere")
    (victim / name).symlink_to(tmp_path / "elsewhere")
    refused(victim, name)
