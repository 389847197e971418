"""Labels that do not come with the images: from a CSV file next to them, or from their file names.

A label is a whole number or a name. If all labels of a set are whole numbers, they are kept as they are; else all are
names, which sorted become the classes 0, 1, ...
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from ddpm_ip.data.imageset import Int64
from ddpm_ip.data.source import opened, refusing
from ddpm_ip.errors import DataError
from ddpm_ip.plain import quoted, reason, shown

MAX_CSV = 256_000_000  # bytes; a line for each of ImageNet's 1.3 million images has some 40
NAMED = 5  # files that an error names of each kind
PREFIX = "prefix"
FILE_COLUMNS = frozenset({"file", "files", "filename", "file_name", "path", "image", "image_id", "image_name"})
LABEL_COLUMNS = frozenset({"label", "labels", "class", "class_id", "class_name", "category", "target", "y"})
DELIMITERS = ("\t", ",", ";")
_WHOLE = re.compile(r"([+-]?\d{1,30})(?:\.0*)?", re.ASCII)  # pandas writes 3 as 3.0 once a value is missing


class Labels(NamedTuple):
    """What the images of a set are.

    Attributes:
        numbers: int64 (N,).
        classes: the names of 0, 1, ...; empty if the labels were numbers.
    """

    numbers: Int64
    classes: tuple[str, ...]


def check_labels(labels: Int64 | None, name: str, classes: int) -> None:
    """Refuses to train a network of this many classes on images without labels, or with labels of other classes.

    Args:
        labels: int64 (N,), or of each that occurs one; None if there are none.
        name: of the set.
        classes: ``classes.count``.

    Raises:
        DataError: says what the labels are, and how data and network come to fit.
    """
    if labels is None:
        raise DataError(
            f"classes.count is {classes}, and {name} has no labels to tell the network: take data with labels "
            "(docs/DATA.md says where each source has them), or leave the section classes out (--classes null)"
        )
    least, most = int(labels.min()), int(labels.max())
    if least < 0:
        raise DataError(f"{name} has the label {least}: the labels of a class-conditional network begin at 0")
    if most >= classes:
        different = len(np.unique(labels))
        fewer = f" ({different:,} different ones occur: numbered from 0, they need {different})" * (different <= most)
        raise DataError(
            f"{name} has labels up to {most}{fewer}, and classes.count {classes} has room for 0..{classes - 1}: set "
            f"--classes.count {most + 1}"
        )


def without_images(labels: Int64, classes: int) -> str:
    """Which classes have no images and so can only be noise, in words for a person; empty if all have some."""
    used = set(np.unique(labels).tolist())
    count = classes - sum(0 <= label < classes for label in used)
    first = list(islice((str(n) for n in range(classes) if n not in used), NAMED + 1))
    return f"{count:,} of {classes:,} classes have no images: {_some(first)}" if count else ""


def numbered(values: Sequence[str], where: str) -> Labels:
    """Labels as they are written, as numbers.

    Args:
        values: whole numbers, which are kept, or names, which are sorted and counted from 0.
        where: the file, for errors.

    Raises:
        DataError: a number is beyond int64.
    """
    whole = [_WHOLE.fullmatch(value.strip()) for value in values]
    if not all(whole):
        return _named([value.strip() for value in values])
    numbers = [int(match[1]) for match in whole if match]
    if far := next((n for n in numbers if not -(2**63) <= n < 2**63), None):
        raise DataError(f"{where}: there is the label {far}, larger than int64 can hold")
    return Labels(np.array(numbers, np.int64), ())


def by_prefix(files: Sequence[str]) -> Labels:
    """Classes as guided-diffusion has them: what stands before the first underscore of a file's name, always as a name.

    Args:
        files: paths with ``/`` between their parts.

    Raises:
        DataError: a name has no underscore.
    """
    names = [file.rpartition("/")[2] for file in files]
    if without := [file for file, name in zip(files, names, strict=True) if "_" not in name]:
        raise DataError(
            f"data.labels {PREFIX}: the class is what stands before the first underscore of a file's name, and "
            f"{len(without):,} of {len(files):,} names have none: {_some(without)}. Rename them, as in cat_1.png, or "
            "give the labels as a CSV file: data.labels labels.csv"
        )
    return _named([name.partition("_")[0] for name in names])


def by_subfolder(files: Sequence[str]) -> Labels | None:
    """Classes by the first folder of each path, sorted; None if an image lies in no folder."""
    return None if any("/" not in file for file in files) else _named([file.partition("/")[0] for file in files])


def by_file(path: Path, files: Sequence[str], root: Path) -> Labels:
    """The labels of a CSV file: a line for every image, with its path and its label.

    Columns are found by their names in the first line (``file`` or ``path`` and the like, ``label`` or ``class`` and
    the like), if it has both; without such a line there are two, path and label. Columns are separated by a comma, a
    semicolon or a tab.

    Args:
        path: the file, in UTF-8.
        files: the paths of the images below ``root``, with ``/`` between their parts.
        root: where they lie, for errors.

    Raises:
        DataError: the file cannot be read, or its lines do not match the images.
    """
    known, label_of = frozenset(files), dict[str, str]()
    twice, strange = dict[str, None](), dict[str, None]()
    for file, label in _lines(path):
        name = file if file in known else PurePosixPath(file.strip().replace("\\", "/")).as_posix()
        kind = twice if name in label_of else strange if name not in known else None
        if kind is not None:
            kind[name] = None
        elif label.strip():
            label_of[name] = label
    without = [file for file in files if file not in label_of]
    if not (without or twice or strange):
        return numbered([label_of[file] for file in files], str(path))
    wrong = {"images without a label": without, "images with several lines": twice, "lines of no image": strange}
    told = [f"  {what}: {len(names):,} ({_some(list(names))})" for what, names in wrong.items() if names]
    raise DataError(
        "\n".join([f"{path}: its labels are not those of the images in {root}:", *told])
        + f"\nEvery image needs one line, with its path in that folder, as in {shown(files[0])}"
    )


def found_beside(given: str, root: Path, what: str) -> Path:
    """A file that the configuration names: as it is, or else from the folder of the data.

    Args:
        given: what a person wrote.
        root: the folder, or a file in it.
        what: what it should be.

    Raises:
        DataError: there is no such file.
    """
    try:
        path = Path(given).expanduser()
        beside = (root if root.is_dir() else root.parent) / path
        found = next((one for one in (path, beside) if one.is_file()), None)
        if found is None and (path.exists() or beside.exists()):
            raise OSError("it is not a file")
    except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, no such home
        raise DataError(f"data.labels: {shown(given)} cannot be read: {reason(error)}. It should be {what}") from None
    if found is None:
        raise DataError(f"data.labels: {shown(given)} does not exist, here or in {beside.parent}; it should be {what}")
    return found


def _named(names: Sequence[str]) -> Labels:
    classes = tuple(sorted(set(names)))
    number = {name: i for i, name in enumerate(classes)}
    return Labels(np.array([number[name] for name in names], np.int64), classes)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(path, label) of every line but the one that names the columns."""
    with refusing(f"{path}: not a readable CSV file of labels", "It should have two columns, file and label"):
        with opened(path) as file:
            content = file.read(MAX_CSV + 1)
        if len(content) > MAX_CSV:
            raise ValueError(f"it has more than {MAX_CSV:,} bytes")
        text = content.decode("utf-8-sig")
        first = text.split("\n", 1)[0]
        delimiter = next((one for one in DELIMITERS if one in first), ",")
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        columns: tuple[int, int] | None = None
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if columns is None:
                columns, is_heading = _columns(row)
                if is_heading:
                    continue
            if len(row) <= max(columns):
                raise ValueError(f"line {rows.line_num} has {len(row)} columns: {quoted(delimiter.join(row))}")
            yield row[columns[0]], row[columns[1]]


def _columns(row: Sequence[str]) -> tuple[tuple[int, int], bool]:
    """The places of path and label, and whether the row names the columns.

    Raises:
        ValueError: it is not certain which columns they are.
    """
    plain = [cell.strip().lower() for cell in row]
    found = [[i for i, cell in enumerate(plain) if cell in names] for names in (FILE_COLUMNS, LABEL_COLUMNS)]
    (files, labels), said = found, ", ".join(map(shown, row[:10]))
    if len(files) == len(labels) == 1:
        return (files[0], labels[0]), True
    if len(files) == 1 and not labels and len(row) == 2:  # no image has such a name: the other column is the label
        return (files[0], 1 - files[0]), True
    if files and labels:
        raise ValueError(f"its first line ({said}) names several columns that can be the path, or the label")
    if len(row) != 2:
        raise ValueError(f"its first line ({said}) names no columns file and label, and there are {len(row)}")
    return (0, 1), False


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > NAMED else ""
    return ", ".join(map(shown, names[:NAMED])) + more
