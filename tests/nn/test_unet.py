"""The U-Net against diffusers' port of the paper's network, and what it refuses."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from ddpm_ip.errors import ConfigError
from ddpm_ip.nn import ops
from ddpm_ip.nn.network import Cond
from ddpm_ip.nn.unet import AttnBlock, Downsample, ResBlock, UNet, UNetConfig, Upsample, time_embedding


def randomise(net: nn.Module, seed: int) -> None:
    """Every parameter random: nothing hides behind a zero initialisation or a neutral norm."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            scale = p[0].numel() ** -0.5 if p.ndim > 1 else 0.3
            p.copy_(torch.randn(p.shape, generator=generator) * scale + (p.ndim == 1) * 0.5)


def reference(
    channels: tuple[int, ...], attention: tuple[bool, ...], layers: int, groups: int, heads: int
) -> UNet2DModel:
    """google/ddpm-cifar10-32, with other widths."""
    return UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=layers, block_out_channels=channels,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6, norm_num_groups=groups,
        attention_head_dim=channels[-1] // heads, act_fn="silu", center_input_sample=False,
    )  # fmt: skip


def pairs(ours: UNet, theirs: UNet2DModel) -> list[tuple[nn.Module, list[nn.Module]]]:
    """Which module of ours holds the weights of which of theirs, in order of the forward pass."""
    found: list[tuple[nn.Module, list[nn.Module]]] = [
        (ours.time[0], [theirs.time_embedding.linear_1]),
        (ours.time[2], [theirs.time_embedding.linear_2]),
        (ours.conv_in, [theirs.conv_in]),
        (ours.norm_out, [theirs.conv_norm_out]),
        (ours.conv_out, [theirs.conv_out]),
    ]

    def res(a: ResBlock, b: nn.Module) -> None:
        found.extend([(a.norm1, [b.norm1]), (a.conv1, [b.conv1]), (a.emb, [b.time_emb_proj]), (a.norm2, [b.norm2])])
        found.append((a.conv2, [b.conv2]))
        if isinstance(a.shortcut, nn.Conv2d):
            found.append((a.shortcut, [b.conv_shortcut]))

    def attn(a: AttnBlock, b: nn.Module) -> None:
        found.extend([(a.norm, [b.group_norm]), (a.qkv, [b.to_q, b.to_k, b.to_v]), (a.proj, [b.to_out[0]])])

    def side(modules: nn.ModuleList, blocks: nn.ModuleList, sampler: str) -> None:
        mine = iter(modules)
        for block in blocks:
            for j, theirs_res in enumerate(block.resnets):
                mine_res, mine_attn = next(mine)
                res(mine_res, theirs_res)
                assert isinstance(mine_attn, AttnBlock) == hasattr(block, "attentions")
                if isinstance(mine_attn, AttnBlock):
                    attn(mine_attn, block.attentions[j])
            if getattr(block, sampler, None):
                change = next(mine)
                assert isinstance(change, (Downsample, Upsample))
                found.append((change.conv, [getattr(block, sampler)[0].conv]))
        assert next(mine, None) is None

    side(ours.down, theirs.down_blocks, "downsamplers")
    first, middle, second = ours.middle
    res(first, theirs.mid_block.resnets[0])
    attn(middle, theirs.mid_block.attentions[0])
    res(second, theirs.mid_block.resnets[1])
    side(ours.up, theirs.up_blocks, "upsamplers")
    return found


def joined(modules: list[nn.Module], name: str, shape: torch.Size, grad: bool = False) -> Tensor:
    tensors = [getattr(m, name) for m in modules]
    return torch.cat([t.grad if grad else t for t in tensors]).reshape(shape)


