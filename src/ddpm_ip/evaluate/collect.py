"""One pass over images: the moments of their features, and the features themselves where a metric needs them.

Moments are float64 and of one size however many images there are; features are written to a file and mapped, so memory
stays flat. Those of a reference set are kept in ``$DDPM_IP_CACHE/features``, by default ``~/.cache/ddpm-ip/features``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ddpm_ip.data import ImageSet
from ddpm_ip.data.decode import MAX_CHANNELS
from ddpm_ip.errors import ConfigError, DataError, UserError
from ddpm_ip.evaluate.features import Extractor, foreign, identity_of
from ddpm_ip.evaluate.images import Source, from_first, from_set, gathered, rank, refuse_widths
from ddpm_ip.evaluate.metrics import Features, Moments, Sums
from ddpm_ip.evaluate.rows import Rows
from ddpm_ip.files import Shape, read_json, reading, write_json
from ddpm_ip.images import UInt8
from ddpm_ip.places import expanded
from ddpm_ip.precise import place, precise
from ddpm_ip.run.checkpoint import sha256
from ddpm_ip.system import belongs_to_another

log = logging.getLogger("ddpm_ip.evaluate")

ON_DEVICE = 4096  # features at most, whose products (134 MB) are added up on the device; else in the CPU's memory
VERSION = 2  # of the files in the cache: raise it whenever the same images and extractor give other files
AGAIN = "They are made again"
MANIFEST = "manifest.json"
MOMENTS, ROWS = ".moments", ".rows"  # ends of the names of files, which begin with the kind
LARGEST = 1e40  # of a feature: its sixth power, which the kernel distance takes, and sums of such are below 1e308


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
    shape = tuple(getattr(first[0], "shape", ())[1:]) if first else ()
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
    few = getattr(block, "ndim", 0) == 4 and 1 <= block.shape[1] <= MAX_CHANNELS and min(block.shape[2:]) > 0
    if not isinstance(block, np.ndarray) or block.dtype != np.uint8 or not few or block.shape[1:] != shape:
        what = f"{getattr(block, 'dtype', type(block).__name__)} {tuple(getattr(block, 'shape', ()))}"
        raise DataError(
            f"images must come as uint8 arrays (B, C, H, W), C at most {MAX_CHANNELS}, H and W at least 1, all of one "
            f"shape: there is {what}, and the first images are {shape}"
        )
    return block


def _features(images: UInt8, how: Pass) -> dict[str, Tensor]:
    """The features of a block by kind, (B, D)."""
    kinds, batches = how.wanted.kinds, torch.split(torch.tensor(images), how.batch_size)
    parts = [extract(how.extractor, x.to(how.device), kinds) for x in batches]
    for kind in kinds:
        refuse_widths({part[kind].shape[1] for part in parts}, kind)
    return {kind: torch.cat([part[kind] for part in parts]) for kind in kinds}


def extract(extractor: Extractor, images: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
    """The features of ``uint8`` (B, C, H, W) by kind, (B, D) in the precision in which they come: float32 or float64.

    Raises:
        ConfigError: the extractor does not take such images, or does not give what is wanted.
        DataError: they are not finite, or too large for their powers to be.
    """
    if not getattr(extractor, "gray", False):
        images = _as_rgb(images, extractor.name)
    who = f"the extractor {extractor.name}"
    with foreign(f"{who}, called with images {tuple(images.shape)},"):
        with torch.inference_mode(), _no_tf32():
            found = extractor(images)
        if not isinstance(found, Mapping):
            raise ConfigError(
                f"{who} gives a {type(found).__name__}; it must be a mapping of features by kind, such as "
                "{'pool': (B, D)}"
            )
        if missing := [kind for kind in kinds if kind not in found]:
            given = ", ".join(map(str, found)) or "nothing"
            raise ConfigError(f"{who} gives {given}; what is asked for needs {missing[0]}")
        usable = {kind: _usable(found[kind], len(images), f"{who} gives {kind}") for kind in kinds}
    return usable


def _usable(features: object, count: int, what: str) -> Tensor:
    """What an extractor gave, checked, as ``float32`` (``float64`` where it is that) (B, D)."""
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != count or not features.shape[1]:
        shape = tuple(getattr(features, "shape", ()))
        raise ConfigError(
            f"{what} as {type(features).__name__} of shape {shape} for {count} images; it must be a tensor "
            "(images, features)"
        )
    if features.is_complex() or features.layout != torch.strided or features.device.type == "meta":
        raise ConfigError(f"{what} as a tensor of {features.dtype} that is no table of real numbers")
    wide = features.dtype in (torch.float64, torch.int32, torch.int64)
    features = precise(features.detach()) if wide else features.detach().float()
    if not torch.isfinite(features).all():
        raise DataError(f"{what} that is not finite")
    if (largest := float(features.abs().max())) > LARGEST:
        raise DataError(f"{what} as large as {largest:.3g}, whose powers no float64 holds: scale it down")
    return features


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


class _Sink:
    """Takes blocks of features in: adds moments up where the features are, and appends rows to files."""

    def __init__(self, wanted: Wanted, folder: Path) -> None:
        self._wanted, self._folder = wanted, folder
        self._files: dict[str, BinaryIO] = {}
        self._sums: dict[str, Sums] = {}
        self.layouts: dict[str, Layout] = {}

    def __enter__(self) -> _Sink:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def add(self, block: dict[str, Tensor]) -> None:
        """Rows (N, D) by kind, ``float32`` or ``float64``."""
        for kind, rows in block.items():
            if kind in self._wanted.moments:
                away = rows.shape[1] > ON_DEVICE or place(rows.device) != rows.device
                self._sums.setdefault(kind, Sums()).add(rows.cpu() if away else rows)
            if kind in self._wanted.rows:
                if kind not in self._files:
                    self.layouts[kind] = Layout(rows.shape[1], "<f8" if rows.dtype == torch.float64 else "<f4")
                    self._files[kind] = open(self._folder / f"{kind}{ROWS}", "wb")  # noqa: SIM115  (see __exit__)
                self._files[kind].write(rows.cpu().numpy().astype(self.layouts[kind].dtype).tobytes())

    @property
    def moments(self) -> dict[str, Moments]:
        """The moments of all rows."""
        return {kind: sums.moments() for kind, sums in self._sums.items()}

    def mapped(self) -> dict[str, Rows]:
        """The rows, from their files."""
        return {kind: _map(self._folder / f"{kind}{ROWS}", layout) for kind, layout in self.layouts.items()}


class Layout(NamedTuple):
    """How the rows of a file lie: D of one, and the type of a number."""

    width: int
    dtype: str


def _map(path: Path, layout: Layout) -> Rows:
    # not read-only: torch would warn of that; nothing that is changed in memory gets to the file
    return np.memmap(path, dtype=layout.dtype, mode="c").reshape(-1, layout.width)


def reference_features(images: ImageSet, how: Pass, scratch: Path) -> Features | None:
    """The features of a whole reference set: from the cache, or made and kept there; on other processes None.

    Args:
        images: the set.
        how: see :func:`collect`.
        scratch: for the files, if the cache cannot be written; exists on the first process.
    """
    folder = cache_folder() / _key(images, how)
    found = None if rank() else load(folder, how.wanted)
    if from_first(found is not None):
        return found
    partial = scratch if rank() else _begin(folder, scratch)
    try:
        features = collect(from_set(images), how, partial)
        if features is not None and partial != scratch:
            _save(features, partial, folder, how.wanted)
        return features
    finally:
        if partial != scratch:
            shutil.rmtree(partial, ignore_errors=True)  # what is mapped stays readable


def cache_folder() -> Path:
    """Where features of reference sets are kept."""
    return expanded(os.environ.get("DDPM_IP_CACHE") or "~/.cache/ddpm-ip") / "features"


def _key(images: ImageSet, how: Pass) -> str:
    extractor, wanted = how.extractor, how.wanted
    parts = {
        "version": VERSION,
        "images": images.fingerprint,
        "extractor": extractor.name,
        "identity": identity_of(extractor),
        "moments": sorted(wanted.moments),
        "rows": sorted(wanted.rows),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _begin(folder: Path, scratch: Path) -> Path:
    """A folder for what is being made: next to its later place, or ``scratch``."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
    except OSError as error:
        log.warning("features of the reference cannot be kept in %s: %s", folder.parent, error)
        return scratch


