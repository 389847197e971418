"""The U-Net of ``openai/guided-diffusion`` and ``openai/improved-diffusion``: ADM, ADM-IP, DDPM-IP and their kin.

Sizes, classes, a learned variance, whether residual blocks halve, and whether time scales and shifts a norm follow
from names and shapes. Heads, the order of the attention's channels and the noise schedule do not: they come from what
is given, or are taken to be those of the published networks of these sizes (:func:`_published`), which is said.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ddpm_ip.errors import CheckpointError
from ddpm_ip.interop.base import DIFFUSION, Imported, State, left_open, surplus
from ddpm_ip.interop.read import numbers
from ddpm_ip.nn.adm import ADMConfig

NAME = "guided-diffusion"
KEYS = "time_embed.0.weight, input_blocks.0.0.weight, middle_block.0..., output_blocks.0.0..., out.2.weight"
BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "emb": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "shortcut": "skip_connection",
}
ATTENTION = {"norm": "norm", "qkv": "qkv", "proj": "proj_out"}


def recognises(names: Collection[str]) -> bool:
    """By the first layers; a classifier has them, too, and is refused by name."""
    return {"time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight"} <= set(names)


def convert(state: State, given: Mapping[str, Any]) -> Imported:
    """See :meth:`ddpm_ip.interop.base.KeyedFormat.convert`."""
    _refuse_others(state)
    tensors = numbers(state)
    sizes = _sizes(state, tensors)
    ours = _renamed(state, tensors, sizes)
    channels, learned = _channels(state, ours)
    classes = len(ours["labels.weight"]) if "labels.weight" in ours else None
    typical_model, typical_diffusion = _published(sizes, classes)
    typical = {k: v for k, v in {**DIFFUSION, **typical_diffusion}.items() if not (learned and k == "var_type")}
    diffusion, more = left_open("diffusion", typical, given)
    diffusion |= {"var_type": "learned_range"} if learned else {}
    if typical_model["time_scale"] != 1:
        typical_model["time_scale"] = 1000 / float(diffusion["total_steps"])
    model_open, assumed = left_open("model", _heads(typical_model, given), given)
    model = {"name": "adm", "in_channels": channels, **asdict(sizes), "norm_eps": 1e-5, **model_open}
    sections = {"model": model, "diffusion": diffusion}
    assumed += more
    if classes is not None:
        hidden, more = left_open("classes", {"dropout": 0.0}, given)
        sections["classes"] = {"count": classes, **hidden}
        assumed += more
    return Imported(NAME, sections, ours, state.averaged, tuple(assumed), (state.path,))


@dataclass(frozen=True)
class _Sizes:
    """What follows from names and shapes; see :class:`ddpm_ip.nn.adm.ADMConfig`."""

    dim: int
    dim_mults: list[int | float]
    use_attn: list[bool]
    num_res_blocks: int
    resblock_updown: bool
    scale_shift_norm: bool


def _refuse_others(state: State) -> None:
    """Refuses relatives of the network that are none.

    Raises:
        CheckpointError: by name.
    """
    names = state.tensors.keys()
    first = state.tensors["input_blocks.0.0.weight"]
    what = None
    if not any(name.startswith("output_blocks.") for name in names):
        what = "a classifier (EncoderUNetModel), which guides another network and makes no images"
    elif any(".transformer_blocks." in name for name in names):
        what = "a latent diffusion network with cross-attention, which needs its autoencoder and text"
    elif first.ndim == 4 and first.shape[1] == 6:
        what = "a super-resolution network (SuperResModel), which needs a small image besides the noise"
    elif first.ndim != 4:
        what = "a network of 1D or 3D data"
    if what is not None:
        raise CheckpointError(f"{state.origin} is {what}: give a network that makes images of noise")


def _sizes(state: State, tensors: Mapping[str, Tensor]) -> _Sizes:
    """Reads the sizes off names and shapes."""
    ways = _count(tensors, "input_blocks"), _count(tensors, "output_blocks")
    ends = [i for i in range(ways[1]) if _resample(tensors, i) is not None]
    blocks = ends[0] if ends else ways[1] - 1
    levels = len(ends) + 1
    if blocks < 1 or ways != (levels * (blocks + 1), levels * (blocks + 1)):
        raise CheckpointError(f"{state.origin} has {ways[0]} input and {ways[1]} output blocks: no U-Net of ADM's")
    starts = [1 + level * (blocks + 1) for level in range(levels)]
    attended = [{f"input_blocks.{s + i}.1.qkv.weight" in tensors for i in range(blocks)} for s in starts]
    if any(len(kinds) > 1 for kinds in attended):
        raise CheckpointError(f"{state.origin}: a resolution has attention after some of its blocks only")
    try:
        dim = tensors["time_embed.0.weight"].shape[1]
        widths = [len(tensors[f"input_blocks.{s}.0.out_layers.3.weight"]) for s in starts]
        embedded = len(tensors["input_blocks.1.0.emb_layers.1.weight"])
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{state.origin} lacks {error}: it is cut off, or another network") from None
    mults = [width // dim if width % dim == 0 else width / dim for width in widths] if dim else []
    return _Sizes(
        dim=dim,
        dim_mults=mults,
        use_attn=[kinds == {True} for kinds in attended],
        num_res_blocks=blocks,
        resblock_updown=not ends or str(_resample(tensors, ends[0])).endswith(".in_layers.0"),
        scale_shift_norm=embedded == 2 * widths[0],
    )


def _count(tensors: Mapping[str, Tensor], way: str) -> int:
    return 1 + max((int(m[1]) for name in tensors if (m := re.match(rf"{way}\.(\d{{1,4}})\.", name))), default=-1)


def _resample(tensors: Mapping[str, Tensor], i: int) -> str | None:
    """The first layer of what doubles the image after an output block, if anything does."""
    tails = [f"output_blocks.{i}.{j}.{name}" for j in (1, 2) for name in ("in_layers.0", "conv")]
    return next((tail for tail in tails if f"{tail}.weight" in tensors), None)


def _renamed(state: State, tensors: dict[str, Tensor], sizes: _Sizes) -> dict[str, Tensor]:
    """The tensors by our names; theirs are used up."""
    ours = {}
    for our, theirs in _pairs(tensors, sizes):
        for kind in ("weight", "bias"):
            name = f"{theirs}.{kind}"
            if name not in tensors:
                if our.endswith(".shortcut"):
                    continue
                raise CheckpointError(f"{state.origin} lacks {name}: it is cut off, or another network")
            found = tensors.pop(name)
            conv1d = our.endswith((".qkv", ".proj")) and found.ndim == 3
            ours[f"{our}.{kind}"] = found.unsqueeze(-1) if conv1d else found
    if "label_emb.weight" in tensors:
        ours["labels.weight"] = tensors.pop("label_emb.weight")
    if tensors:
        raise surplus(state, tensors)
    return ours


def _pairs(tensors: Mapping[str, Tensor], sizes: _Sizes) -> Iterator[tuple[str, str]]:
    """Each layer of ours, and theirs that it is."""
    yield from (("time.0", "time_embed.0"), ("time.2", "time_embed.2"), ("conv_in", "input_blocks.0.0"))
    yield from (("norm_out", "out.0"), ("conv_out", "out.2"))
    yield from _block("middle.0", "middle_block.0")
    yield from _attention("middle.1", "middle_block.1")
    yield from _block("middle.2", "middle_block.2")
    blocks, levels = sizes.num_res_blocks, len(sizes.dim_mults)
    for i in range(1, levels * (blocks + 1)):
        place = f"down.{i - 1}"
        if i % (blocks + 1):
            yield from _pair(place, f"input_blocks.{i}", sizes.use_attn[i // (blocks + 1)])
        elif sizes.resblock_updown:
            yield from _block(place, f"input_blocks.{i}.0")
        else:
            yield f"{place}.conv", f"input_blocks.{i}.0.op"
    at = 0
    for i in range(levels * (blocks + 1)):
        attended = sizes.use_attn[levels - 1 - i // (blocks + 1)]
        yield from _pair(f"up.{at}", f"output_blocks.{i}", attended)
        at += 1
        if i % (blocks + 1) == blocks and i // (blocks + 1) < levels - 1:
            theirs = f"output_blocks.{i}.{1 + attended}"
            if sizes.resblock_updown:
                yield from _block(f"up.{at}", theirs)
            else:
                yield f"up.{at}.conv", f"{theirs}.conv"
            at += 1


def _pair(ours: str, theirs: str, attended: bool) -> Iterator[tuple[str, str]]:
    yield from _block(f"{ours}.0", f"{theirs}.0")
    if attended:
        yield from _attention(f"{ours}.1", f"{theirs}.1")


def _block(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield from ((f"{ours}.{our}", f"{theirs}.{name}") for our, name in BLOCK.items())


def _attention(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield from ((f"{ours}.{our}", f"{theirs}.{name}") for our, name in ATTENTION.items())


def _channels(state: State, ours: Mapping[str, Tensor]) -> tuple[int, bool]:
    """Channels of the images and of the prediction, and whether the second half of these is the variance's."""
    channels, out = ours["conv_in.weight"].shape[1], len(ours["conv_out.weight"])
    if out not in (channels, 2 * channels):
        raise CheckpointError(f"{state.origin} makes {out} channels of {channels}, neither the same nor twice as many")
    return channels, out == 2 * channels


