"""Distances: closed forms, a second derivation, and that a row says how it was made."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from ddpm_ip.evaluate.extractors.inception import import_torch_fidelity
from ddpm_ip.evaluate.features import pixels
from ddpm_ip.evaluate.metrics import (
    Moments,
    class_score,
    extrapolated_distance,
    frechet_distance,
    kernel_distance,
    moments,
    subset_sizes,
)
from ddpm_ip.evaluate.neighbours import precision_recall

CPU = torch.device("cpu")


def exact(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    """Moments that have exactly this mean and covariance."""
    return Moments(1001, mean, np.zeros(len(mean)), covariance)


def test_moments_equal_numpy_in_any_batching() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    whole, parts = moments([rows]), moments(np.array_split(rows, 7))
    for m in (whole, parts):
        np.testing.assert_allclose(m.mean, rows.astype(np.float64).mean(0), rtol=1e-12)
        np.testing.assert_allclose(m.covariance, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-10, atol=1e-12)


def test_closed_form_for_commuting_covariances() -> None:
    """Diagonal Gaussians: |m1 - m2|^2 + sum (s1 - s2)^2."""
    m1, m2, s1, s2 = np.array([0.0, 1, 2]), np.array([1.0, 1, 0]), np.array([1.0, 2, 3]), np.array([2.0, 2, 0.5])
    d = frechet_distance(exact(m1, np.diag(s1**2)), exact(m2, np.diag(s2**2)))
    assert d == pytest.approx(((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum(), abs=1e-10)


def test_equals_the_root_of_the_product() -> None:
    """A second derivation: the eigenvalues of C1 C2 itself, as torch-fidelity has it; symmetric, and 0 on itself."""
    rng = np.random.default_rng(1)
    a, b = (moments([rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6))]) for _ in range(2))
    roots = np.sqrt(np.linalg.eigvals(a.covariance @ b.covariance).astype(complex)).real.sum()
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * roots
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert abs(frechet_distance(a, a)) < 1e-9


def features(n: int, shift: float, seed: int) -> np.ndarray:
    """``float32`` (n, 24), correlated."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 24)) @ np.random.default_rng(7).normal(size=(24, 24)) + shift).astype(np.float32)


def test_every_formula_equals_that_of_torch_fidelity_in_float64() -> None:
    """On features of full rank: the covariance counts, and nothing hides in rounding."""
    a, b, them = features(300, 0.0, 0), features(340, 0.3, 1), import_torch_fidelity()
    wide, real = torch.from_numpy(a).double(), torch.from_numpy(b).double()
    statistics = [them.metric_fid.fid_features_to_statistics(x) for x in (wide, real)]
    fid = them.metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[them.KEY_METRIC_FID]
    assert frechet_distance(moments([a]), moments([b])) == pytest.approx(fid, rel=1e-9)
    kid = them.metric_kid.kid_features_to_metric(wide, real, kid_subsets=20, kid_subset_size=50, verbose=False)
    assert kernel_distance(a, b, CPU, 50, 20) == pytest.approx(tuple(kid.values()), rel=1e-9)
    isc = them.metric_isc.isc_features_to_metric(wide)
    assert class_score(a, CPU) == pytest.approx(tuple(isc.values()), rel=1e-9)
    prc = them.metric_prc.prc_features_to_metric(wide, real, verbose=False)
    found = precision_recall(a, b, CPU, 3)
    assert found == pytest.approx((prc["precision"], prc["recall"]), abs=1e-7)
    assert 0 < found[0] < 1
    assert found[0] != found[1]


def test_fewer_images_than_features_are_no_source_of_noise() -> None:
    """20 images of 600 features: against inner products of images, where no eigenvalue is a rounded 0."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(n, 600)) for n in (20, 30))
    x, y = ((s - s.mean(0)) / np.sqrt(len(s) - 1) for s in (a, b))
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * cross
    assert frechet_distance(moments([a]), moments([b])) == pytest.approx(expected, rel=1e-10)
    assert abs(frechet_distance(moments([a]), moments([a]))) < 1e-6


# --- means that are large against the spread: with exact arithmetic beside it ---------------------------------------


def distant(n: int, ratio: float, seed: int, shift: float = 0.0) -> np.ndarray:
    """``float64`` (n, 3): two features with means of so many deviations, and one without."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 0.7, 0.1], [0.0, 0.0, 2.0]]) + shift
    return rows + np.array([ratio, -3 * ratio, 0.0])


def exact_moments(rows: np.ndarray) -> tuple[list[Fraction], list[list[Fraction]]]:
    """Mean and unbiased covariance in whole numbers."""
    columns = [[Fraction(float(x)) for x in column] for column in rows.T]
    mean = [sum(column) / len(column) for column in columns]
    centred = [[x - m for x in column] for column, m in zip(columns, mean, strict=True)]
    n = len(rows) - 1
    return mean, [[sum(x * y for x, y in zip(a, b, strict=True)) / n for b in centred] for a in centred]


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1e3, 1e5, 1e6, 1e7, 1e8])
@pytest.mark.parametrize("batch", [1, 7, 400])
def test_a_distance_keeps_its_digits_whatever_the_mean(ratio: float, batch: int) -> None:
    """The trace of the root from the exact moments, in which nothing is large any more."""
    sets = [distant(400, ratio, seed, 0.01 * seed) for seed in (0, 1)]
    (m1, c1), (m2, c2) = (exact_moments(rows) for rows in sets)
    a, b = (np.array([[float(x) for x in row] for row in c]) for c in (c1, c2))
    roots = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real.sum()
    expected = float(sum((x - y) ** 2 for x, y in zip(m1, m2, strict=True))) + np.trace(a) + np.trace(b) - 2 * roots
    ours = [moments(np.array_split(rows, range(batch, 400, batch))) for rows in sets]
    np.testing.assert_allclose(ours[0].covariance, a, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours[0].mean, [float(x) for x in m1], rtol=1e-14, atol=1e-14)
    assert frechet_distance(*ours) == pytest.approx(expected, rel=1e-11)
    assert frechet_distance(ours[0], ours[0]) == pytest.approx(0, abs=1e-13)
    assert frechet_distance(ours[0], ours[0]) >= 0


