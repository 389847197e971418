"""Epsilon scaling against diffusers, which is given the scaled output of the network."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers import scheduling_ddpm
from tests.sampler.oracle import DEVIATION, MEAN, ROWS, SHAPE, gaussian_denoiser, heun, network

from ddpm_ip.config import from_dict, load
from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.errors import ConfigError
from ddpm_ip.options import single_overrides
from ddpm_ip.run.record import row_label
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver, respace, walk
from ddpm_ip.sampler.correction import Clip, EpsilonScaling
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.schedule import Schedule

TIMES = respace(1000, 20, "uniform-trailing")


@pytest.mark.parametrize("scale", [1.0, 1.02, 0.97])
def test_ancestral_steps_equal_diffusers(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Schedule()
    theirs = DDPMScheduler(1000, 1e-4, 0.02, "linear", timestep_spacing="trailing", variance_type="fixed_small")
    theirs.set_timesteps(20)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda shape, **_: noise)
    plan, corrections = Ancestral("fixed_small").plan(schedule, TIMES), [EpsilonScaling(scale), Clip()]
    for before, after in pairwise(walk(plan, Denoiser(network, schedule), 3, ROWS, SHAPE, corrections)):
        t = int(before.t)
        noise = Draws(3, t, ROWS).noise(SHAPE) * (after.t >= 0)
        step = theirs.step(network(before.xt, torch.full((4,), t)) / scale, t, before.xt)
        torch.testing.assert_close(after.xt, step.prev_sample, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("clip", ["rederive", "none"])
def test_ddim_steps_equal_diffusers(clip: str) -> None:
    schedule = Schedule()
    theirs = DDIMScheduler(1000, 1e-4, 0.02, "linear", clip_sample=clip != "none", timestep_spacing="trailing")
    theirs.set_timesteps(20)
    plan, corrections = DDIM().plan(schedule, TIMES), [EpsilonScaling(1.02), Clip(clip)]
    for before, after in pairwise(walk(plan, Denoiser(network, schedule), 3, ROWS, SHAPE, corrections)):
        t = int(before.t)
        output = network(before.xt, torch.full((4,), t)) / 1.02
        step = theirs.step(output, t, before.xt, use_clipped_model_output=clip == "rederive")
        tolerance = 1e-5 * float(1 + before.xt.abs().max()) / schedule.level(t).alpha ** (clip == "none")
        torch.testing.assert_close(after.xt, step.prev_sample, atol=tolerance, rtol=1e-5)


def test_dpm_solver_equals_diffusers() -> None:
    schedule = Schedule()
    theirs = DPMSolverMultistepScheduler(
        1000, 1e-4, 0.02, "linear", final_sigmas_type="zero", timestep_spacing="trailing"
    )
    theirs.set_timesteps(20)
    plan, corrections = DPMSolver().plan(schedule, TIMES), [EpsilonScaling(1.02), Clip("none")]
    x, *states = (state.xt for state in walk(plan, Denoiser(network, schedule), 3, ROWS, SHAPE, corrections))
    for t, ours in zip(TIMES, states, strict=True):
        x = theirs.step(network(x, torch.full((4,), t)) / 1.02, t, x).prev_sample
        tolerance = 1e-5 * float(1 + x.abs().max()) / schedule.level(t).alpha
        torch.testing.assert_close(ours, x, atol=tolerance, rtol=1e-5)


def test_input_perturbation_at_its_optimum_is_undone_by_its_factor() -> None:
    """An exact network whose noise is too large by sqrt(1 + gamma^2), scaled by just that, samples the exact data."""
    schedule, gamma = Schedule(), 0.2
    exact, factor = gaussian_denoiser(schedule), math.sqrt(1 + gamma**2)
    large = Denoiser(lambda x, t: factor * exact.network(x, t), schedule)
    plan = DDIM().plan(schedule, respace(1000, 50))

    def images(denoiser: Denoiser, *corrections: EpsilonScaling) -> torch.Tensor:
        *_, last = walk(plan, denoiser, 0, torch.arange(8), (1, 4, 4), corrections)
        return last.xt

    torch.testing.assert_close(images(large, EpsilonScaling(factor)), images(exact), atol=1e-4, rtol=1e-4)
    assert images(exact).mean() == pytest.approx(MEAN, abs=5 * DEVIATION / 128**0.5)
    assert (images(large) - images(exact)).abs().max() > 0.01


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be a positive number"):
        EpsilonScaling(scale)


# --- a slope, and a table --------------------------------------------------------------------------------------------

TABLE = EpsilonScaling(times=(0, 500.0, 900.0), scales=(1.0, 1.02, 0.99))
LINE = EpsilonScaling(1.0, 0.0025, "data")  # the paper's, for 20 steps
WRONG_WAY = EpsilonScaling(1.0, 0.0025, "noise")


def factors(correction: EpsilonScaling, times: list[int]) -> list[float]:
    return correction.numbers(DDIM().plan(Schedule(), times), Schedule()).flatten().tolist()


@pytest.mark.parametrize("correction", [LINE, WRONG_WAY, TABLE], ids=["data", "noise", "table"])
def test_steps_equal_diffusers_whose_output_is_scaled_one_by_one(correction: EpsilonScaling) -> None:
    """ADM-ES counts 0 at the last visit, and TS-DPM at the first."""
    schedule = Schedule()
    theirs = DDIMScheduler(1000, 1e-4, 0.02, "linear", clip_sample=False, timestep_spacing="trailing")
    theirs.set_timesteps(20)
    plan = DDIM().plan(schedule, TIMES)
    for visit, (before, after) in enumerate(
        pairwise(walk(plan, Denoiser(network, schedule), 3, ROWS, SHAPE, [correction]))
    ):
        t = int(before.t)
        scale = {
            LINE: 1 + 0.0025 * (19 - visit),
            WRONG_WAY: 1 + 0.0025 * visit,
            TABLE: float(np.interp(t, [0, 500, 900], [1.0, 1.02, 0.99])),
        }[correction]
        step = theirs.step(network(before.xt, torch.full((4,), t)) / scale, t, before.xt)
        tolerance = 1e-5 * float(1 + before.xt.abs().max()) / schedule.level(t).alpha
        torch.testing.assert_close(after.xt, step.prev_sample, atol=tolerance, rtol=1e-5)


def test_an_index_is_that_of_a_time_and_not_of_a_visit() -> None:
    """Heun asks twice at each time but the first; a stage between two times has an index between."""
    plan = heun(Schedule(), [900, 600, 300, 0])
    assert plan.t.tolist() == [900, 600, 600, 300, 300, 0, 0]
    found = LINE.numbers(plan, Schedule()).flatten()
    torch.testing.assert_close(found, 1 + 0.0025 * torch.tensor([3, 2, 2, 1, 1, 0, 0]).double())
    between = plan._replace(t=torch.tensor([900.0, 675, 600, 300, 300, 0, 0], dtype=torch.float64))
    assert LINE.numbers(between, Schedule())[1, 0] == pytest.approx(1 + 0.0025 * 2.25)
    assert factors(LINE, [7]) == [1.0]


def test_a_constant_line_and_a_constant_table_are_the_constant_to_the_last_bit() -> None:
    schedule = Schedule()
    plan = Ancestral("fixed_small").plan(schedule, TIMES)
    same = [EpsilonScaling(1.02), EpsilonScaling(1.02, 0.0, "noise"), EpsilonScaling(times=(0, 1), scales=(1.02, 1.02))]
    found = [list(walk(plan, Denoiser(network, schedule), 3, ROWS, SHAPE, [c, Clip()]))[-1].xt for c in same]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_slope_that_leads_below_nothing_is_refused_where_the_steps_are_known() -> None:
    correction = EpsilonScaling(1.0, -0.1, "noise")
    assert min(factors(correction, [2, 1, 0])) == pytest.approx(0.8)
    with pytest.raises(ConfigError, match=r"leads to a factor of -0\.9"):
        factors(correction, TIMES)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"slope": 0.1}, "say slope, counted_from"),
        ({"scale": 1.0, "slope": 0.1}, "say slope, counted_from"),
        ({"scale": 1.0, "counted_from": "data"}, "say slope, counted_from"),
        ({"scale": 1.0, "slope": math.nan, "counted_from": "data"}, "slope must be a number"),
        ({"times": (0.0, 1.0)}, "two rising times"),
        ({"times": (0.0,), "scales": (1.0,)}, "two rising times"),
        ({"times": (0.0, 0.0), "scales": (1.0, 1.0)}, "two rising times"),
        ({"times": (-math.inf, 0.0), "scales": (1.0, 1.0)}, "two rising times"),
        ({"times": (0.0, 1.0), "scales": (1.0, 0.0)}, "a positive scale"),
        ({"times": (0.0, 1.0), "scales": (1.0, 1.0, 1.0)}, "a positive scale"),
        ({"scale": 1.0, "times": (0.0, 1.0), "scales": (1.0, 1.0)}, "leave scale, slope"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EpsilonScaling(**settings)


# --- as YAML, as an option, and in what files say --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "correction", "label"),
    [
        ("epsilon_scaling", EpsilonScaling(1.005), "epsilon_scaling,scale=1.005"),
        ("epsilon_scaling,scale=1.02", EpsilonScaling(1.02), "epsilon_scaling,scale=1.02"),
        (
            "epsilon_scaling,scale=1.0,slope=0.0025,counted_from=data",
            LINE,
            "epsilon_scaling,scale=1,slope=0.0025,counted_from=data",
        ),
        (
            "epsilon_scaling,times=0/500/900,scales=1.0/1.02/0.99",
            TABLE,
            "epsilon_scaling,times=0/500/900,scales=1/1.02/0.99",
        ),
    ],
)
def test_it_is_said_in_yaml_on_the_command_line_and_in_facts(
    option: str, correction: EpsilonScaling, label: str, tmp_path: Path
) -> None:
    import argparse

    from ddpm_ip.options import add_common, add_single

    parser = argparse.ArgumentParser()
    add_common(parser)
    add_single(parser)
    found = single_overrides(parser.parse_args(["--corrections", option]), {})
    config = from_dict({"data": {"name": "digits"}, "sampling": {"corrections": found["sampling.corrections"]}})
    assert config.sampling.corrections == (correction,)
    (tmp_path / "a.yaml").write_text(config.to_yaml())
    assert load(tmp_path / "a.yaml").sampling == config.sampling
    row = Sampling(DDIM(), (correction,)).row()
    assert json.loads(json.dumps(row)) == row
    assert row_label(row) == f"ddim,eta=0+{label}"


def test_what_files_say_of_a_constant_is_what_they_said_before() -> None:
    assert Sampling(corrections=(EpsilonScaling(1.02),)).row()["corrections"] == [
        {"name": "epsilon_scaling", "scale": 1.02}
    ]
