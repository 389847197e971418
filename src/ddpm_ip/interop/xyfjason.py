"""The U-Net of xyfJASON's repository (``xyfJASON/diffusion-models-pytorch``, ``models/unet.py``): ``models.unet.UNet``.

It is the paper's network except for two constants: strided convolutions are padded on all sides, and 1e-5 is added to
the variance in a norm. Its checkpoints are ``model.pt`` (``{"model": ...}``), ``ema_model.pt`` (of the average) and
``ema.pt`` (the average as a list); the same tensors as safetensors will do. The middle has one attention head whatever
``n_heads`` says, so more than one is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ddpm_ip.errors import CheckpointError
from ddpm_ip.interop.base import DIFFUSION, Imported, State, left_open
from ddpm_ip.interop.layout import Layout, Level, taken

NAME = "xyfJASON"
KEYS = "first_conv.weight, down_blocks.0.0.blk1.0.weight, bottleneck_block.0..., up_blocks..., last_conv.2.weight"
BLOCK = {
    "norm1": "blk1.0",
    "conv1": "blk1.2",
    "emb": "proj.1",
    "norm2": "blk2.0",
    "conv2": "blk2.3",
    "shortcut": "shortcut",
}
ATTENTION = {name: name for name in ("norm", "q", "k", "v", "proj")}


def recognises(names: Collection[str]) -> bool:
    """By the first convolution and the middle."""
    return {"first_conv.weight", "last_conv.2.weight", "bottleneck_block.0.blk1.0.weight"} <= set(names)


def convert(state: State, given: Mapping[str, Any]) -> Imported:
    """See :meth:`ddpm_ip.interop.base.KeyedFormat.convert`."""
    if any(".adagn." in name or name.startswith("class_embed.") for name in state.tensors):
        raise CheckpointError(
            f"{state.origin} is xyfJASON's class-conditional network (UNetCategorialAdaGN), whose middle has one "
            "attention head and whose levels have several: no network here is the same"
        )
    open_model, assumed = left_open("model", {"n_heads": 1, "dropout": 0.1}, given)
    if open_model["n_heads"] != 1:
        raise CheckpointError(
            f"{state.origin}: with model.n_heads {open_model['n_heads']} xyfJASON's network has one head in the middle "
            "and several elsewhere: no network here is the same"
        )
    diffusion, more = left_open("diffusion", DIFFUSION, given)
    constants = {**open_model, "padding": "both", "norm_eps": 1e-5}
    model, tensors = taken(state, _layout(state.tensors), constants)
    sections = {"model": model, "diffusion": diffusion}
    return Imported(NAME, sections, tensors, state.averaged, (*assumed, *more), (state.path,))


def _layout(names: Collection[str]) -> Layout:
    return Layout(
        time=("time_embed.1", "time_embed.3"),
        first="first_conv",
        last=("last_conv.0", "last_conv.2"),
        down=_levels(names, "down_blocks"),
        middle=("bottleneck_block.0", "bottleneck_block.1", "bottleneck_block.2"),
        up=_levels(names, "up_blocks"),
        block=BLOCK,
        attention=ATTENTION,
    )


def _levels(names: Collection[str], way: str) -> list[Level]:
    """Their lists of residual blocks, attentions and convolutions, recognised by what they hold."""
    pieces: dict[int, dict[int, str]] = {}
    for name in names:
        if found := re.fullmatch(rf"{way}\.(\d{{1,3}})\.(\d{{1,3}})\.(.+)", name):
            pieces.setdefault(int(found[1]), {})[int(found[2])] = _kind(found[3], pieces, found)
    levels = []
    for i in sorted(pieces):
        blocks: list[tuple[str, str | None]] = []
        resample = None
        for j, kind in sorted(pieces[i].items()):
            place = f"{way}.{i}.{j}"
            if kind == "attention" and blocks:
                blocks[-1] = (blocks[-1][0], place)
            elif kind == "block":
                blocks.append((place, None))
            else:
                resample = place + (".1" if way == "up_blocks" else "")
        levels.append(Level(blocks, resample))
    return levels


def _kind(rest: str, pieces: Mapping[int, Mapping[int, str]], found: re.Match[str]) -> str:
    """What kind of piece has a tensor of this name; what was known about it stays."""
    known = pieces.get(int(found[1]), {}).get(int(found[2]))
    if known is not None:
        return known
    if rest.startswith(("blk1.", "blk2.", "proj.1", "shortcut.")):
        return "block"
    return "attention" if rest.startswith(("norm.", "q.", "k.", "v.", "proj.")) else "resample"
