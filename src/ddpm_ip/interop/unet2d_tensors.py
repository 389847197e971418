"""The tensors of a UNet2DModel under this program's names, and the other way round.

Queries, keys and values are one convolution here and three linear layers there. A network whose time embedding has the
cosines first is the same as one that has the sines first, with the two halves of the first linear layer's input columns
exchanged.

Source: the names of diffusers' ``UNet2DModel`` (its state), as of version 0.42, and of versions before 0.15.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ddpm_ip.errors import CheckpointError
from ddpm_ip.plain import shown

Tensors = Mapping[str, Tensor]

ENDS = {
    "time.0": "time_embedding.linear_1",
    "time.2": "time_embedding.linear_2",
    "conv_in": "conv_in",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
    "labels": "class_embedding",
}
RESNET = {"norm1": "norm1", "conv1": "conv1", "emb": "time_emb_proj", "norm2": "norm2", "conv2": "conv2"}
RESNET |= {"shortcut": "conv_shortcut"}
ATTENTION = {"norm": ("group_norm",), "qkv": ("to_q", "to_k", "to_v"), "proj": ("to_out.0",)}
EARLIER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # names before version 0.15


def tensors_from(theirs: Tensors, own: Tensors, layers: int, exchange: bool, where: str) -> dict[str, Tensor]:
    """Their tensors as this program's network has them.

    Args:
        theirs: the state of a UNet2DModel; of any version, of any floating-point numbers.
        own: the state of the network, for names and shapes (it may be on the meta device).
        layers: ``num_res_blocks``.
        exchange: whether only one of the two networks has the cosines before the sines.
        where: the file, for messages.

    Returns:
        float32, by the names of ``own``.

    Raises:
        CheckpointError: tensors are missing, left over, or of other shapes.
    """
    theirs = {_today(name): tensor for name, tensor in theirs.items()}
    names = {name: theirs_of(name, layers) for name in own}
    wanted = {one for group in names.values() for one in group}
    if wrong := [*sorted(wanted - theirs.keys()), *sorted(theirs.keys() - wanted)]:
        what = "is missing" if wrong[0] in wanted else "is not known"
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise CheckpointError(f"{where}: the tensor {shown(wrong[0])} {what}{more}: it is not what config.json says")
    found = {}
    for name, group in names.items():
        pieces, shape = [theirs[one] for one in group], own[name].shape
        part = torch.Size((shape[0] // len(group), *shape[1:]))
        for one, piece in zip(group, pieces, strict=True):
            if _sizes(piece.shape) != _sizes(part) or not piece.is_floating_point():
                raise CheckpointError(f"{where}: {shown(one)} has shape {tuple(piece.shape)}, not {tuple(part)}")
        found[name] = torch.cat([piece.float() for piece in pieces]).reshape(shape)
    if exchange:
        found["time.0.weight"] = found["time.0.weight"].roll(found["time.0.weight"].shape[1] // 2, 1)
    return {name: tensor.contiguous() for name, tensor in found.items()}


def tensors_for(section: Mapping[str, Any], own: Tensors) -> dict[str, Tensor]:
    """This program's tensors as the UNet2DModel of :func:`ddpm_ip.interop.unet2d.config_of` has them.

    Args:
        section: ``model``, plain values.
        own: the state of its network.

    Returns:
        By their names, of the numbers that they have here.
    """
    found = {}
    for name, tensor in own.items():
        group = theirs_of(name, section["num_res_blocks"])
        if len(group) > 1 and section.get("attention_order") == "legacy":
            tensor = _queries_first(tensor, section["head_channels"] or len(tensor) // (3 * section["n_heads"]))
        flat = len(group) > 1 or group[0].endswith("to_out.0.weight")  # 1x1 convolutions are linear layers there
        for one, piece in zip(group, tensor.chunk(len(group)), strict=True):
            found[one] = piece.flatten(1).contiguous() if flat and piece.ndim > 1 else piece.contiguous()
    return found


def _queries_first(tensor: Tensor, width: int) -> Tensor:
    """Channels that lie head by head, of such a width, as queries of all heads, then keys, then values."""
    by_head = tensor.reshape(-1, 3, width, *tensor.shape[1:])
    return by_head.transpose(0, 1).flatten(0, 2)


def theirs_of(name: str, layers: int) -> tuple[str, ...]:
    """The tensor of a UNet2DModel, or the three of an attention, that one of this program's network is.

    Args:
        name: such as ``down.4.1.qkv.weight``.
        layers: ``num_res_blocks``.
    """
    module, _, kind = name.rpartition(".")
    if module in ENDS:
        return (f"{ENDS[module]}.{kind}",)
    side, place, *inner = module.split(".")
    if side == "middle":
        home = "mid_block.attentions.0" if place == "1" else f"mid_block.resnets.{int(place) // 2}"
        return _within(home, inner[0], kind)
    per_level = layers + 1 if side == "down" else layers + 2  # the last module of a level changes the resolution
    level, j = divmod(int(place), per_level)
    block = f"{side}_blocks.{level}"
    if j == per_level - 1:
        return (f"{block}.{side}samplers.0.{RESNET.get(inner[0], inner[0])}.{kind}",)
    return _within(f"{block}.{'attentions' if inner[0] == '1' else 'resnets'}.{j}", inner[1], kind)


def _within(home: str, layer: str, kind: str) -> tuple[str, ...]:
    """The tensors of a layer of a residual block or an attention."""
    layers = ATTENTION[layer] if ".attentions." in home else (RESNET[layer],)
    return tuple(f"{home}.{one}.{kind}" for one in layers)


def _today(name: str) -> str:
    """A tensor's name as versions of diffusers since 0.15 have it."""
    found = re.fullmatch(r"(.*\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)", name)
    return f"{found[1]}.{EARLIER[found[2]]}.{found[3]}" if found else name


def _sizes(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape of weights, a 1x1 convolution's as a linear layer's."""
    sizes = list(shape)
    while len(sizes) > 2 and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)
