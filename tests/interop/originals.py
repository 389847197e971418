"""The U-Nets of three repositories once more, from their description: oracles for what reads their files.

Nothing of the package is used, and nothing is fast. The names and shapes of the parameters are theirs. All three are
the network of Ho et al. 2020 (arXiv 2006.11239, appendix B): residual blocks, attention over all places after them at
some resolutions, and every output of the way down joined to the way up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """As the options of all three: ``attention`` by level."""

    channels: int = 3
    width: int = 32
    mults: Sequence[int] = (1, 2)
    attention: Sequence[bool] = (False, True)
    blocks: int = 1


def conv(cin: int, cout: int, kernel: int = 3, stride: int = 1, padding: int | None = None) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2 if padding is None else padding)


def normed(x: Tensor, norm: nn.GroupNorm, eps: float) -> Tensor:
    """Each of 32 groups of channels has mean 0 and variance 1, before weight and bias."""
    grouped = x.unflatten(1, (32, -1)).flatten(2)
    centred = grouped - grouped.mean(2, keepdim=True)
    scaled = centred / (centred.pow(2).mean(2, keepdim=True) + eps).sqrt()
    return scaled.reshape(x.shape) * norm.weight[:, None, None] + norm.bias[:, None, None]


def attended(x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of every place to every place, one head."""
    q, k, v = (y.flatten(2) for y in (q, k, v))
    weights = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / math.sqrt(q.shape[1]), dim=2)
    return torch.einsum("bts,bcs->bct", weights, v).reshape(x.shape)


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def sines(t: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    angles = t.double()[:, None] * frequencies
    return angles.sin(), angles.cos()


def holder(**modules: nn.Module) -> nn.Module:
    """A module that only gives names."""
    module = nn.Module()
    for name, inner in modules.items():
        module.add_module(name, inner)
    return module


class Original(nn.Module):
    """What the three have in common: the order in which the pieces are run. Which pieces, their subclasses say."""

    eps = 1e-5

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.begin()
        widths = [sizes.width * m for m in sizes.mults]
        seen, c, last = [sizes.width], sizes.width, len(widths) - 1
        for level, width in enumerate(widths):
            for block in range(sizes.blocks):
                self.block("down", level, block, c, width, sizes.attention[level])
                c = width
                seen.append(c)
            if level < last:
                self.resample("down", level, c)
                seen.append(c)
        self.middle(c)
        for level in range(last, -1, -1):
            for block in range(sizes.blocks + 1):
                self.block("up", level, block, c + seen.pop(), widths[level], sizes.attention[level])
                c = widths[level]
            if level > 0:
                self.resample("up", level, c)
        self.end(c)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        emb, last = swish(self.embedded(t)), len(self.sizes.mults) - 1
        h = self.first(x)
        seen = [h]
        for level in range(last + 1):
            for block in range(self.sizes.blocks):
                h = self.run("down", level, block, h, emb)
                seen.append(h)
            if level < last:
                h = self.halved(level, h)
                seen.append(h)
        h = self.through(h, emb)
        for level in range(last, -1, -1):
            for block in range(self.sizes.blocks + 1):
                h = self.run("up", level, block, torch.cat((h, seen.pop()), 1), emb)
            if level > 0:
                h = self.doubled(level, h.repeat_interleave(2, 2).repeat_interleave(2, 3))
        norm, out = self.last()
        return out(swish(normed(h, norm, self.eps)))

    def residual(self, x: Tensor, emb: Tensor, norm1, conv1, project, norm2, conv2, shortcut) -> Tensor:
        h = conv1(swish(normed(x, norm1, self.eps))) + project(emb)[:, :, None, None]
        h = conv2(swish(normed(h, norm2, self.eps)))
        return h + (x if shortcut is None else shortcut(x))

    def attention(self, x: Tensor, norm, q, k, v, out) -> Tensor:
        y = normed(x, norm, self.eps)
        return x + out(attended(x, q(y), k(y), v(y)))


class XyfJason(Original):
    """``models.unet.UNet``: a list of pieces for each resolution."""

    def begin(self) -> None:
        w = self.sizes.width
        self.time_embed = nn.Sequential(nn.Identity(), nn.Linear(w, 4 * w), nn.SiLU(), nn.Linear(4 * w, 4 * w))
        self.first_conv = conv(self.sizes.channels, w)
        self.down_blocks = nn.ModuleList(nn.ModuleList() for _ in self.sizes.mults)
        self.up_blocks = nn.ModuleList(nn.ModuleList() for _ in self.sizes.mults)

    def level(self, way: str, level: int) -> nn.ModuleList:
        return self.down_blocks[level] if way == "down" else self.up_blocks[len(self.sizes.mults) - 1 - level]

    def res(self, cin: int, cout: int) -> nn.Module:
        return holder(
            blk1=nn.Sequential(nn.GroupNorm(32, cin), nn.SiLU(), conv(cin, cout)),
            proj=nn.Sequential(nn.SiLU(), nn.Linear(4 * self.sizes.width, cout)),
            blk2=nn.Sequential(nn.GroupNorm(32, cout), nn.SiLU(), nn.Identity(), conv(cout, cout)),
            shortcut=conv(cin, cout, 1) if cin != cout else nn.Identity(),
        )

    def att(self, c: int) -> nn.Module:
        return holder(norm=nn.GroupNorm(32, c), **{name: conv(c, c, 1) for name in ("q", "k", "v", "proj")})

    def block(self, way: str, level: int, block: int, cin: int, cout: int, with_attention: bool) -> None:
        self.level(way, level).append(self.res(cin, cout))
        if with_attention:
            self.level(way, level).append(self.att(cout))

    def resample(self, way: str, level: int, c: int) -> None:
        piece = conv(c, c, stride=2) if way == "down" else nn.Sequential(nn.Identity(), conv(c, c))
        self.level(way, level).append(piece)

    def middle(self, c: int) -> None:
        self.bottleneck_block = nn.ModuleList([self.res(c, c), self.att(c), self.res(c, c)])

    def end(self, c: int) -> None:
        self.last_conv = nn.Sequential(nn.GroupNorm(32, c), nn.SiLU(), conv(c, self.sizes.channels))

    def embedded(self, t: Tensor) -> Tensor:
        half = self.sizes.width // 2
        found = sines(t, 1e-4 ** (torch.arange(half).double() / (half - 1)))
        return self.time_embed[3](swish(self.time_embed[1](torch.cat(found, 1).float())))

    def first(self, x: Tensor) -> Tensor:
        return self.first_conv(x)

    def run_res(self, piece, x: Tensor, emb: Tensor) -> Tensor:
        shortcut = piece.shortcut if isinstance(piece.shortcut, nn.Conv2d) else None
        parts = (piece.blk1[0], piece.blk1[2], piece.proj[1], piece.blk2[0], piece.blk2[3], shortcut)
        return self.residual(x, emb, *parts)

    def run_att(self, piece, x: Tensor) -> Tensor:
        return self.attention(x, piece.norm, piece.q, piece.k, piece.v, piece.proj)

    def run(self, way: str, level: int, block: int, x: Tensor, emb: Tensor) -> Tensor:
        pieces, step = self.level(way, level), 1 + self.sizes.attention[level]
        h = self.run_res(pieces[block * step], x, emb)
        return self.run_att(pieces[block * step + 1], h) if step == 2 else h

    def halved(self, level: int, x: Tensor) -> Tensor:
        return self.level("down", level)[-1](x)

    def doubled(self, level: int, x: Tensor) -> Tensor:
        return self.level("up", level)[-1][1](x)

    def through(self, x: Tensor, emb: Tensor) -> Tensor:
        first, attention, second = self.bottleneck_block
        return self.run_res(second, self.run_att(attention, self.run_res(first, x, emb)), emb)

    def last(self):
        return self.last_conv[0], self.last_conv[2]


class PytorchDDPM(Original):
    """``pytorch-ddpm``: one flat list of pieces, with attention inside of residual blocks, and a table of times."""

    def begin(self) -> None:
        w = self.sizes.width
        angles = torch.arange(50).double()[:, None] * 1e-4 ** (torch.arange(0, w, 2).double() / w)
        table = torch.stack((angles.sin(), angles.cos()), -1).reshape(50, w).float()
        layers = [nn.Embedding.from_pretrained(table), nn.Linear(w, 4 * w), nn.SiLU(), nn.Linear(4 * w, 4 * w)]
        self.time_embedding = holder(timembedding=nn.Sequential(*layers))
        self.head = conv(self.sizes.channels, w)
        self.downblocks, self.upblocks = nn.ModuleList(), nn.ModuleList()
        self.places: dict[tuple, nn.Module] = {}

    def res(self, cin: int, cout: int, with_attention: bool) -> nn.Module:
        names = ("proj_q", "proj_k", "proj_v", "proj")
        inner = {"group_norm": nn.GroupNorm(32, cout), **{name: conv(cout, cout, 1) for name in names}}
        return holder(
            block1=nn.Sequential(nn.GroupNorm(32, cin), nn.SiLU(), conv(cin, cout)),
            temb_proj=nn.Sequential(nn.SiLU(), nn.Linear(4 * self.sizes.width, cout)),
            block2=nn.Sequential(nn.GroupNorm(32, cout), nn.SiLU(), nn.Identity(), conv(cout, cout)),
            shortcut=conv(cin, cout, 1) if cin != cout else nn.Identity(),
            attn=holder(**inner) if with_attention else nn.Identity(),
        )

    def block(self, way: str, level: int, block: int, cin: int, cout: int, with_attention: bool) -> None:
        self.places[way, level, block] = piece = self.res(cin, cout, with_attention)
        (self.downblocks if way == "down" else self.upblocks).append(piece)

    def resample(self, way: str, level: int, c: int) -> None:
        self.places[way, level] = piece = holder(main=conv(c, c, stride=2 if way == "down" else 1))
        (self.downblocks if way == "down" else self.upblocks).append(piece)

    def middle(self, c: int) -> None:
        self.middleblocks = nn.ModuleList([self.res(c, c, True), self.res(c, c, False)])

    def end(self, c: int) -> None:
        self.tail = nn.Sequential(nn.GroupNorm(32, c), nn.SiLU(), conv(c, self.sizes.channels))

    def embedded(self, t: Tensor) -> Tensor:
        table, first, _, second = self.time_embedding.timembedding
        return second(swish(first(table.weight[t])))

    def first(self, x: Tensor) -> Tensor:
        return self.head(x)

    def run_res(self, piece, x: Tensor, emb: Tensor) -> Tensor:
        shortcut = piece.shortcut if isinstance(piece.shortcut, nn.Conv2d) else None
        parts = (piece.block1[0], piece.block1[2], piece.temb_proj[1], piece.block2[0], piece.block2[3], shortcut)
        h, a = self.residual(x, emb, *parts), piece.attn
        if isinstance(a, nn.Identity):
            return h
        return self.attention(h, a.group_norm, a.proj_q, a.proj_k, a.proj_v, a.proj)

    def run(self, way: str, level: int, block: int, x: Tensor, emb: Tensor) -> Tensor:
        return self.run_res(self.places[way, level, block], x, emb)

    def halved(self, level: int, x: Tensor) -> Tensor:
        return self.places["down", level].main(x)

    def doubled(self, level: int, x: Tensor) -> Tensor:
        return self.places["up", level].main(x)

    def through(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.run_res(self.middleblocks[1], self.run_res(self.middleblocks[0], x, emb), emb)

    def last(self):
        return self.tail[0], self.tail[2]


class Pesser(Original):
    """``pytorch_diffusion``: the original's names and constants; halved after padding on the right and below."""

    eps = 1e-6

    def begin(self) -> None:
        w, levels = self.sizes.width, len(self.sizes.mults)
        self.temb = holder(dense=nn.ModuleList([nn.Linear(w, 4 * w), nn.Linear(4 * w, 4 * w)]))
        self.conv_in = conv(self.sizes.channels, w)
        for way in ("down", "up"):
            pieces = [holder(block=nn.ModuleList(), attn=nn.ModuleList()) for _ in range(levels)]
            self.add_module(way, nn.ModuleList(pieces))

    def res(self, cin: int, cout: int) -> nn.Module:
        layers = {"norm1": nn.GroupNorm(32, cin), "conv1": conv(cin, cout)}
        layers |= {"temb_proj": nn.Linear(4 * self.sizes.width, cout)}
        layers |= {"norm2": nn.GroupNorm(32, cout), "conv2": conv(cout, cout)}
        return holder(**layers, **({"nin_shortcut": conv(cin, cout, 1)} if cin != cout else {}))

    def att(self, c: int) -> nn.Module:
        return holder(norm=nn.GroupNorm(32, c), **{name: conv(c, c, 1) for name in ("q", "k", "v", "proj_out")})

    def block(self, way: str, level: int, block: int, cin: int, cout: int, with_attention: bool) -> None:
        pieces = getattr(self, way)[level]
        pieces.block.append(self.res(cin, cout))
        if with_attention:
            pieces.attn.append(self.att(cout))

    def resample(self, way: str, level: int, c: int) -> None:
        name, piece = ("downsample", conv(c, c, 3, 2, 0)) if way == "down" else ("upsample", conv(c, c))
        getattr(self, way)[level].add_module(name, holder(conv=piece))

    def middle(self, c: int) -> None:
        self.mid = holder(block_1=self.res(c, c), attn_1=self.att(c), block_2=self.res(c, c))

    def end(self, c: int) -> None:
        self.norm_out, self.conv_out = nn.GroupNorm(32, c), conv(c, self.sizes.channels)

    def embedded(self, t: Tensor) -> Tensor:
        half = self.sizes.width // 2
        found = sines(t, 1e-4 ** (torch.arange(half).double() / (half - 1)))
        return self.temb.dense[1](swish(self.temb.dense[0](torch.cat(found, 1).float())))

    def first(self, x: Tensor) -> Tensor:
        return self.conv_in(x)

    def run_res(self, piece, x: Tensor, emb: Tensor) -> Tensor:
        shortcut = getattr(piece, "nin_shortcut", None)
        return self.residual(x, emb, piece.norm1, piece.conv1, piece.temb_proj, piece.norm2, piece.conv2, shortcut)

    def run_att(self, piece, x: Tensor) -> Tensor:
        return self.attention(x, piece.norm, piece.q, piece.k, piece.v, piece.proj_out)

    def run(self, way: str, level: int, block: int, x: Tensor, emb: Tensor) -> Tensor:
        pieces = getattr(self, way)[level]
        h = self.run_res(pieces.block[block], x, emb)
        return self.run_att(pieces.attn[block], h) if self.sizes.attention[level] else h

    def halved(self, level: int, x: Tensor) -> Tensor:
        return self.down[level].downsample.conv(F.pad(x, (0, 1, 0, 1)))

    def doubled(self, level: int, x: Tensor) -> Tensor:
        return self.up[level].upsample.conv(x)

    def through(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.run_res(
            self.mid.block_2, self.run_att(self.mid.attn_1, self.run_res(self.mid.block_1, x, emb)), emb
        )

    def last(self):
        return self.norm_out, self.conv_out


def random(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with weights of which none is zero, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            if p.requires_grad:
                p += 0.05 * torch.randn(p.shape, generator=generator)
    return network.eval()
