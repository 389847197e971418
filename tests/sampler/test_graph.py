"""The walk as a table on the device and one update kernel, in Triton's interpreter, against the plain walk."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.sampler.oracle import ROWS, SHAPE, heun, network, network_with_variance
from tests.sampler.test_walk import Pull
from torch import Tensor

pytest.importorskip("triton")

from ddpm_ip import draws_kernel
from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws, Stream, words
from ddpm_ip.nn.fused import kernels
from ddpm_ip.nn.network import Cond
from ddpm_ip.sampler import Ancestral, AnySampler, DDIMInversion, Plan, Rows, State, respace, walk
from ddpm_ip.sampler.correction import (
    DCW,
    AnyCorrection,
    Auto,
    BandGains,
    Clip,
    Correction,
    DynamicThresholding,
    Guidance,
)
from ddpm_ip.sampler.graph import Graph
from ddpm_ip.sampler.packed import packed
from ddpm_ip.schedule import Schedule
from ddpm_ip.variants import variants

pytestmark = pytest.mark.skipif(not kernels.INTERPRETED, reason="on a GPU tests/gpu looks at the compiled kernels")
SAMPLERS = [cls() if cls is not Ancestral else Ancestral("fixed_small") for cls in variants(AnySampler)]
CORRECTIONS = sorted(  # guidance is the first; auto stands for others
    [cls() for cls in variants(AnyCorrection) if cls is not Auto], key=lambda c: -c.asks
)
LABELS = Cond(torch.tensor([3, -1]))
CPU = torch.device("cpu")
TWO = ROWS[:2]  # an interpreted visit costs 20 ms an image


@pytest.fixture(autouse=True)
def same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain walk draws what the kernels draw: their logarithm is NumPy's here, not PyTorch's."""

    def normal(self: Draws, stream: Stream, shape: Any) -> Tensor:
        step = self.step if isinstance(self.step, Tensor) else torch.tensor(self.step)
        return draws_kernel.normal(self.rows, step, self.seed, int(stream), tuple(shape))

    monkeypatch.setattr(Draws, "normal", normal)


def kept(states: Iterator[State]) -> list[State]:
    return [
        State(s.row, s.t, s.xt.clone(), None if s.seen is None else s.seen._replace(x0=s.seen.x0.clone()), s.finished)
        for s in states
    ]


def assert_same(found: list[State], expected: list[State], exact: bool = True) -> None:
    assert [(s.row, s.t, s.finished) for s in found] == [(s.row, s.t, s.finished) for s in expected]
    for a, b in zip(found, expected, strict=True):
        assert (a.x0 is None) == (b.x0 is None)
        pairs = [(a.xt, b.xt), *([] if a.x0 is None else [(a.x0, b.x0)])]
        for x, y in pairs:
            torch.testing.assert_close(x, y, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6)


def memories(schedule: Schedule, times: list[int]) -> Plan:
    """Three memories in use, set one after the other, with noise: nothing that means anything."""
    rows = Rows(schedule, memories=3)
    m1, m2, m3 = rows.m
    for i, (t, s) in enumerate(zip(times, [*times[1:], -1], strict=True)):
        past = [m1, m1 - m2, m1 - 0.5 * m2 + 0.25 * m3][min(i, 3) - 1] if i else 0 * m1
        new = 0.7 * rows.x + 0.2 * rows.x0 - 0.1 * rows.eps + 0.05 * past + 0.3 * rows.noise
        rows.add(t, s, new, [rows.x0 + 0.1 * rows.noise, m1, m2], carry=[True, False, True, False])
    return rows.plan(start=1.25)


PLANS = {
    "fixed_large": lambda s: Ancestral("fixed_large").plan(s, respace(1000, 5)),
    "fixed_small": lambda s: Ancestral("fixed_small").plan(s, respace(1000, 3)),
    "heun": lambda s: heun(s, respace(1000, 3)),
    "three memories": lambda s: memories(s, respace(1000, 5)),
}


