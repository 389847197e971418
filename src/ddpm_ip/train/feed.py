"""Training images on the training device: the images of a step are a function of (seed, step, rows)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ddpm_ip.data import ImageSet
from ddpm_ip.data.order import order
from ddpm_ip.draws import Draws
from ddpm_ip.images import to_unit

RESIDENT_BYTES = 4 << 30  # a set up to this size lies on the device as a whole


class Feed:
    """Turns rows of the global batch into images.

    Args:
        images: the data set.
        seed: of the order and the flips.
        batch_size: rows of the global batch.
        flip: mirror images at random.
        device: where training is done.
    """

    def __init__(
        self, images: ImageSet, seed: int, batch_size: int, rows: range, flip: bool, device: torch.device
    ) -> None:
        self._images, self._seed, self._batch_size, self._flip, self._device = images, seed, batch_size, flip, device
        self._rows = rows
        resident = images.pixels.nbytes <= RESIDENT_BYTES
        self._pixels = torch.from_numpy(np.array(images.pixels)).to(device) if resident else None

    def stage(self, step: int) -> Tensor:
        counters = step * self._batch_size + np.arange(self._rows.start, self._rows.stop)
        return self._gather(order(self._seed, counters, len(self._images)))

    def x0(self, pixels: Tensor, draws: Draws) -> Tensor:
        x0 = to_unit(pixels)
        if self._flip:
            x0 = torch.where(draws.flips()[:, None, None, None], x0.flip(-1), x0)
        return x0

    def close(self) -> None:
        pass

    def _gather(self, indices: np.ndarray) -> Tensor:
        if self._pixels is not None:
            where = torch.from_numpy(indices)
            if self._device.type == "cuda":
                where = where.pin_memory().to(self._device, non_blocking=True)
            return self._pixels[where]
        batch = torch.from_numpy(self._images.pixels[indices])
        if self._device.type == "cuda":
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        return batch
