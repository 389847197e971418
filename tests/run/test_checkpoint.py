"""A checkpoint is whole or it is not used."""

import json
import os
import pickle
import re

import pytest
import torch
from safetensors.torch import save_file
from tests.tiny import FILES, ROOT, resign

from ddpm_ip.errors import CheckpointError, Diverged
from ddpm_ip.run import checkpoint
from ddpm_ip.run.weights import find_weights, load_weights

PARTS = ("model", "ema", "optimizer")


def write(folder, step):
    tensors = {name: {"w": torch.full((50,), float(step))} for name in PARTS}
    return checkpoint.save(folder, step, tensors, {"sums": [0.0, 0.0]})


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def delete(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def test_what_was_saved_is_read_back(tmp_path):
    write(tmp_path, 3)
    found = checkpoint.newest(tmp_path)
    assert found.step == 3
    assert torch.equal(found.tensors("ema")["w"], torch.full((50,), 3.0))
    assert sorted(p.name for p in (tmp_path / "step00000003").iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [truncate, flip, delete, empty])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, warnings_of, damage, name):
    write(tmp_path, 1)
    damage(write(tmp_path, 2) / name)
    assert checkpoint.newest(tmp_path).step == 1
    (warning,) = warnings_of()
    assert "step00000002" in warning
    if name != "manifest.json":  # a bit of the manifest may make any of the files look wrong
        assert name in warning
    elif damage is not flip:
        assert "manifest.json" in warning


def test_when_all_are_damaged_every_reason_is_told(tmp_path):
    truncate(write(tmp_path, 1) / "ema.safetensors")
    delete(write(tmp_path, 2) / "meta.json")
    with pytest.raises(CheckpointError) as caught:
        checkpoint.newest(tmp_path)
    message = str(caught.value)
    assert "step00000001: ema.safetensors has" in message
    assert "step00000002: meta.json is missing" in message
    assert "-e" in message


def test_no_checkpoint_at_all_is_no_error(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "nowhere") is None


def test_the_manifest_says_which_parts_there_are(tmp_path):
    """Any part goes to a file of its own; one without tensors gets none, and is not there when it is asked for."""
    tensors = {"model": {"w": torch.ones(2)}, "times": {"history": torch.zeros(3)}, "empty": {}}
    path = checkpoint.save(tmp_path, 1, tensors, {})
    assert {p.name for p in path.iterdir()} == {
        "model.safetensors", "times.safetensors", "meta.json", "manifest.json",
    }  # fmt: skip
    found = checkpoint.read(path)
    assert found.parts == ["model", "times"]
    assert torch.equal(found.tensors("times")["history"], torch.zeros(3))
    for name in ("empty", "ema", "meta", "../model"):
        with pytest.raises(CheckpointError, match=rf"step00000001 holds no {name}, only model, times"):
            found.tensors(name)
    with pytest.raises(CheckpointError, match="holds no ema"):
        find_weights(path)
    (path / "times.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"times\.safetensors is missing"):
        checkpoint.read(path)


@pytest.mark.parametrize("name", ["Model", "a/b", "../a", "", "a.b", "1a"])
def test_a_part_whose_name_could_not_be_read_back_is_not_written(tmp_path, name):
    with pytest.raises(ValueError, match="lower case"):
        checkpoint.save(tmp_path, 1, {name: {"w": torch.ones(2)}}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_version_0_1_is_read():
    found = checkpoint.find(ROOT / "tests/legacy/v0.1/run")
    assert found.parts == ["model", "ema", "optimizer"]
    assert found.step == 60
    assert all(found.tensors(part) for part in found.parts)


def test_a_manifest_without_the_meta_data_is_refused(tmp_path):
    path = write(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["meta.json"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"does not list meta\.json"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("../secret", "and nothing else"),
        ("/etc/passwd", "and nothing else"),
        ("../secret.safetensors", "and nothing else"),
        ("secret.txt", "and nothing else"),
        ("more.safetensors", r"more\.safetensors is missing"),
    ],
)
def test_a_manifest_that_names_another_file_is_refused(tmp_path, key, message):
    path = write(tmp_path, 1)
    (tmp_path / "secret").write_text("x")
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, key: {"bytes": 1, "sha256": "0"}}))
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read(path)


def test_a_symbolic_link_in_place_of_a_file_is_refused(tmp_path):
    path = write(tmp_path, 1)
    os.rename(path / "model.safetensors", tmp_path / "elsewhere")
    (path / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        checkpoint.read(path)


@pytest.mark.parametrize("name", ["manifest.json", "meta.json"])
@pytest.mark.parametrize("bomb", ["[" * 200_000, '{"a":' * 200_000, "9" * 10_000, "[]", "null", '"x"', "\ud800"])
def test_json_that_is_none_or_a_bomb_is_refused(tmp_path, name, bomb):
    path = write(tmp_path, 1)
    (path / name).write_bytes(bomb.encode("utf-8", "surrogatepass"))
    if name == "meta.json":
        resign(path)
    with pytest.raises(CheckpointError, match=name):
        checkpoint.read(path)


@pytest.mark.parametrize("entry", [None, 3, [], {}, {"bytes": 1}, {"sha256": None}])
def test_a_manifest_with_another_shape_is_refused(tmp_path, entry):
    path = write(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "ema.safetensors": entry}))
    with pytest.raises(CheckpointError, match=r"ema\.safetensors"):
        checkpoint.read(path)


