"""What a source of image files knows before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from ddpm_ip.data.decode import ImageSize, height_width
from ddpm_ip.data.passed_over import PassedOver

Mode = Literal["rgb", "gray", "rgba", "auto"]
OnBad = Literal["error", "skip"]


class Item(NamedTuple):
    """One image that is still to be decoded."""

    where: str
    source: Path | bytes
    label: int | None


@dataclass(frozen=True)
class Listing:
    """Everything a source knows before decoding.

    Attributes:
        name: of the set.
        count: number of items.
        items: starts a fresh walk through all items, in the order of the set.
        identity: strings that change whenever the files do.
        classes: names of the labels, if any.
        passed_over: files that are not among the items.
    """

    name: str
    count: int
    items: Callable[[], Iterator[Item]]
    identity: tuple[str, ...]
    classes: tuple[str, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """What decides the decoded pixels, besides the files."""

    image_size: ImageSize
    mode: Mode
    center_crop: int | None = None

    def __post_init__(self) -> None:
        height, width = height_width(self.image_size)
        # one key in the cache for a square, however it is said
        object.__setattr__(self, "image_size", height if height == width else (height, width))

    @property
    def possible_channels(self) -> tuple[int, ...]:
        """What an image may have in the end."""
        return {"gray": (1,), "rgb": (3,), "rgba": (4,), "auto": (1, 3)}[self.mode]
