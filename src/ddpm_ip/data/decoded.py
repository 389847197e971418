"""Sets of image files: decoded once, by many threads, into a memory map that later runs open at once.

A decoded set is a folder ``<cache>/<key>/`` with ``pixels.npy``, ``labels.npy`` and ``set.json``. It is written under
a temporary name and renamed, so it is there whole or not at all. The key is a hash of everything the pixels depend on:
names, sizes, times and permissions of the files, the decode settings, and :data:`VERSION`.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from ddpm_ip.data.decode import BadImage, ImageSize, UInt8, UnusableImage, height_width, place, read
from ddpm_ip.data.imageset import ImageSet, Int64, fingerprint
from ddpm_ip.errors import DataError, UserError
from ddpm_ip.files import read_json, reading, write_json

log = logging.getLogger("ddpm_ip.data")

Mode = Literal["rgb", "gray", "rgba", "auto"]
OnBad = Literal["error", "skip"]

VERSION = 1  # raise it whenever decode.py gives other pixels
MEMORY_LIMIT = 2_000_000_000  # bytes that may be held in memory when the cache folder cannot be written
SHOWN = 20  # unusable images that an error names one by one
CHUNK = 32  # images a thread takes at once
STALE = 3600.0  # seconds after which an unfinished decode that nobody writes to is taken for dead


class Item(NamedTuple):
    """One image that is still to be decoded."""

    where: str
    source: Path | bytes
    label: int | None


@dataclass(frozen=True)
class Listing:
    """Everything a source knows before decoding.

    Attributes:
        name: of the set.
        count: number of items.
        items: starts a fresh walk through all items, in the order of the set.
        identity: strings that change whenever the files do.
        classes: names of the labels, if any.
    """

    name: str
    count: int
    items: Callable[[], Iterator[Item]]
    identity: tuple[str, ...]
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """What decides the decoded pixels, besides the files."""

    image_size: ImageSize
    mode: Mode
    center_crop: int | None = None

    def __post_init__(self) -> None:
        height, width = height_width(self.image_size)
        # one key in the cache for a square, however it is said
        object.__setattr__(self, "image_size", height if height == width else (height, width))


@dataclass
class _Outcome:
    """What decoding leaves besides the pixels."""

    labels: list[int | None] = field(default_factory=list)
    bad: list[BadImage] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def label_array(self) -> Int64 | None:
        return None if None in self.labels else np.array(self.labels, dtype=np.int64)

    def sizes_by_frequency(self) -> tuple[tuple[int, int, int], ...]:
        return tuple((width, height, n) for (width, height), n in self.sizes.most_common())


def open_decoded(listing: Listing, recipe: Recipe, cache: str | None, on_bad: OnBad, progress: bool) -> ImageSet:
    """The decoded set, from the cache folder if it is there, else decoded now.

    Args:
        listing: the files.
        recipe: the decode settings.
        cache: the cache folder; by default ``$XDG_CACHE_HOME/ddpm-ip`` or ``~/.cache/ddpm-ip``.
        on_bad: ``error`` checks the whole set and then lists every unusable image; ``skip`` leaves them out.
        progress: show a bar.

    Raises:
        DataError: no image, unusable images under ``error``, or no room for the decoded pixels.
    """
    if listing.count == 0:
        raise DataError(f"{listing.name}: there is no image in it")
    folder = _cache_folder(cache) / _key(listing, recipe)
    found = _load(folder, listing)
    if found is None or (found.bad and on_bad == "error"):  # perhaps they are readable now
        found = _build(folder, listing, recipe, on_bad, progress)
    else:
        log.info("%s: %d decoded images found in %s", listing.name, len(found), folder)
    if found.bad:
        log.warning("%s: %d unusable images left out, the first: %s", listing.name, len(found.bad), found.bad[0])
    return found


class _Unwritable(UserError):
    """The cache has no room for a set's description."""


def _cache_folder(cache: str | None) -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ddpm-ip"
    return Path(cache or default).expanduser()


def _key(listing: Listing, recipe: Recipe) -> str:
    # fsencode: file names are bytes, and need not be valid text.
    parts = [str(VERSION), repr(astuple(recipe)), *listing.identity]
    return hashlib.sha256(b"\n".join(map(os.fsencode, parts))).hexdigest()[:24]


