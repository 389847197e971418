"""Sets of image files: decoded once, by many threads, into a memory map that later runs open (see ``cache.py``)."""

from __future__ import annotations

import logging
import math
import os
import shutil
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from ddpm_ip.cores import usable
from ddpm_ip.data.cache import PIXELS, Entry, Unwritable, find
from ddpm_ip.data.decode import BITS, BadImage, UInt8, UnusableImage, height_width, place, read
from ddpm_ip.data.imageset import ImageSet, Int64, fingerprint
from ddpm_ip.data.listing import Item, Listing, Mode, OnBad, Recipe
from ddpm_ip.data.passed_over import lookalikes
from ddpm_ip.errors import DataError

__all__ = ["Decoded", "Item", "Listing", "Mode", "OnBad", "Recipe", "decode_all", "open_decoded"]

log = logging.getLogger("ddpm_ip.data")

MEMORY_LIMIT = 2_000_000_000  # bytes that may be held in memory when the cache folder cannot be written
SHOWN = 20  # unusable images that an error names one by one
CHUNK = 32  # images a thread takes at once
AHEAD = 512_000_000  # bytes of images, packed and decoded, that wait for their turn, unless one has more
DECODING = 8_000_000  # pixels a thread may decode on average, some 8 bytes each, 16 at worst; one image may have more


class Decoded(NamedTuple):
    """One image that was decoded.

    Attributes:
        pixels: ``uint8`` (channels, height, width).
        size: width and height before cropping and resizing.
        label: its label, if any.
        bits: if the file had 16 bits, how many of them its largest value needs; else None.
    """

    pixels: UInt8
    size: tuple[int, int]
    label: int | None
    bits: int | None


@dataclass
class _Outcome:
    """What decoding leaves besides the pixels."""

    labels: list[int | None] = field(default_factory=list)
    bad: list[BadImage] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    bits: int | None = None

    def add(self, image: Decoded) -> None:
        self.sizes[image.size] += 1
        self.labels.append(image.label)
        if image.bits is not None:
            self.bits = max(image.bits, self.bits or 0)

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
    if lookalikes(listing.passed_over):
        log.warning("%s: %s", listing.name, lookalikes(listing.passed_over))
    entry = find(listing, recipe, cache)
    found = entry.load()
    if found is None or (found.bad and on_bad == "error"):  # perhaps they are readable now
        found = _build(entry, on_bad, progress)
    else:
        log.info("%s: %d decoded images found in %s", listing.name, len(found), entry.folder)
    if found.bad:
        log.warning("%s: %d unusable images left out, the first: %s", listing.name, len(found.bad), found.bad[0])
    if found.hint:
        log.warning("%s: %s", listing.name, found.hint)
    return found


def _build(entry: Entry, on_bad: OnBad, progress: bool) -> ImageSet:
    listing, folder = entry.listing, entry.folder.parent
    channels = _channels(listing, entry.recipe)
    height, width = height_width(entry.recipe.image_size)
    needed = listing.count * channels * height * width
    try:
        entry.make_room(needed)
        return _build_on_disk(entry, channels, on_bad, progress)
    except (OSError, Unwritable) as error:  # not of the image files: those are UnusableImage
        if needed > MEMORY_LIMIT:
            raise DataError(
                f"{listing.name}: the decoded images need {needed / 1e9:.1f} GB in the cache folder {folder}, "
                f"which cannot be used ({error}). Set data.cache to a folder that can be written and has the room."
            ) from error
        log.warning("%s: cannot use the cache folder %s (%s); decoding to memory", listing.name, folder, error)
    return _build_in_memory(entry, channels, on_bad, progress)


def _build_on_disk(entry: Entry, channels: int, on_bad: OnBad, progress: bool) -> ImageSet:
    replace = os.path.lexists(entry.folder)  # what is there now was found to be of no use
    partial = entry.partial()
    try:
        # Written, not mapped: a full disk is then an error that can be caught, where a map would end the process.
        with open(partial / PIXELS, "wb") as file:
            entry.write_header(file, 0, channels)
            outcome = _decode_into(file, entry, channels, progress)
            _refuse(entry.listing, outcome, on_bad)
            file.seek(0)
            entry.write_header(file, len(outcome.labels), channels)
        entry.write_about(partial, outcome.label_array(), _about(outcome))
        own = entry.put_in_place(partial, replace)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    found = entry.load(own)
    if found is None:
        raise OSError(f"what was just written to {entry.folder} cannot be read back")
    return found


