"""The program that samples: whichever way the images come about, they are the same bytes."""

import hashlib
import json
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import GUARD, command_of_two, one_thread, options, step_folder, tiny, tree

from ddpm_ip.cli import main
from ddpm_ip.config import from_dict, merge
from ddpm_ip.errors import CheckpointError, ConfigError, UserError
from ddpm_ip.images import save_png
from ddpm_ip.run import checkpoint
from ddpm_ip.sample import program as sampling
from ddpm_ip.sample import store
from ddpm_ip.sample.generator import Generator
from ddpm_ip.sample.program import fitting_block, image_bytes, sample
from ddpm_ip.sample.store import sample_files

OPTIONS = {"n_samples": 20, "batch_size": 8, "respace_steps": 4, "seed": 3}


@pytest.fixture(scope="module")
def expected(trained, tmp_path_factory):
    """The images of one uninterrupted call."""
    with pytest.MonkeyPatch.context() as patch:
        one_thread(patch)
        return make(trained, tmp_path_factory.mktemp("expected") / "images")


def make(weights, folder, on_block=lambda block: None, config=None, **changes):
    sample(config or tiny(), weights, folder, options(**{**OPTIONS, **changes}), on_block)
    return hashes(folder)


def hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sample_files(folder)}


def pixels(folder):
    return np.stack([np.asarray(Image.open(p)) for p in sample_files(folder)])


def test_twenty_different_images_and_nothing_else(trained, tmp_path, expected):
    assert make(trained, tmp_path / "a") == expected
    assert list(expected) == [f"{i:06d}.png" for i in range(20)]
    assert len(set(expected.values())) == 20
    assert {p.name for p in (tmp_path / "a").iterdir()} == {*expected, "sampling.json", "grid.png"}
    assert pixels(tmp_path / "a").shape == (20, 8, 8)


def test_two_processes_agree_on_the_block_that_is_there(trained, tmp_path, expected):
    make(trained, tmp_path / "a", n_samples=3)
    given = ["--weights", trained, "--save_dir", tmp_path / "a", "--n_samples", 20, "--respace_steps", 4, "--seed", 3]
    assert command_of_two("sample", *given) == [0, 0]
    assert hashes(tmp_path / "a") == expected


def test_threads_write_a_block_while_the_next_is_made(trained, tmp_path, monkeypatch, expected):
    ordinary, next_begun = Generator.images, threading.Event()

    def images(self, block):
        if block == 1:
            next_begun.set()
        if block == 2:
            assert len(hashes(tmp_path / "a")) >= 8, "the block before the last is on the disk: memory stays flat"
        return ordinary(self, block)

    def save(picture, path, advice):
        assert threading.current_thread() is not threading.main_thread()
        assert next_begun.wait(GUARD), "block 0 was waited for before block 1 was begun"
        save_png(picture, path, advice)

    monkeypatch.setattr(Generator, "images", images)
    monkeypatch.setattr(store, "save_png", save)
    done = []

    def on_block(block):
        done.append(block)
        assert set(hashes(tmp_path / "a")) >= set(list(expected)[: 8 * (block + 1)]), "called once the block is written"

    assert make(trained, tmp_path / "a", on_block) == expected
    assert done == [0, 1, 2]


def test_threads_write_the_bytes_that_one_after_the_other_gives(trained, tmp_path, expected):
    make(trained, tmp_path / "a")
    for path in sample_files(tmp_path / "a"):
        save_png(np.asarray(Image.open(path))[None], tmp_path / path.name)
    assert hashes(tmp_path) == expected


def test_a_file_that_cannot_be_written_is_named(trained, tmp_path, monkeypatch, expected):
    ordinary = Image.Image.save

    def save(self, file, **how):
        if "000009.png" in file.name:
            raise OSError(28, "No space left on device")
        ordinary(self, file, **how)

    done = []
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", save)
        with pytest.raises(
            UserError, match=r"a/000009\.png cannot be written: No space left on device.*same call again"
        ):
            make(trained, tmp_path / "a", done.append)
    assert done == [0]
    assert list(hashes(tmp_path / "a")) == [name for name in list(expected)[:16] if name != "000009.png"]
    assert make(trained, tmp_path / "a") == expected


