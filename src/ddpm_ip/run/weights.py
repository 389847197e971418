"""Weights: from a run, a checkpoint or a file, and into a network.

A run may hold several averages. A text, ``ema``, says which one is meant: ``0.999``, one of the decays of
``train.ema_decay``; ``sigma_rel=0.08``, an average by a power function that is made from the snapshots of the run
(:mod:`ddpm_ip.run.snapshots`); by default the first decay.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ddpm_ip.errors import CheckpointError, ConfigError
from ddpm_ip.files import reading
from ddpm_ip.run.checkpoint import Checkpoint, find, sha256
from ddpm_ip.run.header import Header, read_header
from ddpm_ip.run.identity import Identity, identity, imported_in, of_header, of_meta
from ddpm_ip.run.snapshots import last, make, name_in
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


def find_weights(path: Path, ema: str | None = None) -> Weights:
    """The averaged network's weights.

    Args:
        path: folder of a run (its newest checkpoint whose average is whole and finite), a checkpoint, a snapshot, or a
            safetensors file, whose header may say all that a checkpoint says (:mod:`ddpm_ip.run.header`).
        ema: which average; see the top of this file. None for the first.

    Raises:
        CheckpointError: there are no weights, or they are damaged or not finite.
        ConfigError: there is no such average.
    """
    if path.is_file():
        if ema is not None:
            raise ConfigError(f"--ema {ema:.80}: {path} is one average, give the folder of a run or a checkpoint")
        if path.suffix != ".safetensors":
            raise CheckpointError(f"{path} is not a .safetensors file; nothing else is read, since it could run code")
        tensors = read_tensors(path)
        refuse_not_finite(tensors, path)
        header = read_header(path)
        known = name_in(path) or averaged(path) if header is None else header.averaged
        with reading(path, error=CheckpointError):
            return Weights(tensors, sha256(path), known, None, str(path), header=header)
    if not path.exists():
        raise CheckpointError(
            f"{path} does not exist: give the folder of a run, a checkpoint, a .safetensors file, or a network from "
            "elsewhere that `ddpm-ip import` takes; `--weights digits` are some that come with the package"
        )
    length = None if ema is None else length_of(ema)
    if length is not None:
        return _made(path, length)
    found = find(path, ["ema"])
    part, said = ("ema", averaged_in(found)) if ema is None else _kept(found, ema)
    tensors = found.tensors(part)
    if part != "ema":  # which was looked at
        refuse_not_finite(tensors, found.path / f"{part}.safetensors")
    which = {True: "the average of ", False: "", "unknown": ""}.get(said, f"the average of {said} of ")
    log.info("weights: %s%s", which, found.path)
    return Weights(tensors, found.hashes[f"{part}.safetensors"], said, found, str(found.path))


def averaged_in(checkpoint: Checkpoint) -> bool | str:
    """Whether a checkpoint's ``ema`` is an average: it is, unless it was imported and nothing was trained since."""
    imported = imported_in(checkpoint.meta)
    if imported is None or checkpoint.step:
        return True
    found = imported.get("averaged")
    return found if isinstance(found, bool) else "unknown"


def place(path: Path, ema: str | None = None) -> Path:
    """The checkpoint or snapshot that :func:`find_weights` takes now; training may write another one at any time."""
    if ema is None or length_of(ema) is None:
        return find(path, ["ema"]).path
    return path if _is_snapshot(path) else last(path)


def length_of(ema: str) -> float | None:
    """The length in ``sigma_rel=0.08``, None of anything else.

    Raises:
        ConfigError: it is no number.
    """
    if not (said := re.fullmatch(r"sigma_rel\s*=(.*)", ema.strip())):
        return None
    try:
        return float(said[1])
    except ValueError:
        raise ConfigError(f"--ema {ema:.80}: sigma_rel is a number, as in sigma_rel=0.08") from None


def _kept(found: Checkpoint, ema: str) -> tuple[str, bool | str]:
    """The part of a checkpoint that an average is, and what files say of it: True for the first."""
    config: Any = found.meta.get("config")
    decays = config.get("train", {}).get("ema_decay") if isinstance(config, Mapping) else None
    there: list[Any] = decays if isinstance(decays, list) else [decays]
    try:
        i = there.index(float(ema))
    except ValueError:
        raise ConfigError(
            f"--ema {ema:.80}: {found.path} has averages of the decays {', '.join(map(str, there))[:200]}. Of a run "
            "with snapshots (train.ema_power), --ema sigma_rel=0.08 makes one of any length"
        ) from None
    return ("ema", averaged_in(found)) if i == 0 else (f"ema_{i + 1}", f"decay {float(there[i])!r}")


def _made(path: Path, length: float) -> Weights:
    """An average that is made of the snapshots of a run, up to one of them or all."""
    if _is_snapshot(path):
        made = make(path.parent.parent, [length], int(path.name.removeprefix("step")))[0]
    else:
        made = make(path, [length])[0]
    log.info("weights: the average of %s, made of %d snapshots (%.1e off)", made.name, len(made.used), made.error)
    digest = hashlib.sha256(made.to_bytes()).hexdigest()
    return Weights(made.tensors, digest, made.name, None, str(made.used[-1]))


def _is_snapshot(path: Path) -> bool:
    return path.parent.name == "snapshots" and re.fullmatch(r"step\d+", path.name) is not None


def averaged(path: Path) -> bool | str:
    """Whether weights are of the averaged network; for a file that somebody has renamed it is unknown."""
    if path.is_dir() or re.fullmatch(r"(ema|ema_\d+|power_\d+)\.safetensors", path.name):
        return True
    return False if path.name == "model.safetensors" else "unknown"


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
