"""Parquet files with encoded images in a column, as Hugging Face data sets keep them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ddpm_ip.data.decode import ImageSize
from ddpm_ip.data.decoded import Item, Listing, Mode, OnBad, Recipe, open_decoded
from ddpm_ip.data.imageset import ImageSet
from ddpm_ip.data.source import existing, opened, refuse_bomb, refusing
from ddpm_ip.errors import DataError
from ddpm_ip.extras import how_to_install

log = logging.getLogger("ddpm_ip.data")

ROWS = 64  # rows read at once
SPLITS = frozenset({"train", "test", "validation", "valid", "val"})


@dataclass(frozen=True, kw_only=True)
class Parquet:
    """The images of one Parquet file, or of the shards of a split in a folder, in the order of names and rows.

    A shard belongs to a split if its name begins with it (``train-00000-of-00004.parquet``) or it lies in a folder of
    that name. If no shard names any split, all of them are taken.

    Attributes:
        root: a ``.parquet`` file, or a folder that holds the shards, at any depth.
        split: which shards of a folder to take.
        image_column: by default the first struct column with a field ``bytes``, or the first binary column.
        label_column: a column of whole numbers; by default ``label``, if there is one and it holds integers.
        image_size: height and width after resizing (see :func:`ddpm_ip.data.decode.fit`), or one number for both.
        mode: ``rgb``, ``gray``, ``rgba`` (four channels), or ``auto``: gray or RGB, as the first readable image is.
        center_crop: side of the square cut out of the middle before resizing.
        on_bad: ``error`` lists all unusable images and stops; ``skip`` leaves them out and records them.
        cache: folder for the decoded pixels; by default ``$XDG_CACHE_HOME/ddpm-ip`` or ``~/.cache/ddpm-ip``.
    """

    name: Literal["parquet"] = "parquet"
    root: str
    image_size: ImageSize
    split: str = "train"
    image_column: str | None = None
    label_column: str | None = None
    mode: Mode = "rgb"
    center_crop: int | None = None
    on_bad: OnBad = "error"
    cache: str | None = None

    def open(self, progress: bool = True) -> ImageSet:
        """Reads the shards row by row, and decodes the images or finds them decoded.

        Raises:
            DataError: pyarrow, a shard or a column is missing, or an image is unusable under ``error``.
        """
        recipe = Recipe(self.image_size, self.mode, self.center_crop)
        return open_decoded(self.listing(), recipe, self.cache, self.on_bad, progress)

    def listing(self) -> Listing:
        """The rows, before anything is decoded.

        Raises:
            DataError: pyarrow, a shard or a column is missing.
        """
        root = existing(self.root, "a Parquet file, or a folder of them")
        shards = _shards(root, self.split)
        image, label = _columns(shards[0], self.image_column, self.label_column)

        def items() -> Iterator[Item]:
            for shard in shards:
                yield from _rows(shard, image, label)

        if label is None and "label" in _schema(shards[0]).names:
            kind = _schema(shards[0]).field("label").type
            log.warning("%s: the column label holds %s, not integers: no labels are read", shards[0], kind)
        count = sum(_opened(shard).metadata.num_rows for shard in shards)
        identity = (*(_identity(shard) for shard in shards), image, str(label))
        name = root.stem if root.is_file() else f"{root.resolve().name}-{self.split}"
        return Listing(name, count, items, identity)


def _shards(root: Path, split: str) -> list[Path]:
    if root.is_file():
        return [root]
    found = (path for path in sorted(root.rglob("*.parquet")) if not path.is_dir())  # Spark names folders so
    named = {path: _split_words(path, root) for path in found}
    if not any(words & SPLITS for words in named.values()) and split not in set().union(*named.values()):
        shards = list(named)
    else:
        shards = [path for path, words in named.items() if split in words]
    if not shards:
        there = ", ".join(path.name for path in list(named)[:10]) or "no Parquet file at all"
        raise DataError(f"data.root: no Parquet file of the split {split!r} in {root}; there is {there}")
    return shards


def _split_words(path: Path, root: Path) -> set[str]:
    return {path.stem.split("-")[0], *path.relative_to(root).parts[:-1]}


def _identity(shard: Path) -> str:
    stat = shard.stat()
    return f"{shard.resolve()} {stat.st_size} {stat.st_mtime_ns}"


def _opened(shard: Path) -> Any:
    """A ``pyarrow.parquet.ParquetFile``."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"reading Parquet files needs pyarrow: {how_to_install('parquet')}") from error
    with refusing(f"{shard}: not a readable Parquet file"):
        with opened(shard):  # a pipe would be waited for
            pass
        return pyarrow.parquet.ParquetFile(shard)


