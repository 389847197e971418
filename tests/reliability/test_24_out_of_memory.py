"""Too little memory is exit code 3 and a sentence: at what, how large a batch of how large images, what to change.

What was saved or made stays. Memory that a system gives and then takes back (a process that it kills) can only be
treated as any kill (theme 2). Which errors of which library mean it is in tests/test_memory.py; a GPU's own are in
tests/gpu.
"""

import re

import numpy as np
import pytest
import torch
from tests.tiny import contents, run, step_folder, tiny, yaml_file

from ddpm_ip.cli import main
from ddpm_ip.evaluate.features import Pixels
from ddpm_ip.images import save_png
from ddpm_ip.run import checkpoint
from ddpm_ip.sample.generator import Generator
from ddpm_ip.train.step import TrainStep

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
    RuntimeError("Triton Error [CUDA]: invalid argument"),
    MemoryError("Unable to allocate 1 TiB"),
]


def told(capsys) -> str:
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_in_training(tmp_path, monkeypatch, capsys, error):
    ordinary = TrainStep.__call__

    def call(self):
        if self.state.step == 3:
            raise error
        return ordinary(self)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", call)
        assert main(["train", "-c", str(yaml_file(tmp_path)), "-e", str(tmp_path / "run")]) == 3
    line = told(capsys)
    assert "to train with 8 images of 8 x 8 pixels at once" in line
    cures = ("--train.micro_batch 4", "--train.mixed_precision bf16", "--train.batch_size", "--model.dim")
    cures += ("--train.gradient_checkpointing true",)
    assert [cure for cure in cures if cure not in line] == []
    assert str(error)[:20] in line
    assert checkpoint.newest(tmp_path / "run" / "ckpt").step == 2
    assert not (tmp_path / "run" / "lock").exists()
    before = contents(step_folder(tmp_path / "run", 2))
    assert run(tiny(n_steps=3), tmp_path / "run", "latest").step == 3
    assert contents(step_folder(tmp_path / "run", 2)) == before


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_in_sampling(trained, tmp_path, monkeypatch, capsys, error):
    ordinary = Generator.images

    def images(self, block):
        if block == 1:
            raise error
        return ordinary(self, block)

    command = ["sample", "--weights", str(trained), "--n_samples", "20", "--batch_size", "8", "--respace_steps", "4"]
    assert main([*command, "--save_dir", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Generator, "images", images)
        assert main([*command, "--save_dir", str(tmp_path / "a")]) == 3
    line = told(capsys)
    assert "to sample 8 images of 8 x 8 px at once" in line
    cures = ("--batch_size 4", "--save_dir", "--train.mixed_precision bf16")
    assert [cure for cure in cures if cure not in line] == []
    assert len(list((tmp_path / "a").glob("*.png"))) == 8, "what was made stays"
    assert main([*command, "--save_dir", str(tmp_path / "a")]) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_in_an_evaluation(tmp_path, monkeypatch, capsys, error):
    def call(self, images):
        raise error

    for name in ("samples", "real"):
        for i in range(5):
            save_png(np.full((3, 8, 8), 40 * i, np.uint8), tmp_path / name / f"{i:06d}.png")
    before = contents(tmp_path)
    monkeypatch.setattr(Pixels, "__call__", call)
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))
    given = ["--reference", str(tmp_path / "real"), "--extractor", "pixels", "--metrics", "fid", "--batch_size", "4"]
    assert main(["evaluate", str(tmp_path / "samples"), *given]) == 3
    line = told(capsys)
    assert re.search(r"4 images", line)
    assert "--batch_size" in line
    kept = contents(tmp_path)
    assert before.items() <= kept.items()
    assert not [name for name in kept if "evaluation" in name]
