"""ADM's U-Net against a second implementation (guided.py), its sizes, and what it refuses."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
import torch
from tests.nn.guided import Guided, Sizes, same_names
from tests.nn.test_unet import randomise
from tests.tiny import ROOT
from torch import Tensor, nn

from ddpm_ip.config import from_dict, load
from ddpm_ip.errors import ConfigError
from ddpm_ip.nn import ADMConfig, UNetConfig
from ddpm_ip.nn.adm import ADM, ADMResBlock, time_embedding
from ddpm_ip.nn.network import Cond
from ddpm_ip.nn.unet import AttnBlock

SMALL = Sizes(num_channels=32, channel_mult=(1, 2), groups=8)


def config_of(sizes: Sizes, **others: Any) -> ADMConfig:
    """The same network in our words."""
    return ADMConfig(
        sizes.channels, sizes.num_channels, tuple(sizes.channel_mult), tuple(sizes.attention), sizes.num_res_blocks,
        n_heads=sizes.num_heads, head_channels=None if sizes.num_head_channels == -1 else sizes.num_head_channels,
        num_groups=sizes.groups, resblock_updown=sizes.resblock_updown, scale_shift_norm=sizes.use_scale_shift_norm,
        attention_order="new" if sizes.use_new_attention_order else "legacy", **others,
    )  # fmt: skip


def pair(sizes: Sizes, **others: Any) -> tuple[ADM, Guided, dict[str, str]]:
    """Ours and theirs with the same weights, and which parameter is which."""
    theirs = Guided(sizes)
    randomise(theirs, 0)
    ours = config_of(sizes, **others).build(sizes.channels, sizes.out_channels, sizes.num_classes).eval()
    names, mine = same_names(theirs), ours.state_dict()
    assert {names[key] for key in theirs.state_dict()} == mine.keys()
    with torch.no_grad():
        for key, tensor in theirs.state_dict().items():
            mine[names[key]].copy_(tensor.reshape(mine[names[key]].shape))
    return ours, theirs, names


CASES = {
    "as DDPM-IP": {"resblock_updown": True, "use_new_attention_order": True, "num_head_channels": 16},
    "as ADM's first models": {"num_heads": 4, "resblock_updown": True},
    "shifts alone": {"use_scale_shift_norm": False, "resblock_updown": True, "num_head_channels": 8},
    "as improved diffusion": {"num_heads": 2, "attention": (True, True), "num_res_blocks": 2},
    "strided, shifts alone": {"use_scale_shift_norm": False, "use_new_attention_order": True, "num_heads": 2},
    "classes": {"num_classes": 5, "resblock_updown": True, "num_head_channels": 16},
    "learned variance, fractions": {
        "out_channels": 6, "channel_mult": (0.5, 1, 1.5), "attention": (False, True, False), "resblock_updown": True,
        "num_head_channels": 16, "channels": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_output_and_gradients_equal_the_second_implementation(case: dict[str, Any]) -> None:
    sizes = dataclasses.replace(SMALL, **case)
    ours, theirs, names = pair(sizes)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, sizes.channels, 8, 12, generator=generator)
    direction = torch.randn(2, sizes.out_channels, 8, 12, generator=generator)
    t, y = torch.tensor([3.5, 871]), torch.tensor([4, 0])
    conditional = sizes.num_classes is not None
    mine_x, their_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = ours(mine_x, t, Cond(y)), theirs(their_x, t, y if conditional else None)
    assert expected.std() > 0.1
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)

    (out * direction).sum().backward()
    (expected * direction).sum().backward()
    own = dict(ours.named_parameters())
    pairs = [(mine_x.grad, their_x.grad)]
    pairs += [(own[names[k]].grad.reshape(p.shape), p.grad) for k, p in theirs.named_parameters()]
    for mine, their in pairs:  # relative to the largest element of each tensor
        torch.testing.assert_close(mine, their, atol=1e-5 * float(their.abs().max()), rtol=1e-5)


def test_the_names_and_shapes_of_the_second_implementation_are_the_published_ones() -> None:
    """Those of guided-diffusion's own network; the order of qkv shows in no shape."""
    shapes = {k: tuple(v.shape) for k, v in Guided(dataclasses.replace(SMALL, **CASES["classes"])).state_dict().items()}
    expected = {
        "time_embed.0.weight": (128, 32), "time_embed.2.bias": (128,), "label_emb.weight": (5, 128),
        "input_blocks.0.0.weight": (32, 3, 3, 3), "input_blocks.1.0.in_layers.0.weight": (32,),
        "input_blocks.1.0.in_layers.2.weight": (32, 32, 3, 3), "input_blocks.1.0.emb_layers.1.weight": (64, 128),
        "input_blocks.2.0.out_layers.3.bias": (32,), "input_blocks.3.0.skip_connection.weight": (64, 32, 1, 1),
        "input_blocks.3.1.qkv.weight": (192, 64, 1), "input_blocks.3.1.proj_out.weight": (64, 64, 1),
        "middle_block.1.norm.weight": (64,), "output_blocks.1.2.out_layers.0.bias": (64,), "out.0.weight": (32,),
        "out.2.weight": (3, 32, 3, 3),
    }  # fmt: skip
    assert expected.items() <= shapes.items()
    assert not [k for k in shapes if "upd" in k]
    strided = Guided(SMALL).state_dict()
    assert {"input_blocks.2.0.op.weight", "output_blocks.1.2.conv.weight"} <= strided.keys()


