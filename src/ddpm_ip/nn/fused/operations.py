"""The operations of the U-Net as few passes over memory: the GPU form of :class:`ddpm_ip.nn.ops.Operations`.

Convolutions and matrix products stay cuDNN's and cuBLAS's; what lies between them goes through the kernels of
:mod:`ddpm_ip.nn.fused.norm` and :mod:`ddpm_ip.nn.fused.kernels`; gradients are in :mod:`ddpm_ip.nn.fused.functions`.
What is fused, and why:

* GroupNorm, the time embedding's shift before it or its scale and offset after it, SiLU and dropout are one kernel,
  forward and backward. It reads feature maps that are meant as joined where they are, so the up path joins nothing.
* What the time embedding does in all blocks is one matrix product.
* A norm hands its input through, and adds the gradient that comes back for it to its own in the same pass.
* A convolution's bias is added where its output is read or written next, never in a pass of its own.
* Doubling followed by a 3x3 convolution is four 2x2 convolutions of the small image: 4/9 of the arithmetic.
* The 3-channel ends are padded with zeros to 8 channels, which the matrix units can work on.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_ip.nn.fused import norm as norm_kernels
from ddpm_ip.nn.fused.functions import LAST, Add, Conv, Double, Frame, Halve, NormSilu, Phases, Qkv, UpsampleConv, maps
from ddpm_ip.nn.network import Cond
from ddpm_ip.nn.ops import Modulation, Operations, Sources
from ddpm_ip.nn.unet import Block


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
        x1, x2 = x[0], x[1] if len(x) > 1 else None
        keys = self.masks.keys if dropout > 0 else None
        assert dropout == 0 or keys is not None, "dropout needs a key for each image"
        settings = norm_kernels.Settings(norm.num_groups, norm.eps, silu, dropout, self.layer)
        inputs = norm_kernels.Inputs(x1, x2, shift, norm.weight, norm.bias, keys, *_beside(modulation))
        y, through, again = NormSilu.apply(settings, *inputs)
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
        x, weight = x.contiguous(memory_format=LAST), weight.contiguous(memory_format=LAST)
        if weight.shape[1] > 256 and weight.shape[1] % 256 and _keeps_size(conv):
            y = Conv.apply(x, weight)
        else:
            y = F.conv2d(x, weight, None, conv.stride, conv.padding)
        if cout:
            y = y[:, : conv.out_channels].contiguous(memory_format=LAST)
        return Add.apply(y, conv.bias, None, None, None) if bias else y

    def conv_residual(self, h: Tensor, conv: nn.Conv2d, x: Sources, shortcut: nn.Module) -> Tensor:
        x1, x2 = (*x, None)[:2]
        h = self.conv(h, conv, bias=False)
        if isinstance(shortcut, nn.Conv2d):
            return Add.apply(h, _bias(conv) + _bias(shortcut), x1, x2, shortcut.weight)
        return Add.apply(h, conv.bias, x1, None, None)

    def downsample_conv(self, x: Tensor, conv: nn.Conv2d) -> Tensor:
        return self.conv(Frame.apply(x, x.shape[2] + 1, x.shape[3] + 1), conv)

    def upsample_conv(self, x: Tensor, conv: nn.Conv2d, bias: bool = True) -> Tensor:
        return UpsampleConv.apply(
            x, Phases.apply(conv.weight.contiguous(memory_format=LAST)), conv.bias if bias else None
        )

    def pool(self, x: Tensor) -> Tensor:
        return Halve.apply(x.contiguous(memory_format=LAST), 0.25)

    def double(self, x: Tensor) -> Tensor:
        return Double.apply(x.contiguous(memory_format=LAST))

    def attention(
        self, y: Tensor, qkv: nn.Conv2d, proj: nn.Conv2d, x: Sources, heads: int, by_head: bool = False
    ) -> Tensor:
        weight, bias = qkv.weight, _bias(qkv)
        if by_head:  # reorder the weights, which are small, and not the activations
            weight, bias = _by_kind(weight, heads), _by_kind(bias, heads)
        q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in Qkv.apply(y, weight, bias))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, HW, C)
        return Add.apply(x[0], proj.bias, maps(out, y), None, proj.weight)

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        return F.linear(x.to(layer.weight.dtype), layer.weight, layer.bias.to(layer.weight.dtype))

    def shifts(self, emb: Tensor, layers: Sequence[nn.Linear], convs: Sequence[nn.Conv2d]) -> list[Tensor]:
        bias = torch.cat([layer.bias for layer in layers]) + torch.cat([_bias(conv) for conv in convs])
        together = _product(emb, layers, bias)
        return list(together.split([layer.out_features for layer in layers], dim=1))

    def modulations(self, emb: Tensor, layers: Sequence[nn.Linear]) -> list[Modulation]:
        halves = [layer.out_features // 2 for layer in layers for _ in range(2)]
        parts = _product(emb, layers, torch.cat([layer.bias for layer in layers])).split(halves, dim=1)
        return list(zip(parts[::2], parts[1::2], strict=True))


def _product(emb: Tensor, layers: Sequence[nn.Linear], bias: Tensor) -> Tensor:
    """What all layers make of ``emb``, side by side, float32: one matrix product."""
    weight = torch.cat([layer.weight for layer in layers])
    return F.linear(emb.to(weight.dtype), weight).float() + bias


def _beside(modulation: Modulation | None) -> tuple[Tensor | None, Tensor | None]:
    """Scale and offset whose rows are equally far apart, as the kernels want them; so are those of `modulations`."""
    if modulation is None:
        return None, None
    scale, offset = modulation
    if scale.stride() == offset.stride() and scale.stride(1) == 1:
        return scale, offset
    return scale.contiguous(), offset.contiguous()


def _by_kind(rows: Tensor, heads: int) -> Tensor:
    """Rows (queries, keys, values of the first head, of the second, ...) as (all queries, all keys, all values)."""
    return rows.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)


def _keeps_size(conv: nn.Conv2d) -> bool:
    return (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


class Shadow:
    """A network as the GPU runs it: fused operations, and low-precision copies of the large weights.

    The weights of convolutions and linear layers are copies in ``dtype`` (:meth:`refresh` copies them again); norms and
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
