"""The Inception metrics, with random weights in the file format of the real ones, beside torch-fidelity's own."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from ddpm_ip.data import ImageSet
from ddpm_ip.data.imageset import from_arrays
from ddpm_ip.errors import UserError
from ddpm_ip.evaluate.evaluate import Evaluator
from ddpm_ip.evaluate.extractors import inception
from ddpm_ip.evaluate.extractors import weights as files
from ddpm_ip.evaluate.extractors.inception import Inception, import_torch_fidelity
from ddpm_ip.evaluate.features import find_extractor
from ddpm_ip.evaluate.images import open_samples
from ddpm_ip.metric import METRICS
from ddpm_ip.run.record import Evaluation

CPU = torch.device("cpu")
ALL = ["fid", "isc", "kid", "prc", "sfid"]
SUBSET = 12  # of 20 and 22 images


REAL_FILE = files.INCEPTION
REAL_PATH = files.find_weights(REAL_FILE)


def with_hash_of(path: Path) -> files.WeightsFile:
    """The file that is expected, with the hash of this one."""
    return dataclasses.replace(REAL_FILE, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Path:
    """A file like the real one, whose hash the loader is told; spread so that images differ and classes too."""
    network = import_torch_fidelity().feature_extractor_inceptionv3.FeatureExtractorInceptionV3
    patch.setattr(network, "load_state_dict", lambda self, state: None)
    module = inception._build({})
    patch.undo()
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
        if isinstance(part, torch.nn.Linear):
            torch.nn.init.normal_(part.weight, std=0.1)
    module.Conv2d_1a_3x3.conv.weight.mul_(8)  # the network is homogeneous: features of the size of the real ones
    path = tmp_path_factory.mktemp("weights") / files.INCEPTION.name
    torch.save(module.state_dict(), path)
    patch.setattr(files, "INCEPTION", with_hash_of(path))
    patch.setenv("DDPM_IP_WEIGHTS", str(path.parent))
    patch.setenv("DDPM_IP_CACHE", str(path.parent / "cache"))
    patch.setitem(METRICS, "kid", dataclasses.replace(METRICS["kid"], subset=SUBSET))
    return path


def pictures(n: int, seed: int, low: int, high: int) -> np.ndarray:
    """Blocks of colour and some noise, ``uint8`` (N, 3, 32, 32)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(low, high, size=(n, 3, 2, 2)).repeat(16, axis=2).repeat(16, axis=3)
    return (coarse + rng.integers(0, 20, size=(n, 3, 32, 32))).astype(np.uint8)


FAKE, REAL = pictures(20, 0, 0, 120), pictures(22, 1, 120, 235)


@pytest.fixture(scope="module")
def reference() -> ImageSet:
    return from_arrays(REAL, None, "real", 32)


@pytest.fixture(scope="module")
def extractor(weights: Path) -> Inception:
    found = find_extractor("inception", CPU)
    assert isinstance(found, Inception)
    return found


@pytest.fixture(scope="module")
def ours(extractor: Inception, reference: ImageSet) -> Evaluation:
    return Evaluator(extractor, ALL, CPU, batch_size=16).evaluate(open_samples([FAKE]), reference)


class Images(Dataset):  # type: ignore[type-arg]
    def __init__(self, array: np.ndarray) -> None:
        self.array = torch.tensor(array)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.array[i]


@pytest.fixture
def quick_eigenvalues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are not 0, of a 2,048 x 2,048 matrix whose rank is below the number of images: all take 15 seconds."""
    ordinary = np.linalg.eigvals

    def eigenvalues(matrix: np.ndarray) -> np.ndarray:
        basis, _ = np.linalg.qr(matrix @ np.random.default_rng(0).normal(size=(len(matrix), len(FAKE) - 1)))
        return ordinary(basis.T @ matrix @ basis)

    monkeypatch.setattr(np.linalg, "eigvals", eigenvalues)


@pytest.mark.usefixtures("quick_eigenvalues")
def test_equal_to_torch_fidelity(ours: Evaluation, weights: Path) -> None:
    """Its own calculate_metrics on the same images and the same file of weights."""
    theirs = import_torch_fidelity().calculate_metrics(
        input1=Images(FAKE), input2=Images(REAL), fid=True, isc=True, kid=True, prc=True,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights),
        kid_subset_size=SUBSET, cuda=False, cache=False, save_cpu_ram=True, verbose=False, batch_size=22,
    )  # fmt: skip
    names = {
        "FID": "frechet_inception_distance", "IS": "inception_score_mean", "KID": "kernel_inception_distance_mean",
        "KID_std": "kernel_inception_distance_std", "precision": "precision", "recall": "recall",
    }  # fmt: skip
    for name, their_name in names.items():
        assert ours.values[name] == pytest.approx(theirs[their_name], rel=1e-6), name
    assert ours.values["IS_std"] == pytest.approx(theirs["inception_score_std"], abs=1e-6 * ours.values["IS"])
    assert ours.values["IS"] > 1.03  # else there was nothing to compare


def gram_frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The Fréchet distance from inner products of images, without any covariance of features."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    x, y = ((s - s.mean(0)) / np.sqrt(len(s) - 1) for s in (a, b))
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * cross)


def independent(extractor: Inception, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pool and spatial features by walking through the layers one by one."""
    net, seen = extractor._network, []
    module = import_torch_fidelity().feature_extractor_inceptionv3
    x = torch.tensor(images).float()
    x = module.interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
    x = (x - 128) / 128
    names = (
        "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 MaxPool_1 Conv2d_3b_1x1 Conv2d_4a_3x3 MaxPool_2 Mixed_5b Mixed_5c"
    )
    names += " Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c AvgPool"
    for name in names.split():
        if name == "Mixed_6d":  # TensorFlow's mixed_6: convolution, normalization and ReLU of its first branch
            branch = net.Mixed_6d.branch1x1
            seen.append(torch.relu(branch.bn(branch.conv(x)))[:, :7])
        x = getattr(net, name)(x)
    extractor._spatial.clear()
    assert seen[0].shape[1:] == (7, 17, 17)
    return x.flatten(1).numpy(), seen[0].permute(0, 2, 3, 1).flatten(1).numpy()  # guided-diffusion's order, NHWC


