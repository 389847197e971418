"""How far apart two random halves of the real data are: differences far below that mean nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ddpm_ip.data import ImageSet
from ddpm_ip.data.imageset import subset
from ddpm_ip.evaluate.evaluate import Evaluator
from ddpm_ip.evaluate.features import Extractor
from ddpm_ip.evaluate.images import from_set


def floor(
    images: ImageSet, extractor: Extractor, metrics: Sequence[str], device: torch.device, seed: int = 0
) -> dict[str, float]:
    """The values of metrics between two halves of a data set.

    Args:
        images: the set; it is split at random.
        extractor, metrics, device: see :class:`ddpm_ip.evaluate.evaluate.Evaluator`.
        seed: of the split.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    one, other = (subset(images, np.sort(half)) for half in np.array_split(order, 2))
    return Evaluator(extractor, metrics, device).evaluate(from_set(one), other).values
