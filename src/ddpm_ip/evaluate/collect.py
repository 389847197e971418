"""One pass over images: the moments of their features, and the features themselves where a metric needs them.

Moments are float64 and of one size however many images there are; features are written to a file and mapped, so memory
stays flat. Those of a reference set are kept in ``$DDPM_IP_CACHE/features``, by default ``~/.cache/ddpm-ip/features``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ddpm_ip.data import ImageSet
from ddpm_ip.data.decode import MAX_CHANNELS
from ddpm_ip.errors import ConfigError, DataError, UserError
from ddpm_ip.evaluate.features import Extractor
from ddpm_ip.evaluate.images import Source, from_first, from_set, gathered, rank
from ddpm_ip.evaluate.metrics import Features, Moments, Rows
from ddpm_ip.files import read_json, reading, write_json
from ddpm_ip.images import UInt8
from ddpm_ip.memory import is_out_of_memory
from ddpm_ip.run.checkpoint import sha256

log = logging.getLogger("ddpm_ip.evaluate")

ON_DEVICE = 4096  # features at most, whose products (134 MB) are added up on the device; else in the CPU's memory
VERSION = 1  # of the files in the cache: raise it whenever the same images and extractor give other files
AGAIN = "They are made again"
MOMENTS, MANIFEST = "moments.npz", "manifest.json"


@dataclass(frozen=True)
class Wanted:
    """The kinds of features whose moments, and those that themselves, are wanted."""

    moments: frozenset[str]
    rows: frozenset[str]

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(sorted(self.moments | self.rows))


@dataclass(frozen=True)
class Pass:
    """How images go through an extractor.

    Args:
        extractor: makes the features.
        wanted: which of them.
        batch_size: images that go through it together; plays no part in the numbers but for rounding.
        device: where it works.
    """

    extractor: Extractor
    wanted: Wanted
    batch_size: int
    device: torch.device


def collect(source: Source, how: Pass, folder: Path, n_images: int | None = None) -> Features | None:
    """The features of the first ``n_images`` images, or of all; on other processes than the first None.

    Args:
        source: the images.
        how: extractor, features, batch and device.
        folder: for the files of features; exists on the first process.
        n_images: how many; None for all.

    Raises:
        DataError: there are fewer, or they are of different sizes, or have features that are not finite.
        ConfigError: the extractor does not give what is wanted.
    """
    images = source.blocks(how.batch_size, n_images)
    first = list(islice(images, 1))
    shape = first[0].shape[1:] if first else ()
    blocks = (_features(_checked(block, shape), how) for block in chain(first, images))
    done, sink = 0, _Sink(how.wanted, folder)
    total = n_images or source.count
    hidden = True if rank() else None
    with sink, tqdm(total=total, desc=f"features of {source.name}", unit="img", disable=hidden) as bar:
        for n, block in gathered(chain(blocks, repeat(None)), how.wanted.kinds):
            n = n if n_images is None else min(n, n_images - done)
            if block is not None:
                sink.add({kind: rows[:n] for kind, rows in block.items()})
            done += n
            bar.update(n)
            if done == n_images:
                break
    if done < (n_images or 1):
        raise DataError(f"{source.name}: {n_images or 'no'} images were asked for, and there are {done}")
    return None if rank() else Features(done, shape, sink.moments, sink.mapped())


def _checked(block: UInt8, shape: tuple[int, ...]) -> UInt8:
    few = block.ndim == 4 and 1 <= block.shape[1] <= MAX_CHANNELS
    if block.dtype != np.uint8 or not few or block.shape[1:] != shape:
        raise DataError(
            f"images must come as uint8 (B, C, H, W), C at most {MAX_CHANNELS}, all of one shape: there is "
            f"{block.dtype} {block.shape}, and the first images are {shape}"
        )
    return block


def _features(images: UInt8, how: Pass) -> dict[str, Tensor]:
    """The features of a block by kind, ``float64`` (B, D)."""
    kinds, batches = how.wanted.kinds, torch.split(torch.tensor(images), how.batch_size)
    parts = [extract(how.extractor, x.to(how.device), kinds) for x in batches]
    return {kind: torch.cat([part[kind] for part in parts]) for kind in kinds}


def extract(extractor: Extractor, images: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
    """The features of ``uint8`` (B, C, H, W) by kind, ``float64`` (B, D).

    Raises:
        ConfigError: the extractor does not take such images, or does not give what is wanted.
        DataError: they are not finite.
    """
    if not getattr(extractor, "gray", False):
        images = _as_rgb(images, extractor.name)
    try:
        with torch.inference_mode(), _no_tf32():
            found = extractor(images)
    except UserError:
        raise
    except Exception as error:  # perhaps somebody's own code
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            f"the extractor {extractor.name}, called with images {tuple(images.shape)}, raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"the extractor {extractor.name} gives a {type(found).__name__}; it must be a mapping of features by kind, "
            "such as {'pool': (B, D)}"
        )
    for kind in kinds:
        if kind not in found:
            raise ConfigError(
                f"the extractor {extractor.name} gives {', '.join(map(str, found))}; what is asked for needs {kind}"
            )
        if not isinstance(found[kind], Tensor) or found[kind].ndim != 2 or len(found[kind]) != len(images):
            shape = tuple(getattr(found[kind], "shape", ()))
            raise ConfigError(
                f"the extractor {extractor.name} gives {kind} as {type(found[kind]).__name__} of shape {shape} for "
                f"{len(images)} images; it must be a tensor (images, features)"
            )
        if not torch.isfinite(found[kind]).all():
            raise DataError(f"the extractor {extractor.name} gives {kind} that is not finite")
    return {kind: _double(found[kind]) for kind in kinds}


def _as_rgb(images: Tensor, name: str) -> Tensor:
    if images.shape[1] == 3:
        return images
    if images.shape[1] == 1:
        return images.repeat(1, 3, 1, 1)
    cure = "composite RGBA images on one colour (data.mode: rgb does, on white), or " if images.shape[1] == 4 else ""
    raise ConfigError(
        f"the extractor {name} takes RGB or gray images, and these have {images.shape[1]} channels: {cure}take "
        "--extractor pixels, or one of your own with `gray = True`, which gets images as they are"
    )


@contextmanager
def _no_tf32() -> Iterator[None]:
    """In convolutions and in products of matrices: TF32 would move features by 1e-3."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # somebody chose in the newer way, with which this one does not mix
        backends: Any = torch.backends
        with _ieee(backends.cuda.matmul), _ieee(backends.cudnn.conv):
            yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _ieee(kind: Any) -> Iterator[None]:
    before, kind.fp32_precision = kind.fp32_precision, "ieee"
    try:
        yield
    finally:
        kind.fp32_precision = before