def test_sfid_and_fid_equal_an_independent_computation(ours: Evaluation, extractor: Inception) -> None:
    with torch.inference_mode():
        (pool, spatial), (real_pool, real_spatial) = (independent(extractor, images) for images in (FAKE, REAL))
    assert ours.values["sFID"] == pytest.approx(gram_frechet(spatial, real_spatial), rel=1e-6)
    assert ours.values["FID"] == pytest.approx(gram_frechet(pool, real_pool), rel=1e-6)


def test_blocks_and_batches_play_no_part_and_the_reference_is_kept(
    ours: Evaluation, extractor: Inception, reference: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real_call = Inception.__call__
    monkeypatch.setattr(Inception, "__call__", lambda self, x: calls.append(len(x)) or real_call(self, x))
    blocks = np.array_split(FAKE, [7, 15])
    again = Evaluator(extractor, ALL, CPU, batch_size=6).evaluate(open_samples(blocks), reference)
    assert again.values == pytest.approx(ours.values, rel=1e-6, abs=1e-6)
    assert calls == [6, 1, 6, 2, 5]  # the samples alone


def test_the_protocol_and_the_warnings(ours: Evaluation, weights: Path) -> None:
    p = ours.protocol
    assert p["extractor_identity"]["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (p["n_images"], p["n_reference"], p["image_shape"]) == (20, 22, [3, 32, 32])
    assert p["reference_sha256"][:8] in p["line"]
    assert f" of torch-fidelity {metadata.version('torch-fidelity')}; 20 images" in p["line"]
    assert p["versions"]["torch-fidelity"] == metadata.version("torch-fidelity")
    assert [word for word in ("too few", "50,000") if any(word in w for w in ours.warnings)] == ["too few", "50,000"]


def test_missing_weights_are_told_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_IP_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(files, "INCEPTION", REAL_FILE)
    with pytest.raises(UserError) as caught:
        find_extractor("inception", CPU)
    for part in (files.INCEPTION.name, str(tmp_path), "6726825d", files.INCEPTION.url, "DDPM_IP_WEIGHTS"):
        assert part in str(caught.value)


def test_damaged_weights_are_refused_before_they_are_looked_at(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / files.INCEPTION.name
    damaged.write_bytes(content)
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("it was opened"))
    with pytest.raises(UserError, match="damaged") as caught:
        files.read_weights(files.INCEPTION, damaged)
    assert files.INCEPTION.url in str(caught.value)


def test_weights_that_would_run_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with the right hash only tensors are read."""

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return sys.exit, ("it ran",)

    path = tmp_path / "bomb.pth"
    torch.save({"a": Bomb()}, path)
    monkeypatch.setattr(files, "INCEPTION", with_hash_of(path))
    with pytest.raises(UserError, match="cannot read"):
        files.read_weights(files.INCEPTION, path)


def test_torchvision_is_neither_needed_nor_left_behind() -> None:
    assert import_torch_fidelity().__name__ == "torch_fidelity"
    assert not [name for name in sys.modules if name.split(".")[0] == "torchvision"]


@pytest.mark.skipif(REAL_PATH is None, reason="the real weights are not here")
def test_the_real_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "INCEPTION", REAL_FILE)
    features = Inception(CPU, REAL_PATH)(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert {kind: rows.shape[1] for kind, rows in features.items()} == {"pool": 2048, "logits": 1008, "spatial": 2023}
