"""What a measurement knows of the work that is measured."""

from __future__ import annotations

import pytest

from ddpm_ip.bench.measure import gflop_per_image
from ddpm_ip.config import from_dict


def test_operations_of_the_cifar10_network() -> None:
    evaluation, step = gflop_per_image(from_dict({"data": {"name": "cifar10"}}))
    assert evaluation == pytest.approx(12.44, abs=0.01)
    assert step == pytest.approx(37.32, abs=0.01)
