"""Seeded damage to files that other programs would still take for whole: right frames, sums and lengths around lies."""

from __future__ import annotations

import ast
import gzip
import io
import json
import math
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tests.stress.mutate import NUMBERS, mutated_bytes
from tests.stress.pickles import pickled
from tests.stress.trees import mutated_json, mutated_lines, mutated_tree, mutated_yaml

Damage = Callable[[bytes, Random], bytes]

DTYPES = (
    "|u1",
    "|i1",
    "<u2",
    ">i4",
    "<f2",
    "<f4",
    ">f8",
    "|b1",
    "<c16",
    "|O",
    "|S0",
    "|S9",
    "<U0",
    "<U9",
    "|V3",
    "<M8[ns]",
    "m8",
    "x",
    "|S2147483647",
)
BOMB = 1_000_000  # bytes of no good file; such a one is not unpacked here
AXES = (0, 1, 2, 3, 4, 8, 17, -1, 2**16, 2**31, 2**40, 2**63, 10**30)
FLOATS = (float("nan"), float("inf"), float("-inf"), 3e38, -1e30)
WIDTHS = {"F32": 4, "F64": 8, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}


def mutated(name: str, content: bytes, rng: Random) -> bytes:
    """A file of that name, damaged as bytes or, more often, as what it is."""
    damage = next((damage for part, damage in BY_NAME.items() if part in name), None)
    if damage is not None and len(content) < BOMB and rng.random() < 0.65:
        with suppress(Exception):  # it was damaged before
            return damage(content, rng)
    return mutated_bytes(content, rng)


# --- tensors ---------------------------------------------------------------------------------------------------------


