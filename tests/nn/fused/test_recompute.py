"""Gradient checkpointing of the fused network, in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from tests.nn.test_unet import randomise

pytest.importorskip("triton")

from ddpm_ip.draws import Draws
from ddpm_ip.nn.blocks import recompute_blocks
from ddpm_ip.nn.fused import kernels
from ddpm_ip.nn.fused.operations import Shadow
from ddpm_ip.nn.unet import UNet

pytestmark = pytest.mark.skipif(not kernels.INTERPRETED, reason="on a GPU tests/gpu looks at the compiled kernels")


def test_gradients_are_the_same_bits_and_no_generator_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout is a function of keys: the state of a generator, which cannot be read within a CUDA graph, is not."""
    network = UNet(1, 1, dim=8, dim_mults=(1,), use_attn=(True,), num_res_blocks=1, num_groups=2, dropout=0.5)
    randomise(network, 0)
    x = torch.randn(2, 1, 4, 2, generator=torch.Generator().manual_seed(1))
    found = []
    for again in (False, True):
        if again:
            recompute_blocks(network)
            monkeypatch.setattr(torch, "get_rng_state", None)
            monkeypatch.setattr("torch.utils.checkpoint.get_device_states", None)
        shadow = Shadow(network, torch.float32)
        shadow.masks.keys = Draws(0, 7, torch.arange(2)).keys()
        out = shadow(x, torch.tensor([3, 871]))
        found.append([out, *torch.autograd.grad(out.square().sum(), [run for _, run in shadow.pairs])])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
