"""The program ``import``: a network from elsewhere becomes the folder of a run.

The folder has one checkpoint, of step 0, whose network and average are both the imported weights, so that everything
that works on a run works on it: sampling, tables, reports, fine-tuning (``-r latest``), ``--init-from``. Its meta.json
says under ``imported`` where they are from, and so does every checkpoint that a training from there writes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpm_ip.errors import CheckpointError, ConfigError
from ddpm_ip.files import write_json, write_yaml
from ddpm_ip.interop.find import UNKNOWN, about_of, given, network, source, tell
from ddpm_ip.plain import shown
from ddpm_ip.run.checkpoint import save
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.identity import origin_in_words
from ddpm_ip.run.lock import Lock
from ddpm_ip.run.provenance import provenance

log = logging.getLogger("ddpm_ip.interop")


def take(
    path: Path,
    exp_dir: Path,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    licence: str = UNKNOWN,
) -> Path:
    """Makes the folder of a run of a foreign network.

    Args:
        path: its file or folder, or its name on the Hugging Face hub.
        exp_dir: the folder, which holds no run yet.
        file: a configuration, which decides what the source leaves open, and how training would continue.
        overrides: items of it, by dotted path.
        licence: of the weights, as a person knows it.

    Returns:
        The checkpoint.

    Raises:
        ConfigError: the folder holds a run, or what is given contradicts the source.
        CheckpointError: there is no such source, or it cannot be used.
    """
    folder = RunFolder(exp_dir)
    _refuse_used(folder)
    place = source(path)
    if place is None:
        raise CheckpointError(_nothing(path))
    found = network(place, given(file, overrides))
    tell(found, place)
    about = about_of(found, str(path), licence)
    config = found.config.to_dict()
    with Lock(folder.lock, "importing into"):
        _refuse_used(folder)
        meta = {"config": config, "imported": about, "history": [], "sums": [0.0, 0.0], "count": 0, "scaler": None}
        tensors = dict(found.imported.tensors)
        checkpoint = save(folder.checkpoints, 0, {"model": tensors, "ema": tensors}, meta)
        write_yaml(folder.config, config)
        record = {**provenance(), "parameters": sum(t.numel() for t in tensors.values()), "imported": about}
        write_json(folder.provenance, record)
    log.info("%s: %s", checkpoint, origin_in_words(about))
    return checkpoint


def _refuse_used(folder: RunFolder) -> None:
    if folder.is_used or folder.config.exists():
        raise ConfigError(
            f"{shown(folder.path)} holds a run already, and nothing of it was touched. Choose another folder with -e"
        )


def _nothing(path: Path) -> str:
    if not path.exists():
        return f"{shown(path)} does not exist: give a file or folder of weights, or a name on the Hugging Face hub"
    if path.is_dir():
        return (
            f"{shown(path)} is not a folder of a known format: neither one of diffusers, with model_index.json or the "
            "config.json of a UNet2DModel, nor one of xyfJASON's, with ema_model.pt. Of another, give the file of "
            "weights in it; a run of ddpm-ip is taken by every command as it is"
        )
    return f"{shown(path)} holds no network of a known format; weights of ddpm-ip itself need no import"
