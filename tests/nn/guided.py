"""ADM's U-Net once more, from its description (arXiv 2105.05233, section 3 and appendix A): an oracle.

Nothing of the package is used, and nothing is fast. The names and shapes of the parameters are those of the files that
openai/guided-diffusion writes, so that what reads such files can be tried on ``Guided(...).state_dict()``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """As options of guided-diffusion's programs, with ``attention`` by level instead of by resolution."""

    channels: int = 3
    out_channels: int = 3
    num_channels: int = 32
    channel_mult: Sequence[float] = (1, 2)
    attention: Sequence[bool] = (False, True)
    num_res_blocks: int = 1
    num_heads: int = 1
    num_head_channels: int = -1
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    num_classes: int | None = None
    groups: int = 32

    def heads(self, width: int) -> int:
        return self.num_heads if self.num_head_channels == -1 else width // self.num_head_channels


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def group_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """From its definition: each group of channels of an image has mean 0 and variance 1, before weight and bias."""
    grouped = x.reshape(len(x), norm.num_groups, -1)
    centred = grouped - grouped.mean(2, keepdim=True)
    normed = centred / torch.sqrt((centred**2).mean(2, keepdim=True) + 1e-5)
    shape = (1, -1, *[1] * (x.ndim - 2))
    return normed.reshape(x.shape) * norm.weight.view(shape) + norm.bias.view(shape)


def halve(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, ::2] + x[..., 1::2, 1::2]) / 4


