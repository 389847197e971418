"""Files of tensors that anybody may have written, and numbers that are none."""

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from ddpm_ip.errors import CheckpointError
from ddpm_ip.run.tensors import first_not_finite, mismatches, read_tensors, refuse_not_finite

MOST = torch.finfo(torch.float32).max


def forged(path, entries, data=b"\0" * 64, header=None):
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text) if header is None else header) + text + data)
    return path


def entry(dtype="F32", shape=(4,), begin=0, end=16):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("place", [0, 3, -1])
def test_one_number_that_is_not_finite_is_found(dtype, bad, place):
    tensor = torch.ones(5, 7, dtype=dtype)
    tensor.view(-1)[place] = bad
    assert first_not_finite({"a": torch.ones(3), "b": tensor, "c": tensor}) == "b"
    assert first_not_finite({"a": torch.ones(3)}) is None


def test_the_largest_numbers_are_finite():
    """No sum is taken that could be infinite itself; whole numbers and empty tensors have nothing to hide."""
    large = torch.tensor([MOST, -MOST]).repeat(1000)
    ints = torch.full((3,), 2**62)
    assert first_not_finite({"a": large, "b": torch.zeros(0, 3), "c": ints, "d": torch.tensor(True)}) is None
    assert first_not_finite({}) is None


def test_the_file_and_the_tensor_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"x\.safetensors holds numbers that are not finite \(in conv\.bias\)"):
        refuse_not_finite({"conv.bias": torch.tensor([0.0, float("nan")])}, tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("entries", "data", "header"),
    [
        ({"w": entry()}, b"\0" * 16, 100_000_000),
        ({"w": entry()}, b"\0" * 16, 2**63),
        ({"w": entry()}, b"\0" * 16, 0),
        ({"w": entry()}, b"", None),
        ({"w": entry(), "v": entry(begin=8, end=24)}, b"\0" * 24, None),
        ({"w": entry(), "v": entry()}, b"\0" * 16, None),
        ({"w": entry(begin=16, end=0)}, b"\0" * 16, None),
        ({"w": entry(begin=-16, end=0)}, b"\0" * 16, None),
        ({"w": entry(shape=(2**40, 2**40), end=16)}, b"\0" * 16, None),
        ({"w": entry(shape=(10**9,), end=4 * 10**9)}, b"\0" * 16, None),
        ({"w": entry(shape=(-4,))}, b"\0" * 16, None),
        ({"w": entry(shape=(4.0,))}, b"\0" * 16, None),
        ({"w": entry(dtype="F8_E4M3", end=4)}, b"\0" * 4, None),
        ({"w": entry(dtype="F8_E8M0", end=4)}, b"\0" * 4, None),
        ({"w": entry(dtype="F4", end=2)}, b"\0" * 2, None),
        ({"w": entry(dtype="C64", end=32)}, b"\0" * 32, None),
        ({"w": entry(dtype="U64", end=32)}, b"\0" * 32, None),
        ({"w": entry(dtype="F33")}, b"\0" * 16, None),
        ({"w": entry(dtype=3)}, b"\0" * 16, None),
        ({"w": 1}, b"", None),
        ([], b"", None),
        ({"__metadata__": 3}, b"", None),
    ],
)  # fmt: skip
def test_a_forged_file_is_a_checkpoint_error(tmp_path, entries, data, header):
    with pytest.raises(CheckpointError, match=r"x\.safetensors is damaged: "):
        read_tensors(forged(tmp_path / "x.safetensors", entries, data, header))


def test_dimensions_of_no_size_take_no_memory(tmp_path):
    path = forged(tmp_path / "x.safetensors", {"w": entry(shape=(2**40, 0), end=0)}, b"")
    try:
        found = read_tensors(path)
    except CheckpointError:
        return
    assert mismatches({"w": torch.ones(4)}, found) == ["w has shape (1099511627776, 0) instead of (4,)"]


@pytest.mark.parametrize("name", ["nothing.safetensors", "folder.safetensors"])
def test_what_is_no_file_is_a_checkpoint_error(tmp_path, name):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=name):
        read_tensors(tmp_path / name)


@pytest.mark.parametrize(
    ("found", "own", "fits"),
    [
        (torch.float32, torch.float32, True),
        (torch.float16, torch.float32, True),
        (torch.bfloat16, torch.float32, True),
        (torch.float64, torch.float32, False),  # 1e300 would become infinite
        (torch.bfloat16, torch.float16, False),
        (torch.int64, torch.float32, False),
        (torch.bool, torch.float32, False),
        (torch.uint8, torch.float32, False),
        (torch.float32, torch.int64, False),
        (torch.int32, torch.int64, False),
        (torch.int64, torch.int64, True),
    ],
)
def test_numbers_fit_that_keep_their_values(tmp_path, found, own, fits):
    save_file({"w": torch.ones(2, 3).to(found)}, tmp_path / "x.safetensors")
    wrong = mismatches({"w": torch.ones(2, 3, dtype=own)}, read_tensors(tmp_path / "x.safetensors"))
    names = [str(one).removeprefix("torch.") for one in (found, own)]
    assert wrong == ([] if fits else ["w has dtype {} instead of {}".format(*names)])


def test_names_and_shapes():
    own, found = {"a": torch.ones(2), "b": torch.ones(3, 1)}, {"b": torch.ones(3), "c": torch.ones(1)}
    assert mismatches(own, found) == [
        "a is missing",
        "b has shape (3,) instead of (3, 1)",
        "c is not part of it",
    ]
