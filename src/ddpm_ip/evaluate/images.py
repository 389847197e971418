"""Images on their way to be evaluated: from files, sets or a generator, shared among processes, in one order.

Images come in blocks. Of P processes the first has blocks 0, P, 2P, ..., the second 1, P + 1, ...; what is made of them
is gathered block by block, so that the first process sees everything in the order of the images.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from ddpm_ip.data import BadImage, Folder, ImageSet, Parquet
from ddpm_ip.data.arrays import array_names, read_arrays, read_text
from ddpm_ip.data.decode import UnusableImage, read
from ddpm_ip.data.decoded import Item, Listing, Recipe, decode_all
from ddpm_ip.errors import ConfigError, DataError
from ddpm_ip.evaluate.statistics import holds_statistics, what_it_is
from ddpm_ip.files import MB, SCHEMA, read_json, reading
from ddpm_ip.images import UInt8
from ddpm_ip.plain import kind_of, parse_json, reason
from ddpm_ip.run.record import flatten

JPEG = b"\xff\xd8\xff"
MARK = "sampling.json"
LARGEST_MARK = MB  # bytes of what samples say of themselves
MOST_SETTINGS, LONGEST_SETTING = 500, 2_000  # number; characters of one with its key
LARGEST_BLOCK = 256 * MB  # bytes of pixels that are decoded together, unless one image has more
SAVED_ALONE = "Samples have no configuration: save them alone, np.savez(path, images=images, layout='channels_last')"


@dataclass(frozen=True)
class Source:
    """Images and what is known of them.

    Args:
        name: for people.
        blocks: makes this process's share, ``uint8`` (B, C, H, W) each, of the first so many images (None: all), in
            blocks of the given size; what comes from a generator has its own size of block.
        count: how many images there are; None if that is not known before.
        shape: (C, H, W) of each; None if that is not known before.
        about: what they are made of, if anything says so.
        path: where they lie, if they are files: two may have one name.
    """

    name: str
    blocks: Callable[[int, int | None], Iterator[UInt8]]
    count: int | None = None
    shape: tuple[int, int, int] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None


def rank() -> int:
    """The number of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def from_first(value: Any) -> Any:
    """The first process's value, on every process."""
    box = [value]
    if world() > 1:
        dist.broadcast_object_list(box)
    return box[0]


def open_samples(samples: Path | str | Iterable[UInt8], about: Mapping[str, Any] | None = None) -> Source:
    """Samples as a source.

    Args:
        samples: a folder of PNG files, an ``.npz`` or ``.npy`` file, a Parquet file or a folder of them; or blocks of
            ``uint8`` (B, C, H, W), of which each process gives its own (see the top of this file).
        about: what they are made of; by default what the ``sampling.json`` of the folder says. Files with transparency
            are composited on white, unless that file says that the images have 4 ``channels``.

    Raises:
        DataError: there are none, or they cannot be used.
    """
    if isinstance(samples, str):  # which is an iterable, too
        samples = Path(samples)
    if not isinstance(samples, Path):
        return Source("images from memory", lambda size, n: iter(samples), about=about or {})
    try:
        with in_its_own_words(SAVED_ALONE):
            return _open_files(samples, about)
    except OSError as error:
        raise DataError(f"{samples} cannot be read: {reason(error)}. Choose samples that you may read") from error


def _open_files(samples: Path, about: Mapping[str, Any] | None) -> Source:
    refuse_absent(samples)
    mark = _mark(samples)
    about = mark if about is None else about
    if samples.suffix in (".npz", ".npy"):
        if holds_statistics(samples):
            raise DataError(what_it_is(samples, "they can be a --reference, and samples must be images"))
        return replace(from_pixels(samples.name, read_arrays(samples)[0], about), path=str(samples.resolve()))
    listing = list_files(samples)
    shape = _first_shape(listing, alpha=mark.get("channels") == 4)
    return Source(
        listing.name,
        lambda block, n: _decoded(listing, shape, block, n),
        listing.count,
        shape,
        about,
        str(samples.resolve()),
    )


