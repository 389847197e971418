"""CIFAR-10's batches, which are pickles: read as a recording, so that no file can make anything happen.

Nothing is unpickled. :func:`record` walks through the opcodes of a pickle (``pickletools`` names them), knows those
that lists, texts, numbers and NumPy's arrays are written with, and stops at any other. Where a pickle asks for a
function or a class, the recording holds its *name*, one of four that are allowed; where it asks to call one, the name
and the arguments. NumPy is given bytes and a shape, after both have been checked.
"""

from __future__ import annotations

import hashlib
import logging
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddpm_ip.data.decode import UInt8
from ddpm_ip.data.imageset import Int64
from ddpm_ip.data.source import refusing

log = logging.getLogger("ddpm_ip.data")

# Of the official files, as published in the loaders of several frameworks (torchvision's datasets/cifar.py for one).
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
MAX_OPCODES = 500_000  # an official batch has some 40,000
PIXELS, CLASSES = 3072, 10

_EMPTY = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_NAMES = ("numpy dtype", "numpy ndarray", *_EMPTY)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# fmt: off
_VALUES = frozenset({
    "BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "SHORT_BINUNICODE",
    "BINUNICODE",
})
# fmt: on
_OLD_TEXTS = frozenset({"SHORT_BINSTRING", "BINSTRING"})  # Python 2's: bytes
_MARK = object()


@dataclass(frozen=True)
class Name:
    """A function or a class that a pickle names; it is never looked up."""

    text: str


@dataclass
class Call:
    """A call that a pickle asks for, and the state that it gives to the result; it is never made."""

    name: str
    arguments: tuple[Any, ...]
    state: list[Any] = field(default_factory=list)


def read_batch(data: bytes, name: str) -> tuple[UInt8, Int64]:
    """The images and labels of a batch file.

    Args:
        data: the whole file.
        name: of the file; if it is an official one whose MD5 is wrong, a warning says so.

    Returns:
        ``uint8`` (N, 3, 32, 32) and ``int64`` (N,), labels 0..9.

    Raises:
        DataError: it is not such a batch, whatever it is instead.
    """
    with refusing(f"CIFAR-10 {name}: refused, not an official batch", "Fetch the official archive again"):
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != MD5.get(name):
            log.warning("CIFAR-10 %s: not the official file (its MD5 is another); read without trust", name)
        batch = record(data)
        if not isinstance(batch, dict):
            raise ValueError("it holds no keys and values")
        pixels, labels = _pixels(batch.get(b"data")), _labels(batch.get(b"labels"))
        if len(pixels) != len(labels):
            raise ValueError(f"data and labels do not fit together: {len(pixels)} images, {len(labels)} labels")
        return pixels, labels


def record(data: bytes) -> Any:
    """What a pickle describes: dicts, lists, tuples, numbers, texts, and :class:`Name` and :class:`Call` for the rest.

    Memory is a small multiple of ``data``: what is remembered is kept by number, whatever the numbers are.

    Raises:
        ValueError, IndexError, KeyError, TypeError: it is no pickle, or one with an opcode or a name that no batch has.
    """
    recorder = _Recorder()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if count >= MAX_OPCODES:
            raise ValueError(f"it has more than {MAX_OPCODES:,} opcodes")
        if opcode.name == "STOP":
            return recorder.pop()
        recorder.take(opcode.name, argument)
    raise ValueError("it has no end")