def _build_in_memory(entry: Entry, channels: int, on_bad: OnBad, progress: bool) -> ImageSet:
    file, listing = BytesIO(), entry.listing
    outcome = _decode_into(file, entry, channels, progress)
    _refuse(listing, outcome, on_bad)
    pixels = np.frombuffer(file.getbuffer().toreadonly(), dtype=np.uint8)
    pixels = pixels.reshape(-1, channels, *height_width(entry.recipe.image_size))
    labels = outcome.label_array()
    return ImageSet(
        pixels,
        labels,
        listing.name,
        fingerprint(pixels, labels),
        tuple(outcome.bad),
        listing.classes,
        outcome.sizes_by_frequency(),
        listing.passed_over,
        outcome.bits,
    )


def _about(outcome: _Outcome) -> dict[str, Any]:
    bad = [astuple(bad) for bad in outcome.bad]
    return {"bad": bad, "original_sizes": outcome.sizes_by_frequency(), "bits": outcome.bits}


def _channels(listing: Listing, recipe: Recipe) -> int:
    if len(recipe.possible_channels) == 1:
        return recipe.possible_channels[0]
    for item in listing.items():
        try:
            return 1 if read(item.source, item.where).mode == "L" else 3
        except UnusableImage:
            continue
    return 3


def _decode_into(file: BinaryIO, entry: Entry, channels: int, progress: bool) -> _Outcome:
    """Writes the pixels of every usable image, in order, and nothing else; memory does not grow with the set."""
    outcome, listing = _Outcome(), entry.listing
    with (
        warnings.catch_warnings(),
        tqdm(
            total=listing.count, desc=f"decoding {listing.name}", unit="img", disable=None if progress else True
        ) as bar,
    ):
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for result in decode_all(listing.items(), entry.recipe, channels):
            bar.update()
            if isinstance(result, BadImage):
                outcome.bad.append(result)
                continue
            file.write(result.pixels.tobytes())
            outcome.add(result)
    return outcome


Result = Decoded | BadImage


def decode_all(items: Iterator[Item], recipe: Recipe, channels: int) -> Iterator[Result]:
    """Decodes in parallel and yields in order; only bounded numbers of images and of bytes are under way.

    Yields:
        For each item the decoded image, or what is wrong with it.
    """
    threads = min(32, usable())  # not of all cores of the machine, where a container has fewer
    memory, n_bytes = Memory(threads * DECODING), channels * math.prod(height_width(recipe.image_size))

    def work(chunk: list[Item]) -> list[Result]:
        return [_decode_one(item, recipe, channels, memory) for item in chunk]

    pending: deque[tuple[Future[list[Result]], int]] = deque()
    held = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        for chunk, cost in _chunks(items, n_bytes, AHEAD // (2 * threads)):
            pending.append((pool.submit(work, chunk), cost))
            held += cost
            while len(pending) > 1 and (len(pending) > 2 * threads or held > AHEAD):
                future, cost = pending.popleft()
                yield from future.result()
                held -= cost
        while pending:
            yield from pending.popleft()[0].result()


def _chunks(items: Iterator[Item], n_bytes: int, most: int) -> Iterator[tuple[list[Item], int]]:
    """Items that a thread takes at once, and the bytes that they may hold: of the files, and ``n_bytes`` of each."""
    chunk: list[Item] = []
    cost = 0
    for item in items:
        chunk.append(item)
        cost += n_bytes + (len(item.source) if isinstance(item.source, bytes) else 0)
        if len(chunk) == CHUNK or cost >= most:
            yield chunk, cost
            chunk, cost = [], 0
    if chunk:
        yield chunk, cost


class Memory:
    """What threads may hold together of images that are being decoded: a large one waits for the others to end."""

    def __init__(self, most: int) -> None:
        self._change, self._most, self._pixels = threading.Condition(), most, 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """A block that decodes one image; what it gives is called once, with the number of pixels."""
        mine = 0

        def take(pixels: int) -> None:
            nonlocal mine
            with self._change:
                self._change.wait_for(lambda: self._pixels == 0 or self._pixels + pixels <= self._most)
                self._pixels, mine = self._pixels + pixels, pixels

        try:
            yield take
        finally:
            with self._change:
                self._pixels -= mine
                self._change.notify_all()


def _decode_one(item: Item, recipe: Recipe, channels: int, memory: Memory) -> Result:
    try:
        with memory.share() as take:
            wanted = math.prod(height_width(recipe.image_size))
            image = read(item.source, item.where, channels == 4, lambda pixels: take(max(pixels, wanted)))
            pixels = place(image, item.where, recipe.image_size, channels, recipe.center_crop)
            return Decoded(pixels, image.size, item.label, image.info.get(BITS))
    except UnusableImage as error:
        return error.bad


def _refuse(listing: Listing, outcome: _Outcome, on_bad: OnBad) -> None:
    """Stops before the set appears.

    Raises:
        DataError: unusable images under ``error``, nothing but unusable images, or a different number than was listed.
    """
    found = len(outcome.labels) + len(outcome.bad)
    if found != listing.count:
        raise DataError(f"{listing.name}: {listing.count} images are declared, and {found} were found: fetch it again")
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