@pytest.mark.large
@pytest.mark.parametrize("clip", ["rederive", "keep_eps", "none"])
@pytest.mark.parametrize("name", PLANS)
def test_the_table_walks_as_the_plain_walk_to_the_last_bit(name: str, clip: str) -> None:
    schedule = Schedule()
    denoiser, plan, corrections = Denoiser(network, schedule), PLANS[name](schedule), [Clip(clip)]
    graph = Graph(denoiser, corrections, plan, 4, SHAPE, CPU)
    graph.load(plan, corrections, 2**40 + 7)
    assert_same(kept(graph(ROWS)), kept(walk(plan, denoiser, 2**40 + 7, ROWS, SHAPE, corrections)))


def test_one_table_serves_every_sampler_number_of_steps_seed_and_setting() -> None:
    """Refilled in turn; nothing of an earlier filling is left. The last is the first again, for other images."""
    schedule = Schedule()
    denoiser = Denoiser(network, schedule)
    graph = Graph(denoiser, [Pull(0.1), Clip()], PLANS["heun"](schedule), 2, SHAPE, CPU)
    for name, share, clip, seed, rows in (
        ("three memories", 0.0, "none", 1, TWO),
        ("fixed_large", 0.25, "rederive", 2**63, TWO + 4),
        ("heun", 0.5, "keep_eps", 0, TWO),
        ("fixed_small", 0.25, "rederive", 5, TWO),
        ("three memories", 0.0, "none", 1, TWO + 4),
    ):
        plan, corrections = PLANS[name](schedule), [Pull(share), Clip(clip)]
        graph.load(plan, corrections, seed)
        assert_same(kept(graph(rows)), kept(walk(plan, denoiser, seed, rows, SHAPE, corrections)))


def test_a_learned_variance_differs_by_the_rounding_of_the_exponential() -> None:
    schedule = Schedule()
    denoiser = Denoiser(network_with_variance, schedule, "pred_eps", True)
    graph = Graph(denoiser, [Clip()], PLANS["heun"](schedule), 2, SHAPE, CPU)
    plan = Ancestral("learned_range").plan(schedule, respace(1000, 5))
    graph.load(plan, [Clip()], 3)
    assert_same(kept(graph(TWO)), kept(walk(plan, denoiser, 3, TWO, SHAPE, [Clip()])), exact=False)
    fixed = PLANS["fixed_small"](schedule)  # the same graph, a network that could do more
    graph.load(fixed, [Clip()], 3)
    assert_same(kept(graph(TWO)), kept(walk(fixed, denoiser, 3, TWO, SHAPE, [Clip()])))


def partial_sums(schedule: Schedule, times: list[int]) -> Plan:
    """What the network sees is a prediction; a memory holds the state itself, and takes on its corrections."""
    rows = Rows(schedule, memories=2)
    for t, s in zip(times, [*times[1:], -1], strict=True):
        state = rows.x if t == times[0] else rows.m[0] + 0.2 * rows.x0
        ratio = schedule.level(s).sigma / schedule.level(t).sigma
        kept = ratio * state + 0.3 * rows.eps + 0.1 * rows.noise * (s >= 0)
        seen = [rows.x0, 0 * rows.x] if s < 0 else [kept + 0.5 * rows.x0, rows.x0]
        rows.add(t, s, seen[0], [kept, seen[1]], carry=[True, True, False])
    return rows.plan()


def random_weights(schedule: Schedule, times: list[int], memories: int) -> Plan:
    """Every component from every other, and from the noise; memories carry a change or do not, by chance."""
    rows, source = Rows(schedule, memories), torch.Generator().manual_seed(memories)
    for t, s in zip(times, [*times[1:], -1], strict=True):
        x, *m = 0.3 * torch.randn(1 + memories, 4 + memories, dtype=torch.float64, generator=source)
        if t == times[0]:  # they are not set yet
            for form in (x, *m):
                form[1 : 1 + memories] = 0
        carry = [True, *(torch.rand(memories, generator=source) < 0.5).tolist()]
        rows.add(t, s, x, m, carry=carry)
    return rows.plan()


