"""Gauss-Legendre's rule against integrals that are known."""

from __future__ import annotations

import math

import pytest

from ddpm_ip.sampler.quadrature import POINTS, integral


@pytest.mark.parametrize("start", [-3.0, 0.0, 2.5])
@pytest.mark.parametrize("width", [1e-3, 1.0, 14.0])
def test_integrals_that_are_known(start: float, width: float) -> None:
    end = start + width
    assert integral(lambda u: u.exp(), start, end) == pytest.approx(math.exp(start) * math.expm1(width), rel=1e-12)
    assert integral(lambda u: u.sin(), start, end) == pytest.approx(math.cos(start) - math.cos(end), abs=1e-12)
    assert integral(lambda u: 1 / (1 + u.exp()), end, start) == pytest.approx(
        math.log1p(math.exp(-end)) - math.log1p(math.exp(-start)), rel=1e-9
    )


def test_polynomials_are_exact() -> None:
    k = 2 * POINTS - 2
    assert integral(lambda u: u**k, -1, 1) == pytest.approx(2 / (k + 1), rel=1e-12)
