"""Weights: from a run, a checkpoint or a file, and into a network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ddpm_ip.errors import CheckpointError
from ddpm_ip.files import reading
from ddpm_ip.run.checkpoint import Checkpoint, find, sha256
from ddpm_ip.run.header import Header, read_header
from ddpm_ip.run.identity import Identity, identity, imported_in, of_header, of_meta
from ddpm_ip.run.tensors import mismatches, read_tensors, refuse_not_finite, some

log = logging.getLogger("ddpm_ip.sample")


class Weights(NamedTuple):
    """The averaged network's weights, and where they are from.

    Attributes:
        tensors: by name, on the CPU.
        sha256: of their file.
        averaged: see :func:`averaged`.
        checkpoint: the checkpoint that they are part of, and its step; None for a file by itself.
        origin: their file or checkpoint, for messages.
        own: what a source says of itself that is no run of this program (:mod:`ddpm_ip.interop`).
        header: what a file by itself says of them; None if it says nothing.
    """

    tensors: dict[str, Tensor]
    sha256: str
    averaged: bool | str
    checkpoint: Checkpoint | None
    origin: str
    own: Identity | None = None
    header: Header | None = None

    @property
    def step(self) -> int | None:
        """Training steps behind them; None for a file that does not say."""
        if self.checkpoint is not None:
            return self.checkpoint.step
        return None if self.header is None else self.header.step

    def trained(self, path: Path) -> Identity:
        """The run that they are of: their checkpoint says it, or their own file, or else the folder that they lie in.

        Args:
            path: where they were found.

        Raises:
            ConfigError: nothing says it.
        """
        if self.header is not None:
            return of_header(self.header, Path(self.origin))
        own = self.own if self.checkpoint is None else of_meta(self.checkpoint.meta, self.checkpoint.path)
        return own or identity(path)

    def facts(self) -> dict[str, Any]:
        """What files of samples say of the weights."""
        return {"weights": self.sha256, "averaged": self.averaged}


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The averaged network's tensors, and the SHA-256 of their file; see :func:`find_weights`."""
    found = find_weights(path)
    return found.tensors, found.sha256


def find_weights(path: Path) -> Weights:
    """The averaged network's weights.

    Args:
        path: folder of a run (its newest checkpoint whose average is whole and finite), a checkpoint, or a safetensors
            file, whose header may say all that a checkpoint says (:mod:`ddpm_ip.run.header`).

    Raises:
        CheckpointError: there are no weights, or they are damaged or not finite.
    """
    if path.is_file():
        if path.suffix != ".safetensors":
            raise CheckpointError(f"{path} is not a .safetensors file; nothing else is read, since it could run code")
        tensors = read_tensors(path)
        refuse_not_finite(tensors, path)
        header = read_header(path)
        known = averaged(path) if header is None else header.averaged
        with reading(path, error=CheckpointError):
            return Weights(tensors, sha256(path), known, None, str(path), header=header)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: give the folder of a run, a checkpoint, or a .safetensors file")
    found = find(path, ["ema"])
    log.info("weights: the average of %s", found.path)
    return Weights(found.tensors("ema"), found.hashes["ema.safetensors"], averaged_in(found), found, str(found.path))


def averaged_in(checkpoint: Checkpoint) -> bool | str:
    """Whether a checkpoint's ``ema`` is an average: it is, unless it was imported and nothing was trained since."""
    imported = imported_in(checkpoint.meta)
    if imported is None or checkpoint.step:
        return True
    found = imported.get("averaged")
    return found if isinstance(found, bool) else "unknown"


def averaged(path: Path) -> bool | str:
    """Whether weights are of the averaged network; of a file that somebody has renamed nobody knows."""
    return path.is_dir() or {"ema.safetensors": True, "model.safetensors": False}.get(path.name, "unknown")


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Copies weights into a network, in place.

    Raises:
        CheckpointError: names, shapes or dtypes differ; says which, and where the weights came from.
    """
    own = network.state_dict()
    if wrong := mismatches(own, weights):
        raise CheckpointError(
            f"the weights of {origin} do not fit the network of this configuration (check the model section and "
            f"diffusion.var_type):\n{some(wrong)}"
        )
    with torch.no_grad():
        for k, v in own.items():
            v.copy_(weights[k])
