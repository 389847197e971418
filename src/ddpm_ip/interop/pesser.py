"""The U-Net of ``pesser/pytorch_diffusion`` and ``ermongroup/ddim``: the original's weights, converted to PyTorch.

It is the paper's network as it is here, constants and all, under the original's names. ``ermongroup/ddim`` saves a list
whose first item is the network and whose last is the average.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ddpm_ip.interop.base import DIFFUSION, Imported, State, left_open
from ddpm_ip.interop.layout import Layout, Level, taken

NAME = "pytorch_diffusion"
KEYS = "temb.dense.0.weight, conv_in.weight, down.0.block.0.norm1.weight, mid.block_1..., up.0..., conv_out.weight"
BLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "emb": "temb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "shortcut": "nin_shortcut",
}
ATTENTION = {"norm": "norm", "q": "q", "k": "k", "v": "v", "proj": "proj_out"}


def recognises(names: Collection[str]) -> bool:
    """By the time embedding and the middle."""
    return {"temb.dense.0.weight", "mid.block_1.norm1.weight", "conv_out.weight"} <= set(names)


def convert(state: State, given: Mapping[str, Any]) -> Imported:
    """See :meth:`ddpm_ip.interop.base.KeyedFormat.convert`."""
    model_open, assumed = left_open("model", {"dropout": 0.1}, given)
    diffusion, more = left_open("diffusion", DIFFUSION, given)
    constants = {**model_open, "n_heads": 1, "padding": "right_below", "norm_eps": 1e-6}
    model, tensors = taken(state, _layout(state.tensors), constants)
    sections = {"model": model, "diffusion": diffusion}
    return Imported(NAME, sections, tensors, state.averaged, (*assumed, *more), (state.path,))


def _layout(names: Collection[str]) -> Layout:
    return Layout(
        time=("temb.dense.0", "temb.dense.1"),
        first="conv_in",
        last=("norm_out", "conv_out"),
        down=_levels(names, "down", "downsample"),
        middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
        up=list(reversed(_levels(names, "up", "upsample"))),
        block=BLOCK,
        attention=ATTENTION,
    )


def _levels(names: Collection[str], way: str, resample: str) -> list[Level]:
    """Their resolutions, the finest first."""
    count: dict[int, int] = {}
    for name in names:
        if found := re.match(rf"{way}\.(\d{{1,3}})\.block\.(\d{{1,3}})\.", name):
            level, block = int(found[1]), int(found[2])
            count[level] = max(count.get(level, 0), block + 1)
    levels = []
    for i in sorted(count):
        blocks: list[tuple[str, str | None]] = []
        for j in range(count[i]):
            attention = f"{way}.{i}.attn.{j}"
            blocks.append((f"{way}.{i}.block.{j}", attention if f"{attention}.q.weight" in names else None))
        place = f"{way}.{i}.{resample}.conv"
        levels.append(Level(blocks, place if f"{place}.weight" in names else None))
    return levels
