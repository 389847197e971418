"""The operations of the U-Net as few passes over memory: the GPU form of :class:`ddpm_ip.nn.ops.Operations`.

Convolutions and matrix products stay cuDNN's and cuBLAS's; what lies between them goes through the kernels of
:mod:`ddpm_ip.nn.fused.norm` and :mod:`ddpm_ip.nn.fused.kernels`. What is fused, and why:

* GroupNorm, the time embedding's shift, SiLU and dropout are one kernel, forward and backward. It reads feature maps
  that are meant as joined where they are, so the up path joins nothing.
* A norm hands its input through, and adds the gradient that comes back for it to its own in the same pass.
* A convolution's bias is added where its output is read or written next, never in a pass of its own.
* Doubling followed by a 3x3 convolution is four 2x2 convolutions of the small image: 4/9 of the arithmetic.
* The 3-channel ends are padded with zeros to 8 channels, which the matrix units can work on.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from ddpm_ip.errors import FastPathError
from ddpm_ip.nn.fused import kernels
from ddpm_ip.nn.fused import norm as norm_kernels
from ddpm_ip.nn.network import Cond
from ddpm_ip.nn.ops import Modulation, Operations, Sources
from ddpm_ip.nn.unet import Block

_LAST = torch.channels_last


class _NormSilu(Function):
    @staticmethod
    def forward(ctx: Any, settings: norm_kernels.Settings, *tensors: Any) -> tuple[Tensor | None, ...]:
        """``tensors``: those of :class:`~ddpm_ip.nn.fused.norm.Inputs`, one by one, for autograd to see them."""
        inputs = norm_kernels.Inputs(*tensors)
        y, stats = norm_kernels.norm_forward(inputs, settings)
        ctx.save_for_backward(*inputs, stats)
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        return y, inputs.x1, inputs.x1 if inputs.x2 is None else inputs.x2

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *through: Tensor | None) -> tuple[Any, ...]:
        *tensors, stats = ctx.saved_tensors
        inputs = norm_kernels.Inputs(*tensors)
        x1, x2 = inputs.x1, inputs.x2
        assert dy is not None, "the output of a norm was not used"
        dy = dy.contiguous(memory_format=_LAST)
        r1, r2 = (None if r is None else r.contiguous(memory_format=_LAST) for r in through)
        if x2 is None and r1 is None:
            r1, r2 = r2, None
        if x2 is not None and (r1 is None) != (r2 is None):  # one of two joined maps is used elsewhere
            r1 = torch.zeros_like(x1) if r1 is None else r1
            r2 = torch.zeros_like(x2) if r2 is None else r2
        dx1, dx2, sums = norm_kernels.norm_backward(inputs, ctx.settings, stats, dy, r1, r2)
        d_shift = sums[3] if inputs.shift is not None else None
        d_weight, d_bias, total = kernels.column_sum(sums[:3]).unbind(0)
        _note_sum(dx1, total[: x1.shape[1]])
        return None, dx1, dx2, d_shift, d_weight, d_bias, None


class _Add(Function):
    """``h + bias``, ``h + bias + x``, or ``h + bias + weight x``."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, bias: Tensor, x1: Tensor | None, x2: Tensor | None, weight: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x1, x2, weight)
        ctx.adds_x = x1 is not None
        if weight is None:
            return kernels.add(h, bias, x1)
        assert x1 is not None
        return kernels.add_product(h, bias, x1, x2, weight.flatten(1))

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        x1, x2, weight = ctx.saved_tensors
        d = d.contiguous(memory_format=_LAST)
        d_bias = _channel_sum(d)
        if weight is None:
            return d, d_bias, d if ctx.adds_x else None, None, None
        rows, k1 = _rows(d), x1.shape[1]
        flat = weight.flatten(1)
        d_weight = torch.empty_like(flat)
        torch.mm(rows.t(), _rows(x1), out=d_weight[:, :k1])
        dx1, dx2 = _maps(rows @ flat[:, :k1], x1), None
        if x2 is not None:
            torch.mm(rows.t(), _rows(x2), out=d_weight[:, k1:])
            dx2 = _maps(rows @ flat[:, k1:], x2)
        return d, d_bias, dx1, dx2, d_weight.view_as(weight)


