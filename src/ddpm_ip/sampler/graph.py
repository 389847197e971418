"""The walk along a plan as one CUDA graph, replayed for every visit: no Python and no waiting between the visits.

What changes from visit to visit is a row of a table on the device. The table is refilled for another plan, other
settings of the corrections, or another seed, so that one graph serves every sampler, number of steps and seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_ip.denoiser import Denoiser, Prediction
from ddpm_ip.draws import Draws, words
from ddpm_ip.nn.network import Cond
from ddpm_ip.sampler.base import MEMORIES, Plan, State
from ddpm_ip.sampler.correction.base import Correction, Row
from ddpm_ip.sampler.packed import CARRY, LEVEL, NUMBERS, packed
from ddpm_ip.sampler.walk import asked, corrected, numbers_of

CAPACITY = 2048  # visits that a table has room for, unless more are asked for


class Visit(NamedTuple):
    """What the network was asked, and what it returned.

    Attributes:
        xt: float32 (B, C, H, W).
        t: float32 (B,).
        output: (B, C, H, W); without variances, if they are learned.
        cond: None for an unconditional network.
    """

    xt: Tensor
    t: Tensor
    output: Tensor
    cond: Cond | None


class Kind(NamedTuple):
    """A correction as a graph knows it: its name, and how many numbers it works with at a visit."""

    name: str
    numbers: int


def kinds(plan: Plan, denoiser: Denoiser, corrections: Sequence[Correction]) -> tuple[Kind, ...]:
    """What corrections must have in common to share a graph."""
    return tuple(Kind(name, numbers.shape[1]) for name, numbers in _numbers(plan, denoiser, corrections).items())


def _numbers(plan: Plan, denoiser: Denoiser, corrections: Sequence[Correction]) -> dict[str, Tensor]:
    return numbers_of(plan, denoiser.schedule, denoiser.learned_variance, corrections)


class Graph:
    """The same walk as :func:`ddpm_ip.sampler.walk.walk`, for blocks of one size.

    It holds on to the denoiser, since a graph does not keep the weights alive that it reads. On a device without CUDA
    graphs the visits are made one by one, by the same code.

    Args:
        denoiser: the model, without anything in it that waits for the device. With a ``cond``, whatever it says, the
            network is told the labels of each block.
        corrections: those of the first walk; another may have other settings of the same kinds.
        block: images that are made together.
        shape: (C, H, W).
        device: where.
        capacity: the most visits of a plan.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        corrections: Sequence[Correction],
        plan: Plan,
        block: int,
        shape: Sequence[int],
        device: torch.device,
    ) -> None:
        self.denoiser, self.shape = denoiser, tuple(shape)
        self.capacity = max(CAPACITY, plan.visits)
        self.kinds = kinds(plan, denoiser, corrections)
        self._corrections, self._denoise = tuple(corrections), corrected(denoiser, corrections)
        self._plan, self._walks = plan, 0
        self._table = torch.zeros(self.capacity, NUMBERS + sum(k.numbers for k in self.kinds), device=device)
        self._words = torch.zeros(self.capacity, dtype=torch.int64, device=device)
        self._seed = torch.zeros(2, dtype=torch.int64, device=device)
        self._number = torch.zeros(1, dtype=torch.int64, device=device)
        self._indices = torch.arange(block, device=device)
        self._cond = None if denoiser.cond is None else Cond(torch.full((block,), -1, device=device))
        self._xt = torch.zeros(block, *shape, device=device)
        self._memories = torch.zeros(MEMORIES, block, *shape, device=device)
        self._seen: Prediction | None = None
        self.load(plan, corrections, 0)
        self._graph = self._capture() if device.type == "cuda" else None

    def load(self, plan: Plan, corrections: Sequence[Correction], seed: int) -> None:
        """Makes the following walks those of another plan, setting or seed.

        Args:
            plan: of any sampler, of at most ``capacity`` visits.
            corrections: of the kinds that the graph was made with, in the same order.
            seed: of the random numbers.
        """
        assert kinds(plan, self.denoiser, corrections) == self.kinds, "these corrections need a graph of their own"
        assert plan.visits <= self.capacity, "this plan needs a larger graph"
        table = packed(plan, _numbers(plan, self.denoiser, corrections))
        self._table[: plan.visits].copy_(table)
        self._words[: plan.visits].copy_(plan.word)
        self._seed.copy_(words(seed))
        self._plan = plan

    def __call__(self, indices: Tensor, start: Tensor | None = None, cond: Cond | None = None) -> Iterator[State]:
        """Walks from noise to the images ``indices`` (block,); a state is overwritten when the next is asked for.

        Args:
            indices: int64 (block,), which images of the seed.
            start: the state to begin with, float32 (block, C, H, W), which is copied; drawn if None.
            cond: the labels of the images, int64 (block,), which are copied; none of them has a class if None.

        Raises:
            RuntimeError: another walk has begun since: there is one state for all.
        """
        plan, times, finished = self._plan, self._plan.times(), self._plan.state.tolist()
        self._start(indices, start, cond)
        number = self._walks
        yield State(0, times[0], self._xt, None)
        for i in range(plan.visits):
            if number != self._walks:
                raise RuntimeError("another walk along the same graph has begun: finish one before the next")
            self._advance()
            yield State(i + 1, times[i + 1], self._xt, self._seen, finished[i])

    def visit(
        self, i: int, x: Tensor, memories: Sequence[Tensor | None], indices: Tensor, cond: Cond | None = None
    ) -> tuple[Tensor, list[Tensor | None], Prediction]:
        """One visit of states that the caller keeps, as :class:`ddpm_ip.sampler.walk.Visits` makes it.

        Args:
            i: the row of the plan.
            x: the states, float32 (block, C, H, W).
            memories: as many as the plan has; None where one is not set.
            indices: int64 (block,), which images of the seed.
            cond: their labels.

        Returns:
            State and memories afterwards, which are the caller's, and what was said, which the next visit overwrites.
        """
        self._start(indices, x, cond)
        for place, memory in zip(self._memories, memories, strict=False):
            if memory is not None:
                place.copy_(memory)
        self._number.fill_(i)
        self._advance()
        assert self._seen is not None
        return self._xt.clone(), [m.clone() for m in self._memories[: self._plan.memories]], self._seen

    def first_visit(self, cond: Cond | None = None) -> Visit:
        """What the network is asked first at the start of the first block, and what it returned.

        Without a correction that asks it in another way this is ``x_T``.

        Args:
            cond: the labels of the first block.
        """
        self._start(torch.arange(len(self._indices), device=self._indices.device), cond=cond)
        xt, row = asked(self._corrections, self._xt.clone(), self._row(self._table[0]))
        self._advance()
        assert self._seen is not None
        return Visit(xt, row.t.float(), self._seen.output, row.cond)

    def _start(self, indices: Tensor, start: Tensor | None = None, cond: Cond | None = None) -> None:
        self._walks += 1
        self._indices.copy_(indices)
        if self._cond is not None and self._cond.labels is not None:
            told = None if cond is None else cond.labels
            self._cond.labels.copy_(told) if told is not None else self._cond.labels.fill_(-1)
        if start is not None:
            self._xt.copy_(start)
        else:
            self._xt.copy_(Draws(self._seed, 0, self._indices).start(self.shape))
            if self._plan.start != 1:
                self._xt *= self._plan.start
        self._number.zero_()

    def _advance(self) -> None:
        if self._graph is None:
            self._seen = self._visit()
        else:
            self._graph.replay()

    @torch.no_grad()
    def _visit(self) -> Prediction:
        from ddpm_ip.sampler.update_kernel import update

        packed_row = self._table.index_select(0, self._number)[0]
        row = self._row(packed_row)
        seen = self._denoise(self._xt, row)
        update(self._xt, self._memories, seen, packed_row, Draws(self._seed, self._word(), self._indices))
        for correction in self._corrections:
            if (change := correction.after(self._xt, seen.x0, row)) is not None:
                carry = packed_row[CARRY : CARRY + 1 + MEMORIES]
                self._xt += carry[0] * change
                self._memories += carry[1:].reshape(-1, 1, 1, 1, 1) * change
        self._number += 1
        return seen

    def _word(self) -> Tensor:
        return self._words.index_select(0, self._number)

    def _row(self, packed_row: Tensor) -> Row:
        t, alpha, sigma = packed_row[LEVEL : LEVEL + 3]
        numbers = dict(zip(
            (k.name for k in self.kinds), packed_row[NUMBERS:].split([k.numbers for k in self.kinds]), strict=True
        ))  # fmt: skip
        level = alpha.reshape(1, 1, 1, 1), sigma.reshape(1, 1, 1, 1)
        return Row(t.expand(len(self._xt)), *level, numbers, self._cond)

    def _capture(self) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # compiles kernels and chooses algorithms, which cannot be done while recording
                self._start(self._indices)
                self._visit()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self._start(self._indices)
        with torch.cuda.graph(graph, stream=stream):
            self._seen = self._visit()
        return graph
