"""One number of a table, how far it is from another one, and whether that is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

TRAINING, SAMPLING, PARTS = "training seeds", "sampling seeds", "parts of the images"


@dataclass(frozen=True)
class Cell:
    """One number: a single measurement, or the mean over ``seeds`` with their standard deviation.

    Attributes:
        over: what the spread is over: :data:`TRAINING`, :data:`SAMPLING` or :data:`PARTS`; empty if no spread is known.
        by_seed: the values that it is the mean of.
    """

    value: float
    spread: float | None
    seeds: int
    over: str = ""
    by_seed: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def mean(cls, by_seed: Mapping[str, float], over: str) -> Cell:
        """The mean of at least two values; they may be infinite, and its spread is then no number."""
        mean, deviation = _mean_of(list(by_seed.values()))
        return cls(mean, deviation, len(by_seed), over, dict(by_seed))

    @property
    def margin(self) -> float:
        """How far the spread reaches to each side; nothing is known to be beyond a spread that is no number."""
        return _margin(self.spread)


@dataclass(frozen=True)
class Gap:
    """How far one number is from another.

    Attributes:
        size: the difference.
        margin: what the difference must be larger than, or it may be chance; 0 if nothing is known of that.
        known: whether the spread of both is.
        seeds: how many pairs of one seed the difference is the mean of; 0 where the numbers are not compared in pairs.
    """

    size: float
    margin: float
    known: bool
    seeds: int

    @property
    def beyond(self) -> bool:
        """Whether the difference is larger than the margin."""
        return abs(self.size) > self.margin

    @property
    def spread(self) -> float | None:
        """The standard deviation of the differences; None where there are no pairs."""
        return self.margin if self.seeds else None


def gap(one: Cell, other: Cell) -> Gap:
    """The difference of a number to ``one``.

    Where both are means over the same seeds, seed by seed: what the runs of a seed have in common (the order of the
    images, the noise) is no part of it, and its margin is the standard deviation of the differences. Otherwise the
    margin is the spreads of both together.
    """
    if one.over and one.over == other.over and len(one.by_seed) > 1 and one.by_seed.keys() == other.by_seed.keys():
        size, deviation = _mean_of([other.by_seed[seed] - value for seed, value in one.by_seed.items()])
        return Gap(size, _margin(deviation), True, len(one.by_seed))
    known = one.spread is not None and other.spread is not None
    return Gap(other.value - one.value, one.margin + other.margin, known, 0)


def _mean_of(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; of values that are not finite the deviation is no number."""
    with np.errstate(all="ignore"):
        return float(np.mean(values)), float(np.std(values, ddof=1))


def _margin(spread: float | None) -> float:
    return 0.0 if spread is None else abs(spread) if math.isfinite(spread) else math.inf
