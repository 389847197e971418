"""Classes, guidance and everything that a step can hold, in one captured graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tests.gpu.test_gpu import said, tiny, train_anew, weights

from ddpm_ip.config import Config, from_dict
from ddpm_ip.engine import start_engine
from ddpm_ip.sample.program import load_model
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver
from ddpm_ip.sampler.correction import Guidance
from ddpm_ip.sampler.graph import Graph
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.train.loop import train
from ddpm_ip.train.run import Hooks

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

EVERYTHING: dict[str, Any] = {
    "classes.count": 10,
    "diffusion.total_steps": 20,  # so that every time has its ten losses soon
    "diffusion.var_type": "learned_range",
    "perturbation.name": "input",
    "perturbation.gamma": [0.05, 0.2],
    "perturbation.anneal": "linear",
    "perturbation.until": 30,
    "perturbation.random": True,
    "perturbation.probability": 0.7,
    "train.times.name": "loss_second_moment",
    "train.vb_input": "clean",
    "train.weighting.name": "min_snr",
    "train.ema_decay": [0.99, 0.9],
    "train.ema_power": [0.05, 0.1],
    "train.ema_snapshot_freq": 10,
    "train.lr_schedule.name": "cosine",
    "train.lr_warmup": 5,
    "train.optim.name": "adamw",
    "train.gradient_checkpointing": True,
    "train.micro_batch": 32,
    "model.dropout": 0.1,
    "train.deterministic": True,
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    AcceleratorState._reset_state(True)
    yield
    torch.use_deterministic_algorithms(False)


def changed(config: Config, **more: Any) -> Config:
    return from_dict(config.to_dict(), overrides={f"train.{key}": value for key, value in more.items()})


def test_a_step_with_everything_is_captured_and_resumes_bit_exact(tmp_path: Path) -> None:
    config = from_dict(tiny().to_dict(), overrides=EVERYTHING)
    run = train_anew(config, tmp_path / "straight")
    assert "fast path (bf16): fused kernels, each step one CUDA graph" in said(run)

    def killed(step: int) -> None:
        if step == 27:
            raise KeyboardInterrupt

    AcceleratorState._reset_state(True)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "resumed", hooks=Hooks(on_step=killed))
    train_anew(config, tmp_path / "resumed", "latest")
    a, b = (sorted((tmp_path / name / "ckpt").glob("step*"))[-1] for name in ("straight", "resumed"))
    assert {file.name for file in a.glob("*.safetensors")} >= {"ema_2.safetensors", "power_2.safetensors"}
    for file in a.glob("*.safetensors"):
        one, two = load_file(file), load_file(b / file.name)
        assert all(torch.equal(one[k], two[k]) for k in one), file.name


def test_one_capture_serves_all_classes_and_scales_of_guidance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And makes the plain path's images, in float32."""
    captured, ordinary = [], Graph._capture
    monkeypatch.setattr(Graph, "_capture", lambda self: (captured.append(self.kinds), ordinary(self))[1])
    config = from_dict(tiny(n_steps=200, save_freq=200, mixed_precision="no", ema_decay=0.5).to_dict(),
                       overrides={"classes.count": 10})  # fmt: skip
    run = train_anew(config, tmp_path / "run")
    ways = [
        Sampling(sampler, steps=5, block=64, corrections=(Guidance(scale),), classes=classes)
        for sampler, scale, classes in (
            (DDIM(0.5), 1.5, None), (DPMSolver(), 3.0, (3,)), (Ancestral("fixed_small"), 0.0, (0, 7)),
        )
    ]  # fmt: skip
    both = []
    for fast in ("auto", "off"):
        AcceleratorState._reset_state(True)
        wanted = changed(config, fast=fast)
        model = load_model(wanted, weights(run), start_engine("no", fast=fast == "auto"))
        both.append([model.generator(way) for way in ways])
        both[-1] = [generator.images(0).astype(int) for generator in both[-1]]
    assert len(captured) == 1
    for fused, plain in zip(*both, strict=True):
        gap = np.abs(fused - plain)
        assert gap.mean() < 0.5, f"gray levels apart: {gap.mean()}, at most {gap.max()}"
    other = load_model(config, weights(run), start_engine("no", fast=True))
    alone = other.generator(dataclasses.replace(ways[1], classes=(4,))).images(0)
    assert not np.array_equal(alone, both[0][1])
