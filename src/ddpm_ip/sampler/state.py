"""What a sampler passes through."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class State(NamedTuple):
    """A state on the way from noise to image.

    Attributes:
        t: its time; -1 is the finished image.
        xt: float32 (B, C, H, W).
        x0: the clean image predicted on the way here, (B, C, H, W); None at the start.
    """

    t: int
    xt: Tensor
    x0: Tensor | None
