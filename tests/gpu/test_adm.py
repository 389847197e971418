"""ADM's U-Net and classes on a GPU: `pytest tests/gpu -m gpu`, by hand. CI has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.gpu.test_gpu import autocast_errors, fresh, losses, pytestmark, said, train_anew, weights

from ddpm_ip.config import Config, from_dict, load
from ddpm_ip.nn.adm import ADM, ADMConfig
from ddpm_ip.nn.fused import check

__all__ = ["fresh", "pytestmark"]
PUBLISHED = Path(__file__).parents[2] / "configs" / "adm_ip_cifar10.yaml"
SMALL = {"dim": 64, "dim_mults": (1, 2), "use_attn": (False, True), "num_res_blocks": 1}


@pytest.mark.parametrize("order", ["new", "legacy"])
def test_the_network_of_the_cifar_recipe_fused_is_the_plain_one(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 2e-5 in float32; in bf16 no worse than the plain network under autocast, on the same weights."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    config = load(PUBLISHED, {"model.attention_order": order, "classes.count": 10})
    network = config.build_network().cuda()
    single, half = (check.compare(network, dtype, (32, 32)) for dtype in (torch.float32, torch.bfloat16))
    theirs = autocast_errors(network)
    print(f"float32 {single}, bf16 {half}, autocast {theirs}")
    assert max(single) < 2e-5
    assert half[0] <= theirs[0]
    assert half[1] <= theirs[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"resblock_updown": False, "head_channels": None, "n_heads": 4, "attention_order": "legacy"},  # improved DDPM
        {"scale_shift_norm": False, "head_channels": 64},
        {"dim_mults": (1.5, 1), "use_attn": (True, True), "num_groups": 24, "dim": 48, "head_channels": 8},
    ],
    ids=["improved DDPM", "shifts", "odd widths"],
)
def test_other_networks_of_adms_kind_are_within_the_limits(settings: dict[str, Any]) -> None:
    """Or compare raises; on images that are no squares, with classes and without."""
    for classes in (None, 3):
        torch.manual_seed(0)
        network = ADM(ADMConfig(**{**SMALL, **settings}), 3, 6, classes).cuda()
        for dtype in (torch.float32, torch.bfloat16):
            check.compare(network, dtype, (12, 20))


def small(**training: Any) -> Config:
    """The digits with their classes, and everything of the published recipe but its size."""
    model = {"name": "adm", "in_channels": 1, **SMALL, "num_groups": 16, "head_channels": 32, "dropout": 0.3}
    base = {"n_steps": 8, "batch_size": 64, "flip": False, "sample_freq": 0, "save_freq": 4, "print_freq": 1}
    return from_dict(
        {
            "data": {"name": "digits"},
            "model": model,
            "classes": {"count": 10},
            "diffusion": {"beta_schedule": "cosine", "var_type": "learned_range"},
            "perturbation": {"name": "input", "gamma": 0.15},
            "train": {**base, "deterministic": True, **training},
        }
    )


def test_a_training_step_with_classes_is_captured_and_resumes_bit_exact(tmp_path: Path) -> None:
    run = train_anew(small(), tmp_path / "straight")
    assert "fast path (bf16): fused kernels, each step one CUDA graph" in said(run)
    assert np.isfinite(losses(run)).all()
    train_anew(small(n_steps=4), tmp_path / "resumed")
    train_anew(small(), tmp_path / "resumed", "latest")
    a, b = weights(run), weights(tmp_path / "resumed")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_captured_step_learns_the_classes_as_the_plain_one(tmp_path: Path) -> None:
    """In float32 without dropout both compute the same, the embedding of the classes too."""
    found = []
    for fast in ("auto", "off"):
        tree = small(fast=fast, mixed_precision="no", ema_decay=0.0, optim={"lr": 1e-3, "eps": 1e-3}).to_dict()
        config = from_dict({**tree, "model": {**tree["model"], "dropout": 0.0}})
        found.append(weights(train_anew(config, tmp_path / fast)))
    assert max(float((found[0][k] - found[1][k]).abs().max()) for k in found[0]) < 2e-4
    torch.manual_seed(small().seed)
    assert not torch.equal(small().build_network().labels.weight, found[0]["labels.weight"])


def test_blocks_that_are_computed_again_give_the_same_training(tmp_path: Path) -> None:
    """Inside the graph, dropout included."""
    a, b = (
        weights(train_anew(small(n_steps=4, gradient_checkpointing=again), tmp_path / str(again)))
        for again in (False, True)
    )
    assert all(torch.equal(a[k], b[k]) for k in a)