class Evil:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return (open, (self.sentinel, "w"))


def test_a_pickle_with_a_right_hash_is_not_executed(tmp_path):
    path = write(tmp_path, 1)
    (path / "model.safetensors").write_bytes(pickle.dumps(Evil(str(tmp_path / "executed"))))
    resign(path)
    with pytest.raises(CheckpointError):
        checkpoint.read(path).tensors("model")
    assert not (tmp_path / "executed").exists()


def test_retention(tmp_path):
    for step in range(1, 11):
        write(tmp_path, step)
        checkpoint.prune(tmp_path, keep_last=2, keep_every=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step{n:08d}" for n in (4, 8, 9, 10)]


def test_retention_removes_what_a_kill_left(tmp_path):
    (tmp_path / ".tmp-step00000001-99").mkdir(parents=True)
    (tmp_path / ".tmp-step00000001-99" / "model.safetensors").write_text("half")
    (tmp_path / "notes").mkdir()
    write(tmp_path, 1)
    checkpoint.prune(tmp_path, keep_last=2, keep_every=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes", "step00000001"]


def test_old_checkpoints_that_cannot_be_removed_are_only_a_warning(tmp_path, monkeypatch, warnings_of):
    for step in (1, 2, 3):
        write(tmp_path, step)

    def fail(path):
        raise PermissionError("no")

    monkeypatch.setattr(checkpoint.shutil, "rmtree", fail)
    checkpoint.prune(tmp_path, keep_last=2, keep_every=0)
    assert len(warnings_of()) == 1
    assert checkpoint.newest(tmp_path).step == 3


def test_a_write_that_fails_leaves_nothing_and_touches_nothing(tmp_path):
    def full(name):
        raise OSError(28, "No space left on device")

    before = (write(tmp_path, 1) / "manifest.json").read_bytes()
    tensors = {name: {"w": torch.zeros(50)} for name in PARTS}
    with pytest.raises(CheckpointError, match=r"step00000002.*No space left.*needs.*MB.*free"):
        checkpoint.save(tmp_path, 2, tensors, {}, full)
    assert [p.name for p in tmp_path.iterdir()] == ["step00000001"]
    assert (tmp_path / "step00000001" / "manifest.json").read_bytes() == before


def test_a_folder_that_is_none_is_an_error_that_says_where(tmp_path):
    (tmp_path / "ckpt").write_text("a file is in the way")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        write(tmp_path / "ckpt", 1)


def test_the_same_step_is_written_again(tmp_path):
    write(tmp_path, 1)
    checkpoint.save(tmp_path, 1, {name: {"w": torch.ones(2)} for name in PARTS}, {})
    assert checkpoint.newest(tmp_path).tensors("model")["w"].shape == (2,)


def test_find_takes_a_run_its_checkpoints_or_one(tmp_path):
    path = write(tmp_path / "ckpt", 7)
    assert [checkpoint.find(p).step for p in (tmp_path, tmp_path / "ckpt", path)] == [7, 7, 7]
    with pytest.raises(CheckpointError, match="neither a checkpoint"):
        checkpoint.find(tmp_path / "ckpt" / "nothing")


def ruin(path, part="model", bad=float("nan")):
    """What version 0.1 saved of a run that had diverged: hashes that fit, numbers that are none."""
    save_file({"v": torch.ones(3), "w": torch.full((50,), bad)}, path / f"{part}.safetensors")
    resign(path)
    return path


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_a_state_that_is_not_finite_is_never_saved(tmp_path, part, bad):
    write(tmp_path, 1)
    tensors = {name: {"v": torch.ones(3), "w": torch.ones(50)} for name in PARTS}
    tensors[part]["w"][17] = bad
    with pytest.raises(Diverged, match=rf"after step 2 is not finite \({part}, w\) and was not saved"):
        checkpoint.save(tmp_path, 2, tensors, {})
    assert [p.name for p in tmp_path.iterdir()] == ["step00000001"]


@pytest.mark.parametrize("part", PARTS)
def test_a_checkpoint_that_is_not_finite_is_passed_over_with_a_warning(tmp_path, warnings_of, part):
    write(tmp_path, 1)
    ruin(write(tmp_path, 2), part)
    ruin(write(tmp_path, 3), part, float("-inf"))
    assert checkpoint.newest(tmp_path).step == checkpoint.find(tmp_path).step == 1
    assert len(warnings_of()) == 4
    for step in (2, 3):
        said = rf"step0000000{step}/{part}\.safetensors holds numbers that are not finite \(in w\)"
        assert any(re.search(said, warning) for warning in warnings_of())
        with pytest.raises(CheckpointError, match=said):
            checkpoint.find(tmp_path / f"step0000000{step}")


def test_sampling_asks_of_a_checkpoint_what_it_uses_alone(tmp_path, warnings_of):
    write(tmp_path, 1)
    ruin(ruin(write(tmp_path, 2), "optimizer"), "model")
    ruin(write(tmp_path, 3), "ema")
    found = find_weights(tmp_path)
    assert (found.checkpoint.step, float(found.tensors["w"][0])) == (2, 2.0)
    assert found.origin == str(tmp_path / "step00000002")
    assert len(warnings_of()) == 1
    with pytest.raises(CheckpointError, match="holds numbers that are not finite"):
        find_weights(tmp_path / "step00000003")
    with pytest.raises(CheckpointError, match="holds numbers that are not finite"):
        find_weights(tmp_path / "step00000003" / "ema.safetensors")


def test_when_all_are_ruined_the_error_says_how_to_fix_it(tmp_path):
    for step in (1, 2):
        ruin(write(tmp_path, step))
    with pytest.raises(CheckpointError, match="not finite") as caught:
        checkpoint.newest(tmp_path)
    assert all(text in str(caught.value) for text in ("step00000001", "step00000002", "train.optim.lr", "-e"))


def with_meta(path, **changes):
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps({**meta, **changes}))
    resign(path)
    return path


@pytest.mark.parametrize("step", [-1, 0, 1, 3, 10**17, 10**30, 10**400, 2.0, True, None, "2", [2], float("nan")])
def test_the_step_is_that_of_the_folders_name(tmp_path, step):
    path = with_meta(write(tmp_path, 2), step=step)
    with pytest.raises(CheckpointError, match="step"):
        checkpoint.read(path)


@pytest.mark.parametrize("name", ["step00000003", "step2", "step000000002", "step00000002x", "step"])
def test_a_checkpoint_under_the_name_of_another_step_is_refused(tmp_path, name):
    path = write(tmp_path, 2).rename(tmp_path / name)
    with pytest.raises(CheckpointError, match="not the step of the folder's name"):
        checkpoint.read(path)


@pytest.mark.parametrize("name", ["best", "superseded-step00000002"])
def test_a_checkpoint_under_a_name_of_ones_own_is_read(tmp_path, name):
    assert checkpoint.read(write(tmp_path, 2).rename(tmp_path / name)).step == 2


@pytest.mark.parametrize("name", ["step" + "9" * 19, "step" + "0" * 30, "step٠٠٠٠٠٠٠٢", "step0000002"])
def test_a_folder_that_no_run_wrote_is_no_checkpoint(tmp_path, name):
    write(tmp_path, 2)
    (tmp_path / name).mkdir()
    assert checkpoint.newest(tmp_path).step == 2
    assert checkpoint.steps(tmp_path) == [2]


@pytest.mark.parametrize("config", [None, [], 3, "x", True])
def test_a_configuration_that_is_none_is_refused(tmp_path, config):
    with pytest.raises(CheckpointError, match="has a config that is not an object"):
        checkpoint.read(with_meta(write(tmp_path, 1), config=config))


@pytest.mark.parametrize("entry", [{"bytes": 10**400}, {"bytes": -1}, {"bytes": "90"}, {"bytes": 1e300}, {"sha256": 0}])
def test_a_manifest_with_other_values_is_refused(tmp_path, entry):
    path = write(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["ema.safetensors"] |= entry
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"ema\.safetensors"):
        checkpoint.read(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, name, kind):
    path = write(tmp_path, 1)
    (path / name).unlink()
    {"folder": os.mkdir, "pipe": os.mkfifo, "loop": lambda file: os.symlink(file, file)}[kind](path / name)
    with pytest.raises(CheckpointError, match=re.escape(name)):
        checkpoint.read(path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64])
def test_a_kind_of_number_that_is_not_read_back_is_not_written(tmp_path, dtype):
    with pytest.raises(ValueError, match="do not go into a checkpoint"):
        checkpoint.save(tmp_path, 1, {"model": {"w": torch.ones(2).to(dtype)}}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float64])
def test_weights_of_another_kind_of_numbers_do_not_fit(tmp_path, dtype):
    network = torch.nn.Linear(2, 3)
    weights = {k: v.detach().to(dtype) for k, v in network.state_dict().items()}
    save_file(weights, tmp_path / "mine.safetensors")
    before = network.weight.clone()
    with pytest.raises(
        CheckpointError, match=r"mine.* do not fit the network(.|\n)*bias has dtype .* instead of float32"
    ):
        load_weights(network, find_weights(tmp_path / "mine.safetensors").tensors, "mine")
    assert torch.equal(network.weight, before)