def _published(sizes: _Sizes, classes: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the published networks of these sizes have in common that no shape tells: of the model, of the diffusion.

    From the flags in the READMEs of guided-diffusion (ImageNet 64 to 512, LSUN), DDPM-IP and improved-diffusion, whose
    own default is to tell the network ``1000 t / total_steps``.
    """
    if not sizes.resblock_updown:  # improved-diffusion
        legacy = {"attention_order": "legacy", "dropout": 0.0}
        if not sizes.scale_shift_norm:  # LSUN
            return {"n_heads": 1, "time_scale": 1.0, **legacy}, {"beta_schedule": "linear"}
        scale = 0.25 if classes is None else 1.0
        return {"n_heads": 4, "time_scale": scale, **legacy}, {"beta_schedule": "cosine", "total_steps": 4000}
    deep = sizes.num_res_blocks == 3  # ImageNet 64 and all of DDPM-IP
    model = {"attention_order": "new" if deep else "legacy", "dropout": 0.1, "time_scale": 1.0}
    if sizes.dim_mults == [1, 1, 2, 3, 4] and not deep:  # ImageNet 128
        model["n_heads"] = 4
    else:
        model["head_channels"] = 32 if sizes.dim == 128 else 64
    return model, {"beta_schedule": "cosine" if deep else "linear"}


def _heads(typical: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is assumed of a network, besides what is given: heads are given by their number or their width."""
    said = given.get("model")
    said = said if isinstance(said, Mapping) else {}
    if said.get("name") == "adm":  # a configuration of this network, which leaves out what is as usual here
        keys = ("n_heads", "head_channels", "attention_order", "dropout", "time_scale")
        typical = {k: getattr(ADMConfig, k) for k in keys}
    rest = {k: typical[k] for k in ("attention_order", "dropout", "time_scale")}
    if "head_channels" in said or "n_heads" in said:
        return {"n_heads": said.get("n_heads", 1), "head_channels": said.get("head_channels"), **rest}
    return {"n_heads": typical.get("n_heads", 1), "head_channels": typical.get("head_channels"), **rest}
