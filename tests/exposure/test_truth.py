"""What networks with a known optimum say of true states."""

from __future__ import annotations

import pytest
import torch
from tests.exposure import gaussian
from tests.exposure.gaussian import DEVIATION, SCHEDULE, SHAPE

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.exposure.truth import truth
from ddpm_ip.sample.generator import Generator
from ddpm_ip.sampler import DDIM
from ddpm_ip.sampler.sampling import Sampling

TEN = Sampling(DDIM(eta=0.0), clip="none", steps=10, spacing="logsnr", block=64, seed=3)


def generator(known: Denoiser) -> Generator:
    made = gaussian.generator(TEN, known)
    made.model.engine.reduce = lambda tensor, how: tensor
    return made


def test_the_slope_of_a_perturbed_network_is_that_of_its_optimum() -> None:
    """Trained with gamma it finds ``E[eps | y]``, of ``y`` with the noise variance ``sigma^2 (1 + gamma^2)``."""

    def perturbed(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a, s = gaussian.levels(t)
        return s * x / (a**2 * DEVIATION**2 + s**2 * (1 + gamma**2))

    gamma = 0.3
    pixels = torch.randint(0, 256, (64, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    usual = generator(gaussian.denoiser())
    made = generator(Denoiser(perturbed, SCHEDULE))
    found = truth(made, pixels, None, 0).slope / truth(usual, pixels, None, 0).slope
    a, s = made.plan.alpha, made.plan.sigma
    expected = 1 / (1 + gamma**2 * s**2 / (a**2 * DEVIATION**2 + s**2))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert float(found[0]) == pytest.approx(1 / (1 + gamma**2), rel=1e-3)
