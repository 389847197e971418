"""Distances: closed forms, a second derivation, and that a row says how it was made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm_ip.config import Config, from_dict
from ddpm_ip.data import Digits
from ddpm_ip.engine import start_engine
from ddpm_ip.evaluate.features import pixels
from ddpm_ip.evaluate.judge import floor, judge, real_moments
from ddpm_ip.evaluate.metrics import Moments, frechet_distance, moments
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
    assert json.loads((run / "results.json").read_text()) == again
    assert (run / again[1]["grid"]).is_file()
    assert again[0]["reference_sha256"] == images.fingerprint
    longer = from_dict({**config.to_dict(), "train": {**config.to_dict()["train"], "n_steps": 4}})
    train(longer, run, "latest")
    rows = judge(longer, run, images, ["fixed_small"], [2], 20, engine, batch_size=16)
    assert len(rows) == 1
    assert rows[0]["weights"] != first[0]["weights"]
    assert torch.isfinite(torch.tensor(rows[0]["value"]))