def _double(features: Tensor) -> Tensor:
    return (features.cpu() if features.device.type == "mps" else features).double()


class _Sink:
    """Takes blocks of features in: adds moments up where the features are, and appends rows to files."""

    def __init__(self, wanted: Wanted, folder: Path) -> None:
        self._wanted, self._folder = wanted, folder
        self._files: dict[str, BinaryIO] = {}
        self._widths: dict[str, int] = {}
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}
        self._count = 0

    def __enter__(self) -> _Sink:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def add(self, block: dict[str, Tensor]) -> None:
        """Rows (N, D) by kind, ``float64``."""
        self._count += len(next(iter(block.values())))
        for kind, rows in block.items():
            width = rows.shape[1]
            if kind in self._wanted.moments:
                here = rows if width <= ON_DEVICE else rows.cpu()
                if kind not in self._sums:
                    self._sums[kind] = here.new_zeros(width), here.new_zeros(width, width)
                total, outer = self._sums[kind]
                total += here.sum(dim=0)
                outer.addmm_(here.T, here)
            if kind in self._wanted.rows:
                if kind not in self._files:
                    self._files[kind] = open(self._folder / f"{kind}.f32", "wb")  # noqa: SIM115  (closed by __exit__)
                    self._widths[kind] = width
                self._files[kind].write(rows.cpu().numpy().astype("<f4").tobytes())

    @property
    def moments(self) -> dict[str, Moments]:
        """The moments of the rows so far."""
        return {
            kind: Moments(len(total), self._count, total.cpu().numpy(), outer.cpu().numpy())
            for kind, (total, outer) in self._sums.items()
        }

    def mapped(self) -> dict[str, Rows]:
        """The rows, from their files."""
        return {kind: _map(self._folder, kind, width) for kind, width in self._widths.items()}