def _schema(shard: Path) -> Any:
    """A ``pyarrow.Schema``."""
    with refusing(f"{shard}: not a readable Parquet file"):
        return _opened(shard).schema_arrow


def _columns(shard: Path, image: str | None, label: str | None) -> tuple[str, str | None]:
    import pyarrow.types as types

    schema = _schema(shard)
    for column in (image, label):
        if column is not None and column not in schema.names:
            raise DataError(f"{shard}: there is no column {column!r}; there is {', '.join(schema.names)}")
    if label is None and "label" in schema.names and types.is_integer(schema.field("label").type):
        label = "label"
    elif label is not None and not (
        types.is_integer(schema.field(label).type) or types.is_floating(schema.field(label).type)
    ):
        raise DataError(f"{shard}: the label column {label!r} holds {schema.field(label).type}, not integers")
    candidates = [field.name for field in schema if _holds_images(field.type)]
    if image is None and not candidates:
        raise DataError(f"{shard}: no column holds encoded images (binary, or a struct with a field 'bytes'): {schema}")
    if image is not None and image not in candidates:
        raise DataError(f"{shard}: column {image!r} holds {schema.field(image).type}, not the bytes of image files")
    return image or candidates[0], label


def _holds_images(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(kind.field(i).name == "bytes" and _holds_images(kind.field(i).type) for i in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _rows(shard: Path, image: str, label: str | None) -> Iterator[Item]:
    _columns(shard, image, label)  # of each shard: the first was looked at already
    columns = [image] if label is None else [image, label]
    file, row = _opened(shard), 0
    _refuse_bombs(file, shard)
    with refusing(f"{shard}: damaged", "Fetch it again"):
        for batch in file.iter_batches(batch_size=ROWS, columns=columns):
            images = batch.column(image).to_pylist()
            labels = [None] * len(images) if label is None else batch.column(label).to_pylist()
            for data, number in zip(images, labels, strict=True):
                where = f"{shard} row {row}"
                yield Item(where, _bytes(data), None if label is None else _label(number, label, where))
                row += 1


def _refuse_bombs(file: Any, shard: Path) -> None:
    """Refuses row groups that unpack to what no images do, before they are read."""
    with refusing(f"{shard}: not a readable Parquet file"):
        for i in range(file.metadata.num_row_groups):
            # not by column: where that is damaged, pyarrow (26) ends the process
            refuse_bomb(file.metadata.row_group(i).total_byte_size, shard.stat().st_size)


def _bytes(data: Any) -> bytes:
    """The bytes of an image file, empty if there are none; a path that is stored with them is never followed."""
    data = data.get("bytes") if isinstance(data, dict) else data
    return data if isinstance(data, bytes) else b""


def _label(number: Any, column: str, where: str) -> int:
    """A label as a whole number.

    Raises:
        DataError: there is none, or it is no whole number that int64 can hold.
    """
    if number is None:
        raise DataError(f"{where}: no value in the label column {column!r}")
    whole = type(number) is int or (isinstance(number, float) and number.is_integer())
    if not whole or not -(2**63) <= number < 2**63:
        raise DataError(
            f"{where}: the label {number!r:.80} of the column {column!r} is no whole number of 64 bits; convert the "
            "column, or name another by data.label_column"
        )
    return int(number)
