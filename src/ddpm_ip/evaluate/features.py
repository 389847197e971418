"""Features of images that a distance is taken in, and the objects that extract them."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from ddpm_ip.memory import is_out_of_memory
from ddpm_ip.plain import reason
from ddpm_ip.precise import precise


@runtime_checkable
class Extractor(Protocol):
    """What turns images into features; you can write your own (docs/EVALUATION.md).

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
        return {"pool": precise(images.flatten(1)) / 255}

    def identity(self) -> Mapping[str, Any]:
        return {"range": "[0, 1]", "resize": "none"}


def pixels(images: UInt8) -> npt.NDArray[np.float64]:
    """The images themselves: ``uint8`` (N, C, H, W) to (N, C H W) in [0, 1].

    Exact, needs no weights, and sees means, contrasts and correlations of pixels, not objects. The Fréchet distance in
    these features is called FD-pixels; it is not FID.
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
    with foreign(f"the extractor {name} could not be made: called with the device, it"):
        if isinstance(found, type) or not isinstance(found, Extractor):
            found = found(device) if callable(found) else found
        if not isinstance(found, Extractor) or not isinstance(found.name, str) or not callable(found):
            raise ConfigError(f"{name} is no extractor: it needs name, identity() and a call (docs/EVALUATION.md)")
        called = str(found.name)
    identity_of(found)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", called) or called in BUILT_IN:
        raise ConfigError(
            f"{name}: an extractor cannot be called {called[:100]!r}: at most 100 letters, digits, '.', '_' and '-', "
            f"and neither {' nor '.join(BUILT_IN)}"
        )
    return found


def identity_of(extractor: Extractor) -> dict[str, Any]:
    """The identity of an extractor, as a file has it.

    Raises:
        ConfigError: it is not a mapping of plain values, or somebody's own code fails.
    """
    with foreign(f"{extractor.name}: its identity() must be a mapping of plain values, for JSON; to make that, it"):
        plain: dict[str, Any] = json.loads(json.dumps(dict(extractor.identity()), sort_keys=True))
    return plain


@contextmanager
def foreign(subject: str) -> Iterator[None]:
    """Reports whatever somebody else's code raises, even if it ends the program by ``sys.exit``.

    Ctrl-C, a signal and a lack of memory are nobody's mistake, and stay what they are. ``os._exit`` and crashes cannot
    be caught.

    Args:
        subject: the beginning of the sentence, to which "raised ..." is added.

    Raises:
        ConfigError: in place of what was raised; a :class:`UserError` stays as it is.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128:
            raise  # how a signal ends the program
        try:
            said = reason(error)
        except Exception:  # its own __str__ raises
            said = "(no message)"
        ends = " (which would end the program)" if isinstance(error, SystemExit) else ""
        raise ConfigError(f"{subject} raised {type(error).__name__}{ends}: {said}") from error


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
    """The ``package.module:object`` that an installed package offers under a name; None if the name is one itself.

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
    if not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        raise ConfigError(f"{name!r} is not of the form package.module:object")
    with foreign(f"the extractor {name} cannot be imported: it"):
        try:
            found: Any = importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"the extractor {name} cannot be imported: {error}. If its file is in FOLDER, put PYTHONPATH=FOLDER "
                "before the command"
            ) from error
        try:
            for part in attribute.split("."):
                found = getattr(found, part)
        except AttributeError as error:
            raise ConfigError(f"the extractor {name}: {error}") from error
    return found
