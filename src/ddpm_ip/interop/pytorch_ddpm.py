"""The U-Net of ``w86763777/pytorch-ddpm`` (``model.py``), whose checkpoints hold ``net_model`` and ``ema_model``.

It is the paper's network except for the constants of xyfJASON's (padding on all sides, 1e-5 in a norm) and the time
embedding: its frequencies fall to 10000^(-1 + 2/dim) instead of 1/10000, sines and cosines alternate, and they are a
table in the checkpoint, which is compared with the formula. The order of sines and cosines becomes an order of the
columns of the layer that reads them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch

from ddpm_ip.errors import CheckpointError
from ddpm_ip.interop.base import DIFFUSION, Imported, State, left_open
from ddpm_ip.interop.layout import Layout, Level, taken

NAME = "pytorch-ddpm"
KEYS = "time_embedding.timembedding.0.weight, head.weight, downblocks.0.block1.0.weight, middleblocks..., tail.2.weight"
TIME = "time_embedding.timembedding"
BLOCK = {
    "norm1": "block1.0",
    "conv1": "block1.2",
    "emb": "temb_proj.1",
    "norm2": "block2.0",
    "conv2": "block2.3",
    "shortcut": "shortcut",
}
ATTENTION = {"norm": "group_norm", "q": "proj_q", "k": "proj_k", "v": "proj_v", "proj": "proj"}
TABLE = 1e-2  # radians by which an angle in the table may be off: it was computed in float32, from times up to T


def recognises(names: Collection[str]) -> bool:
    """By the time embedding and the last convolution."""
    return {f"{TIME}.1.weight", "head.weight", "tail.2.weight"} <= set(names)


def convert(state: State, given: Mapping[str, Any]) -> Imported:
    """See :meth:`ddpm_ip.interop.base.KeyedFormat.convert`."""
    if any(name.startswith("cond_embedding.") for name in state.tensors):
        raise CheckpointError(
            f"{state.origin} is a class-conditional relative of pytorch-ddpm's network, none of its own"
        )
    table = state.tensors.get(f"{TIME}.0.weight")
    rest = state._replace(tensors={k: v for k, v in state.tensors.items() if k != f"{TIME}.0.weight"})
    model_open, assumed = left_open("model", {"dropout": 0.1}, given)
    defaults = {k: v for k, v in DIFFUSION.items() if k != "total_steps"} if table is not None else DIFFUSION
    diffusion, more = left_open("diffusion", defaults, given)
    constants = {**model_open, "n_heads": 1, "padding": "both", "norm_eps": 1e-5, "freq_shift": 0}
    model, tensors = taken(rest, _layout(rest.tensors), constants)
    if table is not None:
        _check_table(state, table, model["dim"])
        diffusion["total_steps"] = len(table)
    weight = tensors["time.0.weight"]
    tensors["time.0.weight"] = torch.cat((weight[:, 0::2], weight[:, 1::2]), dim=1)  # sines, then cosines
    sections = {"model": model, "diffusion": diffusion}
    return Imported(NAME, sections, tensors, state.averaged, (*assumed, *more), (state.path,))


def _check_table(state: State, table: torch.Tensor, dim: int) -> None:
    """Whether the table of the time embedding is the formula's.

    Raises:
        CheckpointError: it is not.
    """
    if table.ndim != 2 or table.shape[1] != dim or not 2 <= len(table) <= 100_000 or dim % 2:
        raise CheckpointError(f"{state.origin}: its table of times has shape {tuple(table.shape)}, not (T, {dim})")
    frequencies = torch.exp(-torch.arange(0, dim, 2, dtype=torch.float64) / dim * torch.log(torch.tensor(1e4).double()))
    angles = torch.arange(len(table), dtype=torch.float64)[:, None] * frequencies
    expected = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    if not bool((table.double() - expected).abs().max() < TABLE):
        raise CheckpointError(f"{state.origin}: its table of times is not that of pytorch-ddpm's time embedding")


def _layout(names: Collection[str]) -> Layout:
    down, up = _pieces(names, "downblocks"), _pieces(names, "upblocks")
    return Layout(
        time=(f"{TIME}.1", f"{TIME}.3"),
        first="head",
        last=("tail.0", "tail.2"),
        down=down,
        middle=("middleblocks.0", "middleblocks.0.attn", "middleblocks.1"),
        up=up,
        block=BLOCK,
        attention=ATTENTION,
    )


def _pieces(names: Collection[str], way: str) -> list[Level]:
    """Their flat list of residual blocks, with attention inside, and convolutions, each of which ends a resolution."""
    count = 1 + max((int(m[1]) for name in names if (m := re.match(rf"{way}\.(\d{{1,4}})\.", name))), default=-1)
    levels: list[Level] = []
    blocks: list[tuple[str, str | None]] = []
    for i in range(count):
        place = f"{way}.{i}"
        if f"{place}.main.weight" in names:
            levels.append(Level(blocks, f"{place}.main"))
            blocks = []
        else:
            attended = f"{place}.attn.proj_q.weight" in names
            blocks.append((place, f"{place}.attn" if attended else None))
    return [*levels, Level(blocks, None)]
