"""What nearest neighbours say: public implementations' numbers, exact probabilities, and sets whose answer is known."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
import torch
from tests.evaluate.test_metrics import distant, features

from ddpm_ip.evaluate.neighbours import clipped_density_coverage, copies, expected_coverage, precision_recall

CPU = torch.device("cpu")


def test_precision_and_recall_do_not_depend_on_how_distances_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = features(300, 0.0, 0), features(340, 0.3, 1)
    whole = precision_recall(a, b, CPU, 3)
    monkeypatch.setattr("ddpm_ip.evaluate.rows.HELD", 1000)
    assert precision_recall(a, b, CPU, 3) == whole


@pytest.mark.parametrize("ratio", [1e3, 1e6, 1e8])
def test_precision_and_recall_keep_their_digits_whatever_the_mean(ratio: float) -> None:
    """The rows are such that moving them is exact: the same neighbours, and the same numbers."""
    sets = [np.round(distant(200, 0.0, seed, 0.3 * seed) * 64) / 64 for seed in (0, 1)]
    expected = precision_recall(*sets, CPU, 3)
    assert 0.2 < expected[0] < 1
    moved = [rows + np.array([ratio, -3 * ratio, 0.0]) for rows in sets]
    assert precision_recall(*moved, CPU, 3) == expected


def test_copies_of_an_image_are_no_distance_apart() -> None:
    """Else the radius of a collapsed model is rounding, and so is what lies within."""
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(5, 300)) + 1000
    copies, others = np.repeat(kinds, 5, axis=0), rng.normal(size=(30, 300)) + 1000
    assert precision_recall(copies, np.repeat(kinds[::-1], 4, axis=0), CPU, 3) == (1, 1)
    assert precision_recall(others, copies, CPU, 3)[0] == 0


# --- density and coverage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fake", "real", "expected"),
    [
        (features(300, 0.0, 0), features(340, 0.3, 1), (0.912962962962963, 0.9269102990033222)),
        (features(340, 0.3, 1), features(300, 0.0, 0), (1.0, 1.0)),
        (features(300, 0.0, 0), features(340, 0.3, 1)[:300], (0.9208053691275169, 0.920265780730897)),
    ],
)
def test_density_and_coverage_equal_the_authors(
    fake: np.ndarray, real: np.ndarray, expected: tuple[float, float]
) -> None:
    """Recorded of nicolassalvy/ClippedDensityCoverage at 9920dae, K = 5, of the same features in float64."""
    assert clipped_density_coverage(fake, real, CPU, 5) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("samples", "images", "k"), [(6, 6, 5), (40, 25, 5), (30, 60, 3), (9, 4, 1)])
def test_the_expected_coverage_is_that_of_random_orders(samples: int, images: int, k: int) -> None:
    """In whole numbers: j of m samples come before the k-th of the N - 1 other images in a random order of all."""
    found = expected_coverage(samples, images, k)
    assert len(found) == samples + 1
    assert found[:k].tolist() == [0] * k
    for m in range(k, samples + 1):
        ways = [comb(k - 1 + j, j) * comb(images - 1 - k + m - j, m - j) for j in range(m + 1)]
        covered = sum(Fraction(min(j, k) * n, k) for j, n in enumerate(ways)) / comb(images - 1 + m, m)
        assert sum(ways) == comb(images - 1 + m, m)
        assert found[m].item() == pytest.approx(float(covered), rel=1e-11)


def test_half_good_samples_have_half_of_both() -> None:
    """Of Gaussians; the other half lies far away."""
    real, fake = (np.random.default_rng(seed).normal(size=(1000, 3)) for seed in (0, 1))
    fake[::2] += 50
    assert clipped_density_coverage(fake, real, CPU, 5) == pytest.approx((0.5, 0.5), abs=0.04)


def test_an_outlier_among_the_images_makes_nothing_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ball is as large as the median; samples between it and the others lie in none."""
    real = np.random.default_rng(0).normal(size=(201, 3))
    real[0] = 30
    between = np.full((40, 3), 15.0) + np.random.default_rng(1).normal(size=(40, 3))
    assert precision_recall(between, real, CPU, 3)[0] > 0.9
    assert clipped_density_coverage(between, real, CPU, 5)[0] == 0
    some = np.concatenate([between, real[1:] + 0.1])
    whole = clipped_density_coverage(some, real, CPU, 5)
    monkeypatch.setattr("ddpm_ip.evaluate.rows.HELD", 1000)
    assert clipped_density_coverage(some, real, CPU, 5) == whole
    assert 0 < whole[0] < 1


# --- copies -----------------------------------------------------------------------------------------------------------


def test_copies_equal_dgm_evals() -> None:
    """1 - AuthPct / 100, recorded of layer6ai-labs/dgm-eval at 74c79f7, of the same features."""
    a, b = features(300, 0.0, 0), features(340, 0.3, 1)
    assert copies(a, b, CPU) == pytest.approx(91 / 300)
    assert copies(b, a, CPU) == pytest.approx(109 / 340)


def test_new_samples_on_a_line_are_copies_in_two_of_three() -> None:
    """The nearest neighbour of a random point on a line has it for its own nearest in 2/3 (Clark & Evans 1955)."""
    real, fake = (np.random.default_rng(seed).uniform(size=(1500, 1)) for seed in (0, 1))
    assert copies(fake, real, CPU) == pytest.approx(2 / 3, abs=0.03)


def test_what_is_a_copy_and_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    real = np.random.default_rng(0).normal(size=(60, 20))
    near, far = real + 1e-3, real + 10
    assert copies(real, real, CPU) == 1
    assert copies(near, real, CPU) == 1
    assert copies(far, real, CPU) == 0
    monkeypatch.setattr("ddpm_ip.evaluate.rows.HELD", 200)  # three at a time
    assert copies(np.concatenate([near, far, far]), real, CPU) == pytest.approx(1 / 3)
