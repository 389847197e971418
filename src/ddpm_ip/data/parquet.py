"""Parquet files with encoded images in a column, as Hugging Face data sets keep them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ddpm_ip.data.decode import ImageSize
from ddpm_ip.data.decoded import Item, Listing, Mode, OnBad, Recipe, open_decoded
from ddpm_ip.data.imageset import ImageSet
from ddpm_ip.data.labels import Labels, numbered
from ddpm_ip.data.source import existing, opened, refuse_bomb, refusing
from ddpm_ip.errors import DataError
from ddpm_ip.extras import how_to_install
from ddpm_ip.plain import UNREADABLE, parse_json, quoted, shown

log = logging.getLogger("ddpm_ip.data")

ROWS, BATCH = 64, 256_000_000  # rows, and bytes, that are read at once; one row may have more
LABELS, MAX_CLASSES = 4096, 1_000_000  # labels that are read at once, and that may be different
COLUMNS = 20  # that an error names
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
        label_column: a column of whole numbers, or of texts that are names (sorted, over all shards of the split, they
            become the classes 0, 1, ...). By default ``label``, if there is one and it holds integers. Names of
            integers are read if Hugging Face's ``datasets`` wrote them (a ``ClassLabel``).
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
        number, classes = _numbers(shards, label)

        def items() -> Iterator[Item]:
            for shard in shards:
                yield from _rows(shard, image, label, number)

        if label is None and "label" in _schema(shards[0]).names:
            kind = _schema(shards[0]).field("label").type
            said = f"{shown(kind)}, not integers: no labels are read"
            said += " (data.label_column label takes texts as names)" if _is_text(kind) else ""
            log.warning("%s: the column label holds %s", shards[0], said)
        count = sum(_opened(shard).metadata.num_rows for shard in shards)
        identity = (*(_identity(shard) for shard in shards), image, str(label))
        name = root.stem if root.is_file() else f"{root.resolve().name}-{self.split}"
        return Listing(name, count, items, identity, classes)

    def some_labels(self) -> Labels | None:
        """The different labels, without the images; None if there are none.

        Raises:
            DataError: pyarrow, a shard or a column is missing, or a label is none.
        """
        shards = _shards(existing(self.root, "a Parquet file, or a folder of them"), self.split)
        _, label = _columns(shards[0], self.image_column, self.label_column)
        if label is None:
            return None
        number, classes = _numbers(shards, label)
        found = {_label(number.get(value, value), label, str(shards[0])) for value in _different(shards, label)}
        return Labels(np.array(sorted(found), np.int64), classes)


def _numbers(shards: Sequence[Path], label: str | None) -> tuple[dict[Any, int], tuple[str, ...]]:
    """What the texts of the label column mean, if it holds texts; and the names of 0, 1, ..."""
    if label is None or not _is_text(_schema(shards[0]).field(label).type):
        return {}, _class_names(shards[0], label)
    texts = sorted(text for text in _different(shards, label) if text is not None)
    numbers, classes = numbered(texts, str(shards[0]))
    return dict(zip(texts, numbers.tolist(), strict=True)), classes


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
        raise DataError(f"data.root: no Parquet file of the split {quoted(split)} in {root}; there is {there}")
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
        schema = _opened(shard).schema_arrow
        if twice := [name for name, n in Counter(schema.names).items() if n > 1]:
            raise ValueError(f"two of its columns have the name {quoted(twice[0])}")
        return schema


def _columns(shard: Path, image: str | None, label: str | None) -> tuple[str, str | None]:
    import pyarrow.types as types

    schema = _schema(shard)
    for column in (image, label):
        if column is not None and column not in schema.names:
            raise DataError(f"{shard}: there is no column {quoted(column)}; there is {_names(schema)}")
    if label is None and "label" in schema.names and types.is_integer(schema.field("label").type):
        label = "label"
    elif label is not None and not _can_be_labels(schema.field(label).type):
        kind = shown(schema.field(label).type)
        raise DataError(f"{shard}: the label column {quoted(label)} holds {kind}, not integers or texts")
    candidates = [field.name for field in schema if _holds_images(field.type)]
    if image is None and not candidates:
        raise DataError(
            f"{shard}: no column holds encoded images (binary, or a struct with a field 'bytes'); there is "
            f"{_names(schema)}"
        )
    if image is not None and image not in candidates:
        kind = shown(schema.field(image).type)
        raise DataError(f"{shard}: column {quoted(image)} holds {kind}, not the bytes of image files")
    return image or candidates[0], label


def _names(schema: Any) -> str:
    found = ", ".join(map(shown, schema.names[:COLUMNS]))
    return f"{found} and {len(schema) - COLUMNS} more" if len(schema) > COLUMNS else found or "none"


def _holds_images(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(kind.field(i).name == "bytes" and _holds_images(kind.field(i).type) for i in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _can_be_labels(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(kind) or types.is_floating(kind) or _is_text(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _class_names(shard: Path, label: str | None) -> tuple[str, ...]:
    """The names of a column of integers, if Hugging Face's ``datasets`` wrote them into the schema."""
    packed = (_schema(shard).metadata or {}).get(b"huggingface", b"")
    try:
        feature = parse_json(packed.decode())["info"]["features"][label]
        names = feature["names"] if feature["_type"] == "ClassLabel" else ()
        named = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return tuple(names) if named else ()
    except UNREADABLE:  # nothing depends on them
        return ()


