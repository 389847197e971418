"""What the U-Nets have in common: their blocks, and the checks of their sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, noop_context_fn

from ddpm_ip.errors import ConfigError
from ddpm_ip.nn.network import Cond
from ddpm_ip.nn.ops import Operations

Padding = Literal["right_below", "both"]


class Block(nn.Module):
    """A part of the network whose costly operations can be exchanged for faster ones of the same meaning."""

    ops = Operations()


class Residual(Block):
    """A block ``run``, whose activations can be computed again in the backward pass instead of kept until then.

    Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174), a block at a time: only the input of a block is kept.
    The gradients are the same, to the last bit on a CPU.
    """

    recompute = False
    run: Callable[..., Any]

    def forward(self, *inputs: Any) -> Any:
        if not (self.recompute and torch.is_grad_enabled()):
            return self.run(*inputs)
        # Dropout that draws from torch's generator must find it as it was; fused masks are a function of keys alone.
        drawn = self.ops.draws_from_generator
        apple = drawn and next(self.parameters()).device.type == "mps"
        contexts = partial(same_masks, torch.mps) if apple else noop_context_fn
        return checkpoint(self.run, *inputs, use_reentrant=False, preserve_rng_state=drawn, context_fn=contexts)


def same_masks(generator: Any) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of a block's first run and of its second in the backward pass, whose dropout masks must be the same.

    PyTorch's own checkpoint restores the CPU's generator and CUDA's, and passes over that of ``torch.mps``.

    Args:
        generator: with ``get_rng_state`` and ``set_rng_state``, as ``torch.mps`` has them.
    """
    first: Tensor = generator.get_rng_state()

    @contextmanager
    def again() -> Iterator[None]:
        now = generator.get_rng_state()
        generator.set_rng_state(first)
        try:
            yield
        finally:
            generator.set_rng_state(now)

    return nullcontext(), again()


def recompute_blocks(network: nn.Module) -> None:
    """Has every residual block and attention compute its activations again in the backward pass.

    Raises:
        ConfigError: the network has no such blocks.
    """
    blocks = [m for m in network.modules() if isinstance(m, Residual)]
    if not blocks:
        raise ConfigError(
            f"train.gradient_checkpointing: {type(network).__name__} has no block that can be computed again (a "
            "ddpm_ip.nn.blocks.Residual): set it to false"
        )
    for block in blocks:
        block.recompute = True


class AttnBlock(Residual):
    """Self-attention over all places, with 1x1 projections, around a shortcut.

    (``by_head`` is the order of the channels of ``qkv``: see :meth:`ddpm_ip.nn.ops.Operations.attention`.)
    """

    def __init__(self, c: int, heads: int, groups: int, eps: float, by_head: bool = False) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, c, eps=eps)
        self.qkv = nn.Conv2d(c, 3 * c, 1)
        self.proj = nn.Conv2d(c, c, 1)
        self.heads, self.by_head = heads, by_head

    def run(self, x: Tensor) -> Tensor:  # (B, c, H, W)
        y, through, _ = self.ops.norm_silu((x,), self.norm, silu=False)
        return self.ops.attention(y, self.qkv, self.proj, through, self.heads, self.by_head)


class Downsample(Block):
    """A strided 3x3 convolution, padded on the right and below as TensorFlow does (the paper's code), or all around."""

    def __init__(self, c: int, padding: Padding) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, stride=2, padding=1 if padding == "both" else 0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B, c, H, W) -> (B, c, H/2, W/2), and what went in
        halve = self.ops.conv if self.conv.padding == (1, 1) else self.ops.downsample_conv
        return halve(x, self.conv), x


class Upsample(Block):
    """Nearest-neighbour doubling and a 3x3 convolution."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, c, H, W) -> (B, c, 2H, 2W)
        return self.ops.upsample_conv(x, self.conv)


def embedding(network: Any, waves: Tensor, cond: Cond | None) -> Tensor:
    """What every residual block takes: of the time, by the layers ``network.time``, and of the class (``labels``).

    Args:
        network: a :class:`Block` with these parts, of which ``labels`` may be None.
        waves: sines and cosines of the time, (B, dim).
        cond: None, or without labels, for no class.

    Returns:
        (B, 4 dim).
    """
    first, _, second = network.time
    emb = network.ops.linear(F.silu(network.ops.linear(waves, first)), second)
    if network.labels is not None and cond is not None and cond.labels is not None:
        emb = emb + network.labels(cond.labels)
    return F.silu(emb)


def heads(width: int, n_heads: int, head_channels: int | None) -> int:
    """How many heads attention of a width has.

    Raises:
        ConfigError: the width cannot be divided that way.
    """
    if width % (head_channels or n_heads):
        told = f"n_heads {n_heads}" if head_channels is None else f"head_channels {head_channels}"
        raise ConfigError(f"model width {width}, which has attention, is not divisible by {told}")
    return n_heads if head_channels is None else width // head_channels


def check_attention(
    use_attn: Sequence[bool], dim_mults: Sequence[float], n_heads: int, head_channels: int | None
) -> None:
    """Refuses settings of the attention that contradict each other.

    Raises:
        ConfigError: not one ``use_attn`` a resolution, or both a number of heads and their width.
    """
    if len(use_attn) != len(dim_mults):
        raise ConfigError(
            f"model.use_attn has {len(use_attn)} entries, model.dim_mults {len(dim_mults)}: give one a resolution"
        )
    if head_channels is not None and n_heads != 1:
        raise ConfigError(
            f"model.n_heads {n_heads} and model.head_channels {head_channels} both say how many heads attention has: "
            "set model.head_channels to null, or leave model.n_heads out"
        )


def check_heads(use_attn: Sequence[bool], widths: Sequence[int], n_heads: int, head_channels: int | None) -> None:
    """Refuses widths with attention, and that of the middle, which always has it, that heads do not divide.

    Raises:
        ConfigError: there is one; see :func:`heads`.
    """
    for width in (*(w for w, wanted in zip(widths, use_attn, strict=True) if wanted), widths[-1]):
        heads(width, n_heads, head_channels)


def check_halvings(height: int, width: int, halvings: int) -> None:
    """Refuses images that cannot be halved as often as there are resolutions after the first.

    Raises:
        ConfigError: says by what they must be divisible.
    """
    if height % 2**halvings or width % 2**halvings:
        raise ConfigError(
            f"images of {height}x{width} cannot be halved {halvings} times (model.dim_mults): choose a data.image_size "
            f"divisible by {2**halvings}, or fewer model.dim_mults"
        )
