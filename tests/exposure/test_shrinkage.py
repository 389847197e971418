"""What input perturbation and too few steps do to the energy of states, on Gaussian data where all of it is known.

The optimal network with input perturbation says ``k x`` with ``k = sigma / (alpha^2 v + f^2 sigma^2)``, ``f^2 = 1 +
gamma^2``: on true states ``(alpha^2 v + sigma^2) / (alpha^2 v + f^2 sigma^2)`` times the optimal noise, which is
``1 / f^2`` where noise is most of the state, and not ``1 / f``: that is what it says of states with ``f`` times as much
noise. A deterministic walk multiplies states in each step, so that this adds up: at the end they have too much energy.
"""

from __future__ import annotations

import pytest
import torch
from tests.exposure.gaussian import DEVIATION, SCHEDULE

from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver
from ddpm_ip.sampler.sampling import Sampling

GAMMA = 0.1
F2 = 1 + GAMMA**2
LEVELS = [SCHEDULE.level(t) for t in range(SCHEDULE.total_steps)]
GAMMAS = tuple(s**2 / (a**2 * DEVIATION**2 + s**2) for a, s in LEVELS)  # E |eps|^2 of the exact denoiser
SAMPLERS = {
    "ddim": DDIM(),
    "dpm_solver": DPMSolver(),
    "fixed_small": Ancestral("fixed_small"),
    "exact": Ancestral("analytic", GAMMAS, clip_pixel=255.0),
}


def energies(name: str, steps: int, gamma: float = 0.0, scale: float = 1.0, v: float = DEVIATION**2) -> torch.Tensor:
    """Of the states after each visit over those of true ones, (V,), with the noise divided by a scale."""
    plan = Sampling(SAMPLERS[name], clip="none", steps=steps).plan(SCHEDULE)  # type: ignore[arg-type]
    m, found = plan.memories, []
    covariance = torch.zeros(1 + m, 1 + m, dtype=torch.float64)
    covariance[0, 0] = plan.start**2
    for i, (alpha, sigma) in enumerate(zip(plan.alpha.tolist(), plan.sigma.tolist(), strict=True)):
        u, k = plan.update[i], sigma / (alpha**2 * v + (1 + gamma**2) * sigma**2) / scale
        a = u[:, : 1 + m].clone()
        a[:, 0] += u[:, 1 + m] * (1 - sigma * k) / alpha + u[:, 2 + m] * k
        covariance = a @ covariance @ a.T + torch.outer(u[:, 3 + m], u[:, 3 + m])
        alpha, sigma = plan.after[i].tolist()
        found.append(float(covariance[0, 0]) / (alpha**2 * v + sigma**2))
    return torch.tensor(found)


def best(name: str, steps: int, gamma: float = 0.0) -> float:
    """The constant epsilon scale that gives the finished images their energy, by halving."""
    low, high = 0.9, 1.3
    assert energies(name, steps, gamma, low)[-1] < 1 < energies(name, steps, gamma, high)[-1]
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if energies(name, steps, gamma, middle)[-1] < 1 else (low, middle)
    return low


@pytest.mark.parametrize(("name", "steps"), [("ddim", 20), ("ddim", 50), ("dpm_solver", 50)])
def test_a_deterministic_walk_adds_up_what_perturbation_shrinks(name: str, steps: int) -> None:
    """The energy grows by about a tenth, and what undoes that is a scale of ``1 / f^2`` of what it was before."""
    plain, perturbed = energies(name, steps), energies(name, steps, GAMMA)
    assert 1.1 < float(perturbed[-1] / plain[-1]) < 1.2
    assert perturbed.max() > plain.max() + 0.1
    grown = [float((energies(name, steps, scale=scale)[-1] / plain[-1]).log()) for scale in (F2**0.5, F2)]
    assert grown[0] < 0.6 * float((perturbed[-1] / plain[-1]).log()) < grown[1], "so a scale of f does half as much"
    assert best(name, steps, GAMMA) / best(name, steps) == pytest.approx(1 / F2, abs=1.5e-3)


@pytest.mark.parametrize("steps", [2, 10, 50])
def test_an_exact_denoiser_with_the_exact_variance_shows_none(steps: int) -> None:
    """But for the last step, which has no noise, and for what is left of the image in x_T."""
    assert energies("exact", steps)[:-1].tolist() == pytest.approx([1.0] * (steps - 1), abs=5e-5)


def test_few_steps_that_forget_what_is_not_known_of_the_image_lose_energy() -> None:
    """Ancestral steps of fixed_small with the exact denoiser: the fewer, the less, and the larger the scale that mends
    it. Perturbation adds little: each step forgets what it did before.
    """
    ends = [float(energies("fixed_small", steps)[-1]) for steps in (10, 20, 50, 250)]
    assert ends == sorted(ends)
    assert ends[0] < 0.5
    assert 0.8 < ends[-1] < 1
    assert best("fixed_small", 20) > best("fixed_small", 50) > best("fixed_small", 250) > 1.03
    assert float(energies("fixed_small", 50, GAMMA).max()) < 1.025
    assert float(energies("fixed_small", 50, GAMMA)[-1]) == pytest.approx(ends[2], rel=0.02)