class _Recorder:
    """The stack and the memory of a pickle that is read."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._do: dict[str, Callable[[Any], None]] = {
            "PROTO": lambda argument: None,
            "FRAME": lambda argument: None,
            "MARK": lambda argument: self._push(_MARK),
            "EMPTY_LIST": lambda argument: self._push([]),
            "EMPTY_DICT": lambda argument: self._push({}),
            "EMPTY_TUPLE": lambda argument: self._push(()),
            "TUPLE": lambda argument: self._push(tuple(self._since_mark())),
            "MEMOIZE": lambda argument: self._remember(len(self._memo)),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), self._remember),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda argument: self._push(self._memo[argument])),
            **dict.fromkeys(_VALUES, self._push),
            **dict.fromkeys(_OLD_TEXTS, lambda argument: self._push(argument.encode("latin-1"))),
            "GLOBAL": lambda argument: self._name(argument),
            "STACK_GLOBAL": self._stack_global,
            "APPEND": lambda argument: self._extend([self.pop()]),
            "APPENDS": lambda argument: self._extend(self._since_mark()),
            "SETITEM": lambda argument: self._update([self.pop(), self.pop()][::-1]),
            "SETITEMS": lambda argument: self._update(self._since_mark()),
            "REDUCE": self._call,
            "BUILD": self._build,
        }

    def take(self, opcode: str, argument: Any) -> None:
        if opcode in _CONSTANTS:
            self._push(_CONSTANTS[opcode])
        elif opcode in _TUPLES:
            self._push(tuple([self.pop() for _ in range(_TUPLES[opcode])][::-1]))
        elif opcode in self._do:
            self._do[opcode](argument)
        else:
            raise ValueError(f"it has the opcode {opcode}, which no image batch needs")

    def pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("its opcodes are in no order")
        return value

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise TypeError("its opcodes are in no order")
        return self._stack[-1]

    def _since_mark(self) -> list[Any]:
        values = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _remember(self, number: int) -> None:
        if self._stack[-1] is _MARK:
            raise ValueError("its opcodes are in no order")
        self._memo[number] = self._stack[-1]

    def _name(self, text: str) -> None:
        if text not in _NAMES:
            raise ValueError(f"it asks for {text.replace(' ', '.')[:80]}, which no image batch needs")
        self._push(Name(text))

    def _stack_global(self, argument: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("it names something by what is not text")
        self._name(f"{module} {name}")

    def _extend(self, values: list[Any]) -> None:
        self._top(list).extend(values)

    def _update(self, values: list[Any]) -> None:
        keys = values[::2]
        if len(values) % 2 or not all(isinstance(key, (bytes, str)) for key in keys):
            raise TypeError("its keys are not texts")
        self._top(dict).update(zip(keys, values[1::2], strict=True))

    def _call(self, argument: Any) -> None:
        arguments, name = self.pop(), self.pop()
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise TypeError("it calls what is not a function")
        self._push(Call(name.text, arguments))

    def _build(self, argument: Any) -> None:
        state = self.pop()
        self._top(Call).state.append(state)


def _pixels(array: Any) -> UInt8:
    """``uint8`` (N, 3, 32, 32) of a recorded array (N, 3072)."""
    if not isinstance(array, Call) or array.name not in _EMPTY or len(array.state) != 1:
        raise ValueError("its data is not an array")
    state = array.state[0]
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("its data is not an array")
    _, shape, dtype, fortran, raw = state
    kind = dtype.arguments[:1] if isinstance(dtype, Call) and dtype.name == "numpy dtype" else None
    if kind not in (("u1",), (b"u1",), ("|u1",), (b"|u1",)) or not isinstance(raw, bytes) or type(fortran) is not bool:
        raise ValueError("its data is not uint8")
    if not isinstance(shape, tuple) or len(shape) != 2 or type(shape[0]) is not int or shape[1:] != (PIXELS,):
        raise ValueError(f"data and labels do not fit together: data is not uint8 (N, {PIXELS})")
    if shape[0] < 1 or shape[0] * PIXELS != len(raw):
        raise ValueError(f"its data declares {shape[0]} images and has {len(raw):,} bytes")
    pixels = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(pixels).reshape(-1, 3, 32, 32)


def _labels(labels: Any) -> Int64:
    """``int64`` (N,)."""
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < CLASSES for label in labels):
        raise ValueError(f"its labels are not a list of whole numbers from 0 to {CLASSES - 1}")
    return np.array(labels, dtype=np.int64)
