"""The vision transformer of DINOv2, with the names that the tensors have in its official files.

Dosovitskiy et al. 2021 (arXiv 2010.11929), with layer scale (Touvron et al. 2021, arXiv 2103.17239) and, in the giant,
SwiGLU (Shazeer 2020, arXiv 2002.05202), as Oquab et al. 2023 trained it (arXiv 2304.07193). Inference only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, silu

PATCH = 14  # pixels
GRID = 37  # patches a side that positions were learned for: images of 518 pixels
OFFSET = (
    0.1  # of the official code, which resamples positions by (side + 0.1) / 37; the result is not that of side / 37
)


@dataclass(frozen=True)
class Size:
    """How large a network is.

    Args:
        dim: of a token.
        depth: blocks.
        heads: of the attention.
        swiglu: whether the layer after it is a SwiGLU, else one with GELU.
    """

    dim: int
    depth: int
    heads: int
    swiglu: bool = False


class VisionTransformer(nn.Module):
    """Images to their class token."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID**2, size.dim))
        self.mask_token = nn.Parameter(torch.zeros(1, size.dim))  # of the training; in the files, and not used
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, size.dim, PATCH, stride=PATCH)})
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.dim, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Class tokens after the last normalization.

        Args:
            images: ``float32`` (B, 3, 224, 224), less ImageNet's mean, over its deviation.

        Returns:
            ``float32`` (B, dim).
        """
        patches = self.patch_embed["proj"](images)
        places = _resampled(self.pos_embed[:, 1:], patches.shape[-1])
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(images), -1, -1)
        x = torch.cat([first, patches.flatten(2).mT + places], dim=1)
        for block in self.blocks:
            x = block(x)
        token: Tensor = self.norm(x[:, 0])
        return token


def _resampled(learned: Tensor, side: int) -> Tensor:
    """Positions (1, 37 * 37, D) to (1, side * side, D)."""
    grid = learned.mT.reshape(1, -1, GRID, GRID)
    scale = (side + OFFSET) / GRID
    return interpolate(grid, scale_factor=(scale, scale), mode="bicubic").flatten(2).mT


class Block(nn.Module):
    """Attention among the tokens, then a layer on each, both added to what comes in."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.dim, eps=1e-6)
        self.attn = Attention(size.dim, size.heads)
        self.ls1 = LayerScale(size.dim)
        self.norm2 = nn.LayerNorm(size.dim, eps=1e-6)
        self.mlp = SwiGlu(size.dim) if size.swiglu else Mlp(size.dim)
        self.ls2 = LayerScale(size.dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        x = x + self.ls2(self.mlp(self.norm2(x)))
        return x


class Attention(nn.Module):
    """``softmax(q k / sqrt(d)) v``, written out: a fused kernel may choose its precision by itself."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, tokens, d) each
        shares = torch.softmax(q * q.shape[-1] ** -0.5 @ k.mT, dim=-1)
        mixed: Tensor = self.proj((shares @ v).transpose(1, 2).flatten(2))
        return mixed


class LayerScale(nn.Module):
    """A factor for each feature."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Mlp(nn.Module):
    """Four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc2(gelu(self.fc1(x)))
        return x


class SwiGlu(nn.Module):
    """As many parameters as :class:`Mlp`: two thirds of its width, up to a multiple of 8, twice."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = -(-(4 * dim * 2 // 3) // 8) * 8
        self.w12, self.w3 = nn.Linear(dim, 2 * hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        x = self.w3(silu(gate) * value)
        return x


def build(size: Size, state: Mapping[str, Tensor]) -> VisionTransformer:
    """A network with these weights, ready for inference.

    Args:
        size: of the network.
        state: every tensor of it by its official name, and no other.

    Raises:
        RuntimeError: a tensor is missing, unknown, or of another shape.
    """
    with torch.device("meta"):  # no memory for numbers that are overwritten: the giant has 4.5 GB of them
        network = VisionTransformer(size)
    network.load_state_dict(dict(state), assign=True)
    return network.requires_grad_(False).eval()
