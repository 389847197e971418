"""The U-Net of DDPM (Ho et al. 2020, arXiv 2006.11239, appendix B), in PyTorch.

With ``dim=128, dim_mults=(1, 2, 2, 2)``, attention at the second resolution and two blocks a resolution it is the
CIFAR-10 network of the paper: 35,746,307 parameters. Padding, order of operations and initialisation follow the paper's
code, so converted weights of the original give the original's output. Activations are NHWC in memory (channels_last).

Two families have the same network with other constants: ``padding="both", norm_eps=1e-5`` is that of xyfJASON's
repository, and with ``freq_shift=0`` and ``head_channels=8`` besides it is diffusers' ``UNet2DModel`` by default (which
has the cosines before the sines: an order of the columns of ``time.0.weight``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt, MinLen, MultipleOf
from torch import Tensor, nn

from ddpm_ip.errors import ConfigError
from ddpm_ip.nn.blocks import (
    AttnBlock,
    Block,
    Downsample,
    Padding,
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
from ddpm_ip.nn.ops import Sources
from ddpm_ip.nn.ushape import Parts, UShape

__all__ = ["AttnBlock", "Block", "Downsample", "ResBlock", "UNet", "UNetConfig", "Upsample", "time_embedding"]


@dataclass(frozen=True)
class UNetConfig:
    """The sizes of a :class:`UNet`; the defaults are the CIFAR-10 network of the paper.

    Args:
        in_channels: channels of the images.
        dim: width of the first resolution.
        dim_mults: width of each resolution, in units of ``dim``; every further one halves the image.
        use_attn: which resolutions have attention after their residual blocks (the middle always has).
        num_res_blocks: residual blocks a resolution on the way down (one more on the way up).
        n_heads: attention heads.
        dropout: inside the residual blocks, in [0, 1).
        num_groups: groups of every GroupNorm.
        padding: of the strided convolutions: ``right_below`` as in the paper's code, or ``both``, a pixel all around.
        norm_eps: added to the variance in every GroupNorm.
        head_channels: width of an attention head, in place of their number.
        freq_shift: 1 has the lowest frequency of the time embedding at 1/10000; with 0 the next one would be there.
    """

    name: Literal["unet"] = field(default="unet", kw_only=True)
    in_channels: Annotated[int, Ge(1)] = 3
    dim: Annotated[int, Ge(4), MultipleOf(2)] = 128
    dim_mults: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (1, 2, 2, 2)
    use_attn: tuple[bool, ...] = (False, True, False, False)
    num_res_blocks: Annotated[int, Ge(1)] = 2
    n_heads: Annotated[int, Ge(1)] = 1
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    num_groups: Annotated[int, Ge(1)] = 32
    padding: Padding = "right_below"
    norm_eps: Annotated[float, Gt(0), Lt(1)] = 1e-6
    head_channels: Annotated[int, Ge(1)] | None = None
    freq_shift: Literal[0, 1] = 1

    def build(self, channels: int, out_channels: int, classes: int | None) -> UNet:
        """A fresh network; ``classes`` adds their embedding and changes no other weight.

        Raises:
            ConfigError: sizes that do not fit together.
        """
        sizes = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "in_channels")}
        return UNet(channels, out_channels, classes=classes, **sizes)

    def check(self, height: int, width: int) -> None:
        """Refuses sizes that do not fit together, and images that cannot be halved as often as there are resolutions.

        Raises:
            ConfigError: says by what they must be divisible.
        """
        check_halvings(height, width, len(self.dim_mults) - 1)
        check_attention(self.use_attn, self.dim_mults, self.n_heads, self.head_channels)
        widths = _widths(self.dim, self.dim_mults, self.num_groups, self.n_heads)
        check_heads(self.use_attn, widths, self.n_heads, self.head_channels)

    def activation_bytes(self, height: int, width: int, element_size: int) -> int:
        """About ten activations of full resolution and greatest width are alive at one time.

        (Measured: the CIFAR-10 network takes 5 MB an image in bf16, an activation 32 * 32 * 256 * 2 bytes.)
        """
        return 10 * height * width * self.dim * max(self.dim_mults) * element_size


def _widths(dim: int, dim_mults: Sequence[int], num_groups: int, n_heads: int) -> list[int]:
    """Channels of each resolution."""
    widths = [dim * m for m in dim_mults]
    if bad := [c for c in widths if c % num_groups or c % n_heads]:
        raise ConfigError(f"model width {bad[0]} is not divisible by num_groups {num_groups} and n_heads {n_heads}")
    return widths


class UNet(UShape):
    """``(x, t) -> prediction``: a U-Net with residual blocks, attention and a time embedding.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the prediction.
        dim, dim_mults, use_attn, num_res_blocks, n_heads, dropout, num_groups: see :class:`UNetConfig`.
        padding, norm_eps, head_channels, freq_shift: see there, too.
        classes: number of classes of a conditional network; None for an unconditional one.

    Raises:
        ConfigError: sizes that do not fit together.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dim: int = 128,
        dim_mults: Sequence[int] = (1, 2, 2, 2),
        use_attn: Sequence[bool] = (False, True, False, False),
        num_res_blocks: int = 2,
        n_heads: int = 1,
        dropout: float = 0.1,
        num_groups: int = 32,
        *,
        padding: Padding = "right_below",
        norm_eps: float = 1e-6,
        head_channels: int | None = None,
        freq_shift: int = 1,
        classes: int | None = None,
    ) -> None:
        check_attention(use_attn, dim_mults, n_heads, head_channels)
        widths = _widths(dim, dim_mults, num_groups, n_heads)

        def attn(c: int, wanted: bool) -> nn.Module:
            return AttnBlock(c, heads(c, n_heads, head_channels), num_groups, norm_eps) if wanted else nn.Identity()

        parts = Parts(
            res=lambda cin, cout: ResBlock(cin, cout, 4 * dim, dropout, num_groups, norm_eps),
            attn=attn,
            down=lambda c: Downsample(c, padding),
            up=Upsample,
            norm=lambda c: nn.GroupNorm(num_groups, c, eps=norm_eps),
        )
        levels = list(zip(widths, use_attn, strict=True))
        super().__init__((in_channels, out_channels), dim, dim, levels, num_res_blocks, parts)
        self.dim, self.freq_shift = dim, freq_shift
        _initialise(self)
        self.labels = None if classes is None else LabelEmbedding(classes, 4 * dim)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def conditions(self, t: Tensor, cond: Cond | None) -> list[tuple[Tensor]]:
        """The time embedding as every residual block sees it, in the order in which they are run."""
        emb = embedding(self, time_embedding(t, self.dim, self.freq_shift), cond)
        blocks = [m for m in self.modules() if isinstance(m, ResBlock)]
        return [(shift,) for shift in self.ops.shifts(emb, [b.emb for b in blocks], [b.conv1 for b in blocks])]


