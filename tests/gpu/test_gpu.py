"""Checks that need a CUDA GPU: `pytest tests/gpu -m gpu`, by hand. CI has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ddpm_ip.config import Config, from_dict
from ddpm_ip.data.imageset import ImageSet
from ddpm_ip.data.order import order
from ddpm_ip.draws import Draws, Stream
from ddpm_ip.engine import start_engine
from ddpm_ip.sampling import SampleOptions, default_block, fitting_block, image_bytes, make_generator
from ddpm_ip.train import feed
from ddpm_ip.train.loop import train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


def tiny(**training: Any) -> Config:
    model = {"in_channels": 1, "dim": 32, "dim_mults": [1, 2], "use_attn": [False, True], "num_groups": 8}
    base = {"n_steps": 40, "batch_size": 64, "flip": False, "sample_freq": 0, "save_freq": 20, "print_freq": 10}
    return from_dict({"data": {"name": "digits"}, "model": model, "train": {**base, **training}})


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted((run / "ckpt").glob("step*"))[-1] / "ema.safetensors")


def test_the_integers_are_the_cpus_and_the_normals_agree() -> None:
    rows = torch.arange(64)
    here, there = Draws(3, 7, rows), Draws(3, 7, rows.cuda())
    assert torch.equal(here.bits(Stream.EPS, 100), there.bits(Stream.EPS, 100).cpu())
    torch.testing.assert_close(here.eps((3, 8, 8)), there.eps((3, 8, 8)).cpu(), rtol=1e-5, atol=1e-5)


def test_resume_is_bit_exact_with_deterministic_kernels(tmp_path: Path) -> None:
    config = tiny(deterministic=True)
    train(config, tmp_path / "straight")
    train(from_dict({**config.to_dict(), "train": {**config.to_dict()["train"], "n_steps": 20}}), tmp_path / "resumed")
    train(config, tmp_path / "resumed", "latest")
    a, b = weights(tmp_path / "straight"), weights(tmp_path / "resumed")
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("resident", [0, 4 << 30], ids=["streamed", "resident"])
def test_staged_images_arrive_whole_while_the_device_is_busy(monkeypatch: pytest.MonkeyPatch, resident: int) -> None:
    monkeypatch.setattr(feed, "RESIDENT_BYTES", resident)
    pixels = np.random.default_rng(0).integers(0, 256, (5000, 3, 32, 32), dtype=np.uint8)
    source = feed.Feed(ImageSet(pixels, None, "random", ""), 0, 512, range(512), True, torch.device("cuda"))
    sums = []
    for step in range(50):
        batch = source.stage(step)
        torch.cuda._sleep(10_000_000)  # milliseconds: the host runs far ahead
        sums.append(batch.long().sum((1, 2, 3)))
        del batch  # its memory may be used again, but not before the sum was taken
    source.close()
    for step, found in enumerate(sums):
        wanted = pixels[order(0, step * 512 + np.arange(512), len(pixels))].sum((1, 2, 3), dtype=np.int64)
        assert np.array_equal(found.cpu().numpy(), wanted), step


def test_bf16_learns_what_fp32_learns(tmp_path: Path) -> None:
    import json

    losses = {}
    for precision in ("no", "bf16"):
        train(tiny(mixed_precision=precision, n_steps=300), tmp_path / precision)
        lines = (tmp_path / precision / "metrics.jsonl").read_text().splitlines()
        losses[precision] = np.mean([json.loads(line)["loss"] for line in lines[-5:]])
    assert losses["bf16"] == pytest.approx(losses["no"], rel=0.05)


def test_an_image_does_not_depend_on_how_many_are_made(tmp_path: Path) -> None:
    config = tiny(n_steps=2, save_freq=2)
    train(config, tmp_path / "run")
    options = SampleOptions(n_samples=64, batch_size=32, respace_steps=20, var_type="fixed_small")
    generator = make_generator(config, weights(tmp_path / "run"), options, start_engine(None))
    assert np.array_equal(generator.images(1), generator.images(1))


def test_the_default_block_is_what_the_free_memory_holds() -> None:
    accelerator = start_engine(None)
    free, _ = torch.cuda.mem_get_info()
    assert default_block(tiny(), accelerator) == fitting_block(free, image_bytes(tiny(), "no")) == 1024
    assert default_block(from_dict({**tiny().to_dict(), "model": {"dim": 2**17}}), accelerator) == 64
