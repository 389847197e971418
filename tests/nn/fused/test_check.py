"""ADM's U-Net, and classes, on the fast path: the whole network in Triton's interpreter against the plain one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("triton")

from tests.nn.fused.test_operations import NETWORKS, fused_is_plain, maps
from tests.nn.test_unet import randomise

from ddpm_ip.errors import FastPathError
from ddpm_ip.nn.adm import ADM, ADMConfig
from ddpm_ip.nn.fused import check, kernels
from ddpm_ip.nn.fused import norm as norm_kernels
from ddpm_ip.nn.fused.operations import Shadow
from ddpm_ip.nn.network import Cond
from ddpm_ip.nn.unet import UNet

pytestmark = pytest.mark.skipif(not kernels.INTERPRETED, reason="on a GPU tests/gpu looks at the compiled kernels")

SIZES: dict[str, Any] = {"dim": 8, "dim_mults": (1, 2), "use_attn": (False, True), "num_res_blocks": 1, "num_groups": 4}
SIZES |= {"head_channels": 4}
OTHER: dict[str, dict[str, Any]] = {
    "new order": {"attention_order": "new"},
    "improved DDPM": {"resblock_updown": False, "attention_order": "legacy", "dim_mults": (1, 1)},
    "shifts": {"scale_shift_norm": False, "head_channels": None, "n_heads": 2},
    "one resolution": {"dim_mults": (1.5,), "use_attn": (True,), "num_groups": 3},
}
LABELS = Cond(torch.tensor([2, -1]))


def small(classes: int | None = None, outputs: int = 6, **more: Any) -> ADM:
    torch.manual_seed(0)
    return ADM(ADMConfig(**{**SIZES, **more}), 3, outputs, classes)


def test_the_whole_network() -> None:
    """Outputs and all gradients, with a class and without."""
    fused_is_plain(small(3, attention_order="legacy"), 4, 8, LABELS)


@pytest.mark.large
@pytest.mark.parametrize("name", OTHER)
def test_the_whole_network_of_other_settings(name: str) -> None:
    fused_is_plain(small(3, **OTHER[name]), 4, 8, LABELS)


def test_the_network_of_ddpm_with_classes_padding_on_all_sides_and_heads_of_a_width() -> None:
    fused_is_plain(UNet(3, 3, **NETWORKS[0], padding="both", head_channels=4, classes=3), 8, 4, LABELS)


def test_a_block_that_is_computed_again_drops_what_it_dropped() -> None:
    """Gradient checkpointing on the fast path: the same gradients to the last bit, dropout included."""
    network = small(dropout=0.5)
    randomise(network.train(), 0)
    shadow = Shadow(network, torch.float32)
    shadow.masks.keys = torch.tensor([5, 2**31])
    block, _, _ = shadow.module.middle
    x, bias, modulation = maps(2, 16, 2, 2), block.conv1.bias, tuple(torch.randn(2, 2, 16).requires_grad_())
    found = []
    for block.recompute in (False, True):
        out, _ = block((x,), bias, modulation)
        found.append([out, *torch.autograd.grad(out.square().sum(), [x, *modulation, *block.norm2.parameters()])])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_compare_finds_no_fault_in_an_untrained_network_and_one_in_a_wrong_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In what is ADM's own; fresh: the last layers are zero, which must not hide the rest."""
    network = small(3, dim_mults=(1,), use_attn=(False,))
    out, grad = check.compare(network, torch.float32, (4, 4), images=2)
    assert 0 < out < 2e-5
    assert 0 < grad < 2e-5
    right = norm_kernels.norm_backward

    def wrong(*given: Any) -> tuple[Tensor, Tensor | None, Tensor]:
        dx1, dx2, sums = right(*given)
        if len(sums) == 6:  # the gradient of the scale
            sums[4] *= 3
        return dx1, dx2, sums

    monkeypatch.setattr(norm_kernels, "norm_backward", wrong)
    with pytest.raises(FastPathError, match="differs from the plain one"):
        check.compare(network, torch.float32, (4, 4), images=2)


def test_compare_asks_for_classes_and_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a shadow that forgets them is found."""
    assert check._probe(small(10), (4, 4), 8).cond.labels.tolist() == [-1, 0, 1, 3, 4, 6, 7, 9]
    assert check._probe(small(2), (4, 4), 2).cond.labels.tolist() == [-1, 0]
    assert check._probe(small(), (4, 4), 8).cond is None
    network = UNet(3, 3, **NETWORKS[2], classes=3)
    call = Shadow.__call__

    def forgetful(self: Shadow, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        return call(self, x, t, Cond(torch.full_like(t, -1)))

    monkeypatch.setattr(Shadow, "__call__", forgetful)
    with pytest.raises(FastPathError, match="differs from the plain one"):
        check.compare(network, torch.float32, (2, 2), images=4)


def test_compare_outputs_asks_the_plain_network_for_the_same_classes() -> None:
    network = UNet(3, 3, **NETWORKS[2], classes=3).eval()
    randomise(network, 0)
    x, t = maps(2, 3, 4, 4).detach(), torch.tensor([3, 871])
    out = network(x, t, LABELS).detach()
    assert check.compare_outputs(network, x, t, out * 1.0001, torch.float32, LABELS) == pytest.approx(1e-4, rel=0.1)
    with pytest.raises(FastPathError, match="images are not made"):
        check.compare_outputs(network, x, t, out, torch.float32)


def test_a_shadow_keeps_the_embedding_of_classes_in_float32() -> None:
    network = small(3)
    shadow = Shadow(network, torch.bfloat16)
    assert shadow.module.labels.weight is network.labels.weight
    low = {type(m) for m in shadow.module.modules() for p in m.parameters(False) if p.dtype == torch.bfloat16}
    assert low == {nn.Conv2d, nn.Linear}
