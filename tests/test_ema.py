"""The averaged network against torch's own, and a decay without a hidden warm-up."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ddpm_ip.ema import EMA


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1, bias=False))


def move(network: nn.Module, step: int) -> None:
    """A change of parameters and buffers, as training makes."""
    torch.manual_seed(step)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(torch.randn_like(p))
    network.train()(torch.randn(4, 2, 5, 5))  # moves the running statistics


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.9999])
def test_it_equals_averaged_model(decay: float) -> None:
    network = make()
    ours = EMA(network, decay)
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)
    theirs.update_parameters(network)  # its first update copies
    for step in range(20):
        move(network, step)
        ours.update(network)
        theirs.update_parameters(network)
        for a, b in zip(ours.network.parameters(), theirs.module.parameters(), strict=True):
            assert torch.equal(a, b)


def test_the_decay_is_constant_from_the_first_step() -> None:
    """After k steps to a constant network the start still weighs decay^k."""
    network = nn.Linear(1, 1)
    with torch.no_grad():
        network.weight.fill_(0.0)
    ema = EMA(network, 0.99)
    with torch.no_grad():
        network.weight.fill_(1.0)
    for k in range(1, 50):
        ema.update(network)
        assert float(ema.network.weight) == pytest.approx(1 - 0.99**k, rel=1e-4)


def test_buffers_are_copied_not_averaged() -> None:
    network = make()
    ema = EMA(network, 0.99)
    move(network, 1)
    assert not torch.equal(ema.network[1].running_mean, network[1].running_mean)
    ema.update(network)
    for (name, mine), theirs in zip(ema.network.named_buffers(), network.buffers(), strict=True):
        assert torch.equal(mine, theirs), name
        assert mine.data_ptr() != theirs.data_ptr()


def test_the_network_is_left_alone_and_the_average_is_for_evaluation() -> None:
    network = make().train()
    before = [p.clone() for p in network.parameters()]
    ema = EMA(network, 0.5)
    assert not ema.network.training
    assert not any(p.requires_grad for p in ema.network.parameters())
    move(network, 1)
    after = [p.clone() for p in network.parameters()]
    ema.update(network)
    assert all(torch.equal(a, p) for a, p in zip(after, network.parameters(), strict=True))
    assert all(p.requires_grad for p in network.parameters())
    for average, a, b in zip(ema.network.parameters(), before, after, strict=True):
        torch.testing.assert_close(average, (a + b) / 2)


def test_it_keeps_averaging_after_weights_are_loaded() -> None:
    """load_state_dict writes into the same tensors that update moves (resuming)."""
    network = make()
    ema = EMA(network, 0.9)
    saved = {k: torch.full_like(v, 3) for k, v in ema.network.state_dict().items()}
    ema.network.load_state_dict(saved)
    ema.update(network)
    torch.testing.assert_close(ema.network[0].weight, 0.9 * 3 + 0.1 * network[0].weight)
