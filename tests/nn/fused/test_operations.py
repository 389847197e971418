"""The GPU kernels, in Triton's interpreter, against the plain PyTorch operations that they replace."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.nn.test_unet import randomise
from torch import Tensor, nn

pytest.importorskip("triton")

from ddpm_ip import draws_kernel
from ddpm_ip.draws import Draws, Stream
from ddpm_ip.errors import FastPathError
from ddpm_ip.nn.fused import check, functions, kernels
from ddpm_ip.nn.fused import norm as norm_kernels
from ddpm_ip.nn.fused.operations import FusedOperations, Masks, Shadow
from ddpm_ip.nn.fused.phases import phases, phases_gradient
from ddpm_ip.nn.network import Cond
from ddpm_ip.nn.ops import Operations
from ddpm_ip.nn.unet import UNet

pytestmark = pytest.mark.skipif(not kernels.INTERPRETED, reason="on a GPU tests/gpu looks at the compiled kernels")
LAST = torch.channels_last


def maps(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (values.contiguous(memory_format=LAST) if len(shape) == 4 else values).requires_grad_()


def layer(module: nn.Module, seed: int = 1) -> nn.Module:
    randomise(module, seed)
    return module.to(memory_format=LAST)


def same(a: Tensor | None, b: Tensor | None, tolerance: float = 2e-5) -> None:
    assert a is not None
    assert b is not None
    assert a.shape == b.shape
    assert float((a - b).detach().norm()) <= tolerance * float(b.detach().norm()) + 1e-7


def gradients(outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Of the inner product of each output with something random."""
    total = sum((o * maps(*o.shape, seed=9 + i)).sum() for i, o in enumerate(outputs))
    return list(torch.autograd.grad(total, inputs, retain_graph=True))


@pytest.mark.parametrize("in_registers", [True, False])
@pytest.mark.parametrize(
    ("channels", "groups", "height", "width", "shifted", "silu"),
    [
        ((32,), 4, 4, 4, False, True),
        ((32,), 8, 4, 4, True, True),
        ((8,), 2, 3, 5, True, False),  # nothing a power of two
        ((16, 8), 2, 4, 4, False, True),  # groups of 12 lie across both maps
        ((20, 4), 4, 2, 3, True, True),  # and nothing is aligned
        ((64, 64), 32, 4, 2, False, False),
    ],
)
def test_norm_forward_and_backward(
    monkeypatch: pytest.MonkeyPatch, in_registers: bool, channels: tuple[int, ...], groups: int, height: int,
    width: int, shifted: bool, silu: bool,
) -> None:  # fmt: skip
    if not in_registers:  # as for large images: several tiles an image, walked through twice
        monkeypatch.setattr(norm_kernels, "REGISTER_TILE", 0)
        monkeypatch.setattr(norm_kernels, "PER_THREAD", 1)
    x = tuple(maps(3, c, height, width, seed=i) for i, c in enumerate(channels))
    norm = layer(nn.GroupNorm(groups, sum(channels), eps=1e-6))
    shift = torch.randn(3, sum(channels), generator=torch.Generator().manual_seed(5)).requires_grad_()
    inputs = [*x, *norm.parameters(), *([shift] if shifted else [])]
    results = []
    for ops in (Operations(), FusedOperations()):
        y, through, again = ops.norm_silu(x, norm, shift if shifted else None, silu=silu)
        # what is handed through is used, once joined and once on its own
        outputs = [y, torch.cat(through, 1), again.square()]
        results.append([y, *gradients(outputs, inputs), *gradients([y], inputs)])
    for plain, ours in zip(*results, strict=True):
        same(ours, plain)


def test_a_mean_far_from_zero_does_not_cost_the_digits() -> None:
    x = (maps(2, 8, 4, 4).detach() + 1000).requires_grad_()
    norm = layer(nn.GroupNorm(2, 8))
    expected = norm.double()(x.double()).float()
    same(FusedOperations().norm_silu((x,), norm.float(), silu=False)[0], expected, 1e-3)


