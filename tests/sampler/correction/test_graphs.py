"""Corrections in the walk that a CUDA graph records, in Triton's interpreter, against the plain walk."""

from __future__ import annotations

import pytest
import torch
from tests.sampler.oracle import ROWS, SHAPE, heun, network, network_with_variance

pytest.importorskip("triton")

from tests.sampler.test_graph import CPU, TWO, assert_same, kept, memories, same_noise

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.nn.fused import kernels
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver, walk
from ddpm_ip.sampler.correction import (
    TSR,
    Clip,
    Correction,
    EpsilonScaling,
    IPEmulator,
    TimeShift,
    VarianceNormalisation,
)
from ddpm_ip.sampler.graph import Graph
from ddpm_ip.schedule import Schedule

pytestmark = pytest.mark.skipif(not kernels.INTERPRETED, reason="on a GPU tests/gpu looks at the compiled kernels")
__all__ = ["same_noise"]  # a fixture, for every test here

TIMES = [800, 500, 200]
SETTINGS: list[list[list[Correction]]] = [
    [
        [EpsilonScaling(1.02), TimeShift(80, 100), Clip("keep_eps")],
        [EpsilonScaling(times=(0, 900), scales=(1.0, 1.1)), TimeShift(0, 0, "released"), Clip("none")],
        [EpsilonScaling(1.0, 0.01, "data"), TimeShift(60, 100, "released"), Clip("rederive")],
    ],
    [
        [IPEmulator(0.2), TSR(0.9, 0.4), VarianceNormalisation(100), Clip()],
        [IPEmulator(0.1, undo=True), TSR(1.1), VarianceNormalisation(0), Clip("none")],
    ],
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["time shift", "emulator"])
def test_one_graph_serves_every_setting_and_walks_as_the_plain_walk(settings: list[list[Correction]]) -> None:
    schedule = Schedule()
    denoiser = Denoiser(network, schedule, "pred_v")
    plans = (
        [DDIM().plan(schedule, TIMES)] * 3 if len(settings) == 3 else [heun(schedule, TIMES), memories(schedule, TIMES)]
    )
    graph = Graph(denoiser, settings[0], plans[0], 2, SHAPE, CPU)
    for corrections, plan in zip(settings, plans, strict=True):
        graph.load(plan, corrections, 7)
        assert_same(kept(graph(TWO)), kept(walk(plan, denoiser, 7, TWO, SHAPE, corrections)), exact=False)


def test_with_samplers_of_memories_noise_and_a_learned_variance() -> None:
    schedule = Schedule(1000, "cosine")
    denoiser = Denoiser(network_with_variance, schedule, learned_variance=True)
    corrections = [IPEmulator(), EpsilonScaling(), TimeShift(80), Clip()]
    graph = Graph(denoiser, corrections, DPMSolver(2).plan(schedule, TIMES), 2, SHAPE, CPU)
    for sampler in (DPMSolver(2), Ancestral("learned_range")):
        plan = sampler.plan(schedule, TIMES)
        graph.load(plan, corrections, 3)
        assert_same(kept(graph(TWO)), kept(walk(plan, denoiser, 3, TWO, SHAPE, corrections)), exact=False)


@pytest.mark.parametrize("correction", [EpsilonScaling(1.1), IPEmulator(0.3), TimeShift(100)], ids=lambda c: c.name)
def test_the_first_visit_says_what_the_network_itself_was_asked(correction: Correction) -> None:
    """What it put out is compared with the plain network's answer to the same question."""
    schedule = Schedule()
    denoiser = Denoiser(network, schedule)
    plan = DDIM().plan(schedule, TIMES)
    graph = Graph(denoiser, [correction, Clip()], plan, 4, SHAPE, CPU)
    xt, t, output, cond = graph.first_visit()
    assert cond is None
    torch.testing.assert_close(output, network(xt, t))
    if isinstance(correction, IPEmulator):
        assert 800 < float(t[0]) < 810
        assert (output - network(next(graph(ROWS)).xt, torch.full((4,), 800.0))).abs().max() > 0.01