def _save(features: Features, partial: Path, folder: Path, wanted: Wanted) -> None:
    """Completes what :func:`collect` left in ``partial``, and puts it in place."""
    try:
        for kind, m in features.moments.items():
            with open(partial / f"{kind}{MOMENTS}", "wb") as file:
                for part in (m.origin, m.offset, m.covariance):
                    part.astype("<f8", copy=False).tofile(file)
        layouts = {kind: Layout(rows.shape[1], rows.dtype.str) for kind, rows in features.rows.items()}
        hashes = {path.name: sha256(path) for path in sorted(partial.iterdir())}
        about = {"count": features.count, "shape": features.shape, "rows": layouts, "sha256": hashes}
        write_json(partial / MANIFEST, about)
        if load(folder, wanted) is None:  # else another process was faster, and what it keeps is the same
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(partial, folder)
    except (OSError, UserError) as error:
        log.warning("features of the reference cannot be kept in %s: %s", folder, error)


def load(folder: Path, wanted: Wanted) -> Features | None:
    """Features that were kept; None if there are none, or if they are not what was written here by this user."""
    if not os.path.lexists(folder):
        return None
    try:
        with reading(folder, AGAIN):
            return _load(folder, wanted)
    except UserError as error:
        log.warning("the features of the reference are damaged: %s", error)
        return None


