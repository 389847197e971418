"""Which class an image is of: a function of its index, like everything else about it.

Images of a class-conditional model take its classes in turn, so that any number of them is balanced, whatever the
block, the processes and the number of images that are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ddpm_ip.errors import ConfigError

BALANCED, NONE = "balanced", "none"  # what facts say of all classes in turn, and the class -1 in words
ChosenClasses = tuple[int, ...]


class KnownClasses(Protocol):
    """What a model knows of classes: the section ``classes`` of its configuration."""

    @property
    def count(self) -> int:
        """Classes are 0 .. count - 1."""
        ...

    @property
    def dropout(self) -> float:
        """How often it was trained without the class."""
        ...


def in_numbers(value: Any) -> Any:
    """Chosen classes may be given as one number or word (3, none): as a list; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return [-1 if one == NONE else one for one in value]
    return (-1,) if value == NONE else (value,) if type(value) is int else value


def class_of(indices: Tensor, classes: Sequence[int]) -> Tensor:
    """The classes of images, int64 (B,): those that are given, in turn, over the indices int64 (B,)."""
    return torch.tensor(list(classes), device=indices.device)[indices % len(classes)]


def refuse_classes(chosen: ChosenClasses | None, guided: bool, known: KnownClasses | None) -> None:
    """Refuses classes, or guidance, that a model does not have.

    Args:
        chosen: the classes of the images; None for all.
        guided: whether there is guidance.
        known: those of the model; None for an unconditional one.

    Raises:
        ConfigError: says why, and what can be had.
    """
    if known is None:
        if chosen is not None:
            raise ConfigError(
                "--class (sampling.classes): this model is unconditional and makes no classes; leave it out"
            )
        if guided:
            raise ConfigError(
                "guidance compares predictions with a class and without, and this model is unconditional; leave it out"
            )
        return
    if outside := [c for c in chosen or () if c >= known.count]:
        raise ConfigError(
            f"--class {outside[0]} (sampling.classes): this model has {known.count} classes, 0..{known.count - 1}"
        )
    if known.dropout == 0 and (guided or -1 in (chosen or ())):
        what = "guidance" if guided else "--class none (-1)"
        raise ConfigError(
            f"{what} asks the network without a class, which it has never seen: it was trained with classes.dropout 0. "
            "Leave it out, or train with label drop-out, such as --classes.dropout 0.1"
        )
