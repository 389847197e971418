"""Files of a run: one way to write them and one way to read them.

**Writing.** A file appears whole or not at all: it is written in the same folder as ``.NAME.PID.RANDOM.partial``,
flushed to the disk and renamed. Whatever goes wrong, also Ctrl-C, leaves what was there and no partial file; only a
process that is killed leaves one (:func:`is_partial`), which nobody reads. Nothing is written through a symbolic link,
nor over one: it is the user's, and so is what it points to. Folders on the way may be links.

**Reading.** What is read is a regular file of bounded size, nested at most :data:`ddpm_ip.plain.DEPTH` levels deep, of
the expected shape. It may be reached through a link, unless ``links=False``. A pipe or a device is refused rather than
waited for.

**Schema.** Each JSON object, row and configuration that is written carries the key ``schema``. It belongs to the file
and not to what the file says: reading checks it and takes it out, so that it plays no part in any comparison. Files of
version 0.1 have none and are read as schema 1. A higher number than the reader knows is refused.

Every error is a :class:`UserError` (or a subclass that the caller names) that says which file, what is wrong, and what
to do about it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

from ddpm_ip.errors import ConfigError, NewerVersion, UserError
from ddpm_ip.places import kind_of_file
from ddpm_ip.places import make_folder as make_folder
from ddpm_ip.places import refuse_special as refuse_special
from ddpm_ip.places import set_aside as set_aside
from ddpm_ip.plain import (
    NOT_FINITE,
    UNREADABLE,
    kind_of,
    load_yaml,
    parse_json,
    quoted,
    reason,
    remedy,
    shown,
    yaml_text,
)
from ddpm_ip.system import BYTES, NOT_THROUGH_LINKS, NOT_WAITING, sync

SCHEMA = 1  # raise the number of a kind of file when an older version would misread what is written
MB = 1_000_000
LARGEST_JSON, LARGEST_LINES, LARGEST_YAML = 64 * MB, 256 * MB, 1 * MB  # bytes that are read

Shape = Mapping[str, type | tuple[type, ...]]  # keys that an object must have, and the types of their values
ANY: Shape = MappingProxyType({})
NUMBER = (int, float)


# --- writing ---------------------------------------------------------------------------------------------------------


@contextmanager
def writing(
    path: Path, *, advice: str = "", error: type[UserError] = UserError, durable: bool = True
) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of ``path`` when the block ends without an exception.

    Args:
        path: the file; its folder is made if need be.
        advice: what to do if it cannot be written; by default what helps against the reason.
        error: class of the error.
        durable: flushes to the disk first, so that a power failure leaves the old file or the new one. Without it, it
            may leave an empty file: for files that come in thousands and can be made again.

    Raises:
        UserError: the file cannot be written; what was there is untouched.
    """
    refuse_special(path, error)
    make_folder(path.parent, error)
    # Threads, containers and machines that share a folder may have one process id; a name has room for 255 bytes.
    partial = path.with_name(f".{path.name[:50]}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:  # x: a new file, never through a link
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
        if durable:
            flush(path.parent)
    except BaseException as caught:
        with suppress(OSError):
            partial.unlink()
        if isinstance(caught, OSError):
            raise _unwritable(path, caught, advice, error) from caught
        raise


def write_bytes(path: Path, content: bytes, *, advice: str = "", error: type[UserError] = UserError) -> None:
    """Writes a file; see :func:`writing`."""
    with writing(path, advice=advice, error=error) as file:
        file.write(content)


def write_text(path: Path, text: str, *, advice: str = "", error: type[UserError] = UserError) -> None:
    """Writes a text as UTF-8. (A file name that is no text becomes an escape, which in JSON means the same.)"""
    write_bytes(path, text.encode("utf-8", "backslashreplace"), advice=advice, error=error)


def write_json(
    path: Path,
    value: Mapping[str, Any],
    *,
    advice: str = "",
    error: type[UserError] = UserError,
    schema: int | None = SCHEMA,
) -> None:
    """Writes one JSON object; ``schema`` None writes no schema."""
    _write_json(path, _stamped(value, schema), advice, error)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], *, advice: str = "") -> None:
    """Writes a JSON list of objects."""
    _write_json(path, [_stamped(row, SCHEMA) for row in rows], advice, UserError)


def write_yaml(path: Path, tree: Mapping[str, Any]) -> None:
    """Writes a configuration as YAML that :func:`read_yaml` reads back."""
    write_text(path, yaml_text(_stamped(tree, SCHEMA)))


def append_line(path: Path, row: Mapping[str, Any], *, schema: int | None = SCHEMA) -> None:
    """Appends one JSON line, in one write, so that processes may append to one file; see :func:`append_text`."""
    append_text(path, json_line(_stamped(row, schema)))