def test_joined_maps_are_handed_through_apart() -> None:
    """And one of them may be used, or none."""
    x, norm = (maps(1, 8, 2, 2), maps(1, 4, 2, 2, seed=1)), layer(nn.GroupNorm(2, 12))
    y, through, _ = FusedOperations().norm_silu(x, norm)
    assert [t.shape for t in through] == [t.shape for t in x]
    alone = gradients([y], list(x))
    first, second = (gradients([y, t], list(x)) for t in through)
    same(first[0], alone[0] + maps(1, 8, 2, 2, seed=10))
    same(first[1], alone[1])
    same(second[0], alone[0])
    same(second[1], alone[1] + maps(1, 4, 2, 2, seed=10))


def dropped(keys: list[int], where: int = 0, p: float = 0.25, size: int = 16) -> Tensor:
    """What dropout makes of a constant."""
    ops = FusedOperations(Masks(torch.tensor(keys)), where)
    x = torch.zeros(len(keys), 32, size, size).contiguous(memory_format=LAST)
    norm = nn.GroupNorm(4, 32)
    nn.init.ones_(norm.bias)  # so that the norm puts out 1 everywhere
    return ops.norm_silu((x,), norm, dropout=p, silu=False)[0]


def test_dropout_keeps_the_mean_and_is_a_function_of_image_and_layer() -> None:
    keys = [5, 4_000_000_000, 7, 2**31]
    y = dropped(keys)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float((y == 0).float().mean()) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / y.numel()) ** 0.5)
    assert torch.equal(y, dropped(keys))
    assert torch.equal(y[2:3], dropped([7])), "an image keeps its mask in any batch"
    for other in (dropped(keys, where=1), dropped([k + 1 for k in keys])):
        both = ((y == 0) & (other == 0)).float().mean()
        assert float(both) == pytest.approx(0.25**2, abs=0.01), "masks of layers and images are independent"
    assert not dropped(keys, p=0.0).eq(0).any()


def test_neighbours_are_dropped_independently() -> None:
    gone = (dropped(list(range(8)), p=0.5, size=32) == 0).float() - 0.5  # (8, 32, 32, 32)
    flat = gone.permute(0, 2, 3, 1).flatten()
    for lag in (1, 2, 8, 31, 32, 33, 64, 1024, 32768):
        correlation = float((flat[lag:] * flat[:-lag]).mean() / 0.25)
        assert abs(correlation) < 5 / len(flat) ** 0.5, lag


def test_the_backward_pass_drops_what_the_forward_pass_dropped() -> None:
    x, norm = maps(2, 16, 4, 4), layer(nn.GroupNorm(4, 16))
    ops = FusedOperations(Masks(torch.tensor([11, 12])), 3)
    y, _, _ = ops.norm_silu((x,), norm, dropout=0.4)
    mask = (y != 0).float() / 0.6
    same(y, F.silu(norm(x)) * mask)
    for ours, plain in zip(
        gradients([y], [x, *norm.parameters()]),
        gradients([F.silu(norm(x)) * mask], [x, *norm.parameters()]),
        strict=True,
    ):
        same(ours, plain)


@pytest.mark.parametrize(
    ("cin", "cout", "joined"),
    [(24, 40, (40,)), (16, 16, (24,)), (16, 40, (24, 16)), (8, 16, (10, 6)), (8, 4, (4,))],
)
def test_the_end_of_a_residual_block(cin: int, cout: int, joined: tuple[int, ...]) -> None:
    conv = layer(nn.Conv2d(cin, cout, 3, padding=1))
    shortcut = nn.Identity() if joined == (cout,) else layer(nn.Conv2d(sum(joined), cout, 1), 2)
    h, x = maps(2, cin, 4, 4), tuple(maps(2, c, 4, 4, seed=3 + i) for i, c in enumerate(joined))
    inputs = [h, *x, *conv.parameters(), *shortcut.parameters()]
    plain, ours = (o.conv_residual(h, conv, x, shortcut) for o in (Operations(), FusedOperations()))
    same(ours, plain)
    for a, b in zip(gradients([ours], inputs), gradients([plain], inputs), strict=True):
        same(a, b)


