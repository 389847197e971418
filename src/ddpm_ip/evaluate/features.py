"""Features of images that a distance is taken in, and the objects that extract them."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.evaluate.extractors.weights import DINOV2
from ddpm_ip.images import UInt8


@runtime_checkable
class Extractor(Protocol):
    """What turns images into features; anybody's own will do (docs/EVALUATION.md).

    Attributes:
        name: names the numbers, as in ``FD-name``.
    """

    name: str

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Features by kind, one row an image.

        Args:
            images: ``uint8`` (B, 3, H, W) on the device: gray images are repeated, those of other than 1 or 3 channels
                refused. An extractor with a true attribute ``gray`` gets images of any number of channels as they are.

        Returns:
            ``pool`` (B, D), for all distances; and where there is such a thing ``logits`` (B, K), before the softmax,
            and ``spatial`` (B, S), for sFID. An image's features must not depend on the others of its batch.
        """
        ...

    def identity(self) -> Mapping[str, Any]:
        """Plain values that change whenever the features do, such as the SHA-256 of the weights and how images are
        resized. Features of the reference are kept under this identity."""
        ...


class Pixels:
    """The images themselves, see :func:`pixels`; the features ``pool`` only.

    Args:
        device: is not used: images are where they are.
    """

    name = "pixels"
    gray = True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        return {"pool": images.flatten(1).to(torch.float64 if images.device.type != "mps" else torch.float32) / 255}

    def identity(self) -> Mapping[str, Any]:
        return {"range": "[0, 1]", "resize": "none"}


def pixels(images: UInt8) -> npt.NDArray[np.float64]:
    """The images themselves: ``uint8`` (N, C, H, W) to (N, C H W) in [0, 1].

    Exact, needs no weights, and sees what it sees: means, contrasts and correlations of pixels, not objects. The
    Fréchet distance in these features is called FD-pixels; it is no FID.
    """
    return images.reshape(len(images), -1).astype(np.float64) / 255


def find_extractor(name: str, device: torch.device) -> Extractor:
    """An extractor by name.

    Args:
        name: one of :data:`BUILT_IN`; else that of an entry point of an installed package in the group :data:`GROUP`;
            else ``package.module:object``. The latter two mean an extractor, or a class or function that takes the
            device and gives one. Their module is imported, which runs its code: the name must come from the person who
            starts the program (``--extractor``, or ``train.eval.extractor`` of their configuration).
        device: where it is to work.

    Raises:
        UserError: there is none of that name, it cannot be made, or its weights are missing.
    """
    if name in BUILT_IN:
        return BUILT_IN[name](device)
    found = _import(_installed(name) or name)
    if isinstance(found, type) or not isinstance(found, Extractor):
        found = _called(name, found, device) if callable(found) else found
    if not isinstance(found, Extractor) or not isinstance(found.name, str) or not callable(found):
        raise ConfigError(f"{name} is no extractor: it needs name, identity() and a call (docs/EVALUATION.md)")
    try:
        json.dumps(dict(found.identity()), sort_keys=True)
    except Exception as error:  # somebody's own code
        raise ConfigError(f"{name}: its identity() must be a mapping of plain values, for JSON ({error})") from error
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", found.name) or found.name in BUILT_IN:
        raise ConfigError(
            f"{name}: an extractor cannot be called {found.name!r}: letters, digits, '.', '_' and '-', and neither "
            + " nor ".join(BUILT_IN)
        )
    return found


def _called(name: str, make: Callable[[torch.device], Any], device: torch.device) -> Any:
    try:
        return make(device)
    except UserError:
        raise
    except Exception as error:  # somebody's own code
        raise ConfigError(
            f"the extractor {name} could not be made: called with the device, it raised {type(error).__name__}: {error}"
        ) from error


def _inception(device: torch.device) -> Extractor:
    from ddpm_ip.evaluate.extractors.inception import Inception

    return Inception(device)


def _dinov2(name: str, device: torch.device) -> Extractor:
    from ddpm_ip.evaluate.extractors.dinov2 import Dinov2

    return Dinov2(name, device)


BUILT_IN: dict[str, Callable[[torch.device], Extractor]] = {
    "inception": _inception,
    "pixels": Pixels,
    **{name: partial(_dinov2, name) for name in DINOV2},
}
"""The extractors of this package. Nobody else's can have their names: a number's name says what it was taken in."""

GROUP = "ddpm_ip.extractors"
"""The group of entry points in which an installed package offers extractors."""


def _installed(name: str) -> str | None:
    """The ``package.module:object`` that an installed package calls so; None if the name is one itself.

    Raises:
        ConfigError: nobody offers it, or two packages mean different things by it.
    """
    offered = entry_points(group=GROUP)
    values = {entry.value.partition("[")[0].replace(" ", "") for entry in offered if entry.name == name}  # no [extra]
    if len(values) > 1:
        raise ConfigError(f"several installed packages offer an extractor {name!r}: say which, {' or '.join(values)}")
    if values or ":" in name:
        return next(iter(values), None)
    others = sorted({entry.name for entry in offered} - set(BUILT_IN))
    raise ConfigError(
        f"there is no extractor {name!r}: choose {', '.join(BUILT_IN)}; "
        + (f"of installed packages {', '.join(others)}; " if others else "no installed package offers any; ")
        + "or package.module:object for your own"
    )


def _import(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"the extractor {name} cannot be imported: {error}. If its file lies in FOLDER, put PYTHONPATH=FOLDER "
            "before the command"
        ) from error
    except ValueError as error:  # an empty name
        raise ConfigError(f"{name!r} is not of the form package.module:object") from error
    except Exception as error:  # somebody's own code
        raise ConfigError(f"the extractor {name} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise ConfigError(f"the extractor {name}: {error}") from error
    return found
