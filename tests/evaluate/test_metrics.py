"""Distances: closed forms, a second derivation, and that a row says how it was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm_ip.config import Config, from_dict
from ddpm_ip.data import Digits
from ddpm_ip.engine import start_engine
from ddpm_ip.evaluate.extractors.inception import import_torch_fidelity
from ddpm_ip.evaluate.features import pixels
from ddpm_ip.evaluate.judge import floor, judge, real_moments
from ddpm_ip.evaluate.metrics import Moments, class_score, frechet_distance, kernel_distance, moments, precision_recall
from ddpm_ip.files import read_rows
from ddpm_ip.train.loop import train


def exact(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    """Moments that have exactly this mean and covariance."""
    m = Moments(len(mean), count=1001)
    m.total = m.count * mean
    m.outer = (m.count - 1) * covariance + m.count * np.outer(mean, mean)
    return m


def test_moments_equal_numpy_in_any_batching() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    whole, parts = moments([rows], 5), moments(np.array_split(rows, 7), 5)
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
    a, b = (moments([rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6))], 6) for _ in range(2))
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
    assert frechet_distance(moments([a], 24), moments([b], 24)) == pytest.approx(fid, rel=1e-9)
    kid = them.metric_kid.kid_features_to_metric(wide, real, kid_subsets=20, kid_subset_size=50, verbose=False)
    assert kernel_distance(a, b, 50, 20) == pytest.approx(tuple(kid.values()), rel=1e-9)
    isc = them.metric_isc.isc_features_to_metric(wide)
    assert class_score(a) == pytest.approx(tuple(isc.values()), rel=1e-9)
    prc = them.metric_prc.prc_features_to_metric(wide, real, verbose=False)
    found = precision_recall(a, b, torch.device("cpu"))
    assert found == pytest.approx((prc["precision"], prc["recall"]), abs=1e-7)
    assert 0 < found[0] < 1
    assert found[0] != found[1]


def test_precision_and_recall_do_not_depend_on_how_distances_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = features(300, 0.0, 0), features(340, 0.3, 1)
    whole = precision_recall(a, b, torch.device("cpu"))
    monkeypatch.setattr("ddpm_ip.evaluate.metrics.DISTANCES", 1000)
    assert precision_recall(a, b, torch.device("cpu")) == whole


def test_fewer_images_than_features_are_no_source_of_noise() -> None:
    """20 images of 600 features: against inner products of images, where no eigenvalue is a rounded 0."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(n, 600)) for n in (20, 30))
    x, y = ((s - s.mean(0)) / np.sqrt(len(s) - 1) for s in (a, b))
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * cross
    assert frechet_distance(moments([a], 600), moments([b], 600)) == pytest.approx(expected, rel=1e-10)
    assert abs(frechet_distance(moments([a], 600), moments([a], 600))) < 1e-6


def test_pixels_are_the_image() -> None:
    images = np.array([[[[0, 255], [51, 102]]]], dtype=np.uint8)
    np.testing.assert_allclose(pixels(images), [[0, 1, 0.2, 0.4]])


def test_floor_is_small_and_not_zero() -> None:
    images = Digits().open()
    noise = np.random.default_rng(0).integers(0, 256, size=(500, 1, 8, 8), dtype=np.uint8)
    far = frechet_distance(real_moments(images), moments([pixels(noise)], 64))
    assert 0 < floor(images) < far / 20


@pytest.fixture
def config() -> Config:
    model = {"in_channels": 1, "dim": 8, "dim_mults": [1, 2], "use_attn": [False, False], "num_groups": 4}
    training = {"n_steps": 2, "batch_size": 8, "flip": False, "sample_freq": 0, "save_freq": 2, "print_freq": 2}
    return from_dict({"data": {"name": "digits"}, "model": {**model, "num_res_blocks": 1}, "train": training})


def test_judging_reuses_rows_of_the_same_weights_only(config: Config, tmp_path: Path) -> None:
    run, images, engine = tmp_path / "run", config.data.open(), start_engine(None)
    train(config, run)
    first = judge(config, run, images, ["fixed_small"], [2], 20, engine, batch_size=16)
    again = judge(config, run, images, ["fixed_small", "fixed_large"], [2], 20, engine, batch_size=16)
    assert again[0] == first[0]
    assert [r["var_type"] for r in again] == ["fixed_small", "fixed_large"]
    assert read_rows(run / "results.json") == again
    assert (run / again[1]["grid"]).is_file()
    assert again[0]["reference_sha256"] == images.fingerprint
    longer = from_dict({**config.to_dict(), "train": {**config.to_dict()["train"], "n_steps": 4}})
    train(longer, run, "latest")
    rows = judge(longer, run, images, ["fixed_small"], [2], 20, engine, batch_size=16)
    assert len(rows) == 1
    assert rows[0]["weights"] != first[0]["weights"]
    assert torch.isfinite(torch.tensor(rows[0]["value"]))
