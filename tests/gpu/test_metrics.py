"""The metrics that take distances on a device give there what they give on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddpm_ip.evaluate.metrics import class_score, extrapolated_distance, kernel_distance
from ddpm_ip.evaluate.monge import monge_distance
from ddpm_ip.evaluate.neighbours import clipped_density_coverage, copies, precision_recall

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


def test_metrics_on_a_gpu_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpm_ip.evaluate.rows.HELD", 20_000)  # several pieces
    monkeypatch.setattr("ddpm_ip.evaluate.monge.HELD", 20_000)
    rng = np.random.default_rng(0)
    fake, real = (rng.normal(mean, 1, (n, 12)).astype(np.float32) for mean, n in ((0, 300), (0.1, 400)))

    def found(device: torch.device) -> list[float]:
        density, precision = clipped_density_coverage(fake, real, device, 5), precision_recall(fake, real, device, 3)
        distances = (monge_distance(fake, real, device), extrapolated_distance(fake, real, device))
        scores = (*class_score(fake, device), *kernel_distance(fake, real, device, size=100, subsets=5))
        return [*distances, *density, *precision, *scores, copies(fake, real, device)]

    assert found(torch.device("cuda")) == pytest.approx(found(torch.device("cpu")), rel=1e-9)
