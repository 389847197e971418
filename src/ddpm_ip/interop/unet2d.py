"""UNet2DModel of diffusers and this program's networks: the same ones, described differently.

With ``resnet_time_scale_shift: default`` and strided convolutions it is DDPM's U-Net (``model.name: unet``); with
``scale_shift``, or residual blocks that halve and double the image (ResnetDownsampleBlock2D), it is ADM's (``adm``).
What UNet2DModel can be and these cannot is refused, with the name of the key. The rest is exact.

Source: the config.json of diffusers' ``UNet2DModel``, as of version 0.42.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddpm_ip.errors import CheckpointError, ConfigError
from ddpm_ip.plain import quoted, shown

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
# Keys of which this program's networks have these values.
ONLY: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "freq_shift": (0, 1),
    "flip_sin_to_cos": (True, False),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "add_attention": (True,),
    "class_embed_type": (None,),
}
PADDING = ("right_below", "both")  # of a strided convolution, by downsample_padding
WAYS = (("down_block_types", "downsample_type", "Down"), ("up_block_types", "upsample_type", "Up"))


def section_of(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The section ``model`` that is the same network.

    Args:
        config: the content of config.json.
        where: the file, for messages.

    Raises:
        CheckpointError: the network has something that no network here has; names the key.
    """
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise _refused(where, "_class_name", config["_class_name"], "only UNet2DModel is read")
    theirs = {**DEFAULTS, **{key: value for key, value in config.items() if not key.startswith("_")}}
    if unknown := [key for key in theirs if key not in DEFAULTS and theirs[key] is not None]:
        raise _refused(where, unknown[0], theirs[unknown[0]], "the key is not known here")
    for key, allowed in ONLY.items():
        if not any(theirs[key] == one and isinstance(theirs[key], bool) == isinstance(one, bool) for one in allowed):
            raise _refused(where, key, theirs[key], f"a network here has {' or '.join(map(str, allowed))}")
    widths, use_attn = _widths(theirs, where), _use_attn(theirs, where)
    if len(widths) != len(use_attn):
        raise _refused(where, "block_out_channels", widths, f"there are {len(use_attn)} down_block_types")
    if theirs["time_embedding_dim"] not in (None, 4 * widths[0]):
        raise _refused(where, "time_embedding_dim", theirs["time_embedding_dim"], f"it must be {4 * widths[0]}")
    resnet, scale_shift = _resnet(theirs, where), theirs["resnet_time_scale_shift"] == "scale_shift"
    is_adm = resnet or scale_shift
    groups = theirs["attn_norm_num_groups"]
    if groups != theirs["norm_num_groups"] and (scale_shift or groups is not None):
        raise _refused(where, "attn_norm_num_groups", groups, "in the middle it must be norm_num_groups")
    section = {
        "name": "adm" if is_adm else "unet",
        "in_channels": _whole(theirs, "in_channels", where),
        "dim": widths[0],
        "dim_mults": _mults(widths, is_adm, where),
        "use_attn": use_attn,
        "num_res_blocks": _whole(theirs, "layers_per_block", where),
        **_heads(theirs, widths, use_attn, where),
        "dropout": _number(theirs, "dropout", where),
        "num_groups": _whole(theirs, "norm_num_groups", where),
        "norm_eps": _number(theirs, "norm_eps", where),
    }
    padding, shift = theirs["downsample_padding"], theirs["freq_shift"]
    if not is_adm:
        return {**section, "padding": PADDING[padding], "freq_shift": shift}
    if shift != 0:
        raise _refused(where, "freq_shift", shift, "a network with scale_shift or resnet has 0 here")
    if padding != 1 and not resnet:
        raise _refused(where, "downsample_padding", padding, "a network with scale_shift has 1 here")
    return {**section, "resblock_updown": resnet, "scale_shift_norm": scale_shift, "attention_order": "new"}


def config_of(section: Mapping[str, Any], size: Any, out_channels: int, classes: int | None) -> dict[str, Any]:
    """The config.json of the UNet2DModel that is the same network.

    Args:
        section: ``model``, plain values.
        size: of the images, height and width, or one number for both.
        out_channels: of the prediction.
        classes: of a conditional network.

    Raises:
        ConfigError: UNet2DModel has no such network.
    """
    if section["name"] not in ("unet", "adm"):
        raise _without_equal(f"model.name {section['name']}")
    mults, use_attn = list(section["dim_mults"]), list(section["use_attn"])
    if mults[0] != 1:
        raise _without_equal(f"model.dim_mults[0] {mults[0]} (there it is always 1)")
    widths = [round(section["dim"] * mult) for mult in mults]
    is_adm = section["name"] == "adm"
    resnet = is_adm and section["resblock_updown"]
    kind = "resnet" if resnet else "conv"
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if resnet else ("DownBlock2D", "UpBlock2D")
    return {
        "_class_name": "UNet2DModel",
        **DEFAULTS,
        "sample_size": size,
        "in_channels": section["in_channels"],
        "out_channels": out_channels,
        "freq_shift": 0 if is_adm else section["freq_shift"],
        "flip_sin_to_cos": cosines_first(section),
        "down_block_types": ["AttnDownBlock2D" if attention else plain[0] for attention in use_attn],
        "up_block_types": ["AttnUpBlock2D" if attention else plain[1] for attention in reversed(use_attn)],
        "block_out_channels": widths,
        "layers_per_block": section["num_res_blocks"],
        "downsample_padding": 1 if is_adm else PADDING.index(section["padding"]),
        "downsample_type": kind,
        "upsample_type": kind,
        "dropout": section["dropout"],
        "attention_head_dim": _head(section, widths, use_attn),
        "norm_num_groups": section["num_groups"],
        "attn_norm_num_groups": section["num_groups"] if is_adm else None,
        "norm_eps": section["norm_eps"],
        "resnet_time_scale_shift": "scale_shift" if is_adm and section["scale_shift_norm"] else "default",
        "num_class_embeds": classes,
    }


