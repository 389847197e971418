"""Names on the Hugging Face hub, such as ``google/ddpm-cifar10-32``: fetched by huggingface_hub, if it is installed."""

from __future__ import annotations

import logging
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ddpm_ip.errors import CheckpointError
from ddpm_ip.extras import how_to_install
from ddpm_ip.plain import reason, shown

log = logging.getLogger("ddpm_ip.interop")

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def is_name(path: Path) -> bool:
    """Whether a path that is not there may be a name on the hub: ``owner/name``, and no folder of the owner's name."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", str(path)) is not None and not (
        path.parent.exists() or path.suffix in (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".yaml")
    )


def fetched(path: Path) -> Path:
    """The folder in huggingface_hub's cache with the files of a name, or its only file of weights.

    Only files of tensors and JSON are fetched; pickles only if there is no safetensors file.

    Raises:
        CheckpointError: there is no such package, network or name.
    """
    name = str(path)
    if find_spec("huggingface_hub") is None:
        raise CheckpointError(
            f"{shown(path)} does not exist here. If it is a name on the Hugging Face hub, huggingface_hub fetches it: "
            f"{how_to_install('hub')}"
        )
    import huggingface_hub

    log.info("%s is not here: looking for it on the Hugging Face hub", shown(path))
    try:
        client: Any = huggingface_hub
        files = client.HfApi().list_repo_files(name)
        safe = any(file.endswith(".safetensors") for file in files)
        folder = client.snapshot_download(name, allow_patterns=["*.json", "*.safetensors", *(() if safe else PICKLES)])
    except Exception as error:  # whatever a network, a proxy or the hub may answer
        said = (reason(error) or type(error).__name__).split("\n")[0][:300]
        raise CheckpointError(
            f"{shown(path)} does not exist here, and cannot be fetched from the Hugging Face hub by this name: {said}"
        ) from None
    kept = [file for file in Path(folder).glob("*") if file.suffix == ".safetensors" or f"*{file.suffix}" in PICKLES]
    return kept[0] if len(kept) == 1 and not (Path(folder) / "config.json").exists() else Path(folder)
