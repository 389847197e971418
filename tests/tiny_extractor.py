"""An extractor as a user would write one; ``tests.tiny_extractor:Tiny``."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class Tiny:
    """A fixed random layer over images reduced to 4 x 4: 48 numbers to 12 features, 7 classes, and 5 places."""

    name = "tiny"

    def __init__(self, device: torch.device) -> None:
        weight = torch.randn(24, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self._weight = weight.to(device) / 7
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        self.seen.append(tuple(images.shape))
        small = functional.adaptive_avg_pool2d(images.double() / 255, 4).flatten(1)
        pool, logits, spatial = torch.tanh(small @ self._weight.T).split([12, 7, 5], dim=1)
        return {"pool": pool, "logits": 5 * logits, "spatial": spatial}

    def identity(self) -> Mapping[str, Any]:
        return {"seed": 0, "resize": "4 x 4, mean"}


class Deviceless(Tiny):
    """Takes no device."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))


class Unnamable(Tiny):
    """Its identity cannot be written down."""

    def identity(self) -> Mapping[str, Any]:
        return {"weight": self._weight}


ready = Tiny(torch.device("cpu"))
nameless = object()
