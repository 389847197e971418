"""What a foreign format has to say for itself.

A format is a module of this room with two functions: ``recognises(path) -> bool``, which looks at names and keys alone
and runs nothing of what it finds, and ``convert(path, given) -> Imported``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor


class Imported(NamedTuple):
    """A network of a foreign format, as this program knows it.

    Attributes:
        format: what the format is called, such as ``guided-diffusion``.
        config: the sections ``model``, ``diffusion`` and, if it is conditional, ``classes``: plain values.
        tensors: by the names of this program's network, float32, on the CPU.
        averaged: whether they are an average; ``unknown`` where nothing says it.
        assumed: what the source does not say and was assumed, a sentence each, for people.
        files: the files that were read, by which the source is known.
    """

    format: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    averaged: bool | str
    assumed: tuple[str, ...]
    files: tuple[Path, ...]


class Format(Protocol):
    """A module that reads one foreign format."""

    def recognises(self, path: Path) -> bool:
        """Whether a file or folder is of this format."""
        ...

    def convert(self, path: Path, given: Mapping[str, Any]) -> Imported:
        """Reads it.

        Args:
            path: what :meth:`recognises` has recognised.
            given: what a person says of the network, a tree of plain values with the sections of a configuration: it
                decides what the source leaves open.

        Raises:
            CheckpointError: it cannot be used; says which key and why.
        """
        ...
