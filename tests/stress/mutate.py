"""Seeded damage to the bytes of a file: that of disks and of cut transfers, and what a stranger may write."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

NUMBERS = (0, 1, -1, 127, 255, 2**15 - 1, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**62, 2**63 - 1)
LAYOUTS = ("<b", "<h", ">h", "<i", ">i", "<q", ">q")

Mutation = Callable[[bytearray, Random], None]


def mutated_bytes(content: bytes, rng: Random) -> bytes:
    """One to three mutations, one after the other."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(MUTATIONS)(data, rng)
    return bytes(data)


def _place(data: bytearray, rng: Random) -> int:
    """Where: of files with a header often there, or at the end, where some formats have theirs."""
    n = len(data)
    among = rng.choice((range(n), range(n), range(min(n, 64)), range(max(0, n - 64), n)))
    return rng.choice(among) if among else 0


def _span(data: bytearray, rng: Random) -> slice:
    start = _place(data, rng)
    return slice(start, start + rng.choice((1, 2, 8, 64, max(1, len(data) // 4))))


def flip(data: bytearray, rng: Random) -> None:
    """One to eight bits."""
    for _ in range(rng.randint(1, 8)):
        if data:
            data[_place(data, rng)] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: Random) -> None:
    """The end is missing, as after a full disk."""
    del data[rng.randrange(len(data) + 1) if rng.random() < 0.5 else max(0, len(data) - rng.randint(1, 16)) :]


def delete(data: bytearray, rng: Random) -> None:
    """Some bytes in between are missing."""
    del data[_span(data, rng)]


def insert(data: bytearray, rng: Random) -> None:
    """Random bytes, or characters that mean something to a parser."""
    at = _place(data, rng)
    words = (
        rng.randbytes(rng.choice((1, 4, 100))),
        b'"',
        b"{",
        b"[" * 200,
        b"\n",
        b"\x00",
        b"\xff\xfe",
        b"&a *a",
        b"-",
    )
    data[at:at] = rng.choice(words)


def fill(data: bytearray, rng: Random) -> None:
    """A run of one value, as of blocks that never reached the disk."""
    span = _span(data, rng)
    data[span] = bytes([rng.choice((0, 0, 0xFF, 0x20))]) * len(data[span])


def duplicate(data: bytearray, rng: Random) -> None:
    """A block twice, there or elsewhere."""
    block, at = data[_span(data, rng)], _place(data, rng)
    data[at:at] = block


def swap(data: bytearray, rng: Random) -> None:
    """The halves in the other order, or two blocks exchanged."""
    middle = _place(data, rng)
    data[:] = data[middle:] + data[:middle]


def number(data: bytearray, rng: Random) -> None:
    """A whole number that is larger or smaller than anybody expects, in one of the usual layouts."""
    layout, value = rng.choice(LAYOUTS), rng.choice(NUMBERS)
    size = struct.calcsize(layout)
    bits = value & ((1 << 8 * size) - 1)
    at = min(_place(data, rng), max(0, len(data) - size))
    data[at : at + size] = bits.to_bytes(size, "big" if layout[0] == ">" else "little")


def digits(data: bytearray, rng: Random) -> None:
    """A number in a text becomes another."""
    places = [i for i, byte in enumerate(data[:4096]) if 0x30 <= byte <= 0x39]
    if places:
        at = rng.choice(places)
        data[at : at + 1] = rng.choice((b"9" * 5000, b"-1", b"1e999", b"0", b"99999999999", b".5", b"nan"))


def append(data: bytearray, rng: Random) -> None:
    """Something follows that does not belong to it."""
    data += rng.choice((bytes(100), rng.randbytes(100), b"\n", b"{}", bytes(data[:200])))


def replace(data: bytearray, rng: Random) -> None:
    """Something else altogether under the name."""
    page = b"<!doctype html><title>404 Not Found</title>"
    data[:] = rng.choice(
        (b"", b"\x00", bytes(len(data)), rng.randbytes(300), page, b"null", b"[]", b"{}", b"\xef\xbb\xbf")
    )


MUTATIONS: tuple[Mutation, ...] = (
    flip, flip, flip, cut, cut, delete, insert, fill, duplicate, swap, number, number, number, digits, append, replace,
)  # fmt: skip
