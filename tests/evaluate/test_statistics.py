"""References of which only mean and covariance are there, under a stand-in for the Inception."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm_ip.cli import main
from ddpm_ip.data.imageset import from_arrays
from ddpm_ip.errors import ConfigError, DataError, UserError
from ddpm_ip.evaluate.evaluate import Evaluator
from ddpm_ip.evaluate.extractors.inception import Inception
from ddpm_ip.evaluate.features import BUILT_IN, Pixels
from ddpm_ip.evaluate.images import from_pixels, open_samples
from ddpm_ip.evaluate.metrics import frechet_distance, moments
from ddpm_ip.evaluate.statistics import StatisticsFile, holds_statistics
from ddpm_ip.run.checkpoint import sha256
from ddpm_ip.run.record import records

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, size=(30, 3, 8, 8), dtype=np.uint8)
REAL = RNG.integers(0, 200, size=(40, 3, 8, 8), dtype=np.uint8)


class StandIn(Inception):
    """Features of the right shapes from a fixed random layer."""

    def __init__(self, device: torch.device) -> None:
        self._layer = torch.randn(192, 2048, generator=torch.Generator().manual_seed(0)) / 14

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        pool = images.flatten(1).float() / 255 @ self._layer
        return {"pool": pool, "logits": pool[:, :1008], "spatial": pool[:, :5]}

    def identity(self) -> Mapping[str, Any]:
        return {"weights_sha256": "0" * 64}


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(BUILT_IN, "inception", StandIn)


def features(images: np.ndarray) -> np.ndarray:
    return StandIn(CPU)(torch.tensor(images))["pool"].numpy().astype(np.float64)


def written(path: Path, compress: bool = False, **changed: Any) -> Path:
    """What pytorch-fid writes of REAL; arrays can be given otherwise, or left out by None."""
    rows = features(REAL)
    arrays = {"mu": rows.mean(axis=0), "sigma": np.cov(rows, rowvar=False), **changed}
    save = np.savez_compressed if compress else np.savez
    save(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize("compress", [False, True])
def test_the_distance_is_that_of_the_images_behind_them(tmp_path: Path, compress: bool) -> None:
    reference = StatisticsFile(written(tmp_path / "cifar.npz", compress)).open()
    evaluator = Evaluator(StandIn(CPU), ["fid", "isc"], CPU)
    found = evaluator.evaluate(from_pixels("fake", IMAGES), reference)
    by_images = evaluator.evaluate(from_pixels("fake", IMAGES), from_arrays(REAL, None, "real", 8))
    assert found.values == pytest.approx(by_images.values, rel=1e-6)
    assert found.values["FID"] == pytest.approx(
        frechet_distance(moments([features(IMAGES)]), moments([features(REAL)])), rel=1e-6
    )
    assert found.protocol["reference"] == "cifar"
    assert found.protocol["reference_sha256"] == sha256(tmp_path / "cifar.npz")
    assert "taken on trust" in found.protocol["line"]
    assert "taken on trust" in found.protocol["reference_statistics"]
    assert any("taken on trust" in text for text in found.warnings)
    assert not any("taken on trust" in text for text in by_images.warnings)
    fid, *_ = records(found.to_dict(), "here")
    assert (fid.n_reference, fid.reference_sha256) == (None, found.protocol["reference_sha256"])
    assert fid.comparable() != records(by_images.to_dict(), "here")[0].comparable()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of guided-diffusion's files, which hold images beside the statistics of many more."""
    np.savez(tmp_path / "fake.npz", images=IMAGES.transpose(0, 2, 3, 1))
    spatial = {"mu_s": np.zeros(2023), "sigma_s": np.eye(2023)}
    file = written(tmp_path / "VIRTUAL_imagenet64.npz", arr_0=REAL[:5].transpose(0, 2, 3, 1), **spatial)
    given = ["evaluate", str(tmp_path / "fake.npz"), "--reference", str(file)]
    assert main(given) == 0
    (row,) = json.loads((tmp_path / "fake.evaluation.json").read_text())
    assert set(row["values"]) == {"FID", "IS", "IS_std"}
    assert "n_reference" not in row["protocol"]
    assert "taken on trust" in capsys.readouterr().out
    for more, parts in (
        (["--metrics", "fid,kid,prc"], ["kid, prc must see the images", "arr_0", "np.savez"]),
        (["--metrics", "sfid"], ["sfid must see the images"]),
        (["--extractor", "pixels"], ["holds statistics (mu, sigma) of Inception features", "--extractor pixels"]),
    ):
        assert main([*given, *more]) == 2
        shown = capsys.readouterr().err
        assert all(part in shown for part in parts), shown
    assert main(["evaluate", str(file), "--reference", "digits"]) == 1
    shown = capsys.readouterr().err
    assert "holds statistics (mu, sigma)" in shown
    assert "samples must be images" in shown