class ResBlock(Residual):
    """Two 3x3 convolutions with the time embedding between them, around a shortcut."""

    def __init__(self, cin: int, cout: int, emb: int, dropout: float, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, cin, eps=eps)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.emb = nn.Linear(emb, cout)
        self.norm2 = nn.GroupNorm(groups, cout, eps=eps)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()
        self.dropout = dropout

    def run(self, x: Sources, shift: Tensor) -> tuple[Tensor, Tensor]:  # x (B, cin, H, W), shift (B, cout)
        y, x, again = self.ops.norm_silu(x, self.norm1)
        h = self.ops.conv(y, self.conv1, bias=False)  # its bias is part of the shift
        dropout = self.dropout if self.training else 0.0
        y, _, _ = self.ops.norm_silu((h,), self.norm2, shift, dropout)
        return self.ops.conv_residual(y, self.conv2, x, self.shortcut), again  # (B, cout, H, W), and what went in


def time_embedding(t: Tensor, dim: int, freq_shift: int = 1) -> Tensor:
    """Sines, then cosines of ``t`` (B,) at the frequencies ``10000^(-i / (dim/2 - freq_shift))``, float32 (B, dim)."""
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10000) / (half - freq_shift)))
    angles = t.float()[:, None] * frequencies[None, :]
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def _initialise(net: UNet) -> None:
    """The paper's code: uniform with variance 1 / fan_avg, and zero for the last layer of every branch."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    last = [net.conv_out]
    last += [m.conv2 for m in net.modules() if isinstance(m, ResBlock)]
    last += [m.proj for m in net.modules() if isinstance(m, AttnBlock)]
    for module in last:
        nn.init.zeros_(module.weight)
