"""What ADM's U-Net asks of the fused operations, in Triton's interpreter, against plain PyTorch."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton")

from tests.nn.fused.test_operations import LAST, gradients, layer, maps, same

from ddpm_ip.nn.fused import kernels
from ddpm_ip.nn.fused import norm as norm_kernels
from ddpm_ip.nn.fused.operations import FusedOperations, Masks
from ddpm_ip.nn.ops import Modulation, Operations

pytestmark = pytest.mark.skipif(not kernels.INTERPRETED, reason="on a GPU tests/gpu looks at the compiled kernels")


def rows(images: int, width: int, seed: int) -> Tensor:
    return torch.randn(images, width, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def halves(both: Tensor) -> Modulation:
    """Views of one matrix, as `modulations` gives them: with something before and behind, and not aligned."""
    c = (both.shape[1] - 5) // 2
    return both[:, 2 : 2 + c], both[:, 2 + c : 2 + 2 * c]


@pytest.mark.parametrize("in_registers", [True, False])
@pytest.mark.parametrize(
    ("channels", "groups", "height", "width", "shifted", "silu"),
    [
        ((32,), 4, 4, 4, "", True),
        ((32,), 8, 4, 4, "one row", True),  # as in ADM: the bias of the convolution before
        ((8,), 2, 3, 5, "rows", False),  # nothing a power of two
        ((16, 8), 2, 4, 4, "", True),  # groups of 12 lie across both maps
        ((20, 4), 4, 2, 3, "one row", True),  # and nothing is aligned
        ((12,), 4, 1, 1, "rows", True),  # groups of three, at one place
        ((9,), 3, 2, 1, "expanded", True),
    ],
)
def test_a_modulated_norm_forward_and_backward(
    monkeypatch: pytest.MonkeyPatch, in_registers: bool, channels: tuple[int, ...], groups: int, height: int,
    width: int, shifted: str, silu: bool,
) -> None:  # fmt: skip
    if not in_registers:
        monkeypatch.setattr(norm_kernels, "REGISTER_TILE", 0)
        monkeypatch.setattr(norm_kernels, "PER_THREAD", 1)
    c = sum(channels)
    x = tuple(maps(3, one, height, width, seed=i) for i, one in enumerate(channels))
    norm, both = layer(nn.GroupNorm(groups, c, eps=1e-5)), rows(3, 2 * c + 5, 6)
    given = rows(3, c, 5) if shifted == "rows" else rows(1, c, 5)[0].detach().requires_grad_()
    inputs = [*x, *norm.parameters(), both, *([given] if shifted else [])]
    results = []
    for ops in (Operations(), FusedOperations()):
        shift = given.expand(3, -1) if shifted == "expanded" else given if shifted else None
        y, through, again = ops.norm_silu(x, norm, shift, silu=silu, modulation=halves(both))
        # what is handed through is not used, used, and used twice
        outputs = [y, torch.cat(through, 1), again.square()]
        results.append([y, *itertools.chain(*(gradients(outputs[:n], inputs) for n in (1, 2, 3)))])
    for plain, ours in zip(*results, strict=True):
        same(ours, plain)


def test_scale_and_offset_of_any_layout() -> None:
    x, norm, both = maps(2, 8, 2, 2), layer(nn.GroupNorm(2, 8)), rows(16, 2, 1)
    offset = rows(2, 8, 2)
    plain, ours = (
        ops.norm_silu((x,), norm, modulation=(both[:8].t(), offset))[0] for ops in (Operations(), FusedOperations())
    )
    same(ours, plain)
    for a, b in zip(gradients([ours], [both, offset]), gradients([plain], [both, offset]), strict=True):
        same(a, b)


def test_a_modulated_norm_drops_in_the_backward_pass_what_it_dropped_in_the_forward_pass() -> None:
    x, norm, both, bias = maps(2, 16, 4, 4), layer(nn.GroupNorm(4, 16)), rows(2, 37, 3), rows(1, 16, 4)[0]
    ops = FusedOperations(Masks(torch.tensor([11, 12])), 3)
    y, _, _ = ops.norm_silu((x,), norm, bias, 0.3, modulation=halves(both))
    plain, _, _ = Operations().norm_silu((x,), norm, bias, modulation=halves(both))
    mask = (y != 0).float() / 0.7
    assert 0.5 < float((y != 0).float().mean()) < 0.9
    same(y, plain * mask)
    inputs = [x, *norm.parameters(), both]
    for a, b in zip(gradients([y], inputs), gradients([plain * mask], inputs), strict=True):
        same(a, b)


def test_the_sums_of_a_modulated_norms_gradient_are_noted_right() -> None:
    """The bias before it takes them from there, with what is handed through and without."""
    norm, both = layer(nn.GroupNorm(2, 8)), rows(2, 21, 1)
    conv, x = layer(nn.Conv2d(4, 8, 3, padding=1)), maps(2, 4, 4, 4)
    for n in (1, 2):
        found = []
        for ops in (Operations(), FusedOperations()):
            y, _, again = ops.norm_silu((ops.conv(x, conv),), norm, modulation=halves(both))
            found.append(gradients([y, again.square()][:n], [conv.bias]))
        same(found[1][0], found[0][0])


def test_modulations() -> None:
    emb, layers = rows(3, 12, 0), [layer(nn.Linear(12, 2 * c), c) for c in (4, 8)]
    inputs = [emb, *itertools.chain(*(m.parameters() for m in layers))]
    plain, ours = (list(itertools.chain(*o.modulations(emb, layers))) for o in (Operations(), FusedOperations()))
    assert [m.shape[1] for m in ours] == [4, 4, 8, 8]
    assert {m.stride() for m in ours} == {(24, 1)}, "parts of one matrix product, as the norms want them"
    for a, b in zip([*ours, *gradients(ours, inputs)], [*plain, *gradients(plain, inputs)], strict=True):
        same(a, b)


def test_modulations_of_low_precision_weights_are_float32() -> None:
    emb, layers = rows(3, 12, 0), [nn.Linear(12, 8).bfloat16()]
    layers[0].bias.data = torch.full((8,), 1.0 + 2.0**-20)
    ((scale, offset),) = FusedOperations().modulations(emb, layers)
    assert scale.dtype == offset.dtype == torch.float32
    rounded = F.linear(emb.bfloat16(), layers[0].weight).float() + layers[0].bias
    assert torch.equal(torch.cat((scale, offset), 1), rounded)


@pytest.mark.parametrize("name", ["pool", "double"])
@pytest.mark.parametrize(("channels", "height", "width"), [(8, 4, 2), (3, 2, 6), (72, 2, 2)])
def test_pool_and_double(name: str, channels: int, height: int, width: int) -> None:
    x = maps(3, channels, height, width)
    plain, ours = (getattr(o, name)(x) for o in (Operations(), FusedOperations()))
    assert ours.is_contiguous(memory_format=LAST)
    same(ours, plain)
    same(*gradients([ours], [x]), *gradients([plain], [x]))


def test_pool_and_double_of_low_precision() -> None:
    """To the last digit; the interpreter cuts off what a GPU rounds."""
    x = maps(2, 8, 4, 4).detach().bfloat16()
    means = FusedOperations().pool(x)
    assert means.dtype == torch.bfloat16
    torch.testing.assert_close(means.float(), F.avg_pool2d(x.float(), 2), rtol=2**-7, atol=0)
    assert torch.equal(FusedOperations().double(x), F.interpolate(x, scale_factor=2.0, mode="nearest"))


def test_doubling_and_a_convolution_without_its_bias() -> None:
    conv, x = layer(nn.Conv2d(8, 24, 3, padding=1)), maps(2, 8, 2, 6)
    plain, ours = (o.upsample_conv(x, conv, bias=False) for o in (Operations(), FusedOperations()))
    same(ours, plain)
    for a, b in zip(gradients([ours], [x, conv.weight]), gradients([plain], [x, conv.weight]), strict=True):
        same(a, b)


@pytest.mark.parametrize(("cin", "height", "width"), [(8, 4, 4), (3, 6, 2), (384, 2, 2)])
def test_a_strided_convolution_padded_on_all_sides(cin: int, height: int, width: int) -> None:
    conv, x = layer(nn.Conv2d(cin, 8, 3, stride=2, padding=1)), maps(2, cin, height, width)
    inputs = [x, *conv.parameters()]
    plain, ours = (o.conv(x, conv) for o in (Operations(), FusedOperations()))
    assert ours.shape == (2, 8, height // 2, width // 2)
    same(ours, plain)
    for a, b in zip(gradients([ours], inputs), gradients([plain], inputs), strict=True):
        same(a, b)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_by_head(heads: int) -> None:
    qkv, proj = layer(nn.Conv2d(16, 48, 1)), layer(nn.Conv2d(16, 16, 1), 2)
    y, x = maps(2, 16, 2, 4), maps(2, 16, 2, 4, seed=1)
    inputs = [y, x, *qkv.parameters(), *proj.parameters()]
    plain, ours = (o.attention(y, qkv, proj, (x,), heads, by_head=True) for o in (Operations(), FusedOperations()))
    same(ours, plain)
    scale = max(float(g.norm()) for g in gradients([plain], inputs))
    for a, b in zip(gradients([ours], inputs), gradients([plain], inputs), strict=True):
        assert float((a - b).norm()) < 2e-5 * scale


class Copies(TorchDispatchMode):
    """Notes the sizes of what is copied in bf16 (the interpreter copies bytes)."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        copied = func.overloadpacket.__name__ in ("clone", "copy_", "_to_copy", "cat")
        if copied and out.dtype == torch.bfloat16:
            self.sizes.append(out.numel())
        return out


@pytest.mark.parametrize(("heads", "by_head"), [(2, False), (1, True), (2, True)])
def test_attention_copies_no_activations(heads: int, by_head: bool) -> None:
    """Heads of 32 and 64 channels, in bf16: queries, keys and values go to the kernel as they are."""
    c, images, size = 64, 4, 16
    qkv, proj = (nn.Conv2d(c, n * c, 1).to(torch.bfloat16) for n in (3, 1))
    for conv in (qkv, proj):
        conv.bias.data = conv.bias.data.float()
    y = maps(images, c, size, size).detach().bfloat16().requires_grad_()
    d = torch.ones_like(y)
    with Copies() as copies:
        out = FusedOperations().attention(y, qkv, proj, (y.detach(),), heads, by_head)
        out.backward(d)
    assert 0 < max(copies.sizes) <= 3 * c * c < images * c * size * size
