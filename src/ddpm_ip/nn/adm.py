"""ADM's U-Net (Dhariwal & Nichol 2021, arXiv 2105.05233, section 3; the network of DDPM-IP, arXiv 2301.11706).

Unlike in DDPM's U-Net, time and class act on the second norm of a residual block, as ``(1 + scale) norm(h) +
offset`` (``scale_shift_norm``); residual blocks halve and double the image (``resblock_updown``); attention has heads
of a fixed width at several resolutions; and a network that learns its variance has twice the output channels
(``diffusion.var_type: learned_range``). Improved DDPM's network (Nichol & Dhariwal 2021, arXiv 2102.09672) is the same
one with ``resblock_updown: false`` and a number of heads. Details and initialisation follow the published
implementation (openai/guided-diffusion, MIT), so its weights give its output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt, MinLen, MultipleOf
from torch import Tensor, nn

from ddpm_ip.errors import ConfigError
from ddpm_ip.nn.blocks import (
    AttnBlock,
    Downsample,
    Residual,
    Upsample,
    check_attention,
    check_halvings,
    check_heads,
    embedding,
    heads,
)
from ddpm_ip.nn.labels import LabelEmbedding
from ddpm_ip.nn.network import Cond
from ddpm_ip.nn.ops import Modulation, Sources
from ddpm_ip.nn.ushape import Parts, UShape

Condition = tuple[Tensor, Modulation | None]  # what a residual block's second norm takes, before it and after
Resample = Literal["down", "up"]


@dataclass(frozen=True)
class ADMConfig:
    """The sizes of an :class:`ADM`; the defaults are the network of DDPM-IP's CIFAR-10 recipe.

    Args:
        in_channels: channels of the images.
        dim: ``model_channels``, the unit of widths.
        dim_mults: width of each resolution, in units of ``dim``, which may be fractions such as 0.5; every further one
            halves the image.
        use_attn: which resolutions have attention after their residual blocks (the middle always has).
        num_res_blocks: residual blocks a resolution on the way down (one more on the way up).
        n_heads: attention heads; instead of their width.
        head_channels: width of an attention head; None where ``n_heads`` says how many there are.
        dropout: inside the residual blocks, in [0, 1).
        num_groups: groups of every GroupNorm.
        norm_eps: added to the variance in every GroupNorm.
        resblock_updown: residual blocks halve and double; else a strided convolution, and doubling with a convolution.
        scale_shift_norm: time and class scale and shift the second norm's output; else they shift its input.
        attention_order: how the channels of queries, keys and values lie in a checkpoint: ``legacy`` head by head,
            ``new`` all queries first. It changes nothing for a network that starts from scratch.
        time_scale: what times are multiplied by before they are embedded; improved-diffusion's ``rescale_timesteps`` is
            ``1000 / diffusion.total_steps``.
    """

    name: Literal["adm"] = field(default="adm", kw_only=True)
    in_channels: Annotated[int, Ge(1)] = 3
    dim: Annotated[int, Ge(4), MultipleOf(2)] = 128
    dim_mults: Annotated[tuple[Annotated[int | float, Gt(0), Le(1024)], ...], MinLen(1)] = (1, 2, 2, 2)
    use_attn: tuple[bool, ...] = (False, True, True, False)
    num_res_blocks: Annotated[int, Ge(1)] = 3
    n_heads: Annotated[int, Ge(1)] = 1
    head_channels: Annotated[int, Ge(1)] | None = 32
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.3
    num_groups: Annotated[int, Ge(1)] = 32
    norm_eps: Annotated[float, Gt(0), Lt(1)] = 1e-5
    resblock_updown: bool = True
    scale_shift_norm: bool = True
    attention_order: Literal["legacy", "new"] = "new"
    time_scale: Annotated[float, Gt(0), Le(1000)] = 1.0

    def build(self, channels: int, out_channels: int, classes: int | None) -> ADM:
        """A fresh network; ``classes`` adds their embedding and changes no other weight.

        Raises:
            ConfigError: sizes that do not fit together.
        """
        return ADM(self, channels, out_channels, classes)

    def widths(self) -> list[int]:
        """Channels of each resolution.

        Raises:
            ConfigError: one that is no whole number, or not divisible by ``num_groups``.
        """
        for mult in self.dim_mults:
            if self.dim * mult != round(self.dim * mult) or round(self.dim * mult) % self.num_groups:
                raise ConfigError(
                    f"model width {self.dim * mult:g} (dim {self.dim} times {mult:g} of dim_mults) is not divisible by "
                    f"num_groups {self.num_groups}"
                )
        return [round(self.dim * mult) for mult in self.dim_mults]

    def check(self, height: int, width: int) -> None:
        """Refuses sizes that do not fit together, and images that cannot be halved as often as there are resolutions.

        Raises:
            ConfigError: says by what they must be divisible.
        """
        check_halvings(height, width, len(self.dim_mults) - 1)
        check_attention(self.use_attn, self.dim_mults, self.n_heads, self.head_channels)
        check_heads(self.use_attn, self.widths(), self.n_heads, self.head_channels)

    def activation_bytes(self, height: int, width: int, element_size: int) -> int:
        """About ten activations of the largest resolution on the way up are alive at one time, besides the skips."""
        widths = [float(self.dim * mult) for mult in self.dim_mults]
        places = [height * width / 4**i for i in range(len(widths))]
        skips = sum((self.num_res_blocks + 1) * p * w for p, w in zip(places, widths, strict=True))
        coming_up = [*widths[1:], 0]
        most = max(p * max(pair) for p, *pair in zip(places, widths, coming_up, strict=True))
        return int((10 * most + skips) * element_size)


class ADM(UShape):
    """``(x, t, cond) -> prediction``.

    Args:
        config: sizes.
        in_channels: channels of the images.
        out_channels: channels of the prediction.
        classes: number of classes of a conditional network; None for an unconditional one.

    Raises:
        ConfigError: sizes that do not fit together.
    """

    def __init__(self, config: ADMConfig, in_channels: int, out_channels: int, classes: int | None = None) -> None:
        check_attention(config.use_attn, config.dim_mults, config.n_heads, config.head_channels)
        widths = config.widths()

        def res(cin: int, cout: int, resample: Resample | None = None) -> ADMResBlock:
            return ADMResBlock(config, cin, cout, resample)

        def attn(c: int, wanted: bool) -> nn.Module:
            if not wanted:
                return nn.Identity()
            n, by_head = heads(c, config.n_heads, config.head_channels), config.attention_order == "legacy"
            return AttnBlock(c, n, config.num_groups, config.norm_eps, by_head)

        def down(c: int) -> nn.Module:
            return res(c, c, "down") if config.resblock_updown else Downsample(c, "both")

        def up(c: int) -> nn.Module:
            return res(c, c, "up") if config.resblock_updown else Upsample(c)

        parts = Parts(res, attn, down, up, lambda c: nn.GroupNorm(config.num_groups, c, eps=config.norm_eps))
        levels = list(zip(widths, config.use_attn, strict=True))
        super().__init__((in_channels, out_channels), config.dim, widths[0], levels, config.num_res_blocks, parts)
        self.config = config
        _zero_last_layers(self)
        self.labels = None if classes is None else LabelEmbedding(classes, 4 * config.dim)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def conditions(self, t: Tensor, cond: Cond | None) -> list[Condition]:
        """Time and class as every residual block sees them, in the order in which they are run."""
        emb = embedding(self, time_embedding(t, self.config.dim, self.config.time_scale), cond)
        blocks = [m for m in self.modules() if isinstance(m, ADMResBlock)]
        layers, convs = [b.emb for b in blocks], [b.conv1 for b in blocks]
        if not self.config.scale_shift_norm:
            return [(shift, None) for shift in self.ops.shifts(emb, layers, convs)]
        shifts = [conv.bias for conv in convs if conv.bias is not None]
        return list(zip(shifts, self.ops.modulations(emb, layers), strict=True))


class ADMResBlock(Residual):
    """Two 3x3 convolutions around a shortcut; with ``resample`` both ways are halved or doubled before the first."""

    def __init__(self, config: ADMConfig, cin: int, cout: int, resample: Resample | None) -> None:
        super().__init__()
        groups, eps = config.num_groups, config.norm_eps
        self.norm1 = nn.GroupNorm(groups, cin, eps=eps)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.emb = nn.Linear(4 * config.dim, 2 * cout if config.scale_shift_norm else cout)
        self.norm2 = nn.GroupNorm(groups, cout, eps=eps)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()
        self.dropout, self.resample = config.dropout, resample

    def run(self, x: Sources, shift: Tensor, modulation: Modulation | None) -> tuple[Tensor, Tensor]:
        """(B, cin, H, W), joined -> (B, cout, H', W'), and the first of what went in."""
        y, x, again = self.ops.norm_silu(x, self.norm1)
        if self.resample == "up":
            x = (self.ops.double(x[0]),)
            h = self.ops.upsample_conv(y, self.conv1, bias=False)  # its bias is the shift, or part of it
        else:
            if self.resample == "down":
                y, x = self.ops.pool(y), (self.ops.pool(x[0]),)
            h = self.ops.conv(y, self.conv1, bias=False)
        dropout = self.dropout if self.training else 0.0
        y, _, _ = self.ops.norm_silu((h,), self.norm2, shift, dropout, modulation=modulation)
        return self.ops.conv_residual(y, self.conv2, x, self.shortcut), again


def time_embedding(t: Tensor, dim: int, scale: float = 1.0) -> Tensor:
    """Cosines, then sines of ``scale t`` (B,) at the frequencies ``10000^(-i / (dim / 2))``, float32 (B, dim)."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = (scale * t.float())[:, None] * frequencies[None, :]
    return torch.cat((angles.cos(), angles.sin()), dim=1)


def _zero_last_layers(net: ADM) -> None:
    """The last layer of every branch begins at zero; all others as PyTorch makes them."""
    last = [net.conv_out]
    last += [m.conv2 for m in net.modules() if isinstance(m, ADMResBlock)]
    last += [m.proj for m in net.modules() if isinstance(m, AttnBlock)]
    for module in last:
        assert module.bias is not None
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