def json_line(row: Mapping[str, Any]) -> str:
    """An object as one line of JSON."""
    return json.dumps(row) + "\n"


def append_text(path: Path, text: str) -> None:
    """Appends lines of text as UTF-8, in one write.

    If the last line is cut off, since its process was killed, the new one begins on a line of its own.

    Raises:
        UserError: it cannot be written; what could be is at the end of the file, and no empty file is left.
    """
    refuse_special(path)
    try:
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | NOT_THROUGH_LINKS | BYTES, 0o666)
        try:
            end = os.fstat(handle).st_size
            cut = end > 0 and os.lseek(handle, end - 1, os.SEEK_SET) >= 0 and os.read(handle, 1) != b"\n"
            content = memoryview((("\n" if cut else "") + text).encode("utf-8", "backslashreplace"))
            while content:  # in one write, unless the disk is full: then the next says so
                content = content[os.write(handle, content) :]
        finally:
            nothing = os.fstat(handle).st_size == 0
            os.close(handle)
            if nothing:
                os.unlink(path)
    except OSError as caught:
        raise _unwritable(path, caught) from caught


def is_partial(path: Path) -> bool:
    """Whether a file is what a process left that was killed while it wrote."""
    return re.fullmatch(r"\..+\.\d+(\.[0-9a-f]{8})?\.partial", path.name, re.DOTALL) is not None  # 0.1: no RANDOM


def sweep(folder: Path, *names: str) -> None:
    """Removes what processes that were killed while they wrote files of these names, or patterns, have left.

    Only for who holds the lock under which they are written.
    """
    for left in [path for name in names for path in folder.glob(f".{name}.*.partial") if is_partial(path)]:
        with suppress(OSError):
            left.unlink()


def flush(path: Path) -> None:
    """Forces a file's bytes, or a folder's entries, to the disk, where the file system can."""
    try:
        sync(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _stamped(value: Mapping[str, Any], schema: int | None) -> dict[str, Any]:
    return dict(value) if schema is None else {"schema": schema, **value}


def _write_json(path: Path, value: Any, advice: str, error: type[UserError]) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", advice=advice, error=error)


def _unwritable(path: Path, caught: OSError, advice: str = "", error: type[UserError] = UserError) -> UserError:
    return error(f"{shown(path)} cannot be written: {reason(caught)}. {advice or remedy(caught)}")


# --- reading ---------------------------------------------------------------------------------------------------------


class Lines(NamedTuple):
    """JSON lines that were read.

    Attributes:
        rows: the objects, in order.
        damaged: the numbers, from 1, of the lines that hold none; not of a last line that is cut off, which is how a
            killed process ends.
    """

    rows: list[dict[str, Any]]
    damaged: list[int]


@contextmanager
def reading(path: Path, advice: str = "", error: type[UserError] = UserError) -> Iterator[None]:
    """Tells of whatever is wrong with a file while it is read and interpreted.

    Args:
        path: the file, or a folder of several.
        advice: what to do about it.
        error: class of the error.

    Raises:
        UserError: in place of any of :data:`ddpm_ip.plain.UNREADABLE`.
    """
    try:
        yield
    except UNREADABLE as caught:
        advice = advice or "Restore it from a backup, or remove it"
        raise error(f"{shown(path)} cannot be read: {reason(caught)}. {advice}") from None


def read_bytes(
    path: Path, largest: int, *, advice: str = "", error: type[UserError] = UserError, links: bool = True
) -> bytes:
    """Reads a file of at most ``largest`` bytes, whatever is in it; ``links``: it may be a symbolic link.

    Raises:
        UserError: it is absent, larger, or no file.
    """
    with reading(path, advice, error):
        return _bytes(path, largest, links)


def read_json(
    path: Path,
    needs: Shape = ANY,
    *,
    advice: str = "",
    error: type[UserError] = UserError,
    schema: int = SCHEMA,
    links: bool = True,
) -> dict[str, Any]:
    """Reads one JSON object.

    Args:
        path: the file.
        needs: keys that must be there, with the types of their values.
        advice: what to do if it cannot be read.
        error: class of the error.
        schema: the highest that is known.
        links: whether the file may be a symbolic link.

    Returns:
        The object, without its schema.

    Raises:
        UserError: it is absent, damaged, or something else.
        NewerVersion: it has a higher schema.
    """
    with reading(path, advice, error):
        return _object(parse_json(_text(path, LARGEST_JSON, links)), needs, path, schema)


def read_rows(
    path: Path, needs: Shape = ANY, *, advice: str = "", error: type[UserError] = UserError, schema: int = SCHEMA
) -> list[dict[str, Any]]:
    """Reads a JSON list of objects; otherwise as :func:`read_json`."""
    with reading(path, advice, error):
        rows = parse_json(_text(path, LARGEST_JSON))
        if not isinstance(rows, list):
            raise TypeError(f"it must be a list, and is {kind_of(rows)}")
        return [_object(row, needs, path, schema, f"row {i}") for i, row in enumerate(rows, 1)]


def read_lines(
    path: Path, needs: Shape = ANY, *, advice: str = "", error: type[UserError] = UserError, schema: int = SCHEMA
) -> Lines:
    """Reads JSON lines, one an object; lines that hold none are left out and counted.

    Raises:
        UserError: the file cannot be read at all.
        NewerVersion: a line has a higher schema.
    """
    with reading(path, advice, error):
        lines = _bytes(path, LARGEST_LINES).splitlines(keepends=True)
    rows = [_row(line, needs, path, schema) for line in lines]
    return Lines([row for row in rows if row is not None], _damaged(lines, rows))


def mend_lines(path: Path, keep: Callable[[Mapping[str, Any]], bool], needs: Shape = ANY) -> None:
    """Takes out of a file of JSON lines those that are not to be kept, and a last one that is cut off.

    If there is other damage, the file is set aside, and the lines that can be read go into a new one.

    Raises:
        UserError: it cannot be written.
        NewerVersion: a line has a higher schema.
    """
    refuse_special(path)
    try:
        lines = _bytes(path, LARGEST_LINES).splitlines(keepends=True)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as caught:
        set_aside(path, reason(caught))
        return
    rows = [_row(line, needs, path, SCHEMA) for line in lines]
    kept = [
        line.rstrip(b"\r\n") + b"\n" for line, row in zip(lines, rows, strict=True) if row is not None and keep(row)
    ]
    if damaged := _damaged(lines, rows):
        set_aside(path, f"{len(damaged)} of {len(lines)} lines, the first of them line {damaged[0]}")
    write_bytes(path, b"".join(kept))


def read_yaml(path: Path, *, schema: int = SCHEMA) -> dict[str, Any]:
    """Reads a configuration: YAML as :func:`parse_yaml` understands it, keys and values at the top.

    Raises:
        ConfigError: it is absent, damaged, or something else.
        NewerVersion: it has a higher schema.
    """
    with reading(path, "Give a YAML file of keys and values", ConfigError):
        return _object(load_yaml(_text(path, LARGEST_YAML)), ANY, path, schema)


def _bytes(path: Path, largest: int, links: bool = True) -> bytes:
    def opener(name: str, flags: int) -> int:  # without waiting for the other end of a pipe
        return os.open(name, flags | NOT_WAITING | (0 if links else NOT_THROUGH_LINKS))

    with open(path, "rb", opener=opener) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"it is {kind_of_file(found.st_mode)}, not a file")
        content = (file.read(largest + 1) or b"") if found.st_size <= largest else b""
    if max(found.st_size, len(content)) > largest:
        raise ValueError(f"it has more than {largest // MB} MB, which none that ddpm-ip wrote has")
    return content