def test_what_was_handed_over_is_written_though_the_next_block_is_interrupted(trained, tmp_path, monkeypatch, expected):
    ordinary, interrupted = Generator.images, threading.Event()

    def images(self, block):
        if block == 1:
            interrupted.set()
            raise KeyboardInterrupt
        return ordinary(self, block)

    def slow(picture, path, advice):
        assert interrupted.wait(GUARD)
        save_png(picture, path, advice)

    with monkeypatch.context() as patch:
        patch.setattr(Generator, "images", images)
        patch.setattr(store, "save_png", slow)
        with pytest.raises(KeyboardInterrupt):
            make(trained, tmp_path / "a")
    assert {p.name for p in (tmp_path / "a").iterdir()} == {*list(expected)[:8], "sampling.json"}
    assert make(trained, tmp_path / "a") == expected


def test_the_last_line_says_what_the_disk_added(trained, tmp_path, caplog, monkeypatch):
    ordinary = sampling.setup

    def setup(*arguments):
        ordinary(*arguments)
        sampling.log.parent.propagate = True

    monkeypatch.setattr(sampling, "setup", setup)
    with caplog.at_level("INFO"):
        make(trained, tmp_path / "a")
    assert re.search(r"20 images in .*: fixed_large@uniform-linspace, 4 network evaluations each", caplog.text)
    assert re.search(r"\(sampling \d+\.\d s, waiting for the disk \d+\.\d s\)", caplog.text)


@pytest.mark.parametrize(
    ("free", "block"), [(0, 64), (127e6, 64), (128e6, 128), (300e6, 256), (1023e6, 512), (1024e6, 1024), (80e9, 1024)]
)
def test_the_block_that_fits(free, block):
    assert fitting_block(int(free), 1_000_000) == block


def test_the_estimate_is_twice_what_the_cifar10_network_was_measured_to_take():
    config = from_dict({"data": {"name": "cifar10"}})
    assert image_bytes(config, "bf16") == pytest.approx(2 * 5e6, rel=0.1)
    assert image_bytes(config, "no") == 2 * image_bytes(config, "fp16")
    wide = from_dict({"data": {"name": "cifar10"}, "model": {"dim": 256, "dim_mults": [1, 1, 2, 4]}})
    assert image_bytes(wide, "bf16") == 4 * image_bytes(config, "bf16")
    assert image_bytes(config, "bf16") == 2 * 10 * 32 * 32 * 256 * 2  # as in version 0.1: it decides the block


def test_without_a_batch_size_a_folder_keeps_its_block(trained, tmp_path, monkeypatch, expected):
    make(trained, tmp_path / "a", n_samples=5)
    monkeypatch.setattr(sampling, "default_block", lambda config, accelerator: 4)
    assert make(trained, tmp_path / "a", batch_size=None) == expected
    for folder, n in (("b", 3), ("c", 9)):
        make(trained, tmp_path / folder, batch_size=None, n_samples=n)
        about = json.loads((tmp_path / folder / "sampling.json").read_text())
        assert (about["block"], about["averaged"]) == (4, True)


@pytest.mark.parametrize(("name", "averaged"), [("ema", True), ("model", False), ("renamed", "unknown")])
def test_whether_weights_are_averaged_is_noted(trained, tmp_path, name, averaged):
    newest = checkpoint.find(trained).path
    source = newest / f"{'ema' if name == 'renamed' else name}.safetensors"
    weights = shutil.copy(source, tmp_path / f"{name}.safetensors")
    make(Path(weights), tmp_path / "a", n_samples=1)
    assert json.loads((tmp_path / "a" / "sampling.json").read_text())["averaged"] == averaged