def _map(folder: Path, kind: str, width: int) -> Rows:
    # not read-only: torch would warn of that; nothing that is changed in memory gets to the file
    return np.memmap(folder / f"{kind}.f32", dtype="<f4", mode="c").reshape(-1, width)


def reference_features(images: ImageSet, how: Pass, scratch: Path) -> Features | None:
    """The features of a whole reference set: from the cache, or made and kept there; on other processes None.

    Args:
        images: the set.
        how: see :func:`collect`.
        scratch: for the files, if the cache cannot be written; exists on the first process.
    """
    folder = cache_folder() / _key(images, how)
    found = None if rank() else load(folder)
    if from_first(found is not None):
        return found
    partial = scratch if rank() else _begin(folder, scratch)
    try:
        features = collect(from_set(images), how, partial)
        if features is not None and partial != scratch:
            _save(features, partial, folder)
        return features
    finally:
        if partial != scratch:
            shutil.rmtree(partial, ignore_errors=True)  # what is mapped stays readable


def cache_folder() -> Path:
    """Where features of reference sets are kept."""
    return Path(os.environ.get("DDPM_IP_CACHE") or "~/.cache/ddpm-ip").expanduser() / "features"


def _key(images: ImageSet, how: Pass) -> str:
    extractor, wanted = how.extractor, how.wanted
    parts = {
        "version": VERSION,
        "images": images.fingerprint,
        "extractor": extractor.name,
        "identity": dict(extractor.identity()),
        "moments": sorted(wanted.moments),
        "rows": sorted(wanted.rows),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _begin(folder: Path, scratch: Path) -> Path:
    """A folder for what is being made: beside its later place, or ``scratch``."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
    except OSError as error:
        log.warning("features of the reference cannot be kept in %s: %s", folder.parent, error)
        return scratch


def _save(features: Features, partial: Path, folder: Path) -> None:
    """Completes what :func:`collect` left in ``partial``, and puts it in place."""
    arrays: dict[str, Any] = {}
    for kind, m in features.moments.items():
        arrays |= {f"{kind}.total": m.total, f"{kind}.outer": m.outer}
    widths = {kind: rows.shape[1] for kind, rows in features.rows.items()}
    try:
        np.savez(partial / MOMENTS, **arrays)
        hashes = {path.name: sha256(path) for path in sorted(partial.iterdir())}
        about = {"count": features.count, "shape": features.shape, "widths": widths, "sha256": hashes}
        write_json(partial / MANIFEST, about)
        shutil.rmtree(folder, ignore_errors=True)  # what is there was found damaged
        os.rename(partial, folder)
    except (OSError, UserError) as error:
        log.warning("features of the reference cannot be kept in %s: %s", folder, error)


def load(folder: Path) -> Features | None:
    """Features that were kept; None if there are none, or if they are not what was written."""
    if not folder.exists():
        return None
    try:
        with reading(folder, AGAIN):
            return _load(folder)
    except UserError as error:
        log.warning("the features of the reference are damaged: %s", error)
        return None


def _load(folder: Path) -> Features:
    about = read_json(folder / MANIFEST, {"sha256": dict, "widths": dict, "count": int, "shape": list}, advice=AGAIN)
    if damaged := [name for name, digest in about["sha256"].items() if sha256(folder / name) != digest]:
        raise ValueError(f"{', '.join(damaged)} changed")
    moments: dict[str, Moments] = {}
    with np.load(folder / MOMENTS, allow_pickle=False) as arrays:
        for kind in {name.rpartition(".")[0] for name in arrays.files}:
            total, outer = arrays[f"{kind}.total"], arrays[f"{kind}.outer"]
            moments[kind] = Moments(len(total), about["count"], total, outer)
    rows = {kind: _map(folder, kind, width) for kind, width in about["widths"].items()}
    return Features(about["count"], tuple(about["shape"]), moments, rows)