@pytest.mark.parametrize(
    ("channels", "mults", "attention", "layers", "groups", "heads"),
    [
        ((32, 64, 64), (1, 2, 2), (False, True, False), 2, 16, 1),
        ((16, 16, 32), (1, 1, 2), (False, False, True), 1, 8, 1),
        ((32, 32), (1, 1), (True, True), 1, 4, 4),
    ],
)
def test_output_and_gradients_equal_diffusers(
    channels: tuple[int, ...], mults: tuple[int, ...], attention: tuple[bool, ...], layers: int, groups: int, heads: int
) -> None:
    theirs = reference(channels, attention, layers, groups, heads).eval()
    randomise(theirs, 0)
    ours = UNet(3, 3, channels[0], mults, attention, layers, heads, dropout=0.1, num_groups=groups).eval()
    mapping = pairs(ours, theirs)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert {id(m) for m, _ in mapping} == {id(m) for m in ours.modules() if list(m.parameters(recurse=False))}
    with torch.no_grad():
        for mine, them in mapping:
            mine.weight.copy_(joined(them, "weight", mine.weight.shape))
            mine.bias.copy_(joined(them, "bias", mine.bias.shape))

    generator = torch.Generator().manual_seed(1)
    x, direction = torch.randn(2, 2, 3, 8, 8, generator=generator)
    t = torch.tensor([3, 871])
    mine_x, their_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = ours(mine_x, t), theirs(their_x, t).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)

    (out * direction).mean().backward()
    (expected * direction).mean().backward()

    def same(a: Tensor, b: Tensor) -> None:  # relative to the largest element of each tensor
        torch.testing.assert_close(a, b, atol=1e-4 * float(b.abs().max()), rtol=1e-4)

    same(mine_x.grad, their_x.grad)
    for mine, them in mapping:
        same(mine.weight.grad, joined(them, "weight", mine.weight.shape, grad=True))
        # The bias of the keys drops out of the softmax: its gradient is rounding, so compare within the whole tensor.
        same(mine.bias.grad, joined(them, "bias", mine.bias.shape, grad=True))


def test_the_default_is_the_network_of_the_paper() -> None:
    """35,746,307 parameters (the 35.7M of Ho et al., appendix B; google/ddpm-cifar10-32 has as many)."""
    with torch.device("meta"):
        net = UNet(3, 3)
    assert sum(p.numel() for p in net.parameters()) == 35_746_307


def small(**sizes: object) -> UNet:
    defaults = {"dim": 8, "dim_mults": (1, 2), "use_attn": (False, True), "num_res_blocks": 1, "num_groups": 4}
    return UNet(3, 3, **{**defaults, **sizes})


def test_the_configuration_builds_the_network_of_its_sizes() -> None:
    """Every field reaches the module, and the defaults are the module's."""
    others = {"padding": "both", "norm_eps": 1e-4, "freq_shift": 0}
    config = UNetConfig(1, 12, (1, 3, 2), (True, False, True), 3, 2, 0.3, 6, **others)
    given = [f for f in dataclasses.fields(config) if f.name not in ("name", "head_channels")]  # in place of n_heads
    assert all(getattr(config, f.name) != f.default for f in given)
    torch.manual_seed(0)
    ours = config.build(5, 7, None)
    torch.manual_seed(0)
    theirs = UNet(
        5, 7, dim=12, dim_mults=(1, 3, 2), use_attn=(True, False, True), num_res_blocks=3, n_heads=2, dropout=0.3,
        num_groups=6, **others,
    )  # fmt: skip
    assert str(ours) == str(theirs)
    for (name, mine), (other, their) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(mine, their)
    assert {m.dropout for m in ours.modules() if isinstance(m, ResBlock)} == {0.3}
    assert {m.heads for m in ours.modules() if isinstance(m, AttnBlock)} == {2}
    assert {m.eps for m in ours.modules() if isinstance(m, nn.GroupNorm)} == {1e-4}
    wide = dataclasses.replace(config, n_heads=1, head_channels=4).build(5, 7, 3)
    assert [m.heads for m in wide.modules() if isinstance(m, AttnBlock)] == [3] * 3 + [6] * 3 + [6] + [6] * 4 + [3] * 4
    assert wide.labels.weight.shape == (3, 48)
    with torch.device("meta"):
        assert str(UNetConfig().build(3, 3, None)) == str(UNet(3, 3))


@pytest.mark.parametrize(("height", "width", "fits"), [(12, 8, True), (8, 12, True), (8, 10, False), (6, 8, False)])
def test_the_configuration_says_which_images_it_can_halve(height: int, width: int, fits: bool) -> None:
    """Before the network is built, and in agreement with what the network accepts."""
    config = UNetConfig(dim=8, dim_mults=(1, 1, 2), use_attn=(False,) * 3, num_res_blocks=1, num_groups=4)
    with contextlib.nullcontext() if fits else pytest.raises(ConfigError, match=rf"{height}x{width}.*divisible by 4"):
        config.check(height, width)
    with contextlib.nullcontext() if fits else pytest.raises(ConfigError, match=rf"{height}x{width}.*divisible by 4"):
        config.build(3, 3, None)(torch.zeros(1, 3, height, width), torch.tensor([0]))