def test_changes_after_a_visit_reach_memories_and_stages_as_in_the_plain_walk() -> None:
    """Memories that carry a change and such that do not, inner stages, a learned variance: the same to the last bit."""
    schedule, times = Schedule(), [900, 500, 100]
    learned = Denoiser(network_with_variance, schedule, "pred_eps", True)
    gains = BandGains((1.05, 0.9), (((900, 1.1), (100, 1.2)), 0.95, 1.1))
    given = [DynamicThresholding(0.9), DCW(0.1, 0.05, "constant"), gains, Clip()]
    graph = Graph(learned, given, PLANS["fixed_large"](schedule), 2, SHAPE, CPU)
    plans = {
        "sums": partial_sums(schedule, times),
        "random": random_weights(schedule, times, 3),
        "heun": heun(schedule, times),
        "learned_range": Ancestral("learned_range").plan(schedule, times),
    }
    for name, plan in plans.items():
        graph.load(plan, given, 7)
        expected = kept(walk(plan, learned, 7, TWO, SHAPE, given))
        assert_same(kept(graph(TWO)), expected, exact=name != "learned_range")
        if name == "sums":
            alone = plan._replace(carry=torch.tensor([[1.0, 0, 0]]).expand(plan.visits, -1))
            *_, last = walk(alone, learned, 7, TWO, SHAPE, given)
            assert (last.xt - expected[-1].xt).abs().max() > 1e-3, "the last visit sees what the memory carries"


def assert_walks_as_a_table(sampler: AnySampler, corrections: list[Correction], steps: int) -> None:
    """The graph is made with other settings of the corrections: nothing of those may be left."""
    schedule = Schedule()
    denoiser, plan = Denoiser(network, schedule, cond=LABELS), sampler.plan(schedule, respace(1000, steps))
    made_with = [*map(_other, corrections), Clip("none")]
    graph = Graph(denoiser, made_with, Ancestral("fixed_large").plan(schedule, [500]), 2, SHAPE, CPU)
    graph.load(plan, [*corrections, Clip()], 5)
    found = kept(graph(TWO, cond=LABELS))
    assert_same(found, kept(walk(plan, denoiser, 5, TWO, SHAPE, [*corrections, Clip()])))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_every_sampler_with_all_corrections_is_the_same_walk_as_a_table(sampler: AnySampler) -> None:
    assert_walks_as_a_table(sampler, CORRECTIONS, steps=5)


@pytest.mark.large
@pytest.mark.parametrize("correction", CORRECTIONS, ids=lambda c: c.name)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_every_sampler_with_every_correction_is_the_same_walk_as_a_table(
    sampler: AnySampler, correction: Correction
) -> None:
    assert_walks_as_a_table(sampler, [correction], steps=4)


def _other(correction: Any) -> Any:
    """The same with its numbers moved a little."""
    numbers = {
        f.name: value * 0.9
        for f in dataclasses.fields(correction)
        if isinstance(value := getattr(correction, f.name), float)
    }
    return dataclasses.replace(correction, **numbers)


def test_what_needs_another_graph_is_refused() -> None:
    schedule = Schedule()
    denoiser, plan = Denoiser(network, schedule), PLANS["fixed_large"](schedule)
    graph = Graph(denoiser, [Clip()], plan, 4, SHAPE, CPU)
    with pytest.raises(AssertionError, match="a graph of their own"):
        graph.load(plan, [Pull(0.1), Clip()], 0)


def test_two_walks_along_one_graph_at_a_time_are_refused() -> None:
    schedule = Schedule()
    denoiser, plan = Denoiser(network, schedule), PLANS["fixed_large"](schedule)
    graph = Graph(denoiser, [Clip()], plan, 4, SHAPE, CPU)
    first = graph(ROWS)
    next(first)
    next(graph(ROWS))
    with pytest.raises(RuntimeError, match="another walk"):
        next(first)


