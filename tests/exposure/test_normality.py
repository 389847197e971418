"""The test of normality: right on normal numbers, and the same as scipy's."""

from __future__ import annotations

import pytest
import torch

from ddpm_ip.exposure.normality import p_values


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_normal_numbers_are_seldom_rejected_and_others_often() -> None:
    assert (p_values(normal(64, 20_000)) < 0.05).double().mean() == pytest.approx(0.05, abs=0.012)
    assert (p_values(normal(20, 20_000)) < 0.05).double().mean() == pytest.approx(0.05, abs=0.015)
    uniform = torch.rand(64, 500, generator=torch.Generator().manual_seed(0))
    for numbers in (uniform, normal(64, 500).exp()):
        assert (p_values(numbers) < 0.05).double().mean() > 0.8
    assert p_values(torch.ones(64, 1)).isnan().all()


def test_the_test_of_normality_is_scipys() -> None:
    """scipy.stats.normaltest (1.17) says so of these."""
    i = torch.arange(1.0, 65.0, dtype=torch.float64)
    for numbers, expected in (
        (i[:30].sqrt(), 0.3005448894359424),
        (i.square(), 0.012373314023289575),
        ((i[:40] - 1).sin(), 3.953265258894292e-06),
    ):
        assert float(p_values(numbers[:, None])[0]) == pytest.approx(expected, rel=1e-9)
