"""The data order as a function: ``(seed, sample counter) -> image index``.

Epoch ``e = counter // n`` walks through a permutation of ``range(n)`` that is a function of ``(seed, e, n)`` alone, so
every image is seen exactly once an epoch, any process can compute any part of the order, and there is no sampler state
to save.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ddpm_ip.data.imageset import Int64


def order(seed: int, counters: Int64, n: int) -> Int64:
    """The image indices at the given places of the endless stream of samples.

    Args:
        seed: any integer.
        counters: ``int64``, any shape, each >= 0: the number of samples before this one. They may lie in several
            epochs.
        n: images in the set, at least 1.

    Returns:
        ``int64`` indices in [0, n), shaped like ``counters``.

    Raises:
        ValueError: ``n`` or a counter is out of range.
    """
    counters = np.asarray(counters, dtype=np.int64)
    if n < 1 or (counters.size and counters.min() < 0):
        raise ValueError(f"n must be at least 1 and counters must not be negative: n = {n}")
    epochs, places = np.divmod(counters, n)
    indices = np.empty_like(places)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = _permutation(seed, int(epoch), n)[places[here]]
    return indices


@lru_cache(maxsize=2)  # a batch may straddle the end of an epoch
def _permutation(seed: int, epoch: int, n: int) -> Int64:
    # Sorting the raw output of Philox, rather than Generator.permutation: NumPy promises the raw stream for ever, but
    # not what a Generator makes of it (NEP 19). Two equal keys among n are as good as impossible, and harmless.
    philox = np.random.Philox(key=np.array([seed % 2**64, epoch], dtype=np.uint64))
    return np.argsort(philox.random_raw(n), kind="stable").astype(np.int64)
