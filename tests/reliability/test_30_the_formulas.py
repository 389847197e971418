"""What is computed is what the papers say: held against diffusers with the same noise, and against Gaussian data.

This file has whole chains: sampled as the package samples, and trained as it trains. Each formula, for every variance,
spacing and objective, is next to its module: tests/test_schedule.py, tests/test_objective.py,
tests/test_perturbation.py, tests/sampler. That ADM's weights reproduce the official outputs is not promised, since they
are not imported; the network is held against diffusers' in tests/nn/test_unet.py.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers import scheduling_ddpm
from tests.sampler.oracle import DEVIATION, MEAN, ROWS, SHAPE, gaussian_denoiser, gaussian_moments, network
from tests.tiny import assert_same_state, numbers, run, tiny

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.objective import Objective
from ddpm_ip.perturbation import InputPerturbation, NoPerturbation
from ddpm_ip.sampler import DDIM, Ancestral, respace, walk
from ddpm_ip.sampler.correction import Clip
from ddpm_ip.schedule import Schedule

STEPS = 50


def test_the_tables_are_diffusers_within_float32():
    theirs = DDPMScheduler(1000, 1e-4, 0.02, "linear")
    schedule, t = Schedule(), torch.arange(1000)
    alpha_bar = schedule.alpha(t, torch.zeros(1, 1, 1, 1)).flatten() ** 2
    torch.testing.assert_close(alpha_bar, theirs.alphas_cumprod, atol=1e-6, rtol=1e-5)


def chain(sampler):
    times = respace(1000, STEPS, "uniform-leading")
    plan = sampler.plan(Schedule(), times)
    return list(walk(plan, Denoiser(network, Schedule()), 3, ROWS, SHAPE, [Clip("rederive")]))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_a_whole_chain_is_the_one_of_diffusers(monkeypatch, sampler):
    """Not step by step from our states: both go their own way from the same start with the same noise."""
    common = (1000, 1e-4, 0.02, "linear")
    if sampler == "ddpm":
        theirs = DDPMScheduler(*common, variance_type="fixed_large", clip_sample=True, timestep_spacing="leading")
        states = chain(Ancestral("fixed_large"))
    else:
        theirs = DDIMScheduler(*common, clip_sample=True, timestep_spacing="leading", set_alpha_to_one=True)
        states = chain(DDIM(0.0))
    theirs.set_timesteps(STEPS)
    x = states[0].xt
    for t in theirs.timesteps.tolist():
        noise = Draws(3, t, ROWS).noise(SHAPE)
        given = {"use_clipped_model_output": True} if sampler == "ddim" else {}
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda shape, noise=noise, **_: noise)
        x = theirs.step(network(x, torch.full((len(x),), t)), t, x, **given).prev_sample
    torch.testing.assert_close(states[-1].xt, x, atol=2e-4, rtol=0)  # fifty steps of float32 rounding, enlarged
    assert len(states) == STEPS + 1
    assert all(not torch.equal(a.xt, b.xt) for a, b in pairwise(states))


@pytest.mark.parametrize("sampler", [Ancestral("fixed_small"), Ancestral("fixed_large"), DDIM(0.0), DDIM(1.0)], ids=str)
def test_with_the_exact_denoiser_samples_have_the_moments_of_the_data(sampler):
    """Those that linear algebra gives for this walk, within the noise of 40,000 numbers; of 1000 steps the data's."""
    schedule, n = Schedule(), 40
    plan = sampler.plan(schedule, respace(1000, 100, "uniform-trailing"))
    *_, last = walk(plan, gaussian_denoiser(schedule), 0, torch.arange(n), (1, 32, 32))
    mean, variance = gaussian_moments(plan)
    count = n * 32 * 32
    assert float(last.xt.mean()) == pytest.approx(mean, abs=5 * (variance / count) ** 0.5)
    assert float(last.xt.var()) == pytest.approx(variance, rel=5 * (2 / count) ** 0.5)
    mean, variance = gaussian_moments(sampler.plan(schedule, respace(1000, None)))
    assert mean == pytest.approx(MEAN, abs=0.01)
    assert variance == pytest.approx(DEVIATION**2, rel=0.03)


@pytest.mark.parametrize("gamma", [0.1, 0.15, 0.5])
def test_the_variance_of_a_perturbed_input(gamma):
    """alpha^2 Var x0 + sigma^2 (1 + gamma^2), at every time that is drawn."""
    fed, n, schedule = [], 4000, Schedule()

    def recorder(x, t):
        fed.append(x)
        return x * 0

    x0 = 0.5 * Draws(7, 0, torch.arange(n)).normal(0, (1, 4, 4))
    draws = Draws(1, 2, torch.arange(n))
    Objective(InputPerturbation(gamma=gamma))(Denoiser(recorder, schedule), x0, draws)
    t = draws.times(1000)
    alpha, sigma = schedule.alpha(t, x0), schedule.sigma(t, x0)
    scaled = fed[0] / (alpha**2 * 0.25 + sigma**2 * (1 + gamma**2)) ** 0.5
    assert float(scaled.var()) == pytest.approx(1, rel=5 * (2 / scaled.numel()) ** 0.5)


def test_a_run_of_gamma_0_is_a_run_of_ddpm_bit_for_bit(tmp_path):
    config = tiny(n_steps=8, save_freq=8)
    for name, perturbation in {"plain": NoPerturbation(), "zero": InputPerturbation(gamma=0.0)}.items():
        run(replace(config, perturbation=perturbation), tmp_path / name)
    assert_same_state(tmp_path / "plain", tmp_path / "zero", 8)
    assert numbers(tmp_path / "plain") == numbers(tmp_path / "zero")
    run(config, tmp_path / "gamma")
    assert not np.allclose(numbers(tmp_path / "gamma"), numbers(tmp_path / "zero"), rtol=1e-6, atol=0)
