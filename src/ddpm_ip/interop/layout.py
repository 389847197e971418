"""The U-Net of the DDPM paper under other people's names: their pieces in order, and ours made of them.

xyfJASON's repository, pytorch-ddpm and pytorch_diffusion have the network of ``model.name: unet``, up to constants, and
each names its tensors in its own way. A :class:`Layout` lists the names of the pieces in the order in which they run;
the sizes follow from the shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm_ip.errors import CheckpointError
from ddpm_ip.interop.base import State, surplus
from ddpm_ip.interop.read import numbers

GROUPS = 32  # of every norm in all of these


class Level(NamedTuple):
    """One resolution on the way down or up.

    Attributes:
        blocks: the name of each residual block, and that of the attention after it, if there is one.
        resample: the name of the convolution that halves or doubles the image afterwards, if there is one.
    """

    blocks: Sequence[tuple[str, str | None]]
    resample: str | None


@dataclass(frozen=True)
class Layout:
    """Where the pieces of a U-Net are.

    Attributes:
        time: the two layers of the time embedding.
        first, last: the first convolution; the last norm and convolution.
        down, up: the resolutions in the order in which they are run.
        middle: residual block, attention, residual block.
        block: their names within a residual block: norm1, conv1, emb, norm2, conv2, shortcut.
        attention: their names within an attention: norm, q, k, v, proj.
    """

    time: tuple[str, str]
    first: str
    last: tuple[str, str]
    down: Sequence[Level]
    middle: tuple[str, str, str]
    up: Sequence[Level]
    block: Mapping[str, str]
    attention: Mapping[str, str]


def taken(state: State, layout: Layout, constants: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The section ``model`` of a network, and its tensors by our names.

    Args:
        state: the tensors.
        layout: where they are.
        constants: keys of the section that no shape tells.

    Raises:
        CheckpointError: tensors are missing or left over. (Whether the shapes fit is looked at once, for all formats.)
    """
    tensors, ours = numbers(state), {}
    for our, theirs in _pairs(layout):
        for kind in ("weight", "bias"):
            names = [f"{name}.{kind}" for name in theirs]
            if our.endswith(".shortcut") and names[0] not in tensors:
                continue
            if missing := [name for name in names if name not in tensors]:
                raise CheckpointError(f"{state.origin} lacks {missing[0]}: it is cut off, or another network")
            parts = [tensors.pop(name) for name in names]
            if any(p.shape[1:] != parts[0].shape[1:] for p in parts):
                raise CheckpointError(f"{state.origin}: {', '.join(names)} have different shapes")
            ours[f"{our}.{kind}"] = torch.cat(parts) if len(parts) > 1 else parts[0]
    if tensors:
        raise surplus(state, tensors)
    return {**_sizes(state, layout, ours), **constants}, ours


def _sizes(state: State, layout: Layout, ours: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes tell about a network."""
    first = ours["conv_in.weight"]
    if first.ndim != 4 or 0 in first.shape:
        raise CheckpointError(f"{state.origin}: {layout.first}.weight is not a convolution of images")
    dim, counts = len(first), {len(level.blocks) for level in layout.down}
    attended = [{attn is not None for _, attn in level.blocks} for level in [*layout.down, *reversed(layout.up)]]
    n = len(layout.down)
    if len(counts) != 1 or any(len(kinds) != 1 for kinds in attended) or attended[:n] != attended[n:]:
        raise CheckpointError(f"{state.origin}: its resolutions differ in ways that model.name unet has no key for")
    widths = [len(ours[f"down.{i}.0.conv2.weight"]) for i in _ends(layout)]
    if any(width % dim for width in widths):
        raise CheckpointError(f"{state.origin}: the widths {widths} are not multiples of the first one, {dim}")
    return {
        "name": "unet",
        "in_channels": first.shape[1],
        "dim": dim,
        "dim_mults": [width // dim for width in widths],
        "use_attn": [kinds == {True} for kinds in attended[:n]],
        "num_res_blocks": counts.pop(),
        "num_groups": GROUPS,
    }


def _ends(layout: Layout) -> Iterator[int]:
    """The place in ``down`` of the last block of every resolution."""
    place = 0
    for level in layout.down:
        yield place + len(level.blocks) - 1
        place += len(level.blocks) + (level.resample is not None)


def _pairs(layout: Layout) -> Iterator[tuple[str, list[str]]]:
    """Each layer of ours, and theirs that it is made of."""
    yield from zip(("time.0", "time.2"), ([name] for name in layout.time), strict=True)
    yield "conv_in", [layout.first]
    yield from zip(("norm_out", "conv_out"), ([name] for name in layout.last), strict=True)
    yield from _block("middle.0", layout.middle[0], layout)
    yield from _attention("middle.1", layout.middle[1], layout)
    yield from _block("middle.2", layout.middle[2], layout)
    for way, levels in (("down", layout.down), ("up", layout.up)):
        place = 0
        for level in levels:
            for block, attention in level.blocks:
                yield from _block(f"{way}.{place}.0", block, layout)
                if attention is not None:
                    yield from _attention(f"{way}.{place}.1", attention, layout)
                place += 1
            if level.resample is not None:
                yield f"{way}.{place}.conv", [level.resample]
                place += 1


def _block(ours: str, theirs: str, layout: Layout) -> Iterator[tuple[str, list[str]]]:
    for our, name in layout.block.items():
        yield f"{ours}.{our}", [f"{theirs}.{name}"]


def _attention(ours: str, theirs: str, layout: Layout) -> Iterator[tuple[str, list[str]]]:
    names = {key: f"{theirs}.{name}" for key, name in layout.attention.items()}
    yield f"{ours}.norm", [names["norm"]]
    yield f"{ours}.qkv", [names["q"], names["k"], names["v"]]
    yield f"{ours}.proj", [names["proj"]]
