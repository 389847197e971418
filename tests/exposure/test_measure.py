"""Every measurement equals its closed form on Gaussian data, within the error that it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from tests.exposure.gaussian import denoiser, expected, measured

from ddpm_ip.exposure.curves import Curve
from ddpm_ip.sampler import DDIM
from ddpm_ip.sampler.sampling import Sampling

DRAWN = Sampling(DDIM(eta=0.5), clip="none", steps=5, block=64)
N = 200


def deviations(found: Mapping[str, Curve], wanted: Mapping[str, Mapping[float, float]]) -> dict[str, torch.Tensor]:
    """How many standard errors each number is off, by curve."""
    off = {}
    for name, by_time in wanted.items():
        curve = found[name]
        numbers = zip(curve.t, curve.value, curve.se, strict=True)
        off[name] = torch.tensor([(value - by_time[t]) / max(se, 1e-12) for t, value, se in numbers])
    return off


@pytest.mark.parametrize("factor", [1.0, 1.03])
def test_every_curve_is_its_closed_form_within_its_error_and_the_error_is_right(factor: float) -> None:
    """A planted factor shows exactly the size that the linear algebra predicts."""
    wanted, found = expected(DRAWN, factor), []
    for seed in range(8):
        found.append(deviations(measured(replace(DRAWN, seed=seed), denoiser(factor), N), wanted))
    for name in wanted:
        z = torch.stack([one[name] for one in found])
        print(name, f"{z.abs().max():.2f} mean {z.mean():.2f} rms {z.square().mean().sqrt():.2f}")
