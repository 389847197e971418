"""The averaged network against torch's own; a constant decay, and one with a warm-up that is asked for."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ddpm_ip.ema import EMA, remaining


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


# --- the warm-up -----------------------------------------------------------------------------------------------------


def average(values: list[Fraction], decay: Fraction) -> list[Fraction]:
    """Of a number that starts at 0 and is then ``values``: exact, as the class that it comes from counts.

    (There the number of updates goes up first, so the first update has n = 1.)
    """
    found, ema = [], Fraction(0)
    for n, value in enumerate(values, 1):
        d = min(decay, Fraction(1 + n, 10 + n))
        ema -= (1 - d) * (ema - value)
        found.append(ema)
    return found


@pytest.mark.parametrize("decay", ["0.9999", "0.9", "0.5", "0.15", "0"])
@pytest.mark.parametrize("on_device", [False, True], ids=["number", "tensor"])
def test_the_warm_up(decay: str, on_device: bool) -> None:
    values = [Fraction(v) for v in (1, 3, -2, 0, 7, 5, 5, -4)] + [Fraction(k, 3) for k in range(100)]
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = EMA(network, float(decay), warmup=True)
    for step, (value, expected) in enumerate(zip(values, average(values, Fraction(decay)), strict=True)):
        nn.init.constant_(network.weight, float(value))
        weight = ema.weight(step)
        ema.update(network, torch.tensor(weight) if on_device else weight)
        assert float(ema.network.weight) == pytest.approx(float(expected), rel=1e-5, abs=1e-5)


def test_its_first_weights() -> None:
    ema = EMA(make(), 0.3, warmup=True)
    assert [ema.weight(step) for step in range(5)] == pytest.approx([9 / 11, 9 / 12, 0.7, 0.7, 0.7])
    assert [EMA(make(), 0.3).weight(step) for step in (0, 7)] == [1 - 0.3] * 2


def test_a_weight_on_the_device_is_read_when_it_is_used() -> None:
    """As in a captured graph, which holds on to the tensor and not to its value; buffers are copied as ever."""
    network = make()
    ema, weight = EMA(network, 0.9, warmup=True), torch.zeros(())
    start = [p.clone() for p in ema.network.parameters()]
    move(network, 1)
    ema.update(network, weight)
    assert all(torch.equal(a, b) for a, b in zip(start, ema.network.parameters(), strict=True))
    ema.update(network, weight.fill_(1.0))
    for mine, theirs in zip(ema.network.state_dict().values(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("decay", [0.0, 0.1, 2 / 11, 0.25, 0.9, 0.99])
@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize("updates", [0, 1, 2, 5, 80, 81, 82, 1000])
def test_what_is_left_of_the_start(decay: float, warmup: bool, updates: int) -> None:
    expected = 1.0
    for n in range(1, updates + 1):
        expected *= min(decay, (1 + n) / (10 + n)) if warmup else decay
    assert remaining(decay, warmup, updates) == pytest.approx(expected, rel=1e-9, abs=0)