def test_memory_grows_with_the_area_the_width_and_the_precision() -> None:
    config = UNetConfig(dim=64, dim_mults=(1, 4))
    assert config.activation_bytes(8, 8, 2) == 10 * 8 * 8 * 256 * 2
    assert config.activation_bytes(8, 16, 2) == config.activation_bytes(16, 8, 2) == config.activation_bytes(8, 8, 4)


def test_labels_do_not_matter_to_this_network() -> None:
    net = small().eval()
    randomise(net, 0)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 2])
    assert torch.equal(net(x, t, Cond(torch.tensor([0, 9]))), net(x, t))


def test_a_fresh_network_says_zero_and_can_learn() -> None:
    """The last layer of every branch starts at zero, so the output does; every other weight is random."""
    net = small().eval()
    assert torch.equal(net(torch.randn(2, 3, 8, 8), torch.tensor([0, 999])), torch.zeros(2, 3, 8, 8))
    zero = {n for n, p in net.named_parameters() if n.endswith("weight") and not p.any()}
    last = {n for n, _ in net.named_parameters() if n.endswith(("conv2.weight", "proj.weight", "conv_out.weight"))}
    assert zero == last


def test_weights_and_activations_are_channels_last() -> None:
    net = small()
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(weights) > 8
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    out = net(torch.randn(2, 3, 8, 8), torch.tensor([0, 999]))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert not out.is_contiguous()


def test_dropout_acts_in_training_only() -> None:
    net = small(dropout=0.5)
    randomise(net, 0)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 2])
    assert not torch.equal(net(x, t), net(x, t))
    net.eval()
    assert torch.equal(net(x, t), net(x, t))


def test_time_is_continuous_and_matters() -> None:
    net = small().eval()
    randomise(net, 0)
    x = torch.randn(1, 3, 8, 8)
    at = {t: net(x, torch.tensor([t])) for t in (5, 6)}
    between = net(x, torch.tensor([5.5]))
    assert torch.equal(net(x, torch.tensor([5.0])), at[5])
    assert not torch.equal(at[5], at[6])
    assert (between - at[5]).norm() < (at[6] - at[5]).norm()


def test_time_embedding_is_the_formula() -> None:
    """sin and cos of t / 10000^(i / (half - 1)), in float64."""
    t = torch.tensor([0, 1, 17, 999])
    frequencies = 10000.0 ** -(torch.arange(6, dtype=torch.float64) / 5)
    angles = t[:, None] * frequencies
    expected = torch.cat((angles.sin(), angles.cos()), 1)
    torch.testing.assert_close(time_embedding(t, 12).double(), expected, atol=1e-4, rtol=0)


def test_attention_is_softmax_attention() -> None:
    """Head by head and in float64 from the definition; places and channels are not mixed up."""
    q, k, v = torch.randn(3, 2, 6, 2, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.empty(2, 6, 10, dtype=torch.float64)
    for b in range(2):
        for head in range(3):
            some = slice(2 * head, 2 * head + 2)
            a, c, d = (x[b, some].reshape(2, 10).double() for x in (q, k, v))
            expected[b, some] = d @ torch.softmax(a.T @ c / 2**0.5, dim=1).T
    torch.testing.assert_close(ops.attention(q, k, v, 3), expected.reshape(2, 6, 2, 5).float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(9, 8), (8, 10), (6, 6)])
def test_images_that_cannot_be_halved_are_refused(height: int, width: int) -> None:
    net = small(dim_mults=(1, 1, 2), use_attn=(False, False, False))
    net(torch.zeros(1, 3, 12, 8), torch.tensor([0]))  # not square, but divisible
    with pytest.raises(ConfigError, match=rf"{height}x{width} cannot be halved 2 times.*divisible by 4"):
        net(torch.zeros(1, 3, height, width), torch.tensor([0]))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_groups": 3}, "width 8 is not divisible by num_groups 3"),
        ({"n_heads": 3}, "n_heads 3"),
        ({"dim": 12, "num_groups": 8}, "width 12 is not divisible"),
        ({"use_attn": (True,)}, "use_attn has 1 entries, model.dim_mults 2"),
        ({"use_attn": (True, False, True)}, "use_attn has 3 entries, model.dim_mults 2"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**sizes)
