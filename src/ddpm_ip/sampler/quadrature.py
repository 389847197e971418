"""Integrals of smooth functions by Gauss-Legendre's rule."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

POINTS = 48  # exact for polynomials of degree 95


def integral(function: Callable[[Tensor], Tensor], start: float, end: float) -> float:
    """``int_start^end function(u) du``, to rounding for a smooth function of some ten e-foldings.

    Args:
        function: of float64 points (N,), to values (N,).
        start, end: finite.
    """
    points, weights = _rule()
    half = (end - start) / 2
    return half * float((weights * function(half * points + (start + end) / 2)).sum())


@cache
def _rule() -> tuple[Tensor, Tensor]:
    """Points in [-1, 1] and weights: eigenvalues and vectors of Legendre's recurrence (Golub and Welsch, 1969)."""
    k = torch.arange(1, POINTS, dtype=torch.float64)
    beside = k / (4 * k**2 - 1).sqrt()
    points, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return points, 2 * vectors[0] ** 2
