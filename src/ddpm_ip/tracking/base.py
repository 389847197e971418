"""What a tracker is told about a run, and how it says which of its own runs that is."""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from ddpm_ip.run.folder import RunFolder

PROJECT = "ddpm-ip"  # of all runs, unless the variable of the tracker's own environment says another

Kind = Literal["distance", "not_finite", "average", "disk"]


@dataclass(frozen=True)
class Alert:
    """Something that a person would want to know at once.

    Attributes:
        kind: ``distance`` became worse several evaluations in a row; numbers are ``not_finite``; the ``average`` is
            longer than the run; the ``disk`` is nearly full, or a checkpoint could not be saved.
        step: optimizer steps done.
        text: what is the matter, and what to do.
    """

    kind: Kind
    step: int
    text: str


@dataclass(frozen=True)
class Begun:
    """What a tracker is told about a run when training starts.

    Attributes:
        folder: of the run.
        step: where training (re)starts.
        config: the settings as a tree of plain values.
        text: the same as YAML.
    """

    folder: RunFolder
    step: int
    config: Mapping[str, Any]
    text: str

    @property
    def name(self) -> str:
        """The run's name for people: that of its folder."""
        return self.folder.path.resolve().name


class Tracker(ABC):
    """A service that shows runs. Its methods are called in order, by one thread; what they raise costs a warning.

    Attributes:
        name: as in ``train.trackers``.
        own_thread: whether it may wait for a network or a database, and so must not hold up the steps.
        one_failure_ends_it: whether nothing more can be written after a failure.
    """

    name: ClassVar[str]
    own_thread: ClassVar[bool] = True
    one_failure_ends_it: ClassVar[bool] = False

    @abstractmethod
    def start(self, begun: Begun, known: str | None) -> str | None:
        """Begins, or continues, the tracker's own run, and shows the settings.

        Args:
            begun: the run.
            known: the name under which the tracker knows it, from an earlier process.

        Returns:
            That name; None where the folder alone says it.
        """

    @abstractmethod
    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Points of curves, by their names: ``train/loss``."""

    @abstractmethod
    def image(self, step: int, name: str, path: Path) -> None:
        """A PNG."""

    @abstractmethod
    def alert(self, alert: Alert) -> None:
        """An alert, in the way that the service has for it."""

    @abstractmethod
    def close(self) -> None:
        """Ends the tracker's own run."""


def new_name() -> str:
    """A name that no other run has; random, and not from a generator that training uses."""
    return secrets.token_hex(8)


def project(variable: str) -> str:
    """The project that runs belong to: as a variable of the environment says, else :data:`PROJECT`."""
    return os.environ.get(variable, "").strip() or PROJECT


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """The settings by dotted path, as hyperparameters can be: numbers, booleans, and text for everything else."""
    found: dict[str, bool | int | float | str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return found