def split_tensors(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and what follows."""
    (n,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + n]), content[8 + n :]


def join_tensors(header: Mapping[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + body


def tensors(content: bytes, rng: Random) -> bytes:
    """Another header; or a whole file of other tensors."""
    header, body = split_tensors(content)
    if rng.random() < 0.35:
        return join_tensors(mutated_tree(header, rng), body)
    return _forged(header, body, rng)


def _forged(header: dict[str, Any], body: bytes, rng: Random) -> bytes:
    """Consistent, but with another name, shape, type, number or set of tensors."""
    parts = {k: (v["dtype"], v["shape"], body[slice(*v["data_offsets"])]) for k, v in header.items() if k[:2] != "__"}
    name = rng.choice(sorted(parts))
    dtype, shape, data = parts[name]
    kind = rng.randrange(7)
    if kind == 0:
        del parts[name]
    elif kind == 1:
        parts[rng.choice(("", "x", name + ".x", "é\x1b[31m", "a" * 10_000))] = parts.pop(name)
    elif kind == 2:
        parts[f"{name}.more"] = parts[name]
    elif kind == 3:
        shape = rng.choice((shape[::-1], [len(data) // WIDTHS.get(dtype, 1)], [1, *shape], [*shape, 1], []))
        parts[name] = (dtype, shape, data)
    elif kind == 4:
        dtype = rng.choice(tuple(WIDTHS))
        parts[name] = (dtype, [len(data) // WIDTHS[dtype]], data)
    elif kind == 5:
        numbers = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            if dtype == "F32" and len(numbers) >= 4:
                at = 4 * rng.randrange(len(numbers) // 4)
                numbers[at : at + 4] = struct.pack("<f", rng.choice(FLOATS))
        parts[name] = (dtype, shape, bytes(numbers))
    else:
        other = rng.choice(sorted(parts))
        parts[name], parts[other] = parts[other], parts[name]
    end, new, whole = 0, {}, []
    for key, (dtype, shape, data) in parts.items():
        data = data[: math.prod(shape) * WIDTHS.get(dtype, 1)]
        new[key] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
        whole.append(data)
    return join_tensors(new, b"".join(whole))


# --- arrays ----------------------------------------------------------------------------------------------------------


def npy(content: bytes, rng: Random) -> bytes:
    """Another header of an array, or one of another version."""
    n = struct.unpack("<H", content[8:10])[0]
    header, body = ast.literal_eval(content[10 : 10 + n].decode()), content[10 + n :]
    kind = rng.randrange(8)
    if kind == 0:
        header["descr"] = rng.choice(
            (*DTYPES, [("a", "<i4"), ("a", "|u1")], [("a", "<i4", (2**31, 2**31))], 5, None, {})
        )
    elif kind == 1:
        header["shape"] = tuple(rng.choice(AXES) for _ in range(rng.choice((0, 1, 2, 3, 4, 5, 33))))
    elif kind == 2:
        shape = list(header["shape"])
        shape[rng.randrange(len(shape))] = rng.choice((*AXES, 0.5, True, None, "8", ()))
        header["shape"] = tuple(shape)
    elif kind == 3:
        header["fortran_order"] = rng.choice((True, 1, None, "x"))
    elif kind == 4:
        header.pop(rng.choice(tuple(header)))
    elif kind == 5:
        header |= {rng.choice(("", "x", "shape ")): rng.choice((0, (), "é"))}
    texts = (
        repr(header),
        repr(header),
        repr(header),
        "(" * 2000,
        "{}",
        "[",
        "__import__('os')",
        "9" * 5000,
        "'" + "x" * 60_000,
    )
    text = rng.choice(texts).encode("latin-1", "replace") + b"\n"
    version = rng.choice((b"\x01\x00", b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
    length = struct.pack("<H", len(text) & 0xFFFF) if version == b"\x01\x00" else struct.pack("<I", len(text))
    return content[:6] + version + length + text + rng.choice((body, body, body, body[:-1], b""))


def npz(content: bytes, rng: Random) -> bytes:
    """An archive of arrays with other members: damaged, of other names, more, fewer, packed otherwise; or a bomb."""
    if rng.random() < 0.02:
        return npz_bomb(2_000_000_000)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = rng.randrange(len(members))
    name, data = members[at]
    kind = rng.randrange(8)
    if kind < 4:
        members[at] = (name, mutated(".npy", data, rng))
    elif kind == 4:
        names = (
            "../x.npy",
            "/x.npy",
            "images",
            "images.npy",
            ".npy",
            "x/",
            "a\\b.npy",
            "\x1b[31m.npy",
            "é.npy",
            "labels.npy",
            "layout.npy",
        )
        members[at] = (rng.choice(names), data)
    elif kind == 5:
        members.insert(
            rng.randrange(len(members) + 1),
            (rng.choice((name, "x.npy", "sampling.npy", "layout.npy")), mutated(".npy", data, rng)),
        )
    elif kind == 6:
        members[at] = (name, rng.choice((b"", b"\x93NUMPY", b"PK\x03\x04", b"\x80\x04.", bytes(20_000_000))))
    else:
        del members[at]
    file = io.BytesIO()
    with zipfile.ZipFile(
        file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    ) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
    whole = file.getvalue()
    return mutated_bytes(whole, rng) if rng.random() < 0.3 else whole


@cache
def npz_bomb(size: int) -> bytes:
    """So many bytes of black images in a thousandth of the space; in time, since one block is repeated."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": (size // 192, 8, 8, 3)}
    )
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(head.getvalue()) + packer.flush(zlib.Z_FULL_FLUSH)
    data += (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)) * (size >> 20) + b"\x03\x00"
    name, sizes = b"images.npy", (0, len(data), head.tell() + (size >> 20 << 20))
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 8, 0, 33, *sizes, len(name), 0) + name
    central = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 8, 0, 33, *sizes, len(name), *[0] * 6) + name
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local) + len(data), 0)
    return local + data + central + end


def idx(content: bytes, rng: Random) -> bytes:
    """The magic number or an axis of an idx file."""
    data = bytearray(content)
    at = 4 * rng.randrange(1 + content[3])
    data[at : at + 4] = struct.pack(">I", rng.choice(NUMBERS) & 0xFFFFFFFF)
    return bytes(data)


# --- archives --------------------------------------------------------------------------------------------


def gz(content: bytes, rng: Random) -> bytes:
    """What is inside, damaged and packed again; or two members, or one without its end."""
    inside = gzip.decompress(content)
    packed = gzip.compress(mutated("idx", inside, rng), mtime=0)
    return rng.choice(
        (packed, packed, packed + packed, packed[:-8], packed + b"x", gzip.compress(inside, mtime=0)[:-4])
    )


