"""Whether a file of a sample is the whole image that it is taken for: a cut or garbled one is made again."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = {1: 0, 3: 2, 4: 6}  # channels: PNG's colour type, gray, RGB, RGBA

Shape = tuple[int, int, int]


def is_whole(content: bytes, suffix: str, shape: Shape) -> bool:
    """Whether bytes are an image of ``uint8`` (C, H, W).

    Args:
        content: of the file.
        suffix: of its name, ``.png`` or ``.npy``.
        shape: (C, H, W).
    """
    return _is_png(content, shape) if suffix == ".png" else _is_npy(content, shape)


def largest(shape: Shape) -> int:
    """Bytes that no file of such an image exceeds."""
    return 2 * int(np.prod(shape)) + 65_536


def _is_npy(content: bytes, shape: Shape) -> bool:
    """By header and length; it has no checksum."""
    return content.startswith(_npy_header(shape)) and len(content) == len(_npy_header(shape)) + int(np.prod(shape))


def _npy_header(shape: Shape) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def _is_png(content: bytes, shape: Shape) -> bool:
    """By size, colours, the checksum of every chunk, and the length of what is compressed."""
    channels, height, width = shape
    if not content.startswith(SIGNATURE):
        return False
    chunks = _chunks(content)
    header = struct.pack(">IIBBBBB", width, height, 8, COLOURS[channels], 0, 0, 0)
    if len(chunks) < 3 or chunks[0] != (b"IHDR", header) or chunks[-1] != (b"IEND", b""):
        return False
    length = height * (1 + channels * width)
    reader = zlib.decompressobj()
    try:
        rows = reader.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"), length + 1)
    except zlib.error:
        return False
    return len(rows) == length and reader.eof


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and data of each chunk; none if one is cut or its checksum is wrong."""
    found, at = [], len(SIGNATURE)
    while at < len(content):
        data = at + 8
        end = data + int.from_bytes(content[at : at + 4], "big")
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big") or end + 4 > len(content):
            return []
        found.append((content[at + 4 : data], content[data:end]))
        at = end + 4
    return found