def test_the_same_weights_under_another_name_continue(trained, tmp_path, expected):
    make(trained, tmp_path / "a", n_samples=5)
    weights = shutil.copy(checkpoint.find(trained).path / "ema.safetensors", tmp_path / "mine.safetensors")
    assert make(Path(weights), tmp_path / "a") == expected


def test_the_default_block_of_a_cpu(trained, tmp_path):
    make(trained, tmp_path / "a", batch_size=None, n_samples=1)
    assert json.loads((tmp_path / "a" / "sampling.json").read_text())["block"] == 64


def test_files_that_are_gone_are_made_again(trained, tmp_path, expected):
    make(trained, tmp_path / "a")
    for i in (3, 5, 17):
        (tmp_path / "a" / f"{i:06d}.png").unlink()
    made = []
    assert make(trained, tmp_path / "a", made.append) == expected
    assert made == [0, 2]


def test_an_npz_holds_the_images_of_the_folder(trained, tmp_path):
    make(trained, tmp_path / "a")

    def stop(block):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(trained, tmp_path / "b.npz", stop)
    assert not (tmp_path / "b.npz").exists()
    make(trained, tmp_path / "b.npz")
    with np.load(tmp_path / "b.npz", allow_pickle=False) as file:
        assert file.files == ["images", "sampling"]
        images, said = file["images"], file["sampling"]
    assert said.shape == ()
    assert str(said) == (tmp_path / "a" / "sampling.json").read_text(), "what the images are made of"
    assert (images.dtype, images.shape) == (np.uint8, (20, 8, 8, 1))
    assert np.array_equal(images[..., 0], pixels(tmp_path / "a"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b.grid.png", "b.npz"]
    assert (tmp_path / "b.grid.png").read_bytes() == (tmp_path / "a" / "grid.png").read_bytes()
    before = hashes(tmp_path)
    shutil.copytree(tmp_path / "a", tmp_path / "b.parts")  # as a kill may leave them when the npz is there
    make(trained, tmp_path / "b.npz")
    assert hashes(tmp_path) == before
    for other in ({"n_samples": 19}, {"seed": 4}):
        with pytest.raises(ConfigError, match="exists already"):
            make(trained, tmp_path / "b.npz", **other)
    (tmp_path / "b.npz").write_bytes((tmp_path / "b.npz").read_bytes().replace(images[3].tobytes(), bytes(64)))
    with pytest.raises(ConfigError, match="exists already"):
        make(trained, tmp_path / "b.npz")


@pytest.mark.parametrize(
    "change",
    [{"seed": 4}, {"batch_size": 4}, {"respace_steps": 3}, {"var_type": "fixed_small"}, {"respace_type": "quad"}],
)
def test_other_settings_are_not_mixed_in(trained, tmp_path, expected, change):
    make(trained, tmp_path / "a", n_samples=3)
    before = hashes(tmp_path / "a")
    with pytest.raises(ConfigError, match="made otherwise"):
        make(trained, tmp_path / "a", **change)
    assert hashes(tmp_path / "a") == before


def test_other_weights_are_not_mixed_in(trained, tmp_path):
    make(trained, tmp_path / "a", n_samples=3)
    with pytest.raises(ConfigError, match="weights: "):
        make(step_folder(trained, 6) / "model.safetensors", tmp_path / "a")


def test_a_folder_with_other_files_is_refused(trained, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "holiday.png").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        make(trained, tmp_path / "a")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["holiday.png"]


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_damaged_mark_is_told(trained, tmp_path, text):
    make(trained, tmp_path / "a", n_samples=3)
    (tmp_path / "a" / "sampling.json").write_text(text)
    with pytest.raises(UserError, match="choose another --save_dir"):
        make(trained, tmp_path / "a")


@pytest.mark.parametrize(("mode", "key"), [("denoise", "n_denoise"), ("progressive", "n_progressive")])
def test_strips(trained, tmp_path, mode, key):
    make(trained, tmp_path / "a", n_samples=3, mode=mode, **{key: 4})
    strips = [Image.open(p) for p in sample_files(tmp_path / "a")]
    assert [s.size for s in strips] == [(4 * (8 + 2) + 2, 8 + 2 + 2)] * 3
    make(trained, tmp_path / "b", n_samples=3)
    for strip, image in zip(strips, pixels(tmp_path / "b"), strict=True):
        last = np.asarray(strip)[2:10, -10:-2]
        if mode == "denoise":
            assert np.array_equal(last, image), "the last state is the image"
        assert not np.array_equal(last, np.asarray(strip)[2:10, 2:10])


def test_a_strip_does_not_go_into_an_npz(trained, tmp_path):
    with pytest.raises(ConfigError, match="--mode denoise"):
        make(trained, tmp_path / "a.npz", mode="denoise")


def test_weights_as_run_checkpoint_or_file(trained, tmp_path, expected):
    shutil.copy(step_folder(trained, 6) / "ema.safetensors", tmp_path / "average.safetensors")
    forms = (trained, trained / "ckpt", step_folder(trained, 6), tmp_path / "average.safetensors")
    for i, form in enumerate(forms):
        assert make(form, tmp_path / str(i)) == expected


def test_weights_that_are_missing_or_damaged(trained, tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        make(tmp_path / "nowhere", tmp_path / "a")
    whole = (step_folder(trained, 6) / "ema.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        make(tmp_path / "cut.safetensors", tmp_path / "a")


@pytest.mark.parametrize("key", ["model.dim", "model.num_res_blocks"])
def test_weights_of_another_network_are_told(trained, tmp_path, key):
    other = from_dict(merge(tree(), {key: {"model.dim": 16, "model.num_res_blocks": 2}[key]}))
    with pytest.raises(CheckpointError, match="do not fit the network"):
        make(trained, tmp_path / "a", config=other)
    assert not (tmp_path / "a").exists()


def test_learned_variance_needs_such_a_model(trained, tmp_path):
    with pytest.raises(ConfigError, match="learned_range"):
        make(trained, tmp_path / "a", var_type="learned_range")


@pytest.mark.parametrize(
    "change",
    [{"n_samples": 0}, {"batch_size": 0}, {"seed": -1}, {"seed": 2**64}, {"n_denoise": 0}, {"respace_steps": 0}],
)
def test_options_out_of_range(trained, tmp_path, capsys, change):
    given = [f"--{key}={value}" for key, value in {**OPTIONS, **change}.items()]
    assert main(["sample", "--weights", str(trained), "--save_dir", str(tmp_path / "a"), *given]) == 2
    said = capsys.readouterr().err
    assert {"respace_steps": "steps"}.get(name := next(iter(change)), name) in said
    assert not (tmp_path / "a").exists()


def test_the_command(trained, tmp_path, expected, monkeypatch, capsys):
    given = [f"--{key}={value}" for key, value in OPTIONS.items()]
    command = ["sample", "--weights", str(trained), "--save_dir", str(tmp_path / "a"), *given]
    assert main(command) == 0
    assert hashes(tmp_path / "a") == expected
    assert json.loads((tmp_path / "a" / "sampling.json").read_text())["seed"] == 3
    assert main([*command, "--var_type", "fixed_small"]) == 2
    assert "var_type: fixed_large -> fixed_small" in capsys.readouterr().err
    shutil.copy(step_folder(trained, 6) / "ema.safetensors", tmp_path / "average.safetensors")
    alone = ["--weights", str(tmp_path / "average.safetensors"), "--save_dir", str(tmp_path / "b")]
    assert main(["sample", *alone, "--n_samples", "2"]) == 2
    assert "-c" in capsys.readouterr().err

    def images(self, block):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Generator, "images", images)
    assert main([*command[:4], str(tmp_path / "c"), *given]) == 3
    assert "--batch_size 4" in capsys.readouterr().err
