"""The parts of the measurements: bootstrap counts, bands, the test of normality, how curves are told."""

from __future__ import annotations

import pytest
import torch

from ddpm_ip.exposure.bands import energies, finest_of_noise
from ddpm_ip.exposure.curves import BANDS, KINDS, Curve, Exposure
from ddpm_ip.exposure.normality import p_values
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


def test_energies_add_up_and_are_those_of_plain_waves() -> None:
    found = energies(normal(5, 3, 16, 24))
    mean = normal(5, 3, 16, 24).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(found[:, :4].sum(dim=1), mean)
    torch.testing.assert_close(found[:, 4:].sum(dim=1), mean)
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).tile(8, 8)[None, None]
    for image, bands in ((board, {"haar3", "ring3"}), (torch.ones(1, 1, 16, 16), {"haar0", "ring0"})):
        assert {name for name, energy in zip(BANDS, energies(image)[0], strict=True) if energy > 1e-6} == bands


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_the_finest_detail_of_noise_is_known(size: tuple[int, int]) -> None:
    found = energies(normal(4000, 1, *size))[:, 3]
    assert finest_of_noise(*size) == pytest.approx(float(found.mean()), abs=4 * float(found.std()) / 4000**0.5)


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


def test_an_exposure_is_told_in_few_words() -> None:
    delta = Curve((-1.0, 10.5), (0.5, 0.25), (0.1, 0.1), (0.3, 0.05), (0.7, 0.45))
    one = Exposure("ddim<1>, 2 steps", "a" * 64, {}, 20, {"name": "digits"}, {"delta": delta, "nu": delta})
    assert one.as_text().splitlines()[1:] == ["   t  delta", "10.5   0.25", "  -1    0.5"]
    assert repr(one) == "<exposure of ddim<1>, 2 steps: 20 images, 2 curves>"
    assert "ddim&lt;1&gt;" in one._repr_html_()
    assert len(one._repr_html_()) < 200
    assert Exposure.from_dict(one.to_dict(), "a file").curves == one.curves
    assert all(kind.title and kind.meaning.endswith(".") for kind in KINDS.values())