def tar_gz(content: bytes, rng: Random) -> bytes:
    """The archive inside, damaged, or with other members."""
    plain = gzip.decompress(content)
    if rng.random() < 0.3:
        return gzip.compress(mutated_bytes(plain, rng), 1, mtime=0)
    file = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(plain)) as old,
        tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as new,
    ):
        infos = [info for info in old if info.isfile()]
        chosen = rng.randrange(len(infos))
        for i, info in enumerate(infos):
            data = old.extractfile(info).read()  # type: ignore[union-attr]
            if i == chosen:
                info, data = _member(info, data, rng)
            info.size = len(data) if info.isfile() else 0
            new.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _member(info: tarfile.TarInfo, data: bytes, rng: Random) -> tuple[tarfile.TarInfo, bytes]:
    kind = rng.randrange(4)
    if kind == 0:
        info.type = rng.choice(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"S", b"x")
        )
        info.linkname = rng.choice(("/etc/passwd", "../x", info.name))
    elif kind == 1:
        info.name = rng.choice(("../" + info.name, "/" + info.name, "x", "a" * 300, "é\x1b[31m"))
    else:
        data = pickled(data, rng)
    return info, data


# --- pictures and columns --------------------------------------------------------------------------------------------


def png(content: bytes, rng: Random) -> bytes:
    """Chunks of a PNG damaged, doubled, left out or exchanged, with the right sums."""
    chunks, at = [], 8
    while at < len(content):
        (n,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + n]))
        at += 12 + n
    i, j = rng.randrange(len(chunks)), rng.randrange(len(chunks))
    kind = rng.randrange(6)
    if kind == 0:
        size = struct.pack(">II", *(rng.choice((0, 1, 9, 5000, 20_000, 2**31 - 1)) for _ in range(2)))
        chunks[0] = (b"IHDR", size + bytes(rng.choice((0, 1, 2, 3, 4, 6, 8, 16)) for _ in range(3)) + bytes(2))
    elif kind == 1:
        del chunks[i]
    elif kind == 2:
        chunks.insert(i, chunks[j])
    elif kind == 3:
        chunks.insert(
            1,
            (
                rng.choice((b"tRNS", b"PLTE", b"acTL", b"fcTL", b"eXIf", b"gAMA", b"iCCP", b"zTXt")),
                rng.randbytes(rng.choice((0, 2, 6, 26))),
            ),
        )
    elif kind == 4:
        chunks.insert(1, (b"zTXt", b"x\x00\x00" + zlib.compress(bytes(20_000_000))))
    else:
        chunks[i] = (chunks[i][0], mutated_bytes(chunks[i][1], rng))
    parts = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return content[:8] + b"".join(parts)


def parquet(content: bytes, rng: Random) -> bytes:
    """A table whose columns hold something else, or are called otherwise."""
    table = pq.read_table(io.BytesIO(content))
    n, i = len(table), rng.randrange(table.num_columns)
    columns: tuple[Any, ...] = (
        pa.array(["/etc/passwd"] * n), pa.array([b""] * n), pa.nulls(n), pa.array([None] * n, pa.binary()),
        pa.array([0.5] * n),
        pa.array([[b"x"]] * n), pa.array([{"bytes": None, "path": "/etc/passwd"}] * n), pa.array([2**63 - 1] * n),
        pa.array([True] * n),
        pa.array([{"bytes": b"x", "path": "../x"}] * n), pa.array([{}] * n),
        pa.array([{"bytes": {"bytes": b""}}] * n), pa.array([-1] * n),
        pa.array(["a"] * n).dictionary_encode(), pa.array([bytes(5_000_000)] * n), pa.array([np.datetime64(1,
        "s")] * n),
    )  # fmt: skip
    kind = rng.randrange(4)
    if kind < 2:
        table = table.set_column(i, table.schema.field(i).name, rng.choice(columns))
    elif kind == 2:
        table = table.append_column(rng.choice(("x", "image", "label", "", "\x1b[31m")), rng.choice(columns))
    else:
        table = rng.choice(
            (
                table.slice(0, 0),
                table.drop_columns([table.schema.field(i).name]),
                table.rename_columns(["x", "label"][: table.num_columns]),
            )
        )
    file = io.BytesIO()
    pq.write_table(table, file, compression=rng.choice(("none", "snappy", "gzip", "zstd")))
    return file.getvalue()


BY_NAME: dict[str, Damage] = {
    ".jsonl": mutated_lines, ".json": mutated_json, ".yaml": mutated_yaml, ".safetensors": tensors, ".npy": npy,
    ".npz": npz, ".tar.gz": tar_gz, ".gz": gz, "idx": idx, "_batch": pickled, ".png": png, ".parquet": parquet,
    "lock": mutated_json,
}  # fmt: skip
"""What a file is, by the first of these that is part of its name."""