def test_the_network_of_the_cifar10_recipe_has_as_many_parameters_as_the_published_one() -> None:
    """57,094,662 with the learned variance, as the released checkpoints; the same by the second implementation."""
    config = load(ROOT / "configs/adm_ip_cifar10.yaml")
    with torch.device("meta"):
        network = config.build_network()
        theirs = Guided(
            Sizes(
                out_channels=6, num_channels=128, channel_mult=(1, 2, 2, 2), attention=(False, True, True, False),
                num_res_blocks=3, num_head_channels=32, resblock_updown=True, use_new_attention_order=True,
            )
        )  # fmt: skip
    assert sum(p.numel() for p in network.parameters()) == 57_094_662
    assert sum(p.numel() for p in theirs.parameters()) == 57_094_662
    assert config.model == ADMConfig()


def test_every_size_reaches_the_network() -> None:
    config = ADMConfig(1, 16, (1, 0.5), (True, False), 2, 2, None, 0.1, 4, 1e-3, False, False, "legacy", 0.5)
    assert all(getattr(config, f.name) != f.default for f in dataclasses.fields(config) if f.name != "name")
    net = config.build(5, 7, 3)
    assert (net.conv_in.in_channels, net.conv_out.out_channels, net.labels.num_embeddings) == (5, 7, 3)
    assert {(m.num_groups, m.eps) for m in net.modules() if isinstance(m, nn.GroupNorm)} == {(4, 1e-3)}
    assert {m.dropout for m in net.modules() if isinstance(m, ADMResBlock)} == {0.1}
    assert {(m.heads, m.by_head) for m in net.modules() if isinstance(m, AttnBlock)} == {(2, True)}
    assert [type(m).__name__ for m in net.down] == ["ModuleList"] * 2 + ["Downsample"] + ["ModuleList"] * 2
    by_width = dataclasses.replace(config, n_heads=1, head_channels=4, attention_order="new").build(5, 7, None)
    assert [(m.heads, m.by_head) for m in by_width.modules() if isinstance(m, AttnBlock)] == [
        *[(4, False)] * 2, (2, False), *[(4, False)] * 3
    ]  # fmt: skip
    assert by_width.labels is None
    unscaled = dataclasses.replace(config, time_scale=1.0).build(5, 7, 3).eval()
    randomise(net.eval(), 0)
    unscaled.load_state_dict(net.state_dict())
    x, t = torch.randn(2, 5, 4, 4), torch.tensor([3, 700])
    assert torch.equal(net(x, t), unscaled(x, t / 2))
    assert not torch.equal(net(x, t), unscaled(x, t))


def small(classes: int | None = None, **sizes: Any) -> ADM:
    defaults = {"dim": 8, "dim_mults": (1, 2), "use_attn": (False, True), "num_res_blocks": 1, "num_groups": 4}
    return ADMConfig(**{**defaults, "head_channels": 8, **sizes}).build(3, 3, classes)


def test_a_fresh_network_says_zero_and_can_learn() -> None:
    """The last layer of every branch starts at zero, bias and all; every other weight is random."""
    net = small().eval()
    assert torch.equal(net(torch.randn(2, 3, 8, 8), torch.tensor([0, 999])), torch.zeros(2, 3, 8, 8))
    zero = {n for n, p in net.named_parameters() if not n.split(".")[-2].startswith("norm") and not p.any()}
    last = ("conv2.weight", "conv2.bias", "proj.weight", "proj.bias", "conv_out.weight", "conv_out.bias")
    assert zero == {n for n, _ in net.named_parameters() if n.endswith(last)}