def _different(shards: Sequence[Path], label: str) -> set[Any]:
    """The different values of the label column."""
    found: set[Any] = set()
    for shard in shards:
        _columns(shard, None, label)
        if _is_text(_schema(shard).field(label).type) != _is_text(_schema(shards[0]).field(label).type):
            raise DataError(
                f"{shard}: the label column {quoted(label)} holds texts here or in {shards[0]}, not in both"
            )
        file = _opened(shard)
        _refuse_bombs(file, shard)
        with refusing(f"{shard}: damaged", "Fetch it again"):
            for batch in file.iter_batches(batch_size=LABELS, columns=[label]):
                found |= set(batch.column(label).unique().to_pylist())
                if len(found) > MAX_CLASSES:
                    raise ValueError(f"its column {quoted(label)} has more than {MAX_CLASSES:,} different values")
    return found


def _rows(shard: Path, image: str, label: str | None, number: Mapping[Any, int]) -> Iterator[Item]:
    _columns(shard, image, label)  # of each shard: the first was looked at already
    columns = [image] if label is None else [image, label]
    file, row = _opened(shard), 0
    rows = max(1, min(ROWS, BATCH // max(1, _refuse_bombs(file, shard))))
    with refusing(f"{shard}: damaged", "Fetch it again"):
        for batch in file.iter_batches(batch_size=rows, columns=columns):
            images = batch.column(image).to_pylist()
            labels = [None] * len(images) if label is None else batch.column(label).to_pylist()
            for data, value in zip(images, labels, strict=True):
                where = f"{shard} row {row}"
                value = number.get(value, value) if isinstance(value, str) else value
                yield Item(where, _bytes(data), None if label is None else _label(value, label, where))
                row += 1


def _refuse_bombs(file: Any, shard: Path) -> int:
    """Refuses row groups that unpack to more than images can, before they are read.

    Returns:
        The bytes of the largest one, and so of its largest value, of which each row may have a copy.
    """
    largest = 0
    with refusing(f"{shard}: not a readable Parquet file"):
        for i in range(file.metadata.num_row_groups):
            # not by column: where that is damaged, pyarrow (26) ends the process
            n_bytes = file.metadata.row_group(i).total_byte_size
            refuse_bomb(n_bytes, shard.stat().st_size)
            largest = max(largest, n_bytes)
    return largest


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
        raise DataError(f"{where}: no value in the label column {quoted(column)}")
    whole = type(number) is int or (isinstance(number, float) and number.is_integer())
    if not whole or not -(2**63) <= number < 2**63:
        raise DataError(
            f"{where}: the label {number!r:.80} of the column {quoted(column)} is not a whole number of 64 bits; "
            "convert the column, or name another by data.label_column"
        )
    return int(number)
