"""The low band against Haar's transform as matrices; which rows begin and end a step."""

from __future__ import annotations

import pytest
import torch
from tests.sampler.correction.haar import transform, weighted
from tests.sampler.oracle import heun
from tests.sampler.tables import numbers

from ddpm_ip.sampler import DDIM
from ddpm_ip.sampler.correction.bands import first_visits, low_band, noisy_ends
from ddpm_ip.schedule import Schedule


@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 3, 8, 16), (2, 1, 7, 9), (1, 3, 4, 6), (1, 1, 1, 1)], ids=str)
def test_the_low_band_is_that_of_haar_s_transform(shape: tuple[int, ...], level: int) -> None:
    torch.testing.assert_close(transform(8) @ transform(8).T, torch.eye(8, dtype=torch.float64))
    images = numbers(*shape)
    expected = weighted(images, [1.0, *[0.0] * level])
    torch.testing.assert_close(low_band(images, level), expected, atol=1e-14, rtol=0)


def test_where_steps_begin_and_end() -> None:
    plan = heun(Schedule(), [900, 500, 100])  # two visits a step, and one to the clean image
    assert plan.state.tolist() == [False, True, False, True, True]
    assert first_visits(plan) == [0, 0, 2, 2, 4]
    assert noisy_ends(plan).tolist() == [False, True, False, True, False]
    plan = DDIM().plan(Schedule(), [900, 500, 100])
    assert first_visits(plan) == [0, 1, 2]
    assert noisy_ends(plan).tolist() == [True, True, False]
