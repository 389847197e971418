"""Checkpoints: directories that appear atomically and say by themselves whether they are whole.

    ckpt/step00010000/
        model.safetensors       the network
        ema.safetensors         the averaged network, which sampling uses
        optimizer.safetensors   the optimizer's tensors, by index of the parameter
        ...                     any other part of the state that has tensors, one file each
        meta.json               step, configuration, data fingerprint, running sums
        manifest.json           size and SHA-256 of each of the above, written last

The manifest says which parts there are. A checkpoint is written under a temporary name, flushed to the disk and
renamed; numbers that are not finite are not written. Reading checks every hash, since safetensors itself does not
notice a flipped bit, and whether the numbers are finite, since version 0.1 did not. No pickle is written or read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ddpm_ip.errors import CheckpointError, Diverged
from ddpm_ip.files import ANY, Shape, flush, read_json, reading, write_json
from ddpm_ip.run.tensors import KINDS, first_not_finite, read_tensors, refuse_not_finite

log = logging.getLogger("ddpm_ip.checkpoint")

_FILE = re.compile(r"(?P<part>[a-z][a-z0-9_]*)\.safetensors|meta\.json")  # what a manifest may name
_NAME = re.compile(r"step[0-9]{8,18}")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the disk that :func:`read` has checked."""

    path: Path
    step: int
    meta: Mapping[str, Any]
    hashes: Mapping[str, str]

    @property
    def parts(self) -> list[str]:
        """The names of the parts that it holds, such as ``model``, ``ema`` and ``optimizer``."""
        return [found["part"] for file in self.hashes if (found := _FILE.fullmatch(file)) and found["part"]]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of a part, on the CPU.

        Raises:
            CheckpointError: there is no such part, or its file cannot be read.
        """
        if name not in self.parts:
            raise CheckpointError(f"{self.path} holds no {name}, only {', '.join(self.parts) or 'nothing'}")
        return read_tensors(self.path / f"{name}.safetensors")

    def snapshot(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Its tensors and numbers, as :func:`save` takes them."""
        return {name: self.tensors(name) for name in self.parts}, dict(self.meta)


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    meta: Mapping[str, Any],
    on_write: Callable[[str], None] = lambda name: None,
) -> Path:
    """Writes ``folder/stepNNNNNNNN``.

    Args:
        folder: holds all checkpoints of a run; made if need be.
        step: optimizer steps done.
        tensors: for each part of the state its named tensors; a part that has none gets no file.
        meta: JSON values.
        on_write: called with each file's name after it was written; tests let it fail.

    Raises:
        CheckpointError: the disk is full or not writable; nothing is left behind, older checkpoints are untouched.
        Diverged: a number is not finite; nothing is written.
        ValueError: the name of a part is no lower-case word, or a tensor of a kind that is not read back.
    """
    files = {f"{name}.safetensors": named for name, named in tensors.items() if named}
    if wrong := [file for file in files if not _FILE.fullmatch(file)]:
        raise ValueError(f"the parts of a checkpoint are named in lower case (a-z, 0-9, _), not {wrong[0]}")
    if odd := {str(v.dtype) for named in tensors.values() for v in named.values() if v.dtype not in KINDS}:
        raise ValueError(f"tensors of {', '.join(sorted(odd))} do not go into a checkpoint, only {KINDS}")
    refuse_diverged(step, tensors)
    final = folder / f"step{step:08d}"
    partial = folder / f".tmp-{final.name}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        partial.mkdir(parents=True)
        for name, named in files.items():
            save_file({k: v.detach().cpu().contiguous() for k, v in named.items()}, partial / name)
            on_write(name)
        write_json(partial / "meta.json", {**meta, "step": step}, error=CheckpointError)
        on_write("meta.json")
        manifest = {
            name: {"bytes": (partial / name).stat().st_size, "sha256": sha256(partial / name)}
            for name in (*files, "meta.json")
        }
        write_json(partial / "manifest.json", manifest, error=CheckpointError, schema=None)  # meta.json has it
        for name in manifest:
            flush(partial / name)
        if final.exists():  # the same step, written by a run that was resumed from before it
            shutil.rmtree(final)
        os.rename(partial, final)
        flush(folder)
    except (OSError, SafetensorError, CheckpointError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        needed = sum(v.numel() * v.element_size() for group in tensors.values() for v in group.values())
        raise CheckpointError(
            f"cannot write the checkpoint {final}: {error}. It needs {needed / 1e6:.0f} MB, "
            f"{shutil.disk_usage(_existing(folder)).free / 1e6:.0f} MB are free there. Older checkpoints are untouched"
        ) from error
    return final


def refuse_diverged(step: int, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Refuses to save what no run could continue from.

    Args:
        step: optimizer steps done.
        tensors: see :func:`save`.

    Raises:
        Diverged: one of them holds an infinity or a NaN; says which.
    """
    if name := first_not_finite({f"{part}, {k}": v for part, named in tensors.items() for k, v in named.items()}):
        raise Diverged(f"the state after step {step} is not finite ({name}) and was not saved")


def read(path: Path, needs: Collection[str] | None = None) -> Checkpoint:
    """Opens one checkpoint and checks it: every file against the manifest, and what is in them.

    Args:
        path: its folder.
        needs: the parts that will be used, whose numbers must be finite; None for all that it holds.

    Raises:
        CheckpointError: it is damaged or is none; says which file and why.
    """
    with reading(path, "This is not a whole checkpoint", CheckpointError):
        hashes = _hashes(path)
        meta = _json(path / "meta.json", {"step": int})
    step = meta["step"]
    if step < 0 or (path.name.startswith("step") and path.name != f"step{step:08d}"):
        raise CheckpointError(f"{path}: meta.json says step {step}, which is not the step of the folder's name")
    if not isinstance(meta.get("config", {}), dict):
        raise CheckpointError(f"{path}: meta.json has a config that is not an object of keys and values")
    found = Checkpoint(path, step, meta, hashes)
    for part in found.parts if needs is None else needs:
        refuse_not_finite(found.tensors(part), path / f"{part}.safetensors")
    return found


def _hashes(path: Path) -> dict[str, str]:
    """The SHA-256 of each file of a checkpoint, which are those of its manifest."""
    manifest = _json(path / "manifest.json")
    if "meta.json" not in manifest or not all(map(_FILE.fullmatch, manifest)):
        raise CheckpointError(f"{path}: manifest.json does not list meta.json and files of tensors, and nothing else")
    hashes = {}
    for name, entry in manifest.items():
        file = path / name
        if file.is_symlink() or not file.is_file():
            raise CheckpointError(f"{path}: {name} is missing")
        if not isinstance(entry, dict) or file.stat().st_size != entry.get("bytes"):
            raise CheckpointError(f"{path}: {name} has {file.stat().st_size} bytes, not what manifest.json says")
        hashes[name] = sha256(file)
        if hashes[name] != entry.get("sha256"):
            raise CheckpointError(f"{path}: {name} is damaged (its SHA-256 is not the one in manifest.json)")
    return hashes


def newest(folder: Path, needs: Collection[str] | None = None) -> Checkpoint | None:
    """The newest checkpoint in a folder that is whole and finite; others are passed over with a warning.

    Args:
        folder: of checkpoints.
        needs: see :func:`read`.

    Returns:
        None if there is no checkpoint at all.

    Raises:
        CheckpointError: there are checkpoints, and none can be used.
    """
    reasons = []
    for path in reversed(_all(folder)):
        try:
            return read(path, needs)
        except CheckpointError as error:
            log.warning("skipping a damaged checkpoint: %s", error)
            reasons.append(str(error))
    if reasons:
        raise CheckpointError(
            f"no checkpoint in {folder} is whole:\n" + "\n".join(f"  {r}" for r in reasons) + "\n"
            "Restore one from a backup, or start again in another folder (-e)"
        )
    return None


def find(path: Path, needs: Collection[str] | None = None) -> Checkpoint:
    """The checkpoint at a path, or the newest of the run at that path; see :func:`newest`.

    Raises:
        CheckpointError: there is none.
    """
    if (path / "manifest.json").exists():
        return read(path, needs)
    for folder in (path / "ckpt", path):
        if found := newest(folder, needs):
            return found
    raise CheckpointError(f"{path} is neither a checkpoint (ckpt/stepNNNNNNNN) nor the folder of a run that has one")


def prune(folder: Path, keep_last: int, keep_every: int, needed: Collection[int] = ()) -> None:
    """Removes all checkpoints except the newest ``keep_last``, multiples of ``keep_every`` (0: none), and needed ones.

    A failure is only a warning.
    """
    paths = _all(folder)
    for path in paths[:-keep_last]:
        if not (keep_every and _step(path) % keep_every == 0) and _step(path) not in needed:
            try:  # removed under another name: should this be cut off, no damaged checkpoint is left
                os.rename(path, path.with_name(f".tmp-old-{path.name}-{secrets.token_hex(4)}"))
            except OSError as error:
                log.warning("cannot remove the old checkpoint %s: %s", path, error)
    sweep(folder)


def sweep(folder: Path) -> None:
    """Removes what an interrupted write or removal has left. A failure is only a warning."""
    for path in folder.glob(".tmp-*"):
        try:
            shutil.rmtree(path)
        except OSError as error:
            log.warning("cannot remove %s: %s", path, error)


def set_aside(folder: Path, step: int, why: str = "is later than step {step}, where the run continues") -> None:
    """Renames the checkpoints of later steps, which a run that continues at ``step`` makes again.

    Under their names they would be taken for the newest, and retention would keep them in place of the new ones.

    Args:
        folder: of checkpoints.
        step: those of later steps are meant; -1 for all.
        why: for the log.
    """
    for path in _all(folder):
        if _step(path) > step:
            aside = path.with_name(f"superseded-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(path, aside)
            log.warning("%s %s; it is now %s", path, why.format(step=step), aside.name)


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, rising; they may be damaged."""
    return [_step(path) for path in _all(folder)]


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return sha256_of(file)


def sha256_of(file: BinaryIO) -> str:
    """SHA-256 of the rest of an open file, hexadecimal."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _all(folder: Path) -> list[Path]:
    found = [p for p in folder.glob("step*") if _NAME.fullmatch(p.name) and p.is_dir()] if folder.is_dir() else []
    return sorted(found, key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step"))


def _json(path: Path, needs: Shape = ANY) -> dict[str, Any]:
    return read_json(path, needs, advice="This is not a whole checkpoint", error=CheckpointError, links=False)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