def _load(folder: Path, wanted: Wanted) -> Features:
    names = [f"{kind}{MOMENTS}" for kind in wanted.moments] + [f"{kind}{ROWS}" for kind in wanted.rows]
    for path in (folder, *(folder / name for name in (MANIFEST, *names))):
        found = path.lstat()
        if not (stat.S_ISDIR if path == folder else stat.S_ISREG)(found.st_mode):
            raise ValueError(f"{path.name} is something else than what was written")
        if belongs_to_another(found):
            raise ValueError(f"{path.name} belongs to another user")
    needs: Shape = {"sha256": dict, "rows": dict, "count": int, "shape": list}
    about = read_json(folder / MANIFEST, needs, advice=AGAIN, links=False)
    if damaged := [name for name in names if sha256(folder / name) != about["sha256"][name]]:
        raise ValueError(f"{', '.join(damaged)} changed")
    count, shape = about["count"], about["shape"]
    if count < 1 or len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError(f"there cannot be {count} images of shape {shape}")
    moments = {kind: _moments(folder / f"{kind}{MOMENTS}", count) for kind in wanted.moments}
    rows: dict[str, Rows] = {}
    for kind in wanted.rows:
        width, dtype = about["rows"][kind]
        if type(width) is not int or width < 1 or dtype not in ("<f4", "<f8"):
            raise ValueError(f"features of {kind} cannot be {width} of {dtype}")
        rows[kind] = _map(folder / f"{kind}{ROWS}", Layout(width, dtype))
        if len(rows[kind]) != count:
            raise ValueError(f"there are {len(rows[kind])} rows of {kind}, not {count}")
    return Features(count, tuple(shape), moments, rows)


def _moments(path: Path, count: int) -> Moments:
    """What :func:`_save` wrote: origin, offset and covariance, D (D + 2) numbers."""
    numbers = np.memmap(path, dtype="<f8", mode="c")
    width = math.isqrt(len(numbers) + 1) - 1
    if width < 1 or width * (width + 2) != len(numbers):
        raise ValueError(f"{path.name} has {len(numbers)} numbers")
    origin, offset, covariance = np.split(numbers, [width, 2 * width])
    return Moments(count, origin, offset, covariance.reshape(width, width))