class _UpsampleConv(Function):
    """Four 2x2 convolutions of the small image, as one matrix product; see :func:`phase_weights`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        cols = kernels.unfold(x)
        ctx.save_for_backward(cols, weight)
        ctx.size = x.shape[2:]
        return kernels.spread(cols @ weight.t(), bias, *x.shape[2:])

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cols, weight = ctx.saved_tensors
        d = d.contiguous(memory_format=_LAST)
        dz = kernels.gather(d)
        return kernels.fold(dz @ weight, *ctx.size), dz.t() @ cols, _channel_sum(d)


class _Conv(Function):
    """A 3x3 convolution without bias, for numbers of channels where cuDNN's gradient of the input is slow.

    From 384 to 128 channels at 32x32 that took 1.7 times as long on an H200 as the same thing done as a convolution of
    the output's gradient with the turned weights. (From 384 to 256 at 16x16 the two are equal.)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=1)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        d = d.contiguous(memory_format=_LAST)
        turned = weight.flip((2, 3)).transpose(0, 1).contiguous(memory_format=_LAST)
        one, mask = (1, 1), (False, True, False)
        _, d_weight, _ = torch.ops.aten.convolution_backward(d, x, weight, None, one, one, one, False, (0, 0), 1, mask)
        return F.conv2d(d, turned, padding=1), d_weight


class _Frame(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, height: int, width: int) -> Tensor:
        ctx.size = x.shape[2:]
        return kernels.frame(x, height, width)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, None, None]:
        return kernels.frame(d.contiguous(memory_format=_LAST), *ctx.size), None, None


class _Qkv(Function):
    """Queries, keys and values, each on its own: joined they would have to be taken apart and joined again."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(y, weight)
        b = y.shape[0]
        parts = zip(weight.flatten(1).chunk(3), bias.to(y.dtype).chunk(3), strict=True)
        return tuple(torch.addmm(bias_i, _rows(y), w.t()).view(b, -1, y.shape[1]) for w, bias_i in parts)

    @staticmethod
    def backward(ctx: Any, *d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, weight = ctx.saved_tensors
        rows, flat = _rows(y), weight.flatten(1)
        parts = [g.reshape(-1, g.shape[-1]) for g in d]
        dy, d_weight = parts[0] @ flat.chunk(3)[0], torch.empty_like(flat)
        for part, w in zip(parts[1:], flat.chunk(3)[1:], strict=True):
            dy.addmm_(part, w)
        for part, dw in zip(parts, d_weight.chunk(3), strict=True):
            torch.mm(part.t(), rows, out=dw)
        d_bias = torch.cat([kernels.column_sum(part.contiguous()[None])[0] for part in parts])
        return _maps(dy, y), d_weight.view_as(weight), d_bias


def _note_sum(d: Tensor, total: Tensor) -> None:
    """Notes on a gradient the sums of its channels: who made it knew them, and whose bias it is will want them."""
    d.channel_sum = d._version, total  # type: ignore[attr-defined]


def _channel_sum(d: Tensor) -> Tensor:
    """The sums of a gradient's channels: as noted on it, unless something was added to it since."""
    version, total = getattr(d, "channel_sum", (-1, d))
    return total if version == d._version else kernels.channel_sum(d)


