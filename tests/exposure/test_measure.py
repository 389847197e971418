"""Every measurement equals its closed form on Gaussian data, within the error that it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from tests.exposure.gaussian import (
    DEVIATION,
    SCHEDULE,
    SHAPE,
    denoiser,
    expected,
    generator,
    measured,
    mixture,
    real,
)

from ddpm_ip.exposure.curves import KINDS, Curve
from ddpm_ip.exposure.estimates import curves
from ddpm_ip.exposure.measure import MEASURES, POINTS, STARTS, Measurement, Real, points
from ddpm_ip.exposure.sums import Sums
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver, Heun, Restart
from ddpm_ip.sampler.correction import EpsilonScaling, IPEmulator, TimeShift
from ddpm_ip.sampler.graph import Graph
from ddpm_ip.sampler.sampling import Sampling

DRAWN = Sampling(DDIM(eta=0.5), clip="none", steps=5, block=64)
N = 150
SEEDS = 6


def deviations(found: Mapping[str, Curve], wanted: Mapping[str, Mapping[float, float]]) -> dict[str, torch.Tensor]:
    """How many standard errors each number is off, by curve."""
    off = {}
    for name, by_time in wanted.items():
        curve = found[name]
        numbers = zip(curve.t, curve.value, curve.se, strict=True)
        off[name] = torch.tensor([(value - by_time[t]) / max(se, 1e-9) for t, value, se in numbers])
    return off


def none(found: Mapping[str, Curve]) -> dict[str, Mapping[float, float]]:
    """What curves are where there is no exposure bias, in the places that were measured."""
    return {
        name: dict.fromkeys(curve.t, kind.none)
        for name, curve in found.items()
        if (kind := KINDS[name]).none is not None
    }


@pytest.mark.parametrize("factor", [1.0, 1.03])
def test_every_curve_is_its_closed_form_within_its_error_and_the_error_is_right(factor: float) -> None:
    """A planted factor shows exactly the size that the linear algebra predicts, in five steps that are too few."""
    wanted = expected(DRAWN, factor)
    found = [measured(replace(DRAWN, seed=seed), denoiser(factor), real(N, seed)) for seed in range(SEEDS)]
    assert {*found[0]} == {*wanted, "nu.normal"} == {*KINDS}
    off = [deviations(curves, wanted) for curves in found]
    spreads = []
    for name in wanted:
        z = torch.cat([one[name] for one in off])
        assert z.abs().max() < 4, name
        z = z[z != 0]  # a coupled time beyond the data has no error
        spreads.append(z.square().mean())
        assert 0.5 < spreads[-1].sqrt() < 1.5, name
        assert z.mean().abs() < 1, name
    assert 0.75 < torch.stack(spreads).mean().sqrt() < 1.15


def test_a_planted_factor_is_seen() -> None:
    """Against what no bias would look like, each curve is many errors off; so the other tests can fail."""
    found = measured(replace(DRAWN, steps=20), denoiser(1.03), real(N))
    off = deviations(found, none(found))
    seen = ("eps_norm.ratio", "drift", "energy.xt.haar3.ratio", "energy.x0.ring1.ratio", "coupled_time")
    assert all(off[name].abs().max() > 8 for name in seen)


@pytest.mark.parametrize("kind", ["ancestral", "ddim", "mixture"])
def test_an_exact_denoiser_with_an_exact_sampler_shows_none(kind: str) -> None:
    """Ancestral steps of any length with the variance that the reverse of Gaussian data has; or many steps of DDIM."""
    levels = [SCHEDULE.level(t) for t in range(SCHEDULE.total_steps)]
    gammas = tuple(s**2 / (a**2 * DEVIATION**2 + s**2) for a, s in levels)
    exact = Ancestral("analytic", gammas=gammas, clip_pixel=1e9)
    sampling = replace(DRAWN, sampler=exact if kind == "ancestral" else DDIM(), steps=5 if kind == "ancestral" else 200)
    sampling = sampling if kind == "ancestral" else replace(sampling, spacing="logsnr")
    measures = ("eps_norm", "delta", "energy") if kind == "ancestral" else ("eps_norm", "delta")
    images, known = real(N), denoiser()
    if kind == "mixture":
        signs = torch.randint(0, 2, (N, *SHAPE), generator=torch.Generator().manual_seed(0)) * 2 - 1
        images, known = Real(0.6 * signs + 0.4 * real(N).pixels), mixture()
    found = measured(sampling, known, images, measures)
    off = deviations(found, none(found))
    assert {"eps_norm.ratio", "drift"} <= {*off}
    for name, z in off.items():
        assert z.abs().max() < 4, name


def test_the_published_delta_of_an_exact_sampler_is_what_forgetting_the_image_makes_it() -> None:
    """At the end of a walk from noise the image is another one, and the spread of their difference is sqrt(2) of one's:
    so 0 is no goal of this curve.
    """
    wanted = expected(replace(DRAWN, sampler=DDIM(), steps=250))["delta"]
    assert wanted[-1.0] == pytest.approx(2 * DEVIATION**2, rel=0.03)
    found = measured(replace(DRAWN, sampler=DDIM(), steps=20), denoiser(), real(N), ("delta",))["delta"]
    assert found.value[0] == pytest.approx(2 * DEVIATION**2, rel=0.3)


@pytest.mark.parametrize("sampler", [DPMSolver(), Heun()], ids=lambda sampler: sampler.name)
def test_methods_with_memories_and_inner_stages(sampler: DPMSolver | Heun) -> None:
    sampling = replace(DRAWN, sampler=sampler)
    found = measured(sampling, denoiser(), real(N))
    for name, z in deviations(found, expected(sampling)).items():
        assert z.abs().max() < 4, name


@pytest.mark.parametrize("prediction_type", ["pred_x0", "pred_v"])
@pytest.mark.parametrize("correction", [None, EpsilonScaling(1.02), IPEmulator(0.15), TimeShift()])
def test_the_eps_is_that_of_the_network_whatever_it_predicts_and_before_corrections(
    prediction_type: str, correction: EpsilonScaling | IPEmulator | TimeShift | None
) -> None:
    sampling = replace(DRAWN, corrections=() if correction is None else (correction,), sampler=DDIM())
    ours, theirs = (
        measured(sampling, denoiser(prediction_type=kind), real(64), ("eps_norm",))
        for kind in ("pred_eps", prediction_type)
    )
    for name in ours:
        torch.testing.assert_close(torch.tensor(theirs[name].value), torch.tensor(ours[name].value), rtol=1e-3, atol=0)
    if isinstance(correction, EpsilonScaling):
        of_real = torch.tensor(list(expected(sampling)["eps_norm.training"].values())).flip(0)
        assert torch.allclose(torch.tensor(ours["eps_norm.training"].value), of_real, rtol=0.02), "not divided by 1.02"


@pytest.mark.parametrize("world", [2, 5])
def test_several_processes_sum_up_to_one(world: int) -> None:
    """Of 150 images in blocks of 64, so that one of five processes has none."""
    alone = Measurement(generator(DRAWN, denoiser()), real(N), N).sums()
    parts = [Measurement(generator(DRAWN, denoiser(), rank, world), real(N), N).sums() for rank in range(world)]
    assert all({*part.values} == {*alone.values} for part in parts)
    for key, value in alone.values.items():
        torch.testing.assert_close(sum(part.values[key] for part in parts), value, rtol=1e-12, atol=1e-12)


def test_what_is_kept_does_not_grow_with_the_number_of_images() -> None:
    sizes = []
    for n in (64, 640):
        sums = Measurement(generator(replace(DRAWN, steps=2), denoiser()), real(n), n).sums()
        assert [*vars(sums)] == ["values"]
        sizes.append({key: value.shape for key, value in sums.values.items()})
    assert sizes[0] == sizes[1]


def test_a_long_walk_is_looked_at_in_fifty_places_and_a_time_that_comes_again_once() -> None:
    plan = replace(DRAWN, steps=None).plan(SCHEDULE)
    looked = points(plan)
    assert (len(looked), looked[0].t, looked[-1].t) == (POINTS, 999, 0)
    assert len(points(plan, STARTS)) == STARTS
    again = points(Sampling(Restart(), steps=18, spacing="karras").plan(SCHEDULE))
    times = [point.t for point in again]
    assert times == sorted(set(times), reverse=True)
    assert max(point.row for point in again) > len(again), "some rows were passed over"


def test_fewer_measures_are_fewer_curves() -> None:
    families = {
        "eps_norm": {"eps_norm.sampling", "eps_norm.training", "eps_norm.ratio"},
        "delta": {"delta", "drift"},
        "errors": {"x0_error.one_step", "x0_error.accumulated", "nu", "nu.normal"},
    }
    assert {*families} < {*MEASURES}
    for measure, names in families.items():
        assert {*measured(replace(DRAWN, steps=2), denoiser(), real(64), (measure,))} == names


def test_a_block_of_which_nothing_counts_adds_nothing() -> None:
    measurement = Measurement(generator(DRAWN, denoiser()), real(64), 64)
    sums, block = Sums(), measurement.block(0, 0)
    measurement._add(block, sums)
    assert all(not value.any() for value in sums.values.values())
    assert curves(replace(measurement, n=64), measurement.sums())["nu.normal"].value[0] < 0.2


@pytest.mark.parametrize("prediction_type", ["pred_eps", "pred_v"])
def test_a_captured_walk_gives_the_same_sums(prediction_type: str) -> None:
    """It overwrites its states, and what is begun within another walk must not stop that."""
    pytest.importorskip("triton")
    if not import_module("ddpm_ip.nn.fused.kernels").INTERPRETED:
        pytest.skip("on a GPU tests/gpu looks at the compiled kernels")
    sampling = replace(DRAWN, sampler=DPMSolver(), steps=2, block=2)
    plain = generator(sampling, denoiser(prediction_type=prediction_type))
    corrections = sampling.all_corrections()
    graph = Graph(plain.model.denoiser, corrections, plain.plan, 2, SHAPE, torch.device("cpu"))
    ours, theirs = (Measurement(one, real(2), 2).sums().values for one in (plain, replace(plain, graph=graph)))
    assert {*ours} == {*theirs}
    for key, value in ours.items():
        torch.testing.assert_close(theirs[key], value, rtol=1e-3, atol=1e-3)