def _load(folder: Path, listing: Listing) -> ImageSet | None:
    if not (folder / "set.json").exists():
        return None
    try:
        with reading(folder, "Decoding again"):
            about = read_json(folder / "set.json", {"fingerprint": str, "bad": list}, advice="Decoding again")
            labels = about["labels"]
            return ImageSet(
                pixels=np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False),
                labels=np.load(folder / labels, mmap_mode="r", allow_pickle=False) if labels else None,
                name=listing.name,
                fingerprint=about["fingerprint"],
                bad=tuple(BadImage(*pair) for pair in about["bad"]),
                classes=listing.classes,
                original_sizes=tuple((width, height, n) for width, height, n in about["original_sizes"]),
            )
    except UserError as error:
        log.warning("%s: the decoded images are damaged: %s", listing.name, error)
        return None


def _build(folder: Path, listing: Listing, recipe: Recipe, on_bad: OnBad, progress: bool) -> ImageSet:
    channels = _channels(listing, recipe.mode)
    height, width = height_width(recipe.image_size)
    needed = listing.count * channels * height * width
    try:
        _make_room(folder, needed)
        return _build_on_disk(folder, listing, recipe, channels, on_bad, progress)
    except (OSError, _Unwritable) as error:  # not of the image files: those are UnusableImage
        if needed > MEMORY_LIMIT:
            raise DataError(
                f"{listing.name}: the decoded images need {needed / 1e9:.1f} GB in the cache folder {folder.parent}, "
                f"which cannot be used ({error}). Set data.cache to a folder that can be written and has the room."
            ) from error
        log.warning("%s: cannot use the cache folder %s (%s); decoding to memory", listing.name, folder.parent, error)
    return _build_in_memory(listing, recipe, channels, on_bad, progress)