def double(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def waves(t: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of wavelengths from 2 pi to nearly 2 pi 10000."""
    half = width // 2
    angles = t.double()[:, None] * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    return torch.cat((angles.cos(), angles.sin()), 1).float()


class Res(nn.Module):
    def __init__(self, sizes: Sizes, cin: int, cout: int, change=None) -> None:
        super().__init__()
        self.film, self.change = sizes.use_scale_shift_norm, change
        self.in_layers = nn.Sequential(nn.GroupNorm(sizes.groups, cin), nn.SiLU(), nn.Conv2d(cin, cout, 3, padding=1))
        width = cout * (1 + self.film)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * sizes.num_channels, width))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(sizes.groups, cout), nn.SiLU(), nn.Identity(), nn.Conv2d(cout, cout, 3, padding=1)
        )
        if cin != cout:
            self.skip_connection = nn.Conv2d(cin, cout, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = swish(group_norm(x, self.in_layers[0]))
        if self.change is not None:
            h, x = self.change(h), self.change(x)
        h = self.in_layers[2](h)
        said = self.emb_layers[1](swish(emb))[..., None, None]
        if self.film:
            scale, shift = said[:, : said.shape[1] // 2], said[:, said.shape[1] // 2 :]
            h = group_norm(h, self.out_layers[0]) * (1 + scale) + shift
        else:
            h = group_norm(h + said, self.out_layers[0])
        h = self.out_layers[3](swish(h))
        return h + (self.skip_connection(x) if hasattr(self, "skip_connection") else x)


class Attention(nn.Module):
    def __init__(self, sizes: Sizes, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(sizes.groups, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)
        self.heads, self.new = sizes.heads(width), sizes.use_new_attention_order

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        b, c, height, width = x.shape
        places = x.reshape(b, c, height * width)
        qkv = self.qkv(group_norm(places, self.norm))
        d, found = c // self.heads, []
        for head in range(self.heads):
            starts = [i * c + head * d for i in range(3)] if self.new else [(3 * head + i) * d for i in range(3)]
            q, k, v = (qkv[:, start : start + d] for start in starts)
            weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(d), dim=2)  # (b, asking, asked)
            found.append(v @ weights.transpose(1, 2))
        return x + self.proj_out(torch.cat(found, 1)).reshape(x.shape)


class Strided(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.op(x)


class Doubled(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.conv(double(x))


class Guided(nn.Module):
    """The network; ``forward(x, t, y)`` with labels ``y`` (B,) of a conditional one."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        base, z = sizes.num_channels, sizes
        self.base = base
        self.time_embed = nn.Sequential(nn.Linear(base, 4 * base), nn.SiLU(), nn.Linear(4 * base, 4 * base))
        if sizes.num_classes is not None:
            self.label_emb = nn.Embedding(sizes.num_classes, 4 * base)
        c = int(base * sizes.channel_mult[0])
        seen, blocks = [c], [nn.ModuleList([nn.Conv2d(sizes.channels, c, 3, padding=1)])]
        last = len(sizes.channel_mult) - 1
        for level, mult in enumerate(sizes.channel_mult):
            for _ in range(sizes.num_res_blocks):
                blocks.append(nn.ModuleList([Res(z, c, int(base * mult))]))
                c = int(base * mult)
                blocks[-1].extend([Attention(z, c)] if sizes.attention[level] else [])
                seen.append(c)
            if level < last:
                blocks.append(nn.ModuleList([Res(z, c, c, halve) if sizes.resblock_updown else Strided(c)]))
                seen.append(c)
        self.input_blocks = nn.ModuleList(blocks)
        self.middle_block = nn.ModuleList([Res(z, c, c), Attention(z, c), Res(z, c, c)])
        self.output_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            for i in range(sizes.num_res_blocks + 1):
                width = int(base * sizes.channel_mult[level])
                block = nn.ModuleList([Res(z, c + seen.pop(), width)])
                c = width
                block.extend([Attention(z, c)] if sizes.attention[level] else [])
                if level and i == sizes.num_res_blocks:
                    block.append(Res(z, c, c, double) if sizes.resblock_updown else Doubled(c))
                self.output_blocks.append(block)
        self.out = nn.Sequential(
            nn.GroupNorm(sizes.groups, c), nn.SiLU(), nn.Conv2d(c, sizes.out_channels, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        emb = self.time_embed[2](swish(self.time_embed[0](waves(t, self.base))))
        if y is not None:
            emb = emb + self.label_emb.weight[y]
        h, seen = self.input_blocks[0][0](x), []
        seen.append(h)
        for block in list(self.input_blocks)[1:]:
            for layer in block:
                h = layer(h, emb)
            seen.append(h)
        for layer in self.middle_block:
            h = layer(h, emb)
        for block in self.output_blocks:
            h = torch.cat((h, seen.pop()), 1)
            for layer in block:
                h = layer(h, emb)
        return self.out[2](swish(group_norm(h, self.out[0])))


RES = {"norm1": "in_layers.0", "conv1": "in_layers.2", "emb": "emb_layers.1", "norm2": "out_layers.0"}
RES |= {"conv2": "out_layers.3", "shortcut": "skip_connection"}
ATTENTION = {"norm": "norm", "qkv": "qkv", "proj": "proj_out"}


def same_names(theirs: Guided) -> dict[str, str]:
    """For every parameter of a :class:`Guided`, what :class:`ddpm_ip.nn.adm.ADM` calls the same one."""
    layers = {"time_embed.0": "time.0", "time_embed.2": "time.2", "input_blocks.0.0": "conv_in"}
    layers |= {"out.0": "norm_out", "out.2": "conv_out", "label_emb": "labels"}

    def note(place: str, block: nn.Module, name: str) -> None:
        if isinstance(block, Res):
            layers.update({f"{place}.{b}": f"{name}.{a}" for a, b in RES.items()})
        elif isinstance(block, Attention):
            layers.update({f"{place}.{b}": f"{name}.{a}" for a, b in ATTENTION.items()})
        else:
            layers[f"{place}.{'op' if isinstance(block, Strided) else 'conv'}"] = f"{name}.conv"

    for i, block in enumerate(list(theirs.input_blocks)[1:]):
        for j, layer in enumerate(block):
            is_change = not isinstance(layer, Attention) and getattr(layer, "change", layer) is not None
            note(f"input_blocks.{i + 1}.{j}", layer, f"down.{i}" if is_change else f"down.{i}.{j}")
    for j, layer in enumerate(theirs.middle_block):
        note(f"middle_block.{j}", layer, f"middle.{j}")
    number = 0
    for i, block in enumerate(theirs.output_blocks):
        for j, layer in enumerate(block):
            is_change = not isinstance(layer, Attention) and getattr(layer, "change", layer) is not None
            number += is_change
            note(f"output_blocks.{i}.{j}", layer, f"up.{number}" if is_change else f"up.{number}.{j}")
        number += 1
    return {key: layers[key.rpartition(".")[0]] + key[key.rindex(".") :] for key in theirs.state_dict()}
