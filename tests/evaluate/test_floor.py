"""The floor: two halves of the same data, beside something that is far from both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm_ip.data import Digits
from ddpm_ip.evaluate.evaluate import evaluate
from ddpm_ip.evaluate.features import Pixels, pixels
from ddpm_ip.evaluate.floor import floor
from ddpm_ip.evaluate.metrics import frechet_distance, moments

CPU = torch.device("cpu")


def test_the_floor_is_the_distance_of_two_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path))
    images = Digits().open()
    found = floor(images, Pixels(CPU), ["fid"], CPU)
    order = np.random.default_rng(0).permutation(len(images))
    a, b = (moments([pixels(np.asarray(images.pixels[half]))]) for half in np.array_split(order, 2))
    assert found == {"FD-pixels": pytest.approx(frechet_distance(a, b), rel=1e-9)}
    noise = np.random.default_rng(0).integers(0, 256, size=(500, 1, 8, 8), dtype=np.uint8)
    far = evaluate([noise], images, extractor=Pixels(CPU), metrics=["fid"], device=CPU).values["FD-pixels"]
    assert 0 < found["FD-pixels"] < far / 20
