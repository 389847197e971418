"""``ddpm-ip export``: a trained network for other programs, as a folder that says what it is.

    diffusers      DIR/model_index.json, unet/, scheduler/, README.md      a DDPMPipeline, as save_pretrained writes it
    safetensors    DIR/model.safetensors, README.md                        the weights, and in their header the settings

A folder appears whole or not at all, and nothing that is there is written over.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ddpm_ip import __version__
from ddpm_ip.config import Config
from ddpm_ip.errors import CheckpointError, ConfigError, UserError
from ddpm_ip.files import flush, make_folder, write_json, write_text
from ddpm_ip.interop import schedulers, unet2d
from ddpm_ip.interop.card import Exported, card, imported
from ddpm_ip.interop.diffusers import CONFIG, INDEX, SCHEDULER, WEIGHTS
from ddpm_ip.interop.unet2d_tensors import tensors_for
from ddpm_ip.plain import reason, shown
from ddpm_ip.run.checkpoint import sha256
from ddpm_ip.run.header import Header
from ddpm_ip.run.identity import changes_in
from ddpm_ip.run.tensors import mismatches, some
from ddpm_ip.run.weights import Weights
from ddpm_ip.sampler import Ancestral

Format = Literal["diffusers", "safetensors"]
FILE = "model.safetensors"
DIFFUSERS = "0.27.0"  # the version whose files these are; later ones read them, too


@dataclass(frozen=True)
class ExportOptions:
    """What to write.

    Args:
        format: ``diffusers`` or ``safetensors``.
        licence: of the weights: an identifier of the hub, such as ``apache-2.0``, or a text; None for that of imported
            weights, or unknown.
        name: what the card calls the model; None for the name of the folder.
    """

    format: Format = "diffusers"
    licence: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise ConfigError(f"--format must be one of {', '.join(get_args(Format))}, got {self.format!r}")


def export(config: Config, weights: Weights, source: Path, out: Path, options: ExportOptions) -> Path:
    """Writes a network for other programs.

    Args:
        config: with which the weights are sampled.
        weights: the averaged network's.
        source: where they were found: the folder of a run, a checkpoint or a file.
        out: the folder; it must be new or empty.
        options: what to write.

    Returns:
        ``out``.

    Raises:
        ConfigError: the folder is used, or diffusers has no such network.
        CheckpointError: the weights do not fit the configuration.
        UserError: the folder cannot be written.
    """
    refuse_used(out)
    _refuse_misfit(config, weights)
    files = _diffusers(config, weights) if options.format == "diffusers" else _single(config, weights)
    partial = out.with_name(f".{out.name[:50]}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    make_folder(partial)
    try:
        for name, write in files.items():
            write(partial / name)
            flush(partial / name)
        tensors = next(name for name in files if name.endswith(".safetensors"))
        about = Exported(options.format, options.name or out.name, options.licence, tensors, sha256(partial / tensors))
        write_text(partial / "README.md", card(config, weights, source, about))
        with suppress(OSError):  # an empty folder is there, or none
            out.rmdir()
        os.rename(partial, out)
    except (OSError, SafetensorError) as caught:
        raise UserError(f"{shown(out)} cannot be written: {_said(caught)}. Nothing was left there") from caught
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def refuse_used(out: Path) -> None:
    """Refuses a folder that holds something.

    Raises:
        ConfigError: says to choose another.
    """
    if os.path.lexists(out) and not (out.is_dir() and not out.is_symlink() and not any(out.iterdir())):
        raise ConfigError(
            f"{shown(out)} is there already, and nothing of it was touched. Choose another folder with -o"
        )


_Files = Mapping[str, Callable[[Path], None]]


def _diffusers(config: Config, weights: Weights) -> _Files:
    """The files of a DDPMPipeline, by name, and what writes each."""
    plain = config.to_dict()
    out_channels = config.model.in_channels * (2 if config.diffusion.learned_variance else 1)
    classes = None if config.classes is None else config.classes.count
    network = unet2d.config_of(plain["model"], _size(config), out_channels, classes)
    scheduler = schedulers.config_of(
        plain["diffusion"], variance(config), config.sampling.clip, config.sampling.spacing
    )
    tensors = tensors_for(plain["model"], weights.tensors)
    index = {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"]}
    index["unet"] = ["diffusers", "UNet2DModel"]
    return {
        INDEX: _json(index),
        f"scheduler/{SCHEDULER}": _json(scheduler),
        f"unet/{CONFIG}": _json(network),
        f"unet/{WEIGHTS}": _tensors(tensors, {"format": "pt"}),
    }


def _single(config: Config, weights: Weights) -> _Files:
    """One file that is a whole model, and what writes it."""
    return {FILE: _tensors(weights.tensors, header(config, weights).texts())}


def header(config: Config, weights: Weights) -> Header:
    """What an exported file of weights says of itself."""
    before, checkpoint = weights.header, weights.checkpoint
    meta: Mapping[str, Any] = {} if checkpoint is None else checkpoint.meta
    history = changes_in(meta) if before is None else list(before.history)
    return Header(
        config.to_dict(), weights.step, tuple(history), weights.averaged, weights.sha256, imported(weights), __version__
    )


def variance(config: Config) -> str:
    """Of the reverse process, as a scheduler of diffusers knows it: that of the samples, or else of the model."""
    sampler = config.sampling.sampler
    given = sampler.var_type if isinstance(sampler, Ancestral) else None
    if config.diffusion.learned_variance:
        return "learned_range"  # there, a network with twice the channels has no other
    return given if given in ("fixed_small", "fixed_large") else config.diffusion.var_type


def _size(config: Config) -> int | list[int]:
    """Of the images, as UNet2DModel says it."""
    _, height, width = config.shape
    return height if height == width else [height, width]


def _refuse_misfit(config: Config, weights: Weights) -> None:
    """Refuses weights of another network than the configuration's."""
    with torch.device("meta"):
        own = config.build_network().state_dict()
    if wrong := mismatches(own, weights.tensors):
        raise CheckpointError(f"the weights of {weights.origin} are not those of this configuration:\n{some(wrong)}")


def _json(value: Mapping[str, Any]) -> Callable[[Path], None]:
    stamped = {"_class_name": value["_class_name"], "_diffusers_version": DIFFUSERS, **value}
    return lambda path: write_json(path, stamped, schema=None)


def _tensors(tensors: Mapping[str, Tensor], texts: dict[str, str]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        make_folder(path.parent)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, texts)

    return write


def _said(caught: Exception) -> str:
    return reason(caught) if isinstance(caught, OSError) else str(caught)[:300]
