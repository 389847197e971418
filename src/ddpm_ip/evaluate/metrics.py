"""Distances between sets of images, from streamed moments of their features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


@dataclass
class Moments:
    """Count, sum and sum of outer products of feature rows, in float64; memory does not grow with their number."""

    dimensions: int
    count: int = 0
    total: Float64 = field(init=False)
    outer: Float64 = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros(self.dimensions)
        self.outer = np.zeros((self.dimensions, self.dimensions))

    def add(self, features: npt.NDArray[np.floating]) -> None:
        """Takes in rows (N, dimensions)."""
        rows = features.astype(np.float64)
        self.count += len(rows)
        self.total += rows.sum(axis=0)
        self.outer += rows.T @ rows

    @property
    def mean(self) -> Float64:
        return self.total / self.count

    @property
    def covariance(self) -> Float64:
        """The unbiased covariance (N - 1), as ``numpy.cov`` and torch-fidelity have it."""
        mean = self.mean
        return (self.outer - self.count * np.outer(mean, mean)) / (self.count - 1)


def moments(batches: Iterable[npt.NDArray[np.floating]], dimensions: int) -> Moments:
    """The moments of all rows of all batches."""
    m = Moments(dimensions)
    for batch in batches:
        m.add(batch)
    return m


def frechet_distance(a: Moments, b: Moments) -> float:
    """The Fréchet distance of the Gaussians fitted to two sets.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^{1/2})``

    (Dowson & Landau 1982; with Inception features it is the FID of Heusel et al. 2017, with others not.) The trace
    of the root is taken as ``tr (C1^{1/2} C2 C1^{1/2})^{1/2}``: symmetric matrices only, so nothing complex can appear.
    """
    difference = a.mean - b.mean
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b.covariance @ root), 0, None)).sum()
    return float(difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)