@pytest.mark.parametrize("name", ["conv", "downsample_conv", "upsample_conv"])
@pytest.mark.parametrize(("cin", "cout", "height", "width"), [(3, 8, 4, 4), (8, 3, 4, 4), (8, 24, 2, 6)])
def test_convolutions(name: str, cin: int, cout: int, height: int, width: int) -> None:
    stride, padding = (2, 0) if name == "downsample_conv" else (1, 1)
    conv, x = layer(nn.Conv2d(cin, cout, 3, stride, padding)), maps(2, cin, height, width)
    inputs = [x, *conv.parameters()]
    plain, ours = (getattr(o, name)(x, conv) for o in (Operations(), FusedOperations()))
    same(ours, plain)
    assert ours.is_contiguous(memory_format=LAST)
    for a, b in zip(gradients([ours], inputs), gradients([plain], inputs), strict=True):
        same(a, b)


def test_the_gradient_of_the_input_by_turned_weights() -> None:
    conv, x = layer(nn.Conv2d(384, 8, 3, padding=1, bias=False)), maps(1, 384, 4, 4)
    plain, ours = (o.conv(x, conv, bias=False) for o in (Operations(), FusedOperations()))
    assert type(ours.grad_fn).__name__ == "ConvBackward"
    for a, b in zip(gradients([ours], [x, conv.weight]), gradients([plain], [x, conv.weight]), strict=True):
        same(a, b)


def test_phase_weights_by_hand() -> None:
    """One output, one input, and powers of ten as taps: every sum of taps can be read off."""
    weight = (10.0 ** torch.arange(9)).reshape(1, 1, 3, 3)
    assert phases(weight).tolist() == [
        [1, 110, 1001000, 110110000],  # (0, 0): rows 0 | 1 + 2, columns 0 | 1 + 2
        [11, 100, 11011000, 100100000],  # (0, 1): columns 0 + 1 | 2
        [1001, 110110, 1000000, 110000000],  # (1, 0): rows 0 + 1 | 2
        [11011, 100100, 11000000, 100000000],
    ]


def test_phases_and_their_gradient_are_adjoint() -> None:
    """<A w, d> = <w, A* d>; a number of channels that no tile has."""
    weight = torch.randn(5, 261, 3, 3, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=LAST)
    made = phases(weight)
    d = torch.randn(made.shape, generator=torch.Generator().manual_seed(1))
    back = phases_gradient(d, weight)
    assert back.stride() == weight.stride()
    assert float((made * d).sum()) == pytest.approx(float((weight * back).sum()), rel=1e-4)


@pytest.mark.parametrize("heads", [1, 2])
def test_attention(heads: int) -> None:
    qkv, proj = layer(nn.Conv2d(16, 48, 1)), layer(nn.Conv2d(16, 16, 1), 2)
    y, x = maps(2, 16, 2, 4), maps(2, 16, 2, 4, seed=1)
    inputs = [y, x, *qkv.parameters(), *proj.parameters()]
    plain, ours = (o.attention(y, qkv, proj, (x,), heads) for o in (Operations(), FusedOperations()))
    same(ours, plain)
    scale = max(float(g.norm()) for g in gradients([plain], inputs))
    for a, b in zip(gradients([ours], inputs), gradients([plain], inputs), strict=True):
        assert float((a - b).norm()) < 2e-5 * scale  # the gradient of the keys' bias is rounding alone


