"""Integrals of smooth functions by Gauss-Legendre's rule."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

POINTS = 48  # of an integral; exact for polynomials of degree 95


@cache
def gauss_legendre(n: int) -> tuple[Tensor, Tensor]:
    """Points and weights (n,) on [0, 1], exact for polynomials up to degree ``2 n - 1``.

    Eigenvalues and eigenvectors of Legendre's recurrence (Golub & Welsch 1969).
    """
    k = torch.arange(1, n, dtype=torch.float64)
    off_diagonal = k / (4 * k**2 - 1).sqrt()
    points, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    return (1 + points) / 2, vectors[0] ** 2


def integral(function: Callable[[Tensor], Tensor], start: float, end: float) -> float:
    """``int_start^end function(u) du``, to rounding for a smooth function of some ten e-foldings.

    Args:
        function: of float64 points (N,), to values (N,).
        start, end: finite.
    """
    points, weights = gauss_legendre(POINTS)
    return (end - start) * float(weights @ function(start + (end - start) * points))
