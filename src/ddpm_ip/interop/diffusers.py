"""Folders of diffusers, read without it: a pipeline of a UNet2DModel and a scheduler, or a UNet2DModel by itself.

    FOLDER/model_index.json                                   DDPMPipeline
    FOLDER/unet/config.json, diffusion_pytorch_model.*        UNet2DModel; or in FOLDER itself, as google's of 2022
    FOLDER/scheduler/scheduler_config.json                    DDPMScheduler, ...; or in FOLDER itself

JSON and tensors are all that is read: safetensors, or a ``.bin`` with nothing but tensors in it. How the network and
the scheduler are read is in :mod:`ddpm_ip.interop.unet2d` and :mod:`ddpm_ip.interop.schedulers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_ip.config import from_dict
from ddpm_ip.errors import CheckpointError, ConfigError, UserError
from ddpm_ip.files import read_json
from ddpm_ip.interop import schedulers, unet2d
from ddpm_ip.interop.base import DIFFUSION, Imported, left_open
from ddpm_ip.interop.read import numbers, states
from ddpm_ip.interop.unet2d_tensors import tensors_from
from ddpm_ip.plain import shown

FORMAT = "diffusers"
INDEX, CONFIG, SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
WEIGHTS, OLDER = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"
ADVICE = "Download the folder again, or save it again with diffusers' save_pretrained"


def recognises(path: Path) -> bool:
    """Whether a folder is diffusers' of a UNet2DModel, by the names and the class in its config.json."""
    if not path.is_dir():
        return False
    if (path / INDEX).is_file():
        return True
    try:
        return "_class_name" in read_json(path / CONFIG)
    except UserError:
        return False


def convert(path: Path, given: Mapping[str, Any]) -> Imported:
    """Reads a folder.

    Args:
        path: the folder.
        given: its section ``diffusion`` counts for a network that comes without a scheduler.

    Raises:
        CheckpointError: it holds something else, or a network or a scheduler that cannot be had here; names the key.
    """
    home = path / "unet" if (path / "unet").is_dir() else path
    file = home / CONFIG
    theirs = read_json(file, advice=ADVICE, error=CheckpointError)
    model = unet2d.section_of(theirs, shown(file))
    if "dropout" not in theirs:
        model["dropout"] = left_open("model", {"dropout": model["dropout"]}, given)[0]["dropout"]
    classes = theirs.get("num_class_embeds")
    if classes is not None and (type(classes) is not int or classes < 1):
        raise CheckpointError(f"{shown(file)}: num_class_embeds is not a number of classes")
    channels, out = model["in_channels"], theirs.get("out_channels", unet2d.DEFAULTS["out_channels"])
    if out not in (channels, 2 * channels):
        raise CheckpointError(
            f"{shown(file)}: out_channels is {shown(out)}, which cannot be imported: in_channels is {channels}, and a "
            f"network here puts out {channels}, or {2 * channels} with a learned variance"
        )
    diffusion, assumed, notes, read = _diffusion(path, given, out != channels)
    sections: dict[str, Any] = {"model": model, "diffusion": diffusion}
    if classes is not None:
        left, more = left_open("classes", {"dropout": 0.0}, given)
        sections["classes"], assumed = {"count": classes, **left}, [*assumed, *more]
    if (size := theirs.get("sample_size")) is not None:
        sections["data"] = {"image_size": size}
    tensors, weights = _tensors(home)
    flipped = theirs.get("flip_sin_to_cos", unet2d.DEFAULTS["flip_sin_to_cos"])
    exchange = flipped != unet2d.cosines_first(model)
    own = _network(sections, out, shown(file))
    converted = tensors_from(tensors, own, model["num_res_blocks"], exchange, shown(weights))
    return Imported(FORMAT, sections, converted, "unknown", tuple(assumed), (file, *read, weights), tuple(notes))


def _diffusion(
    path: Path, given: Mapping[str, Any], learned: bool
) -> tuple[dict[str, Any], list[str], list[str], list[Path]]:
    """The section ``diffusion``, what was assumed, what is said of sampling, and the files that say it."""
    for file in (path / "scheduler" / SCHEDULER, path / SCHEDULER):
        if file.is_file():
            found = read_json(file, advice=ADVICE, error=CheckpointError)
            section, assumed, notes = schedulers.section_of(found, learned, shown(file))
            if not learned:  # which fixed variance is a matter of sampling
                section["var_type"] = left_open("diffusion", {"var_type": section["var_type"]}, given)[0]["var_type"]
            return section, assumed, notes, [file]
    section, assumed = left_open("diffusion", {**DIFFUSION, "var_type": _variance(learned)}, given)
    return section, assumed, [], []


def _variance(learned: bool) -> str:
    return "learned_range" if learned else "fixed_small"  # DDPMScheduler's, where nobody says


def _network(sections: Mapping[str, Any], out_channels: int, where: str) -> Mapping[str, Tensor]:
    """Names and shapes of the tensors of this program's network."""
    try:
        config = from_dict({**sections, "data": {"name": "digits"}}, where)
        classes = None if config.classes is None else config.classes.count
        with torch.device("meta"):
            return config.model.build(config.model.in_channels, out_channels, classes).state_dict()
    except ConfigError as error:
        raise CheckpointError(f"{where} describes a network that cannot be built here: {error}") from None


def _tensors(home: Path) -> tuple[Mapping[str, Tensor], Path]:
    """The tensors of a network, and their file."""
    for name in (WEIGHTS, OLDER):
        if (file := home / name).is_file():
            found = states(file)
            if len(found) != 1:
                raise CheckpointError(f"{shown(file)} holds {len(found)} networks, and one is expected. {ADVICE}")
            return numbers(found[0]), file
    if several := sorted(home.glob("*.index.json")):
        raise CheckpointError(
            f"{shown(several[0])}: the weights are in several files. Save them in one with diffusers, "
            'save_pretrained(..., max_shard_size="50GB")'
        )
    others = [found.name for found in sorted(home.glob("diffusion_pytorch_model.*"))]
    raise CheckpointError(
        f"{shown(home)} holds no {WEIGHTS} and no {OLDER}"
        + (f", only {', '.join(map(shown, others[:3]))}: rename the one that you mean" if others else f". {ADVICE}")
    )