def _text(path: Path, largest: int, links: bool = True) -> str:
    return _bytes(path, largest, links).decode("utf-8-sig")  # editors of Windows put a mark at the beginning


def _damaged(lines: list[bytes], rows: list[dict[str, Any] | None]) -> list[int]:
    """The numbers of lines that hold no row, though they hold something and were not cut off at the end."""
    pairs = enumerate(zip(lines, rows, strict=True), 1)
    return [n for n, (line, row) in pairs if row is None and line.strip() and line.endswith(b"\n")]


def _row(line: bytes, needs: Shape, path: Path, schema: int) -> dict[str, Any] | None:
    try:
        return _object(parse_json(line.decode("utf-8-sig")), needs, path, schema)
    except UNREADABLE:
        return None


def _object(value: Any, needs: Shape, path: Path, schema: int, where: str = "it") -> dict[str, Any]:
    """Checks an object, and takes its schema out."""
    if not isinstance(value, dict):
        raise TypeError(f"{where} must be an object of keys and values, and is {kind_of(value)}")
    found = value.pop("schema", 1)
    if type(found) is not int:
        raise TypeError(f"{where} has the schema {quoted(found)}, which is not a whole number")
    if found > schema:
        raise NewerVersion(
            f"{shown(path)} was written by a newer version of ddpm-ip (schema {found}, this version knows {schema}): "
            "update ddpm-ip"
        )
    if missing := [key for key in needs if key not in value]:
        raise KeyError(f"{where} lacks {', '.join(missing)}")
    for key, kinds in needs.items():
        one = value[key]
        if not isinstance(one, kinds) or (isinstance(one, bool) and kinds is not bool) or kind_of(one) == NOT_FINITE:
            raise TypeError(f"{where} has a {key} that is {kind_of(one)}")
    return value
