"""Seeded damage to pickles: other operations, calls of what no batch needs, states that numpy would never give."""

from __future__ import annotations

import pickle
import pickletools
from random import Random
from typing import Any

from tests.stress.mutate import mutated_bytes


class _Calls:
    """Pickles as a call of something that a batch of images has no use for."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.text = f"c{module}\n{name}\n".encode() + pickle.dumps(arguments, 2)[2:-1] + b"R."


HOSTILE = tuple(
    b"\x80\x02" + _Calls(*call).text
    for call in (
        ("os", "system", "touch pwned"), ("posix", "system", "touch pwned"), ("builtins", "eval", "1"), ("builtins",
        "exit"),
        ("builtins", "bytearray", 10**10), ("numpy", "dtype", "|S2147483647"), ("numpy", "ndarray", (10**10,)),
        ("numpy", "load", "x"),
        ("numpy.core.multiarray", "_reconstruct", 1, 2), ("numpy._core.multiarray", "_reconstruct", "x", (10**10,),
        b"b"),
        ("numpy", "dtype", [("a", "<i4", (10**9,))]), ("copyreg", "_reconstructor", 1, 2, 3), ("_codecs", "encode",
        "x", "latin1"),
    )
)  # fmt: skip
FIELDS = (
    None,
    None,
    0,
    1,
    -1,
    8,
    2**31,
    10**9,
    "",
    "<",
    "|",
    "a",
    b"b",
    (),
    ("a",),
    ("a", "b"),
    {},
    {"a": (1, 2)},
    (1, (2, 3)),
)


def _state(rng: Random) -> bytes:
    """A dtype, or an array of it, in a state that numpy would never give it."""
    kind = rng.choice(("u1", "V8", "O8", "S5", "M8"))
    state = (
        [3, "|", None, ("a",), {"a": (1, 2)}, 8, 1, 27] if rng.random() < 0.5 else [3, "<", None, None, None, -1, -1, 0]
    )
    for _ in range(rng.randint(0, 3)):
        state[rng.randrange(len(state))] = rng.choice(FIELDS)
    dtype = b"cnumpy\ndtype\n" + _plain(rng.choice(((kind, False, True), (kind,)))) + b"R" + _plain(tuple(state)) + b"b"
    if rng.random() < 0.5:
        return b"\x80\x02" + dtype + b"."
    shape = _plain(rng.choice(((2,), (10**9,), (2**62, 4), (-1,), (), None, "x", (1,) * 40)))
    data = _plain(rng.choice((b"", bytes(8), None, [1, 2], "x")))
    array = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _plain((0,)) + _plain(b"b") + b"tR"
    return b"\x80\x02" + array + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb."


def _plain(value: Any) -> bytes:
    """The operations of a pickle that put a plain value on the stack."""
    return pickle.dumps(value, 3)[2:-1]


def pickled(content: bytes, rng: Random) -> bytes:
    """A pickle with operations left out, doubled or exchanged; or one that calls what it should not."""
    kind = rng.random()
    if kind < 0.2:
        return rng.choice(HOSTILE)
    if kind < 0.4:
        return _state(rng)
    if kind < 0.45:
        return rng.choice((
                               b"\x80\x04B\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 8,
                               b"\x80\x05\x96\xff\xff\xff\x3f\x00\x00\x00\x00", b"r\xff\xff\xff\x7f" * 3,
                               b"N" + b"r\xff\xff\xff\x5f.", b"(" * 10_000 + b".", b"]" * 5000 + b"a" * 4999 + b".",
                               b"\x80\x04\x95" + b"\xff" * 8, b"I" + b"9" * 5000 + b"\n.",
                           ))  # fmt: skip
    if kind < 0.6:
        return mutated_bytes(content, rng)
    try:
        starts = [position for _, _, position in pickletools.genops(content)]
    except ValueError:
        return mutated_bytes(content, rng)
    ops = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]
    for _ in range(rng.randint(1, 3)):
        at, to = rng.randrange(len(ops)), rng.randrange(len(ops))
        kind = rng.randrange(3)
        if kind == 0 and len(ops) > 1:
            del ops[at]
        elif kind == 1:
            ops.insert(to, ops[at])
        else:
            ops[at], ops[to] = ops[to], ops[at]
    return b"".join(ops)
