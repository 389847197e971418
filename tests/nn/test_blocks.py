"""Gradient checkpointing: the same numbers, of fewer remembered ones.

(What else is in blocks.py is tested with the networks.)
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tests.nn.test_unet import randomise
from tests.tiny import tiny
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, noop_context_fn

from ddpm_ip.draws import Draws
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import ConfigError
from ddpm_ip.nn import ADMConfig, UNetConfig
from ddpm_ip.nn.blocks import Residual, recompute_blocks, same_masks
from ddpm_ip.nn.network import Cond
from ddpm_ip.train.loop import build

SIZES: dict[str, Any] = {"dim": 16, "dim_mults": (1, 2), "use_attn": (True, True), "num_res_blocks": 1, "num_groups": 4}
SIZES |= {"dropout": 0.5, "head_channels": 8}
CONFIGS = [UNetConfig(**SIZES), ADMConfig(**SIZES), ADMConfig(**SIZES, resblock_updown=False, scale_shift_norm=False)]


def networks(config: UNetConfig | ADMConfig) -> tuple[nn.Module, nn.Module]:
    """The same network twice, the second of which computes its blocks again."""
    plain = config.build(3, 3, 4)
    randomise(plain, 0)
    again = copy.deepcopy(plain)
    recompute_blocks(again)
    return plain, again


def forward(network: nn.Module) -> Tensor:
    """With dropout, of the same seed each time."""
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(3)
    return network(x, torch.tensor([0, 5, 500, 999]), Cond(torch.tensor([0, 3, -1, 1])))


@pytest.mark.parametrize("config", CONFIGS, ids=["unet", "adm", "adm, strided"])
def test_outputs_and_gradients_are_the_same_bits_with_dropout(config: UNetConfig | ADMConfig) -> None:
    found = []
    for network in networks(config):
        out = forward(network)
        state = torch.get_rng_state()
        out.square().mean().backward()
        assert torch.equal(torch.get_rng_state(), state)  # what is drawn next does not depend on it
        found.append([out, *(p.grad for p in network.parameters())])
    assert len(found[0]) > 50
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def kept(network: nn.Module, work: Callable[[nn.Module], Tensor]) -> int:
    """Bytes that a forward pass keeps for the backward pass, without the parameters."""
    memory: dict[int, Tensor] = {}

    def note(*tensors: Any) -> None:
        for x in tensors:
            if isinstance(x, Tensor):
                memory[x.untyped_storage().data_ptr()] = x
            elif isinstance(x, tuple):
                note(*x)

    def pack(x: Tensor) -> Tensor:
        note(x)
        return x

    for module in network.modules():
        if isinstance(module, Residual) and module.recompute:  # keeps what goes in, by itself
            module.register_forward_pre_hook(lambda module, inputs: note(inputs))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        work(network)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    return sum(x.untyped_storage().nbytes() for place, x in memory.items() if place not in own)


@pytest.mark.parametrize("config", CONFIGS, ids=["unet", "adm", "adm, strided"])
def test_less_is_kept(config: UNetConfig | ADMConfig) -> None:
    plain, again = (kept(network, forward) for network in networks(config))
    assert again < 0.4 * plain


def test_nothing_is_computed_again_where_no_gradient_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _, again = networks(CONFIGS[1])
    monkeypatch.setattr("ddpm_ip.nn.blocks.checkpoint", None)
    with torch.no_grad():
        forward(again)
    with pytest.raises(TypeError):
        forward(again)


@pytest.mark.parametrize("micro", [0, 3])
def test_a_training_run_takes_the_same_steps(micro: int) -> None:
    """With dropout and micro-batches, to the last bit; only networks in training do it."""
    found = []
    for wanted in (False, True):
        config = tiny({"dropout": 0.3}, micro_batch=micro, gradient_checkpointing=wanted, optim={"lr": 1e-2})
        state, step = build(config, config.data.open(progress=False), start_engine(None))
        blocks = [m for m in state.network.modules() if isinstance(m, Residual)]
        assert {m.recompute for m in blocks} == {wanted}
        assert not any(m.recompute for m in config.build_network().modules() if isinstance(m, Residual))
        losses = [step()[0] for _ in range(3)]
        found.append([*losses, *itertools.chain(*(named.values() for named in state.tensors().values()))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match="gradient_checkpointing: Linear has no block"):
        recompute_blocks(nn.Linear(2, 2))


def test_the_fused_network_asks_no_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Triton's interpreter: dropout is a function of keys, and a generator cannot be read within a CUDA graph."""
    pytest.importorskip("triton")
    from ddpm_ip.nn.fused import kernels
    from ddpm_ip.nn.fused.operations import Shadow

    if not kernels.INTERPRETED:
        pytest.skip("on a GPU tests/gpu looks at the compiled kernels")
    network = UNetConfig(1, 8, (1,), (True,), 1, num_groups=2, dropout=0.5).build(1, 1, None)
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


def test_masks_of_a_generator_that_checkpoints_pass_over_are_the_same() -> None:
    """PyTorch's checkpoint does not know that of ``torch.mps``; here a generator that it cannot know stands in."""
    generator = torch.Generator().manual_seed(0)

    class Own:
        get_rng_state, set_rng_state = staticmethod(generator.get_state), staticmethod(generator.set_state)

    def block(x: Tensor) -> Tensor:
        return x * x * (torch.rand(x.shape, generator=generator) < 0.5)

    def gradients(contexts: Any) -> tuple[Tensor, Tensor, Tensor]:
        generator.manual_seed(1)
        x = torch.ones(64, requires_grad=True)
        y = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
        later = torch.rand(4, generator=generator)  # of another block
        y.sum().backward()
        return y.detach(), x.grad, torch.cat((later, torch.rand(4, generator=generator)))

    y, grad, after = gradients(partial(same_masks, Own))
    assert torch.equal(2 * y, grad)
    generator.manual_seed(1)
    torch.rand(64, generator=generator)
    assert torch.equal(after, torch.rand(8, generator=generator)), "as if nothing had been computed again"
    y, grad, _ = gradients(noop_context_fn)
    assert not torch.equal(2 * y, grad)