def _make_room(folder: Path, needed: int) -> None:
    """Makes the cache folder, and tidies it.

    Raises:
        OSError: it cannot be written, or has fewer than ``needed`` bytes free.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{free / 1e9:.1f} GB free")


def _build_on_disk(
    folder: Path, listing: Listing, recipe: Recipe, channels: int, on_bad: OnBad, progress: bool
) -> ImageSet:
    replace = folder.exists()  # what is there now was found to be of no use
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        # Written, not mapped: a full disk is then an error that can be caught, where a map would end the process.
        with open(partial / "pixels.npy", "wb") as file:
            _write_header(file, 0, channels, recipe)
            outcome = _decode_into(file, listing, recipe, channels, progress)
            _refuse(listing, outcome, on_bad)
            file.seek(0)
            _write_header(file, len(outcome.labels), channels, recipe)
        pixels = np.load(partial / "pixels.npy", mmap_mode="r", allow_pickle=False)
        _write_sidecar(partial, outcome, pixels)
        _put_in_place(partial, folder, replace)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    found = _load(folder, listing)
    if found is None:
        raise OSError(f"what was just written to {folder} cannot be read back")
    return found


def _build_in_memory(listing: Listing, recipe: Recipe, channels: int, on_bad: OnBad, progress: bool) -> ImageSet:
    file = BytesIO()
    outcome = _decode_into(file, listing, recipe, channels, progress)
    _refuse(listing, outcome, on_bad)
    pixels = np.frombuffer(file.getbuffer().toreadonly(), dtype=np.uint8)
    pixels = pixels.reshape(-1, channels, *height_width(recipe.image_size))
    labels = outcome.label_array()
    return ImageSet(
        pixels,
        labels,
        listing.name,
        fingerprint(pixels, labels),
        tuple(outcome.bad),
        listing.classes,
        outcome.sizes_by_frequency(),
    )


def _write_header(file: BinaryIO, n: int, channels: int, recipe: Recipe) -> None:
    # NumPy leaves spare space in the header for a growing first axis, so that it can be written again in place.
    header = {"shape": (n, channels, *height_width(recipe.image_size)), "fortran_order": False, "descr": "|u1"}
    np.lib.format.write_array_header_1_0(file, header)


def _write_sidecar(partial: Path, outcome: _Outcome, pixels: UInt8) -> None:
    labels = outcome.label_array()
    if labels is not None:
        np.save(partial / "labels.npy", labels)
    about = {
        "fingerprint": fingerprint(pixels, labels),
        "labels": None if labels is None else "labels.npy",
        "bad": [astuple(bad) for bad in outcome.bad],
        "original_sizes": outcome.sizes_by_frequency(),
    }
    write_json(partial / "set.json", about, error=_Unwritable)


def _put_in_place(partial: Path, folder: Path, replace: bool) -> None:
    partial.chmod(0o755)  # mkdtemp made it private; a cache folder may be shared
    if replace:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        os.rename(partial, folder)
    except OSError:
        if not (folder / "set.json").exists():
            raise
        # Another process was faster; its set is the same.


def _sweep(folder: Path) -> None:
    """Removes what a killed process left of the same set."""
    for partial in folder.parent.glob(f"{folder.name}.*.partial"):
        try:
            age = time.time() - max(file.stat().st_mtime for file in (partial, *partial.iterdir()))
        except OSError:
            continue  # its owner has just finished
        if age > STALE:
            shutil.rmtree(partial, ignore_errors=True)


def _channels(listing: Listing, mode: Mode) -> int:
    if mode != "auto":
        return {"gray": 1, "rgb": 3, "rgba": 4}[mode]
    for item in listing.items():
        try:
            return 1 if read(item.source, item.where).mode == "L" else 3
        except UnusableImage:
            continue
    return 3


def _decode_into(file: BinaryIO, listing: Listing, recipe: Recipe, channels: int, progress: bool) -> _Outcome:
    """Writes the pixels of every usable image, in order, and nothing else; memory does not grow with the set."""
    outcome = _Outcome()
    with (
        warnings.catch_warnings(),
        tqdm(
            total=listing.count, desc=f"decoding {listing.name}", unit="img", disable=None if progress else True
        ) as bar,
    ):
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for result in decode_all(listing.items(), recipe, channels):
            bar.update()
            if isinstance(result, BadImage):
                outcome.bad.append(result)
                continue
            pixels, size, label = result
            file.write(pixels.tobytes())
            outcome.sizes[size] += 1
            outcome.labels.append(label)
    return outcome


Result = tuple[UInt8, tuple[int, int], "int | None"] | BadImage


def decode_all(items: Iterator[Item], recipe: Recipe, channels: int) -> Iterator[Result]:
    """Decodes in parallel and yields in order; only a bounded number of images is under way.

    Yields:
        For each item its pixels, ``uint8`` (channels, height, width), its (width, height) before cropping and
        resizing, and its label; or what is wrong with it.
    """

    def work(chunk: list[Item]) -> list[Result]:
        return [_decode_one(item, recipe, channels) for item in chunk]

    threads = min(32, os.cpu_count() or 1)
    pending: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        while chunk := list(islice(items, CHUNK)):
            pending.append(pool.submit(work, chunk))
            if len(pending) > 2 * threads:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _decode_one(item: Item, recipe: Recipe, channels: int) -> Result:
    try:
        image = read(item.source, item.where, channels == 4)
        return place(image, item.where, recipe.image_size, channels, recipe.center_crop), image.size, item.label
    except UnusableImage as error:
        return error.bad


def _refuse(listing: Listing, outcome: _Outcome, on_bad: OnBad) -> None:
    """Stops before the set appears.

    Raises:
        DataError: unusable images under ``error``, or nothing but unusable images.
    """
    if outcome.bad and (on_bad == "error" or not outcome.labels):
        raise DataError(_bad_message(listing.name, listing.count, outcome.bad))


def _bad_message(name: str, count: int, bad: Iterable[BadImage]) -> str:
    bad = list(bad)
    lines = [f"{name}: {len(bad)} of {count} images cannot be used:", *(f"  {one}" for one in bad[:SHOWN])]
    if len(bad) > SHOWN:
        lines.append(f"  ... and {len(bad) - SHOWN} more")
    if len(bad) < count:
        lines.append("Repair or remove them, or leave them out with data.on_bad: skip")
    return "\n".join(lines)