def test_another_extractor_is_refused_from_python_too(tmp_path: Path) -> None:
    reference = StatisticsFile(written(tmp_path / "a.npz")).open()
    for extractor in (Pixels(CPU), type("Named", (Pixels,), {"name": "inception"})(CPU)):
        with pytest.raises(ConfigError, match="must be images"):
            Evaluator(extractor, ["fid"], CPU).evaluate(from_pixels("fake", IMAGES), reference)


def other(**changed: Any) -> dict[str, Any]:
    return changed


IDENTITY = np.eye(2048)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (other(mu=np.zeros(64)), r"mu is float64 \(64,\)"),
        (other(mu=np.zeros((1, 2048))), r"mu is float64 \(1, 2048\)"),
        (other(mu=np.zeros(2048, dtype=np.int64)), "mu is int64"),
        (other(mu=np.zeros(2048, dtype=np.complex64)), "mu is complex64"),
        (other(mu=np.full(2048, np.nan)), "mu is not finite"),
        (other(mu=np.full(2048, 1e200)), "mu is not finite, or absurdly large"),
        (other(mu=np.array("2048")), "mu is <U4"),
        (other(mu=np.array([{}], dtype=object)), "'mu' cannot be read"),
        (other(sigma=np.zeros(2048)), r"sigma is float64 \(2048,\)"),
        (other(sigma=IDENTITY[:-1]), r"sigma is float64 \(2047, 2048\)"),
        (other(sigma=np.where(IDENTITY, np.inf, 0)), "sigma is not finite"),
        (other(sigma=np.triu(np.full((2048, 2048), 0.1)) + IDENTITY), "no covariance"),
        (other(sigma=-IDENTITY), "no covariance"),
        (other(sigma=IDENTITY + 3 * (1 - IDENTITY)), "no covariance"),
        (other(mu=np.zeros(9_000_000)), "more than 16,384 bytes"),
    ],
)
def test_what_is_no_mean_and_covariance_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        StatisticsFile(written(tmp_path / "a.npz", **changed)).open()


def test_float32_and_the_order_of_columns_are_understood(tmp_path: Path) -> None:
    rows = features(REAL)
    exact = StatisticsFile(written(tmp_path / "a.npz")).open().moments
    sigma = np.asfortranarray(np.cov(rows, rowvar=False))
    same = StatisticsFile(written(tmp_path / "b.npz", sigma=sigma.astype(">f8"))).open().moments
    np.testing.assert_array_equal(same.covariance, exact.covariance)
    half = StatisticsFile(written(tmp_path / "c.npz", mu=rows.mean(axis=0).astype(np.float32))).open().moments
    np.testing.assert_allclose(half.mean, exact.mean, rtol=1e-6)


def npy(array: np.ndarray, header: bytes | None = None) -> bytes:
    file = BytesIO()
    np.save(file, array)
    content = file.getvalue()
    return content if header is None else content[:8] + len(header).to_bytes(2, "little") + header


def archive(path: Path, mu: bytes, **how: Any) -> Path:
    with zipfile.ZipFile(path, "w", **how) as file:
        file.writestr("mu.npy", mu)
        file.writestr("sigma.npy", b"")
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000000000,), }\n",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -2048), }\n",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (2048,), }\n",
        b"{'descr': '<U0', 'fortran_order': False, 'shape': (2048,), }\n",
        b"{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (0,), }\n",
        b"[" * 5000 + b"\n",
        b"",
    ],
)
def test_a_header_that_lies_takes_no_memory(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(DataError, match=r"a\.npz"):
        StatisticsFile(archive(tmp_path / "a.npz", npy(np.zeros(3), header))).open()


def test_bombs_and_odd_archives_are_refused(tmp_path: Path) -> None:
    zeros = npy(np.zeros(40_000_000))
    for i, how in enumerate(({"compression": zipfile.ZIP_DEFLATED}, {"compression": zipfile.ZIP_BZIP2})):
        path = archive(tmp_path / f"{i}.npz", zeros, **how)
        assert holds_statistics(path)
        assert path.stat().st_size < 1_000_000
        with pytest.raises(DataError, match=r"more than 16,384 bytes|not an array of plain numbers"):
            StatisticsFile(path).open()


def test_every_mutation_of_a_file_is_read_or_refused(tmp_path: Path) -> None:
    """Bytes changed at random in what a small archive holds beside its numbers, and files cut anywhere."""
    whole = archive(tmp_path / "a.npz", npy(np.zeros(3))).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "b.npz"
    for case in range(400):
        content = bytearray(whole[: rng.integers(1, len(whole))] if case % 4 == 0 else whole)
        for place in rng.integers(0, len(content), size=case % 5):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content)
        with pytest.raises(UserError):
            StatisticsFile(path).open()
        if holds_statistics(path):  # else they are samples, which tests/data damages
            with pytest.raises(UserError):
                open_samples(path)