def cosines_first(section: Mapping[str, Any]) -> bool:
    """Whether a network's time embedding has the cosines before the sines."""
    return bool(section["name"] == "adm")


def _widths(theirs: Mapping[str, Any], where: str) -> list[int]:
    widths = theirs["block_out_channels"]
    if not isinstance(widths, list) or not widths or not all(type(w) is int and 0 < w < 2**20 for w in widths):
        raise _refused(where, "block_out_channels", widths, "a list of whole numbers is needed")
    return widths


def _mults(widths: Sequence[int], fractions: bool, where: str) -> list[float]:
    """The widths in units of the first."""
    mults = [width / widths[0] for width in widths]
    if not fractions and not all(mult.is_integer() for mult in mults):
        raise _refused(where, "block_out_channels", widths, "each must be a multiple of the first (model.dim_mults)")
    return [int(mult) if mult.is_integer() else mult for mult in mults]


def _use_attn(theirs: Mapping[str, Any], where: str) -> list[bool]:
    """Which resolutions have attention."""
    found = []
    for key, _, way in WAYS:
        types = theirs[key]
        known = {f"{way}Block2D": False, f"Resnet{way}sampleBlock2D": False, f"Attn{way}Block2D": True}
        wrong = [one for one in types if one not in known] if isinstance(types, list) else types
        if wrong or not types:
            raise _refused(where, key, wrong, f"known are {', '.join(known)}")
        found.append([known[name] for name in types])
    down, up = found
    if down != up[::-1]:
        raise _refused(where, "up_block_types", theirs["up_block_types"], "they must mirror down_block_types")
    return down


def _resnet(theirs: Mapping[str, Any], where: str) -> bool:
    """Whether residual blocks halve and double the image; at the last resolution of a way nothing does."""
    kinds = set()
    for key, kind, way in WAYS:
        plain = {f"{way}Block2D": "conv", f"Resnet{way}sampleBlock2D": "resnet"}
        kinds |= {plain.get(name, theirs[kind]) for name in theirs[key][:-1]}
    if len(kinds) > 1:
        raise _refused(where, "down_block_types", theirs["down_block_types"], "some halve by conv, some by resnet")
    return kinds == {"resnet"}


def _heads(theirs: Mapping[str, Any], widths: Sequence[int], use_attn: Sequence[bool], where: str) -> dict[str, Any]:
    """The number of heads where all attentions have the same, else the width of a head."""
    head = theirs["attention_head_dim"]
    if head is None:
        return {"n_heads": 1, "head_channels": None}
    if type(head) is not int or head < 1 or any(w % head for w in _with_attention(widths, use_attn)):
        raise _refused(where, "attention_head_dim", head, "it must divide the widths that have attention")
    return {"n_heads": 1, "head_channels": head}


def _head(section: Mapping[str, Any], widths: Sequence[int], use_attn: Sequence[bool]) -> int | None:
    """The width of a head; None for one head.

    Raises:
        ConfigError: heads differ in it.
    """
    head: int | None = section["head_channels"]
    if head is not None or section["n_heads"] == 1:
        return head
    found = {width // section["n_heads"] for width in _with_attention(widths, use_attn)}
    if len(found) > 1:
        raise _without_equal(f"model.n_heads {section['n_heads']} at several widths (there all heads have one width)")
    (one,) = found
    return int(one)


def _with_attention(widths: Sequence[int], use_attn: Sequence[bool]) -> list[int]:
    """The widths of all attentions; the middle always has one."""
    return [width for width, wanted in zip(widths, use_attn, strict=True) if wanted] + [widths[-1]]


def _whole(theirs: Mapping[str, Any], key: str, where: str) -> int:
    value = theirs[key]
    if type(value) is not int or not 1 <= value < 2**20:
        raise _refused(where, key, value, "a whole number of at least 1 is needed")
    return value


def _number(theirs: Mapping[str, Any], key: str, where: str) -> float:
    value = theirs[key]
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise _refused(where, key, value, "a number in [0, 1) is needed")
    return float(value)


def _refused(where: str, key: str, value: object, why: str) -> CheckpointError:
    return CheckpointError(f"{where}: {shown(key)} is {quoted(value)}, which cannot be imported: {why}")


def _without_equal(what: str) -> ConfigError:
    return ConfigError(
        f"diffusers' UNet2DModel has no network with {what}: export it with --format safetensors, one file that this "
        "program reads"
    )
