"""Running sums with a bootstrap: counts that are a function, moments, and which values are kept."""

from __future__ import annotations

import pytest
import torch

from ddpm_ip.exposure.sums import POSITIONS, Sums, counts, positions


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_counts_are_poisson_and_a_function_of_seed_image_and_replicate() -> None:
    indices = torch.arange(2000)
    found = counts(3, indices, 2000)
    assert found.shape == (101, 2000)
    assert (found[0] == 1).all()
    assert found[1:].mean() == pytest.approx(1, abs=0.01)
    assert found[1:].var() == pytest.approx(1, abs=0.02)
    assert (found[1:] == 0).double().mean() == pytest.approx(0.3679, abs=0.005)
    assert torch.equal(counts(3, indices[70:134], 2000), found[:, 70:134]), "whatever the block"
    assert not counts(3, indices, 50)[:, 50:].any(), "what fills up a block does not count"
    assert not torch.equal(counts(4, indices, 2000), found)


def test_moments_are_those_of_the_numbers_and_their_spread_is_that_of_the_estimate() -> None:
    images = 0.9 + 0.01 * normal(400, 3, 2, 2)
    sums = Sums()
    for first in range(0, 400, 100):
        weights = counts(0, torch.arange(first, first + 100), 400)
        sums.add(("n", 0), weights, torch.ones(100, 1))
        sums.add_moments("x", 0, weights, images[first : first + 100])
    variances = sums.variances("x", 0)
    torch.testing.assert_close(variances[0], images.double().flatten(1).var(dim=0), rtol=1e-9, atol=0)
    expected = 1e-4 * (2 / 400) ** 0.5
    assert variances[1:].std(dim=0).mean() == pytest.approx(expected, rel=0.15)


def test_large_images_are_looked_at_in_evenly_spread_places() -> None:
    assert torch.equal(positions(normal(2, 3, 8, 8)), normal(2, 3, 8, 8).flatten(1))
    columns = torch.arange(128.0).expand(1, 3, 128, 128)
    found = positions(columns)
    assert POSITIONS / 2 < found.shape[1] <= POSITIONS
    assert found.unique().numel() == 128
