"""Visits one at a time, of states that the caller keeps, are the walk to the last bit: plain, and along a graph."""

from __future__ import annotations

import pytest
import torch
from tests.sampler.oracle import SHAPE, heun, network
from torch import Tensor

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.sampler import Ancestral, DPMSolver, Plan, Rows, UniPC, respace, walk
from ddpm_ip.sampler.correction import DCW, BandGains, Clip, Correction, VarianceNormalisation
from ddpm_ip.sampler.graph import Graph
from ddpm_ip.sampler.walk import Visits
from ddpm_ip.schedule import Schedule

SCHEDULE = Schedule()
GAINS = BandGains((1.05, 0.9), (((900.0, 1.1), (100.0, 1.2)), 0.95, 1.1))
CHANGES: list[Correction] = [DCW(0.1, 0.05, "constant"), GAINS, VarianceNormalisation(300.0), Clip()]


def three_memories(times: list[int]) -> Plan:
    """Set one after the other, with noise; the first carries what corrections change. Nothing that means anything."""
    rows = Rows(SCHEDULE, memories=3)
    m1, m2, m3 = rows.m
    for i, (t, s) in enumerate(zip(times, [*times[1:], -1], strict=True)):
        past = (0 * m1, m1, m1 - m2, m1 - 0.5 * m2 + 0.25 * m3)[min(i, 3)]
        new = 0.7 * rows.x + 0.2 * rows.x0 - 0.1 * rows.eps + 0.05 * past + 0.3 * rows.noise
        rows.add(t, s, new, [rows.x0 + 0.1 * rows.noise, m1, m2][: min(i, 2) + 1] + [0 * m1] * max(2 - i, 0),
                 carry=[True, True, False, False])  # fmt: skip
    return rows.plan(start=1.25)


PLANS = {
    "three memories": three_memories(respace(1000, 4)),
    "heun": heun(SCHEDULE, respace(1000, 3)),
    "unipc": UniPC().plan(SCHEDULE, respace(1000, 3)),
    "dpm_solver": DPMSolver().plan(SCHEDULE, respace(1000, 3)),
    "fixed_small": Ancestral("fixed_small").plan(SCHEDULE, respace(1000, 3)),
}


@pytest.mark.parametrize(("name", "fast"), [*((name, False) for name in PLANS), ("unipc", True)])
def test_visits_of_several_blocks_in_turn_are_their_walks(name: str, fast: bool) -> None:
    """Each block finds its own memories again, whatever another one has left where they are kept meanwhile."""
    plan, seed = PLANS[name], 2**40 + 7
    denoiser = Denoiser(network, SCHEDULE)
    blocks = [torch.arange(2), torch.arange(2) + 5]
    graph = _graph(denoiser, plan) if fast else None
    if graph is not None:
        graph.load(plan, CHANGES, seed)
    wanted = [_walked(plan, denoiser, seed, block, graph) for block in blocks]
    visits = graph.visit if graph is not None else Visits(plan, denoiser, seed, CHANGES)
    states: list[tuple[Tensor, list[Tensor | None]]] = [(want[0], [None] * plan.memories) for want in wanted]
    for i in range(plan.visits):
        for block, indices in enumerate(blocks):
            x, memories, seen = visits(i, *states[block], indices)
            assert torch.equal(x, wanted[block][i + 1])
            assert seen.x0.abs().max() <= 1
            states[block] = x, memories
    if graph is not None:  # and the graph's is the plain walk, but for the normal numbers' last bits
        *_, last = walk(plan, denoiser, seed, blocks[1], SHAPE, CHANGES)
        torch.testing.assert_close(states[1][0], last.xt, rtol=1e-4, atol=1e-5)


def _graph(denoiser: Denoiser, plan: Plan) -> Graph:
    pytest.importorskip("triton")
    from ddpm_ip.nn.fused.kernels import INTERPRETED

    if not INTERPRETED:
        pytest.skip("on a GPU tests/gpu looks at the compiled kernels")
    return Graph(denoiser, CHANGES, plan, 2, SHAPE, torch.device("cpu"))


def _walked(plan: Plan, denoiser: Denoiser, seed: int, indices: Tensor, graph: Graph | None) -> list[Tensor]:
    if graph is not None:
        return [state.xt.clone() for state in graph(indices)]
    return [
        state.xt
        for state in walk(plan, denoiser, seed, indices, Draws(seed, 0, indices).start(SHAPE) * plan.start, CHANGES)
    ]