def test_a_row_says_what_changes_and_what_is_used() -> None:
    """What the kernel neither loads nor stores costs no memory traffic: an ancestral step uses x, x0 and the noise."""
    table = packed(PLANS["fixed_large"](Schedule()), {})
    assert table[0, 28:32].tolist() == [1, 0, 0, 0]
    assert table[0, 32:39].tolist() == [1, 0, 0, 0, 1, 0, 1]
    assert table[-1, 32:39].tolist() == [0, 0, 0, 0, 1, 0, 0], "the last step is the prediction"
    assert table[0, 39:42].tolist() == [0, 0, 0], "no learned variance"


@pytest.mark.parametrize("seed", [0, 7, 2**40 + 3, 2**64 - 1])
def test_a_seed_on_the_device_draws_the_same(seed: int) -> None:
    rows, step = torch.arange(3), torch.tensor(5)
    plain = Draws(seed, 5, rows).bits(Stream.STEP, 10)
    assert torch.equal(Draws(words(seed), 5, rows).bits(Stream.STEP, 10), plain)
    assert torch.equal(draws_kernel.bits(rows, step, seed, int(Stream.STEP), 10), plain)
    assert torch.equal(draws_kernel.bits(rows, step, words(seed), int(Stream.STEP), 10), plain)


def test_a_walk_from_a_given_state_and_one_upwards() -> None:
    """The next walk along the same table begins with what it draws again, scaled by its plan."""
    schedule, x = Schedule(), torch.linspace(-1, 1, 4 * 48).reshape(4, *SHAPE)
    denoiser, up = Denoiser(network, schedule), DDIMInversion().plan(schedule, [999, 400])
    down = memories(schedule, [999, 400])
    graph = Graph(denoiser, [Clip()], down, 4, SHAPE, CPU)
    for plan, clip, start in ((up, "none", x), (down, "rederive", x), (down, "rederive", None)):
        graph.load(plan, [Clip(clip)], 7)
        expected = walk(plan, denoiser, 7, ROWS, SHAPE if start is None else start, [Clip(clip)])
        assert_same(kept(graph(ROWS, start)), kept(expected))


def test_one_capture_serves_all_labels_and_scales_of_guidance() -> None:
    """The network reads the labels where they stay; none given is none, and so is a scale of 1."""
    schedule = Schedule()
    asked: list[Tensor] = []

    def told(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        asked.append(cond.labels)
        return network(x, t, cond)

    denoiser, plan = Denoiser(told, schedule, "pred_v", cond=Cond(ROWS)), heun(schedule, [900, 300])
    graph = Graph(denoiser, [Guidance(), Clip("none")], plan, 4, SHAPE, CPU)
    for labels, guidance in (([3, 0, -1, 2], Guidance(2.5)), ([1, 1, 1, 1], Guidance(3, start=500, stop=200))):
        cond, corrections = Cond(torch.tensor(labels)), [guidance, Clip()]
        graph.load(plan, corrections, 9)
        expected = walk(plan, dataclasses.replace(denoiser, cond=cond), 9, ROWS, SHAPE, corrections)
        assert_same(kept(graph(ROWS, cond=cond)), kept(expected))
    asked.clear()
    visit = graph.first_visit(Cond(torch.tensor([2, 2, 0, 1])))
    assert [labels.tolist() for labels in asked] == [[2, 2, 0, 1], [-1] * 4], "with the class first, then without"
    assert visit.cond is not None
    torch.testing.assert_close(visit.output, network(visit.xt, visit.t, visit.cond))
    graph.load(plan, [Guidance(1), Clip()], 9)
    nobody = dataclasses.replace(denoiser, cond=Cond(torch.full((4,), -1)))
    assert_same(kept(graph(ROWS)), kept(walk(plan, nobody, 9, ROWS, SHAPE, [Clip()])))


def test_an_unconditional_network_is_asked_without_labels() -> None:
    plan, seen = heun(Schedule(), [900, 300]), []

    def unconditional(x: Tensor, t: Tensor, *more: Cond) -> Tensor:
        seen.append(more)
        return network(x, t)

    graph = Graph(Denoiser(unconditional, Schedule()), [Clip()], plan, 4, SHAPE, CPU)
    kept(graph(ROWS, cond=Cond(ROWS)))
    assert seen
    assert not any(seen)