def test_a_first_row_that_is_nothing_like_the_others_costs_few_digits() -> None:
    rows = np.concatenate([[[1e9, -1e9, 0.0]], distant(300, 1.0, 0)])
    _, expected = exact_moments(rows)
    np.testing.assert_allclose(moments([rows]).covariance, np.array(expected, dtype=float), rtol=1e-11, atol=1e-6)


def test_ordinary_distances_are_what_they_were_to_twelve_digits() -> None:
    """The sums of version 0.1: of the rows, and of their outer products."""
    sets = [features(900, shift, seed).astype(np.float64) for shift, seed in ((0.0, 0), (0.5, 1))]
    plain = []
    for rows in sets:
        mean = rows.sum(axis=0) / len(rows)
        covariance = (rows.T @ rows - len(rows) * np.outer(mean, mean)) / (len(rows) - 1)
        plain.append(Moments(len(rows), mean, np.zeros(24), covariance))
    assert frechet_distance(*(moments([rows]) for rows in sets)) == pytest.approx(frechet_distance(*plain), rel=1e-12)


def test_no_distance_is_negative() -> None:
    for seed in range(20):
        rows = features(60, 100.0 * seed, seed)
        assert frechet_distance(moments([rows]), moments([rows[::-1].copy()])) >= 0


def exact_kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate over all rows, in whole numbers."""
    a, b = ([[Fraction(float(v)) for v in row] for row in rows] for rows in (x, y))

    def kernel(u: list[Fraction], v: list[Fraction]) -> Fraction:
        return (sum(p * q for p, q in zip(u, v, strict=True)) / len(u) + 1) ** 3

    def within(rows: list[list[Fraction]]) -> Fraction:
        n = len(rows)
        return sum(kernel(rows[i], rows[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    between = sum(kernel(u, v) for u in a for v in b) / (len(a) * len(b))
    return float(within(a) + within(b) - 2 * between)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1e3, 1e6, 1e8])
def test_a_kernel_distance_keeps_its_digits_whatever_the_mean(ratio: float) -> None:
    x, y = distant(24, ratio, 0), distant(24, ratio, 1, 0.1)
    mean, deviation = kernel_distance(x, y, CPU, 24, subsets=3)
    assert mean == pytest.approx(exact_kernel_distance(x, y), rel=1e-9)
    assert deviation < 1e-9 * abs(mean)  # every subset is all of the rows


def test_a_class_that_no_image_can_be_is_no_want_of_a_score() -> None:
    """Its probability is 0 in float64, whose logarithm would make the score nothing at all."""
    logits = np.zeros((40, 3))
    logits[:, 2] = -2000
    logits[::2, 0] = 5
    alone = class_score(logits[:, :2], CPU, 2)
    assert class_score(logits, CPU, 2) == pytest.approx(alone, rel=1e-12)
    assert alone[0] > 1


def test_pixels_are_the_image() -> None:
    images = np.array([[[[0, 255], [51, 102]]]], dtype=np.uint8)
    np.testing.assert_allclose(pixels(images), [[0, 1, 0.2, 0.4]])


# --- infinitely many samples ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((300, 340), 8.229631526664594), ((340, 300), 7.733125436051196), ((300, 300), 8.64661542160503)],
)
def test_infinitely_many_samples_are_those_of_dgm_eval(sizes: tuple[int, int], expected: float) -> None:
    """Recorded of layer6ai-labs/dgm-eval at 74c79f7, whose generator was given the seed 2020; features in float64."""
    sets = [features(300, 0.0, 0), features(340, 0.3, 1)]
    a, b = sets if sizes[0] == 300 else sets[::-1]
    assert extrapolated_distance(a, b[: sizes[1]], CPU) == pytest.approx(expected, rel=1e-7)


def test_infinitely_many_good_samples_are_no_distance_away() -> None:
    """Of the same Gaussian; the samples that there are, are."""
    real, fake = (np.random.default_rng(seed).normal(size=(n, 40)) for seed, n in ((0, 60_000), (2, 3000)))
    there = frechet_distance(moments([fake]), moments([real]))
    assert there == pytest.approx((40 + 40 * 41 / 4) / 3000, rel=0.05)  # in first order of 1/N
    assert abs(extrapolated_distance(fake, real, CPU)) < there / 10


def test_subsets_are_from_5000_or_a_tenth_to_all() -> None:
    assert [subset_sizes(n)[[0, 1, 14]].tolist() for n in (50_000, 10_000, 20)] == [
        [5000, 8214, 50_000], [1000, 1642, 10_000], [2, 3, 20]
    ]  # fmt: skip