def _rows(x: Tensor) -> Tensor:
    """(B, C, H, W), channels_last, as the matrix (B H W, C) that it is in memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    b, _, h, w = like.shape
    return rows.reshape(b, h, w, -1).permute(0, 3, 1, 2)


@dataclass
class Masks:
    """What dropout is a function of.

    Attributes:
        keys: int64 (B,), a random number for each image at this step.
    """

    keys: Tensor | None = None


@dataclass
class FusedOperations(Operations):
    """The operations on a GPU.

    Args:
        masks: shared by all parts of a network.
        layer: which part of it this is, so that each drops other places.
    """

    draws_from_generator: ClassVar[bool] = False

    masks: Masks = field(default_factory=Masks)
    layer: int = 0

    def norm_silu(
        self,
        x: Sources,
        norm: nn.GroupNorm,
        shift: Tensor | None = None,
        dropout: float = 0.0,
        silu: bool = True,
        modulation: Modulation | None = None,
    ) -> tuple[Tensor, Sources, Tensor]:
        if modulation is not None:
            raise FastPathError("a modulated norm has no fused form yet")
        x1, x2 = x[0], x[1] if len(x) > 1 else None
        keys = self.masks.keys if dropout > 0 else None
        assert dropout == 0 or keys is not None, "dropout needs a key for each image"
        settings = norm_kernels.Settings(norm.num_groups, norm.eps, silu, dropout, self.layer)
        inputs = norm_kernels.Inputs(x1, x2, shift, norm.weight, norm.bias, keys)
        y, through, again = _NormSilu.apply(settings, *inputs)
        if x2 is None:
            return y, (through,), again
        return y, (through, again), x[0]

    def conv(self, x: Tensor, conv: nn.Conv2d, bias: bool = True) -> Tensor:
        x, weight = x.to(conv.weight.dtype), conv.weight
        cin, cout = -weight.shape[1] % 8, -weight.shape[0] % 8
        if cin:
            x, weight = F.pad(x, (0, 0, 0, 0, 0, cin)), F.pad(weight, (0, 0, 0, 0, 0, cin))
        if cout:
            weight = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, cout))
        x, weight = x.contiguous(memory_format=_LAST), weight.contiguous(memory_format=_LAST)
        if weight.shape[1] > 256 and weight.shape[1] % 256 and conv.stride == (1, 1) and conv.padding == (1, 1):
            y = _Conv.apply(x, weight)
        else:
            y = F.conv2d(x, weight, None, conv.stride, conv.padding)
        if cout:
            y = y[:, : conv.out_channels].contiguous(memory_format=_LAST)
        return _Add.apply(y, conv.bias, None, None, None) if bias else y

    def conv_residual(self, h: Tensor, conv: nn.Conv2d, x: Sources, shortcut: nn.Module) -> Tensor:
        x1, x2 = (*x, None)[:2]
        h = self.conv(h, conv, bias=False)
        if isinstance(shortcut, nn.Conv2d):
            return _Add.apply(h, _bias(conv) + _bias(shortcut), x1, x2, shortcut.weight)
        return _Add.apply(h, conv.bias, x1, None, None)

    def downsample_conv(self, x: Tensor, conv: nn.Conv2d) -> Tensor:
        return self.conv(_Frame.apply(x, x.shape[2] + 1, x.shape[3] + 1), conv)

    def upsample_conv(self, x: Tensor, conv: nn.Conv2d) -> Tensor:
        return _UpsampleConv.apply(x, phase_weights(conv.weight).to(x.dtype), conv.bias)

    def attention(
        self, y: Tensor, qkv: nn.Conv2d, proj: nn.Conv2d, x: Sources, heads: int, by_head: bool = False
    ) -> Tensor:
        if by_head:
            raise FastPathError("attention by heads has no fused form yet")
        q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in _Qkv.apply(y, qkv.weight, qkv.bias))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, HW, C)
        return _Add.apply(x[0], proj.bias, _maps(out, y), None, proj.weight)

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        return F.linear(x.to(layer.weight.dtype), layer.weight, layer.bias.to(layer.weight.dtype))

    def shifts(self, emb: Tensor, layers: Sequence[nn.Linear], convs: Sequence[nn.Conv2d]) -> list[Tensor]:
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers]) + torch.cat([_bias(conv) for conv in convs])
        together = F.linear(emb.to(weight.dtype), weight).float() + bias
        return list(together.split([layer.out_features for layer in layers], dim=1))


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def phase_weights(weight: Tensor) -> Tensor:
    """Doubling, then a 3x3 convolution, as 2x2 convolutions of the small image, one for each phase of the result.

    Around row ``2 i`` of the doubled image lie rows ``i-1, i, i`` of the small one, around row ``2 i + 1`` lie
    ``i, i, i+1``: with the taps that fall on one pixel added up two are left, and the same for columns.

    Args:
        weight: (cout, cin, 3, 3).

    Returns:
        float32 (4 cout, 4 cin), outputs by phase (0, 0), (0, 1), (1, 0), (1, 1), inputs by tap in the same order.
    """
    a, b, c = weight.float().unbind(2)  # rows, each (cout, cin, 3)
    rows = torch.stack((torch.stack((a, b + c), dim=2), torch.stack((a + b, c), dim=2)))  # (2, cout, cin, 2, 3)
    a, b, c = rows.unbind(4)
    both = torch.stack((torch.stack((a, b + c), dim=4), torch.stack((a + b, c), dim=4)), dim=1)
    return both.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)  # from (2, 2, cout, cin, 2, 2)


class Shadow:
    """A network as the GPU runs it: fused operations, and low-precision copies of the large weights.

    The weights of convolutions and linear layers are copies in ``dtype`` (:meth:`refresh` copies them anew); norms and
    biases are the network's own parameters.

    Args:
        network: its parameters are float32; it is not changed.
        dtype: of the matrix arithmetic.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self.masks = Masks()
        self.module = copy.deepcopy(network)
        self._originals: list[Tensor] = []
        self._copies: list[Tensor] = []
        self.pairs: list[tuple[nn.Parameter, nn.Parameter]] = []  # the network's parameter, and the one that is run
        for mine, theirs in zip(self.module.modules(), network.modules(), strict=True):
            for name, parameter in theirs.named_parameters(recurse=False):
                run = parameter
                if isinstance(mine, (nn.Conv2d, nn.Linear)) and name == "weight" and parameter.dtype != dtype:
                    run = nn.Parameter(parameter.detach().to(dtype), parameter.requires_grad)
                    self._originals.append(parameter.detach())
                    self._copies.append(run.detach())
                setattr(mine, name, run)
                self.pairs.append((parameter, run))
        for layer, block in enumerate(m for m in self.module.modules() if isinstance(m, Block)):
            block.ops = FusedOperations(self.masks, layer)

    def refresh(self) -> None:
        """Takes over the network's weights."""
        if self._copies:
            torch._foreach_copy_(self._copies, self._originals)

    def __call__(self, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        out: Tensor = self.module(x, t, cond)
        return out
