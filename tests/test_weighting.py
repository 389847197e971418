"""Weightings of the squared error."""

from __future__ import annotations

import pytest
import torch

from ddpm_ip.schedule import Schedule
from ddpm_ip.weighting import Constant


@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0", "pred_v"])
def test_constant_is_one_at_every_time_in_every_terms(kind: str) -> None:
    weights = Constant()(Schedule(), torch.arange(1000), kind)
    assert weights.dtype == torch.float32
    assert torch.equal(weights, torch.ones(1000))