def refuse_absent(path: Path) -> None:
    """Refuses what is neither a folder nor a file: of a pipe or a device there may be no end.

    Raises:
        DataError: nothing is there, or something else.
        OSError: it cannot be looked at.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last of a name with a zero in it
        what = "folder of PNG files, an .npz, or a Parquet file"
        raise DataError(f"{path} does not exist; it should be a {what}") from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataError(f"{path} is a pipe, a socket or a device; give a folder of PNG files, an .npz, or Parquet")


@contextmanager
def in_its_own_words(advice: str) -> Iterator[None]:
    """Tells what is wrong with images to somebody who has no configuration, of whose keys a source of data speaks.

    Args:
        advice: what to do instead of setting ``data.KEY``.

    Raises:
        DataError: in place of one that was raised.
    """
    try:
        yield
    except DataError as error:
        text = str(error).removeprefix("data.root: ")
        if re.search(r"\bdata\.[a-z_]+", text):
            text += f"\n{advice}"
        raise error if text == str(error) else DataError(text) from error


def from_pixels(name: str, pixels: UInt8, about: Mapping[str, Any] | None = None) -> Source:
    """A source of ``uint8`` (N, C, H, W), in memory or mapped."""
    if len(pixels) == 0:
        raise DataError(f"{name}: there is no image in it")
    _refuse_empty(name, *pixels.shape[:1:-1])

    def blocks(size: int, n: int | None) -> Iterator[UInt8]:
        size = _bounded(size, pixels[0].nbytes)
        end = min(len(pixels), n or len(pixels))
        for start in range(rank() * size, end, world() * size):
            yield np.ascontiguousarray(pixels[start : min(start + size, end)])

    _, channels, height, width = pixels.shape
    return Source(name, blocks, len(pixels), (channels, height, width), about or {})


def from_set(images: ImageSet) -> Source:
    """A source of a whole data set."""
    return from_pixels(images.name, images.pixels)


def list_files(path: Path) -> Listing:
    """The images of a folder, of a Parquet file, or of a folder of Parquet files."""
    if path.is_file() and path.suffix != ".parquet":
        raise DataError(f"{path}: images come as a folder of PNG files, an .npz or .npy file, or Parquet")
    kind = Parquet if is_parquet(path) else Folder
    return kind(root=str(path), image_size=1).listing()  # the size plays no part before decoding


def is_parquet(path: Path) -> bool:
    """Whether images come as a Parquet file or a folder of them."""
    return path.suffix == ".parquet" or any(shard.is_file() for shard in path.glob("*.parquet"))


def is_jpeg(item: Item) -> bool:
    """Whether an image is a JPEG, by the bytes that it begins with."""
    if isinstance(item.source, bytes):
        return item.source.startswith(JPEG)
    try:
        if not item.source.is_file():  # a pipe, which would be waited for; decoding says what is wrong with it
            return False
        with open(item.source, "rb") as file:
            return file.read(3) == JPEG
    except OSError:
        return False  # as above


def _mark(samples: Path) -> dict[str, Any]:
    """What a folder or an ``.npz`` file of samples says that it is made of."""
    if MARK.removesuffix(".json") in array_names(samples):
        return _mark_inside(samples)
    path = samples / MARK
    if not path.exists():
        return {}
    advice = "Remove it to evaluate without knowing how the images were made"
    if path.stat().st_size > LARGEST_MARK:
        raise DataError(f"{path} has more than {LARGEST_MARK // MB} MB, which none that ddpm-ip wrote has. {advice}")
    mark = read_json(path, advice=advice, error=DataError)
    with reading(path, advice, DataError):
        _refuse_long(mark)
    return mark


def _mark_inside(samples: Path) -> dict[str, Any]:
    """The text of ``sampling.json`` in the array ``sampling`` of an ``.npz`` file."""
    text = read_text(samples, "sampling")
    try:
        mark = parse_json(text or "")
        if not isinstance(mark, dict):
            raise TypeError(f"it must be an object of keys and values, and is {kind_of(mark)}")
        _refuse_long(mark)
        if mark.pop("schema", SCHEMA) not in range(SCHEMA + 1):
            raise ValueError("it was written by a newer version of ddpm-ip: update ddpm-ip")
    except (ValueError, TypeError, RecursionError) as error:
        advice = "Save the images alone to evaluate without knowing how they were made"
        raise DataError(f"{samples}: its array 'sampling' cannot be read: {reason(error)}. {advice}") from None
    return mark


def _refuse_long(mark: Mapping[str, Any]) -> None:
    """Refuses what would fill a screen: settings are few, and consist of short words.

    Raises:
        ValueError: there are longer ones, or more.
    """
    settings = flatten(mark)
    if len(settings) > MOST_SETTINGS or any(len(f"{key}{value}") > LONGEST_SETTING for key, value in settings.items()):
        raise ValueError("it says more, or longer things, than ddpm-ip ever writes")


def _first_shape(listing: Listing, alpha: bool) -> tuple[int, int, int]:
    """(C, H, W) of the first image, which that of all must be."""
    first = next(listing.items(), None)
    if first is None:
        raise DataError(f"{listing.name}: there is no image in it")
    image = read(first.source, first.where, alpha)
    _refuse_empty(first.where, *image.size)
    return len(image.getbands()), image.height, image.width


def _decoded(listing: Listing, shape: tuple[int, int, int], block: int, n: int | None) -> Iterator[UInt8]:
    """This process's blocks of image files, decoded by threads while they are used; nothing is kept."""
    block = _bounded(block, shape[0] * shape[1] * shape[2])
    numbered = enumerate(islice(listing.items(), n))
    mine = (_lossless(item) for i, item in numbered if i // block % world() == rank())
    decoded = decode_all(mine, Recipe(shape[1:], "auto"), channels=shape[0])
    images = (_whole(result, listing.name, shape[2], shape[1]) for result in decoded)
    while part := list(islice(images, block)):
        yield np.stack(part)


def _refuse_empty(name: str, width: int, height: int) -> None:
    if min(width, height) < 1:
        raise DataError(f"{name}: images of {width} x {height} pixels, which show nothing")


def _bounded(block: int, image_bytes: int) -> int:
    """As many images of a block as memory should hold at once."""
    return max(1, min(block, LARGEST_BLOCK // image_bytes))


def _lossless(item: Item) -> Item:
    if is_jpeg(item):
        raise DataError(f"{item.where}: a JPEG. Its losses move every distance: write the samples as PNG, or npz")
    return item


def _whole(result: Any, name: str, width: int, height: int) -> UInt8:
    if isinstance(result, BadImage):
        raise UnusableImage(result.where, result.reason)
    pixels, original = result.pixels, result.size
    if original != (width, height):
        raise DataError(f"{name}: there are images of {width} x {height} and of {original[0]} x {original[1]} pixels")
    image: UInt8 = pixels
    return image


def gathered(
    blocks: Iterable[dict[str, Tensor] | None], kinds: Sequence[str]
) -> Iterator[tuple[int, dict[str, Tensor] | None]]:
    """Everybody's blocks of features on the first process, in order.

    Args:
        blocks: this process's, of (rows, D) by kind, ``float32`` or ``float64``; None for ever once there are no more.
        kinds: the kinds.

    Yields:
        One block after the other: its rows and, on the first process, the block itself.

    Raises:
        ConfigError: an image has more features than another; on every process.
    """
    known: dict[str, set[int]] = {kind: set() for kind in kinds}
    for block in blocks:
        shapes = _shapes(block, kinds)
        rows = shapes[:, 0].tolist()
        if not any(rows):
            return
        for kind, widths in zip(kinds, shapes[:, 1::2].T.tolist(), strict=True):
            known[kind] |= {width for width, n in zip(widths, rows, strict=True) if n}
            refuse_widths(known[kind], kind)
        double = shapes[:, 2::2].amax(dim=0).tolist()
        parts = {
            kind: _gather(None if block is None else block[kind], max(rows), max(known[kind]), bool(wide))
            for kind, wide in zip(kinds, double, strict=True)
        }
        for i, n in enumerate(rows):
            if n:
                yield n, {kind: part[i][:n] for kind, part in parts.items()} if rank() == 0 else None


def refuse_widths(widths: set[int], kind: str) -> None:
    """Refuses features of several lengths.

    Raises:
        ConfigError: there are several.
    """
    if len(widths) > 1:
        found = " and ".join(f"{width:,}" for width in sorted(widths))
        raise ConfigError(f"the extractor gives {found} features ({kind}): every image must have as many")


def _shapes(block: dict[str, Tensor] | None, kinds: Sequence[str]) -> Tensor:
    """Of every process's block the rows, and by kind the width and whether it is float64; zeros for none.

    Returns:
        ``int64`` (P, 1 + 2 kinds).
    """
    shape = [0] * (1 + 2 * len(kinds))
    if block is not None:
        by_kind = [number for k in kinds for number in (block[k].shape[1], int(block[k].dtype == torch.float64))]
        shape = [len(block[kinds[0]]), *by_kind]
    mine = torch.tensor(shape, device=_device())
    if world() == 1:
        return mine[None]
    everyone = [torch.empty_like(mine) for _ in range(world())]
    dist.all_gather(everyone, mine)
    return torch.stack(everyone)


def _gather(mine: Tensor | None, rows: int, width: int, double: bool) -> list[Tensor]:
    """Every process's part on the first, padded to (rows, width)."""
    if world() == 1:
        assert mine is not None
        return [mine]
    padded = torch.zeros(rows, width, dtype=torch.float64 if double else torch.float32, device=_device())
    if mine is not None:
        padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in range(world())] if rank() == 0 else None
    dist.gather(padded, parts)
    return parts or []


def _device() -> torch.device:
    """Where the processes can exchange tensors."""
    if world() > 1 and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
