"""What is told before something begins is what it then takes."""

import math
from collections import namedtuple
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import one_thread, run, steps_saved, tiny

from ddpm_ip import estimate
from ddpm_ip.estimate import Disk, Sizes, disk_of_run, disk_of_table, kept, line, most_memory, size, used

Usage = namedtuple("Usage", "free")


def bytes_in(folder) -> int:
    """Of the tensors of floating point in a checkpoint or average: the counters of Adam are left out."""
    tensors = [t for file in folder.glob("*.safetensors") for key, t in load_file(file).items() if "step" not in key]
    return sum(t.numel() * t.element_size() for t in tensors)


def test_checkpoints_have_the_size_and_number_that_were_told(tmp_path, monkeypatch):
    one_thread(monkeypatch)
    more = {"ema_decay": [0.5, 0.9], "ema_power": [0.1], "ema_snapshot_freq": 3, "keep_every": 2, "sample_freq": 3}
    config = tiny(n_steps=5, save_freq=1, **more)
    run(config, tmp_path)
    sizes = Sizes.of(config)
    assert {bytes_in(folder) for folder in (tmp_path / "ckpt").iterdir()} == {sizes.checkpoint}
    assert [bytes_in(folder) for folder in (tmp_path / "snapshots").iterdir()] == [sizes.weights] * 2
    assert kept(config) == len(steps_saved(tmp_path)) == 3
    tensors = 3 * sizes.checkpoint + 2 * sizes.weights
    pictures = disk_of_run(config, sizes) - tensors
    assert used(tmp_path / "samples") <= pictures + 2 * 1000, "beside headers and frames"
    assert used(tmp_path / "ckpt", tmp_path / "snapshots") >= tensors
    assert used(tmp_path / "none") == 0


def test_the_network_of_a_run_is_counted_as_it_is():
    config = tiny()
    assert Sizes.of(config, config.build_network()) == Sizes.of(config)
    state = torch.get_rng_state()
    Sizes.of(config)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_checkpoints_that_are_kept_are_counted_as_they_are_pruned():
    for steps, save, last, every in product(range(1, 14), range(1, 6), (2, 3), (0, 1, 2, 3, 4)):
        there: list[int] = []
        for step in range(1, steps + 1):
            if step % save == 0 or step == steps:
                there.append(step)
                there = [s for s in there if s in there[-last:] or (every and s % every == 0)]
        train = SimpleNamespace(n_steps=steps, save_freq=save, keep_last=last, keep_every=every)
        assert kept(SimpleNamespace(train=train)) == len(there), (steps, save, last, every)


def test_a_table_is_as_large_as_its_images():
    assert disk_of_table((3, 32, 32), 8, 50_000, keep_images=False) == 8 * 64 * 3072
    assert disk_of_table((3, 32, 32), 2, 1000, keep_images=True) == 2 * (1000 + 64) * 3072


def test_a_disk_that_has_less_is_told_with_what_to_do(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda path: asked.append(path) or Usage(10**9))
    disk = Disk(tmp_path / "not" / "there", 9 * 10**8, 10**8, "2 checkpoints")
    assert disk.warning("or stop") is None
    assert line("time A", "memory B", disk) == (
        "estimate: time A; memory B; disk 900 MB (2 checkpoints) of 1.00 GB that are free"
    )
    assert set(asked) == {tmp_path}
    more = Disk(tmp_path, 9 * 10**8, 10**8 + 1)
    assert "1.00 GB free, and this takes up to 1.00 GB: make room, or stop" in str(more.warning("or stop"))
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda path: 1 / 0 if path is None else _refuse())
    assert more.warning("or stop") is None
    assert more.text() == "disk 900 MB"
    assert Disk(tmp_path, 0).text() == "disk no more"


def _refuse():
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 kB"), (1, "1 kB"), (999_000, "999 kB"), (1_440_000, "1.44 MB"), (571_940_912, "572 MB"),
        (5_178_925_488, "5.18 GB"), (47_600_000_000, "47.6 GB"), (1_234_000_000_000, "1234 GB"),
    ],
)  # fmt: skip
def test_bytes_in_words(count, text):
    assert size(count) == text


def test_the_memory_of_this_process_is_known():
    pytest.importorskip("resource")
    block = torch.ones(5_000_000)
    most = most_memory(torch.device("cpu"))
    assert most is not None
    assert most > block.numel() * block.element_size()
    assert math.isfinite(most)
