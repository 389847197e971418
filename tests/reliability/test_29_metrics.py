"""The numbers of ``evaluate`` are those of their definitions, and of nothing but the images.

A set has no distance from itself, distances are symmetric, Gaussians have the closed form, batches play no part, too
few images are warned of, and FID is torch-fidelity's on the same features. Every formula is held against a public
implementation in tests/evaluate (test_metrics.py, test_monge.py, test_neighbours.py), real networks are in
tests/evaluate/extractors, several processes and every kind of file in tests/evaluate/test_program.py.
"""

import numpy as np
import pytest
import torch

from ddpm_ip.data.imageset import from_arrays
from ddpm_ip.evaluate.evaluate import _no_line, evaluate
from ddpm_ip.evaluate.extractors.inception import import_torch_fidelity
from ddpm_ip.evaluate.features import find_extractor
from ddpm_ip.evaluate.metrics import Features, frechet_distance, moments
from ddpm_ip.metric import METRICS

CPU = torch.device("cpu")
METRICS_IN_PIXELS = [name for name, metric in METRICS.items() if metric.features == "pool"]


def pictures(n: int, seed: int) -> np.ndarray:
    """``uint8`` (N, 1, 4, 4), correlated."""
    rng = np.random.default_rng(seed)
    tone = rng.integers(0, 150 + 20 * seed, size=(n, 1, 1, 1))
    return (tone + rng.integers(0, 55, size=(n, 1, 4, 4))).astype(np.uint8)


FAKE, REAL = pictures(70, 0), pictures(90, 1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))


def measured(blocks, real, metrics=("fid", "prc")):
    reference = from_arrays(real, None, "real", 4)
    return evaluate(blocks, reference, extractor=find_extractor("pixels", CPU), metrics=list(metrics), device=CPU)


def test_a_set_is_no_distance_from_itself():
    same = measured([REAL], REAL).values
    assert abs(same["FD-pixels"]) < 1e-6
    assert (same["precision-pixels"], same["recall-pixels"]) == (1, 1)


def test_distances_are_symmetric():
    there, back = measured([FAKE], REAL).values, measured([REAL], FAKE).values
    assert there["FD-pixels"] == pytest.approx(back["FD-pixels"], rel=1e-9)
    assert there["FD-pixels"] > 1e-3
    assert (there["precision-pixels"], there["recall-pixels"]) == (back["recall-pixels"], back["precision-pixels"])


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_play_no_part(size):
    found = measured(np.array_split(FAKE, range(size, len(FAKE), size)), REAL).values
    assert found == pytest.approx(measured([FAKE], REAL).values, rel=1e-9)


def test_a_shift_of_all_images_is_its_square():
    """The same covariance, so nothing is left but the distance of the means: 16 pixels by 10/255 each."""
    shifted = measured([REAL + np.uint8(10)], REAL).values
    assert shifted["FD-pixels"] == pytest.approx(16 * (10 / 255) ** 2, rel=1e-9)


def test_gaussians_have_the_closed_form():
    """Of means m and deviations s of independent numbers: the sum of (m1 - m2)^2 + (s1 - s2)^2, exactly so."""
    rng = np.random.default_rng(0)
    white = np.linalg.qr(rng.normal(size=(400, 6)))[0]
    white = np.linalg.qr(white - white.mean(0))[0] * np.sqrt(399)  # mean 0, covariance 1, of this very sample
    m, s = rng.normal(size=(2, 6)), rng.uniform(0.5, 2, size=(2, 6))
    a, b = (moments([m[i] + s[i] * white]) for i in (0, 1))
    assert frechet_distance(a, b) == pytest.approx(((m[0] - m[1]) ** 2 + (s[0] - s[1]) ** 2).sum(), rel=1e-9)


def test_it_is_torch_fidelitys_number_on_the_same_features():
    them = import_torch_fidelity()
    features = [torch.tensor(x.reshape(len(x), -1)).double() / 255 for x in (FAKE, REAL)]
    statistics = [them.metric_fid.fid_features_to_statistics(x) for x in features]
    fid = them.metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[them.KEY_METRIC_FID]
    assert measured([FAKE], REAL).values["FD-pixels"] == pytest.approx(fid, abs=1e-6)


def test_fewer_images_than_features_are_warned_of():
    assert any("too few for 16 features" in line for line in measured([FAKE[:11]], REAL, ["fid"]).warnings)
    assert measured([FAKE], REAL, ["fid"]).warnings == []


def test_what_every_metric_says_of_a_set_itself():
    found = measured([REAL], REAL, METRICS_IN_PIXELS)
    assert found.values["MD-pixels"] == pytest.approx(0, abs=1e-20)
    assert found.values["clipped_density-pixels"] == 1
    assert found.values["clipped_coverage-pixels"] > 0.9
    assert found.values["copies-pixels"] == 1
    assert found.values["FD_inf-pixels"] < measured([FAKE], REAL, ["fid_inf"]).values["FD_inf-pixels"]


def test_subsets_that_are_too_small_are_warned_of():
    (warning,) = measured([FAKE], REAL, ["fid_inf"]).warnings
    assert "subsets of 7 images and more, too few for 16 features to lie on a line: take 320 images" in warning
    assert measured([pictures(320, 2)], REAL, ["fid_inf"]).warnings == []
    wide = Features(50_000, (3, 32, 32), {}, {"pool": np.broadcast_to(np.float32(0), (50_000, 3072))})
    assert (why := _no_line(METRICS["fid_inf"], wide)) is not None
    assert why.endswith("3,072 features to lie on a line: take an extractor of fewer")


def test_batches_play_no_part_in_any_metric():
    found = measured(np.array_split(FAKE, [1, 65]), REAL, METRICS_IN_PIXELS).values
    assert found == pytest.approx(measured([FAKE], REAL, METRICS_IN_PIXELS).values, rel=1e-9)
