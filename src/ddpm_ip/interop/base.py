"""What a foreign format has to say for itself.

A format is a module of this room with two functions: ``recognises(path) -> bool``, which looks only at names and keys
and runs nothing of what it finds, and ``convert(path, given) -> Imported``. A format that is known by the names of its
tensors alone, in whichever file they are, has the same two for a :class:`State` (:class:`KeyedFormat`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ddpm_ip.errors import CheckpointError
from ddpm_ip.plain import quoted


class Imported(NamedTuple):
    """A network of a foreign format, as this program knows it.

    Attributes:
        format: what the format is called, such as ``guided-diffusion``.
        config: the sections ``model``, ``diffusion`` and, if it is conditional, ``classes``: plain values; and ``data``
            with the ``image_size``, if the source says it.
        tensors: by the names of this program's network, float32, on the CPU.
        averaged: whether they are an average; ``unknown`` where nothing says it.
        assumed: what the source does not say and was assumed, a sentence each, for people.
        files: the files that were read, by which the source is known.
        notes: what the source says about sampling that this program does differently unless asked, likewise.
    """

    format: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    averaged: bool | str
    assumed: tuple[str, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


class State(NamedTuple):
    """Tensors by name that were found in a file.

    Attributes:
        path: the file.
        where: their place in it, such as ``ema_model``; empty if they are all of it.
        tensors: on the CPU, of any floating kind; prefixes of wrappers (``module.``) are taken off.
        averaged: whether they are an average, as far as their place and the file's name tell.
    """

    path: Path
    where: str
    tensors: Mapping[str, Tensor]
    averaged: bool | str

    @property
    def origin(self) -> str:
        """For messages."""
        return f"{self.path} ({self.where})" if self.where else str(self.path)


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


class KeyedFormat(Protocol):
    """A module that reads a format that the names of its tensors tell."""

    NAME: str
    """What the format is called."""
    KEYS: str
    """What its names look like, for messages."""

    def recognises(self, names: Collection[str]) -> bool:
        """Whether tensors of these names are of this format."""
        ...

    def convert(self, state: State, given: Mapping[str, Any]) -> Imported:
        """The network of these tensors.

        Args:
            state: what :meth:`recognises` has recognised.
            given: see :meth:`Format.convert`.

        Raises:
            CheckpointError: it cannot be used; says which key and why.
        """
        ...


DIFFUSION: Mapping[str, Any] = {
    "total_steps": 1000,
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "objective": "pred_eps",
    "var_type": "fixed_large",
}
"""The paper's (Ho et al. 2020, arXiv 2006.11239), which most formats leave to their reader."""


def left_open(section: str, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What a source does not say of a section: as given, or else assumed.

    Args:
        section: its name.
        defaults: what is assumed, by key.
        given: see :meth:`Format.convert`.

    Returns:
        The values by key, and a sentence for each that was assumed.
    """
    said = given.get(section)
    said = said if isinstance(said, Mapping) else {}
    values = {key: said.get(key, value) for key, value in defaults.items()}
    return values, [f"{section}.{key} is taken to be {_typed(values[key])}" for key in defaults if key not in said]


def _typed(value: object) -> object:
    return "null" if value is None else value  # as it is typed


def surplus(state: State, left: Mapping[str, Tensor]) -> CheckpointError:
    """The error of a network with tensors that no part of it reads."""
    names = ", ".join(quoted(name) for name in sorted(left)[:3]) + (f" and {len(left) - 3} more" * (len(left) > 3))
    return CheckpointError(f"{state.origin} is another network: no layer here has its {names}")


def sentences(assumed: Sequence[str]) -> str:
    """What was assumed, for a log."""
    return "; ".join(assumed)