def test_no_class_is_the_label_minus_one() -> None:
    net = small(classes=4).eval()
    randomise(net, 0)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 2])
    without = net(x, t)
    assert torch.equal(net(x, t, Cond()), without)
    torch.testing.assert_close(net(x, t, Cond(torch.tensor([-1, -1]))), without)
    with_one = net(x, t, Cond(torch.tensor([-1, 3])))
    torch.testing.assert_close(with_one[0], without[0])
    assert (with_one[1] - without[1]).abs().max() > 0.01


def test_classes_change_no_other_weight() -> None:
    torch.manual_seed(0)
    plain = small().state_dict()
    torch.manual_seed(0)
    conditional = small(classes=4).state_dict()
    assert conditional.pop("labels.weight").std() > 0.5
    assert all(torch.equal(plain[name], tensor) for name, tensor in conditional.items())


def test_dropout_acts_in_training_only() -> None:
    net = small(dropout=0.5)
    randomise(net, 0)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 2])
    assert not torch.equal(net(x, t), net(x, t))
    net.eval()
    assert torch.equal(net(x, t), net(x, t))


def test_time_embedding_is_the_formula() -> None:
    t = torch.tensor([0, 1, 17, 999.5])
    angles = t[:, None].double() * 10000.0 ** -(torch.arange(6, dtype=torch.float64) / 6)
    expected = torch.cat((angles.cos(), angles.sin()), 1)
    torch.testing.assert_close(time_embedding(t, 12).double(), expected, atol=1e-4, rtol=0)


def test_weights_and_activations_are_channels_last() -> None:
    net = small()
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    out = net(torch.randn(2, 3, 8, 8), torch.tensor([0, 999]))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert not out.is_contiguous()


@pytest.mark.parametrize(("height", "width", "fits"), [(12, 8, True), (8, 10, False), (6, 8, False)])
def test_it_says_which_images_it_can_halve(height: int, width: int, fits: bool) -> None:
    """Before the network is built, and in agreement with what the network accepts."""
    sizes = {"dim": 8, "dim_mults": (1, 1, 2), "use_attn": (False,) * 3, "num_res_blocks": 1, "num_groups": 4}
    sizes["head_channels"] = 8
    config = ADMConfig(**sizes)
    for ask in (lambda: config.check(height, width), lambda: run(config, height, width)):
        with contextlib.nullcontext() if fits else pytest.raises(ConfigError, match=rf"{height}x{width}.*by 4"):
            ask()


def run(config: ADMConfig, height: int, width: int) -> Tensor:
    return dataclasses.replace(config, head_channels=8).build(3, 3, None)(
        torch.zeros(1, 3, height, width), torch.tensor([0])
    )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_groups": 3}, "width 8 .* is not divisible by num_groups 3"),
        ({"dim_mults": (1, 1.3)}, r"width 10\.4 \(dim 8 times 1\.3 of dim_mults\)"),
        ({"head_channels": 5}, "width 16, which has attention, is not divisible by head_channels 5"),
        ({"head_channels": None, "n_heads": 3}, "width 16.* n_heads 3"),
        ({"n_heads": 2}, "n_heads 2 and model.head_channels 8 both say"),
        ({"use_attn": (True,)}, "use_attn has 1 entries, model.dim_mults 2"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**sizes)


def test_it_is_chosen_by_its_name_or_by_a_key_of_its_own() -> None:
    """And a section `model` without a name is still the U-Net."""

    def read(model: dict[str, Any], **overrides: Any) -> Any:
        return from_dict({"data": {"name": "digits"}, "model": model}, "a file", overrides).model

    assert read({"dim": 64}) == UNetConfig(dim=64)
    assert read({"dim": 64, "resblock_updown": False}) == ADMConfig(dim=64, resblock_updown=False)
    assert read({"dim": 64}, **{"model.name": "adm", "model.dim_mults": [1, 0.5]}) == ADMConfig(dim_mults=(1, 0.5))
    with pytest.raises(ConfigError, match=r"resblock_updown is one of model\.name adm"):
        read({"dim": 64}, **{"model.resblock_updown": False})
    for value in (0, float("inf"), float("nan"), True):
        with pytest.raises(ConfigError, match=r"model\.dim_mults"):
            read({"name": "adm", "dim_mults": [value]})


def test_memory_grows_with_the_area_and_the_precision() -> None:
    config = ADMConfig()
    assert config.activation_bytes(32, 32, 4) == 2 * config.activation_bytes(32, 32, 2)
    assert config.activation_bytes(64, 32, 2) == 2 * config.activation_bytes(32, 32, 2)