def test_shifts() -> None:
    emb = torch.randn(3, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    layers, convs = [layer(nn.Linear(12, c), c) for c in (4, 8)], [layer(nn.Conv2d(2, c, 3), c + 1) for c in (4, 8)]
    inputs = [emb, *itertools.chain(*(m.parameters() for m in layers)), *(c.bias for c in convs)]
    plain, ours = (o.shifts(emb, layers, convs) for o in (Operations(), FusedOperations()))
    for a, b in zip(ours, plain, strict=True):
        same(a, b)
    for a, b in zip(gradients(ours, inputs), gradients(plain, inputs), strict=True):
        same(a, b)


@pytest.mark.parametrize("rows", [1, 7, 64, 1024, 1500])
def test_column_sum(rows: int) -> None:
    x = torch.randn(2, rows, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(kernels.column_sum(x), x.sum(1), atol=1e-4, rtol=1e-4)


def test_unfold_and_fold_spread_and_gather_are_adjoint() -> None:
    """<A x, y> = <x, A* y>; and unfold is what its name says."""
    x = maps(2, 3, 4, 5).detach()
    cols = kernels.unfold(x)
    theirs = F.unfold(x, 2, padding=1).reshape(2, 3, 4, -1).permute(0, 3, 2, 1).reshape(-1, 12)
    assert torch.equal(cols, theirs)
    y = torch.randn(cols.shape, generator=torch.Generator().manual_seed(1))
    assert float((cols * y).sum()) == pytest.approx(float((x * kernels.fold(y, 4, 5)).sum()), rel=1e-4)
    z = torch.randn(2 * 5 * 6, 12, generator=torch.Generator().manual_seed(2))
    image = kernels.spread(z, torch.zeros(3), 4, 5)
    d = maps(2, 3, 8, 10, seed=3).detach()
    assert float((image * d).sum()) == pytest.approx(float((z * kernels.gather(d)).sum()), rel=1e-4)


def test_a_noted_sum_is_not_believed_once_something_was_added() -> None:
    d = maps(2, 8, 2, 2).detach()
    functions.note_sum(d, torch.full((8,), 42.0))
    assert functions.channel_sum(d).tolist() == [42.0] * 8
    d += 1
    torch.testing.assert_close(functions.channel_sum(d), d.sum((0, 2, 3)), atol=1e-5, rtol=1e-5)


NETWORKS = [
    {"dim": 8, "dim_mults": (1, 2, 2), "use_attn": (False, True, False), "num_res_blocks": 1, "num_groups": 4},
    {"dim": 16, "dim_mults": (1, 1), "use_attn": (True, False), "num_res_blocks": 2, "num_groups": 8, "n_heads": 2},
    {"dim": 12, "dim_mults": (1,), "use_attn": (False,), "num_res_blocks": 1, "num_groups": 3},
]


@pytest.mark.large
@pytest.mark.parametrize("sizes", NETWORKS)
@pytest.mark.parametrize("outputs", [1, 3, 6])
def test_the_whole_network(sizes: dict[str, object], outputs: int) -> None:
    fused_is_plain(UNet(3, outputs, **sizes, dropout=0.1), 8, 4)


@pytest.mark.parametrize(("channels", "height", "width"), [(2, 6, 10), (5, 10, 6), (16, 2, 14)])
def test_the_whole_network_of_other_channels_and_sides(channels: int, height: int, width: int) -> None:
    """Halved, the sides are odd."""
    fused_is_plain(UNet(channels, channels, **{**NETWORKS[1], "num_res_blocks": 1}), height, width)


def fused_is_plain(plain: Any, height: int, width: int, cond: Cond | None = None) -> None:
    """Outputs and all gradients of a network with a convolution ``conv_in``."""
    randomise(plain.eval(), 0)
    shadow = Shadow(plain, torch.float32)
    x, t = maps(2, plain.conv_in.in_channels, height, width).detach(), torch.tensor([3, 871])
    given, ours = plain(x, t, cond), shadow(x, t, cond)
    same(ours, given)
    truth = gradients([given], list(plain.parameters()))
    found = {id(p): g for (p, _), g in zip(shadow.pairs, gradients([ours], [r for _, r in shadow.pairs]), strict=True)}
    largest = max(float(g.norm()) for g in truth)
    for p, g in zip(plain.parameters(), truth, strict=True):
        assert float((found[id(p)] - g).norm()) < 2e-5 * float(g.norm()) + 1e-6 * largest


def test_compare_finds_no_fault_in_an_untrained_network_and_one_in_a_wrong_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = {**NETWORKS[0], "dim_mults": (1, 2), "use_attn": (False, True)}
    network = UNet(3, 3, **sizes)  # fresh: the last layers are zero, which must not hide the rest
    before = copy.deepcopy(network.state_dict())
    out, grad = check.compare(network, torch.float32, (4, 6), images=2)
    assert 0 < out < 2e-5
    assert 0 < grad < 2e-5
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    right = norm_kernels.norm_backward

    def wrong(*given: Any) -> tuple[Tensor, ...]:
        dx, *others = right(*given)
        return dx * 0.7, *others

    monkeypatch.setattr(norm_kernels, "norm_backward", wrong)
    with pytest.raises(FastPathError, match="differs from the plain one"):
        check.compare(network, torch.float32, (4, 6), images=2)


def test_a_network_of_other_operations_is_not_fused_and_that_is_said() -> None:
    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv_in = self.conv_out = torch.nn.Conv2d(3, 3, 1)

    with pytest.raises(FastPathError, match="Plain has no fused form"):
        check.compare(Plain(), torch.float32, 8)


def test_compare_outputs_stops_a_sampler_with_other_weights() -> None:
    network = UNet(3, 3, **NETWORKS[0]).eval()
    randomise(network, 0)
    x, t = maps(2, 3, 8, 8).detach(), torch.tensor([3, 871])
    out = network(x, t).detach()
    assert check.compare_outputs(network, x, t, out * 1.0001, torch.float32) == pytest.approx(1e-4, rel=0.1)
    with pytest.raises(FastPathError, match="images are not made"):
        check.compare_outputs(network, x, t, torch.zeros_like(out), torch.bfloat16)


def test_a_shadow_follows_the_network_and_leaves_it_alone() -> None:
    network = UNet(3, 3, **NETWORKS[0])
    shadow = Shadow(network, torch.bfloat16)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert shadow.module.norm_out.weight is network.norm_out.weight
    assert shadow.module.conv_in.weight.dtype == torch.bfloat16
    with torch.no_grad():
        network.conv_in.weight.fill_(0.5)
        network.conv_in.bias.fill_(2.0)
    shadow.refresh()
    assert shadow.module.conv_in.weight.eq(0.5).all()
    assert shadow.module.conv_in.bias.eq(2.0).all()
    assert type(network.ops) is Operations
    assert network.state_dict().keys() == UNet(3, 3, **NETWORKS[0]).state_dict().keys()


@pytest.mark.parametrize("seed", [0, 2**64 - 1, 12345678901234567890])
def test_the_draws_of_the_kernel_are_the_plain_ones(seed: int) -> None:
    rows = torch.tensor([0, 3, 2**32 - 1])
    for step, stream in ((0, Stream.EPS), (2**32 - 1, Stream.XI)):
        plain, at = Draws(seed, step, rows), torch.tensor(step)
        for n in (1, 4, 7):
            assert torch.equal(draws_kernel.bits(rows, at, seed, stream, n), plain.bits(stream, n))
        ours = draws_kernel.normal(rows, at, seed, stream, (3, 5))
        torch.testing.assert_close(ours, plain.normal(stream, (3, 5)), atol=1e-6, rtol=1e-6)


def test_a_step_on_the_device_draws_as_a_number_does() -> None:
    rows = torch.arange(4)
    a, b = Draws(3, 70, rows), Draws(3, torch.tensor(70), rows)
    assert torch.equal(a.eps((2, 3)), b.eps((2, 3)))
    assert torch.equal(a.times(1000), b.times(1000))
    assert torch.equal(a.keys(), b.keys())
    assert torch.equal(Draws(3, 70, rows[2:]).keys(), a.keys()[2:])
