"""UNet2DModel, diffusers' port of DDPM's U-Net, and this program's ``unet``: the same network under other names.

What UNet2DModel can be and ``unet`` cannot is refused by the name of the key. The rest is exact. Queries, keys and
values are one convolution here and three linear layers there. Where their time embedding has the cosines first
(``flip_sin_to_cos``), the halves of the first linear layer's input columns change places.

Source: the sizes and names of diffusers' ``UNet2DModel`` (its config.json and its state), as of version 0.42.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ddpm_ip.errors import CheckpointError, ConfigError
from ddpm_ip.nn import UNetConfig
from ddpm_ip.plain import quoted, shown

Tensors = Mapping[str, Tensor]

# What UNet2DModel takes where its config.json does not say (files of older versions lack what came later).
DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
}
# Keys of which this program has one value, or two that mean the same.
ONLY: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default",),
    "add_attention": (True,),
    "class_embed_type": (None,),
    "freq_shift": (0, 1),
    "flip_sin_to_cos": (True, False),
}
HAS_ATTENTION = {"DownBlock2D": False, "AttnDownBlock2D": True, "UpBlock2D": False, "AttnUpBlock2D": True}
PADDING = {0: "right_below", 1: "both"}  # of a strided convolution

# Keys of a network's configuration beside the sizes, and what a network is that does not have the key.
OPTIONS: dict[str, Any] = {"padding": "right_below", "norm_eps": 1e-6, "head_channels": None, "freq_shift": 1}

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


def section_of(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The section ``model`` that is the same network.

    Args:
        config: the content of config.json.
        where: the file, for messages.

    Raises:
        CheckpointError: the network has something that ``unet`` does not have; names the key.
    """
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise _refused(where, "_class_name", config["_class_name"], "only UNet2DModel is read")
    theirs = {**DEFAULTS, **{key: value for key, value in config.items() if not key.startswith("_")}}
    if unknown := [key for key in theirs if key not in DEFAULTS and theirs[key] is not None]:
        raise _refused(where, unknown[0], theirs[unknown[0]], "the key is not known here")
    for key, allowed in ONLY.items():
        if theirs[key] not in allowed or isinstance(theirs[key], bool) != isinstance(allowed[0], bool):
            raise _refused(where, key, theirs[key], f"this program's network has {' or '.join(map(str, allowed))}")
    widths, use_attn = _widths(theirs, where), _use_attn(theirs, where)
    if len(widths) != len(use_attn):
        raise _refused(where, "block_out_channels", widths, f"there are {len(use_attn)} down_block_types")
    if theirs["time_embedding_dim"] not in (None, 4 * widths[0]):
        raise _refused(where, "time_embedding_dim", theirs["time_embedding_dim"], f"it must be {4 * widths[0]}")
    if theirs["attn_norm_num_groups"] not in (None, theirs["norm_num_groups"]):
        raise _refused(where, "attn_norm_num_groups", theirs["attn_norm_num_groups"], "it must be norm_num_groups")
    section = {
        "name": "unet",
        "in_channels": _whole(theirs, "in_channels", where),
        "dim": widths[0],
        "dim_mults": [width // widths[0] for width in widths],
        "use_attn": use_attn,
        "num_res_blocks": _whole(theirs, "layers_per_block", where),
        **_heads(theirs, widths, use_attn, where),
        "dropout": _number(theirs, "dropout", where),
        "num_groups": _whole(theirs, "norm_num_groups", where),
        "padding": _padding(theirs, where),
        "norm_eps": _number(theirs, "norm_eps", where),
        "freq_shift": theirs["freq_shift"],
    }
    return _known(section, where)


def config_of(section: Mapping[str, Any], size: Any, out_channels: int, classes: int | None) -> dict[str, Any]:
    """The config.json of the UNet2DModel that is the same network.

    Args:
        section: ``model``, plain values.
        size: of the images, as ``data.image_size`` says it.
        out_channels: of the prediction.
        classes: of a conditional network.

    Raises:
        ConfigError: UNet2DModel has no such network.
    """
    if section["name"] != "unet":
        raise _without_equal(f"model.name {section['name']}")
    mults, use_attn = list(section["dim_mults"]), list(section["use_attn"])
    if mults[0] != 1:
        raise _without_equal(f"model.dim_mults[0] {mults[0]} (there it is always 1)")
    known = {**OPTIONS, **section}
    head = known["head_channels"]
    widths = [section["dim"] * mult for mult in mults]
    if head is None and section["n_heads"] > 1:
        sizes = {width // section["n_heads"] for width in _with_attention(widths, use_attn)}
        if len(sizes) > 1:
            raise _without_equal(f"model.n_heads {section['n_heads']} at several widths (there a head has one width)")
        (head,) = sizes
    return {
        "_class_name": "UNet2DModel",
        **DEFAULTS,
        "sample_size": size,
        "in_channels": section["in_channels"],
        "out_channels": out_channels,
        "freq_shift": known["freq_shift"],
        "flip_sin_to_cos": False,
        "down_block_types": ["AttnDownBlock2D" if attention else "DownBlock2D" for attention in use_attn],
        "up_block_types": ["AttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(use_attn)],
        "block_out_channels": widths,
        "layers_per_block": section["num_res_blocks"],
        "downsample_padding": next(number for number, name in PADDING.items() if name == known["padding"]),
        "dropout": section["dropout"],
        "attention_head_dim": head,
        "norm_num_groups": section["num_groups"],
        "norm_eps": known["norm_eps"],
        "num_class_embeds": classes,
    }


def tensors_from(theirs: Tensors, own: Tensors, layers: int, flipped: bool, where: str) -> dict[str, Tensor]:
    """Their tensors as this program's network has them.

    Args:
        theirs: the state of a UNet2DModel; of any version, of any floating-point numbers.
        own: the state of the network, for names and shapes (it may be on the meta device).
        layers: ``num_res_blocks``.
        flipped: ``flip_sin_to_cos``.
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
    if flipped:
        found["time.0.weight"] = found["time.0.weight"].roll(found["time.0.weight"].shape[1] // 2, 1)
    return {name: tensor.contiguous() for name, tensor in found.items()}


def tensors_for(own: Tensors, layers: int) -> dict[str, Tensor]:
    """This program's tensors as a UNet2DModel with the sines first has them: the inverse of :func:`tensors_from`."""
    found = {}
    for name, tensor in own.items():
        group = theirs_of(name, layers)
        flat = len(group) > 1 or group[0].endswith("to_out.0.weight")  # 1x1 convolutions are linear layers there
        for one, piece in zip(group, tensor.chunk(len(group)), strict=True):
            found[one] = piece.flatten(1).contiguous() if flat and piece.ndim > 1 else piece.contiguous()
    return found


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
        block = "mid_block"
        home = f"{block}.attentions.0" if place == "1" else f"{block}.resnets.{int(place) // 2}"
        return _within(home, inner[0], kind)
    per_level = layers + 1 if side == "down" else layers + 2  # the last module of a level changes the resolution
    level, j = divmod(int(place), per_level)
    block = f"{side}_blocks.{level}"
    if j == per_level - 1:
        return (f"{block}.{side}samplers.0.conv.{kind}",)
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


def _widths(theirs: Mapping[str, Any], where: str) -> list[int]:
    widths = theirs["block_out_channels"]
    if not isinstance(widths, list) or not widths or not all(type(w) is int and w > 0 for w in widths):
        raise _refused(where, "block_out_channels", widths, "a list of whole numbers is needed")
    if any(width % widths[0] for width in widths):
        raise _refused(where, "block_out_channels", widths, "each must be a multiple of the first (model.dim_mults)")
    return widths


def _use_attn(theirs: Mapping[str, Any], where: str) -> list[bool]:
    found = []
    for key in ("down_block_types", "up_block_types"):
        types = theirs[key]
        known = [name for name in HAS_ATTENTION if name.endswith(f"{key.split('_')[0].title()}Block2D")]
        wrong = types if not isinstance(types, list) else [name for name in types if name not in known]
        if wrong or not types:
            raise _refused(where, key, wrong, f"this program's network has {' and '.join(known)}")
        found.append([HAS_ATTENTION[name] for name in types])
    down, up = found
    if down != up[::-1]:
        raise _refused(where, "up_block_types", theirs["up_block_types"], "they must mirror down_block_types")
    return down


def _heads(theirs: Mapping[str, Any], widths: Sequence[int], use_attn: Sequence[bool], where: str) -> dict[str, Any]:
    """The number of heads where all attentions have the same, else the width of a head."""
    head = theirs["attention_head_dim"]
    if head is None:
        return {"n_heads": 1, "head_channels": None}
    if type(head) is not int or head < 1 or any(w % head for w in _with_attention(widths, use_attn)):
        raise _refused(where, "attention_head_dim", head, "it must divide the widths that have attention")
    counts = {width // head for width in _with_attention(widths, use_attn)}
    if len(counts) == 1 and not any(width % count for width in widths for count in counts):
        return {"n_heads": counts.pop(), "head_channels": None}
    return {"n_heads": 1, "head_channels": head}


def _with_attention(widths: Sequence[int], use_attn: Sequence[bool]) -> list[int]:
    """The widths of all attentions; the middle always has one."""
    return [width for width, wanted in zip(widths, use_attn, strict=True) if wanted] + [widths[-1]]


def _padding(theirs: Mapping[str, Any], where: str) -> str:
    padding = theirs["downsample_padding"]
    if type(padding) is not int or padding not in PADDING:
        raise _refused(where, "downsample_padding", padding, "it must be 0 (right and below) or 1 (both sides)")
    return PADDING[padding]


def _whole(theirs: Mapping[str, Any], key: str, where: str) -> int:
    value = theirs[key]
    if type(value) is not int or not 1 <= value < 2**31:
        raise _refused(where, key, value, "a whole number of at least 1 is needed")
    return value


def _number(theirs: Mapping[str, Any], key: str, where: str) -> float:
    value = theirs[key]
    if type(value) not in (int, float) or not 0 <= value < 2**31:
        raise _refused(where, key, value, "a number of at least 0 is needed")
    return float(value)


def _refused(where: str, key: str, value: object, why: str) -> CheckpointError:
    return CheckpointError(f"{where}: {shown(key)} is {quoted(value)}, which cannot be imported: {why}")


def _without_equal(what: str) -> ConfigError:
    return ConfigError(
        f"diffusers' UNet2DModel has no network with {what}: export it with --format safetensors, one file that this "
        "program reads"
    )


def _known(section: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A section without options that the network does not have."""
    known = {field.name for field in dataclasses.fields(UNetConfig)}
    for key, value in section.items():
        if key not in known and value != OPTIONS[key]:
            raise CheckpointError(f"{where}: this version's network has no {key} {value}")
    return {key: value for key, value in section.items() if key in known}
