"""The operations of :mod:`ddpm_ip.nn.fused.operations`, each with its gradient written by hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from ddpm_ip.nn.fused import kernels
from ddpm_ip.nn.fused import norm as norm_kernels
from ddpm_ip.nn.fused.phases import phases, phases_gradient

LAST = torch.channels_last


class NormSilu(Function):
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
        dy = dy.contiguous(memory_format=LAST)
        r1, r2 = (None if r is None else r.contiguous(memory_format=LAST) for r in through)
        if x2 is None and r1 is None:
            r1, r2 = r2, None
        if x2 is not None and (r1 is None) != (r2 is None):  # one of two joined maps is used elsewhere
            r1 = torch.zeros_like(x1) if r1 is None else r1
            r2 = torch.zeros_like(x2) if r2 is None else r2
        dx1, dx2, sums = norm_kernels.norm_backward(inputs, ctx.settings, stats, dy, r1, r2)
        shift = inputs.shift
        same_for_all = shift is not None and shift.ndim == 1
        d_weight, d_bias, total, *d_shifts = kernels.column_sum(sums[: 4 if same_for_all else 3]).unbind(0)
        d_shift = None if shift is None else d_shifts[0] if same_for_all else sums[3]
        d_modulation = (None, None) if inputs.scale is None else sums[-2:].unbind(0)
        note_sum(dx1, total[: x1.shape[1]])
        return None, dx1, dx2, d_shift, d_weight, d_bias, None, *d_modulation


class Add(Function):
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
        d = d.contiguous(memory_format=LAST)
        d_bias = channel_sum(d)
        if weight is None:
            return d, d_bias, d if ctx.adds_x else None, None, None
        rows, k1 = rows_of(d), x1.shape[1]
        flat = weight.flatten(1)
        d_weight = torch.empty_like(flat)
        torch.mm(rows.t(), rows_of(x1), out=d_weight[:, :k1])
        dx1, dx2 = maps(rows @ flat[:, :k1], x1), None
        if x2 is not None:
            torch.mm(rows.t(), rows_of(x2), out=d_weight[:, k1:])
            dx2 = maps(rows @ flat[:, k1:], x2)
        return d, d_bias, dx1, dx2, d_weight.view_as(weight)


class UpsampleConv(Function):
    """Four 2x2 convolutions of the small image, as one matrix product; see :func:`ddpm_ip.nn.fused.phases.phases`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        cols = kernels.unfold(x)
        ctx.save_for_backward(cols, weight)
        ctx.size, ctx.adds_bias = x.shape[2:], bias is not None
        return kernels.spread(cols @ weight.t(), bias, *x.shape[2:])

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        cols, weight = ctx.saved_tensors
        d = d.contiguous(memory_format=LAST)
        dz = kernels.gather(d)
        return kernels.fold(dz @ weight, *ctx.size), dz.t() @ cols, channel_sum(d) if ctx.adds_bias else None


class Phases(Function):
    """See :func:`ddpm_ip.nn.fused.phases.phases`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return phases(weight)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Tensor:
        (weight,) = ctx.saved_tensors
        return phases_gradient(d.contiguous(), weight)


class Conv(Function):
    """A 3x3 convolution without bias, for numbers of channels where cuDNN's gradient of the input is slow.

    From 384 to 128 channels at 32x32 it took 1.7 times as long on an H200 as the same thing done as a convolution of
    the output's gradient with the flipped weights. (From 384 to 256 at 16x16 the two take equally long.)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=1)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        d = d.contiguous(memory_format=LAST)
        turned = weight.flip((2, 3)).transpose(0, 1).contiguous(memory_format=LAST)
        one, mask = (1, 1), (False, True, False)
        _, d_weight, _ = torch.ops.aten.convolution_backward(d, x, weight, None, one, one, one, False, (0, 0), 1, mask)
        return F.conv2d(d, turned, padding=1), d_weight


class Frame(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, height: int, width: int) -> Tensor:
        ctx.size = x.shape[2:]
        return kernels.frame(x, height, width)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, None, None]:
        return kernels.frame(d.contiguous(memory_format=LAST), *ctx.size), None, None


class Halve(Function):
    """The sums of 2x2 places times a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return kernels.halve(x, factor)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, None]:
        return kernels.double(d.contiguous(memory_format=LAST), ctx.factor), None


class Double(Function):
    """Every place four times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return kernels.double(x, 1.0)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Tensor:
        return kernels.halve(d.contiguous(memory_format=LAST), 1.0)


class Qkv(Function):
    """Queries, keys and values, each on its own: joined they would have to be taken apart and joined again."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(y, weight)
        b = y.shape[0]
        parts = zip(weight.flatten(1).chunk(3), bias.to(y.dtype).chunk(3), strict=True)
        return tuple(torch.addmm(bias_i, rows_of(y), w.t()).view(b, -1, y.shape[1]) for w, bias_i in parts)

    @staticmethod
    def backward(ctx: Any, *d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, weight = ctx.saved_tensors
        rows, flat = rows_of(y), weight.flatten(1)
        parts = [g.reshape(-1, g.shape[-1]) for g in d]
        dy, d_weight = parts[0] @ flat.chunk(3)[0], torch.empty_like(flat)
        for part, w in zip(parts[1:], flat.chunk(3)[1:], strict=True):
            dy.addmm_(part, w)
        for part, dw in zip(parts, d_weight.chunk(3), strict=True):
            torch.mm(part.t(), rows, out=dw)
        d_bias = torch.cat([kernels.column_sum(part.contiguous()[None])[0] for part in parts])
        return maps(dy, y), d_weight.view_as(weight), d_bias


def note_sum(d: Tensor, total: Tensor) -> None:
    """Notes on a gradient the sums of its channels: what made it knew them, and the gradient of a bias needs them."""
    d.channel_sum = d._version, total  # type: ignore[attr-defined]


def channel_sum(d: Tensor) -> Tensor:
    """The sums of a gradient's channels: as noted on it, unless something was added to it since."""
    version, total = getattr(d, "channel_sum", (-1, d))
    if version != d._version:
        return kernels.channel_sum(d)
    return total.detach()  # a tensor of its own, else autograd copies it


def rows_of(x: Tensor) -> Tensor:
    """(B, C, H, W), channels_last, as the matrix (B H W, C) that it is in memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def maps(rows: Tensor, like: Tensor) -> Tensor:
    b, _, h, w = like.shape
    return rows.reshape(b, h, w, -1).permute(0, 3, 1, 2)
