r"""The measurements: walks of a generator, and its network on real noisy images of the same levels.

What is measured, by the name under which it is summed (:class:`ddpm_ip.exposure.sums.Sums`), at each point of the walk:

    norm.sampling, norm.real     ||eps||, of sampling runs from noise, and of true x_t = alpha x_0 + sigma eps
    energy.*.sampling, .real     of x_t and of the predicted x_0, by band
    r, x, x0                     x_t - alpha x_0 and x_t, of walks that begin with a true x_T; and x_0
    one_step, accumulated, e     x_0 less its prediction at a true x_t; less the end of a walk from there
    normal, groups               the share of pixels whose errors are not normal, of groups of images

**Which eps.** What the network itself says, before the corrections of the sampling and before clipping, on both sides:
ADM-ES asks for the eps of training instead of the true eps (whose norm is known), and a factor that is then applied to
both sides would hide in neither. Corrections that ask the network elsewhere do so on both sides, too, and those of the
state act in sampling alone, as they do when images are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_ip.denoiser import Prediction
from ddpm_ip.draws import Draws
from ddpm_ip.errors import ConfigError
from ddpm_ip.exposure.bands import energies
from ddpm_ip.exposure.normality import LEAST, p_values
from ddpm_ip.exposure.sums import Sums, counts
from ddpm_ip.images import to_unit
from ddpm_ip.nn.network import Cond
from ddpm_ip.sample.generator import Generator
from ddpm_ip.sampler import Plan
from ddpm_ip.sampler.walk import Visits, asked

MEASURES = ("eps_norm", "delta", "errors", "energy")
POINTS = 50  # of a walk, at most
STARTS = 10  # of the walks of ``errors``, at most
GROUP = 64  # images whose errors are tested for normality together
LEVEL = 0.05  # of the test


@dataclass(frozen=True, eq=False)
class Real:
    """Real images.

    Attributes:
        pixels: (N, C, H, W) on the CPU, N >= 1: ``uint8``, or float32 in [-1, 1].
        labels: int64 (N,), what the network is told about them; None for an unconditional network.
    """

    pixels: Tensor
    labels: Tensor | None = None


class Block(NamedTuple):
    """Images that go through the network together.

    Attributes:
        indices: int64 (B,); those beyond the last image fill up the block.
        weights: of :func:`counts`, float64 (1 + replicates, B).
        x0: real images, float32 (B, C, H, W).
        labels: of them, int64 (B,), or None.
    """

    indices: Tensor
    weights: Tensor
    x0: Tensor
    labels: Tensor | None


class Point(NamedTuple):
    """A state of the walk that is looked at: the visits before it, its time and its level."""

    row: int
    t: float
    alpha: float
    sigma: float


def points(plan: Plan, most: int = POINTS) -> list[Point]:
    """Where the walk is looked at, by falling time: at states before a visit, evenly taken where there are many.

    Where a walk comes to a time again, only its last state there counts. The state after the last visit is none of
    them; see :func:`last_point`.
    """
    begins = [True, *plan.state[:-1].tolist()]
    found = {t: i for i, (t, begin) in enumerate(zip(plan.t.tolist(), begins, strict=True)) if begin}
    rows = [found[t] for t in sorted(found, reverse=True)]
    if len(rows) > most:
        rows = [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]
    return [Point(i, float(plan.t[i]), float(plan.alpha[i]), float(plan.sigma[i])) for i in rows]


def last_point(plan: Plan) -> Point:
    """The state after the last visit."""
    return Point(plan.visits, plan.end, float(plan.after[-1, 0]), float(plan.after[-1, 1]))


@dataclass(frozen=True, eq=False)
class Measurement:
    """One generator and real images, and what is to be measured.

    Attributes:
        generator: how images are made.
        real: as many images as are measured, or fewer, which are then taken again.
        n: images.
        measures: of :data:`MEASURES`.
    """

    generator: Generator
    real: Real
    n: int
    measures: tuple[str, ...] = MEASURES

    def sums(self, progress: Callable[[int], object] = lambda images: None) -> Sums:
        """This process's sums; its blocks are those of :meth:`Generator.mine`.

        A process without any measures the first block, in which then nothing counts, so that all have the same names.

        Args:
            progress: called with the number of images after each block.
        """
        generator, engine = self.generator, self.generator.model.engine
        blocks = range(engine.process_index, -(-self.n // generator.block), engine.num_processes)
        sums = Sums()
        for number in blocks:
            self._add(self.block(number, self.n), sums)
            progress(min(generator.block, self.n - number * generator.block))
        if not blocks:
            self._add(self.block(0, 0), sums)
        return sums

    def block(self, number: int, n: int) -> Block:
        """A block of images, of which those below ``n`` count."""
        size, device, real = self.generator.block, self.generator.model.device, self.real
        indices = torch.arange(number * size, (number + 1) * size)
        which = indices % len(real.pixels)
        x0 = real.pixels[which].to(device)
        labels = None if real.labels is None else real.labels[which].to(device)
        indices = indices.to(device)
        weights = counts(self.generator.sampling.seed, indices, n)
        return Block(indices, weights, to_unit(x0) if x0.dtype == torch.uint8 else x0, labels)

    @torch.no_grad()
    def _add(self, block: Block, sums: Sums) -> None:
        sums.add(("n", 0), block.weights, torch.ones_like(block.weights[:1].T))
        if {"eps_norm", "energy"} & {*self.measures}:
            self._sampling(block, sums)
            self._on_real(block, sums)
        if "delta" in self.measures:
            self._delta(block, sums)
        if "errors" in self.measures:
            self._errors(block, sums)

    def _sampling(self, block: Block, sums: Sums) -> None:
        """Real sampling runs."""
        rows, xt = {point.row for point in self.points}, block.x0
        for state in self.generator.walk(block.indices):
            if state.seen is not None and state.row - 1 in rows:
                self._tell("sampling", state.row - 1, xt, state.seen, block, sums)
            if state.row in rows or state.row == self.last.row:
                xt = state.xt if self._is_eps else state.xt.clone()  # a graph overwrites it
                self._tell_energy("xt", "sampling", state.row, state.xt, block, sums)

    def _on_real(self, block: Block, sums: Sums) -> None:
        """The same on true states of the same levels."""
        drawn: dict[int, Tensor] = {}

        def states() -> Iterator[tuple[int, Tensor]]:
            for point in self.points:
                drawn[point.row] = self._true(point, block)
                yield point.row, drawn[point.row]

        visits = self.generator.visits(states(), block.indices, block.labels)
        for point, seen in zip(self.points, visits, strict=True):
            xt = drawn.pop(point.row)
            self._tell("real", point.row, xt, seen, block, sums)
            self._tell_energy("xt", "real", point.row, xt, block, sums)
        self._tell_energy("xt", "real", self.last.row, self._true(self.last, block), block, sums)
        self._tell_energy("clean", "real", 0, block.x0, block, sums)

    def _tell(self, side: str, row: int, xt: Tensor, seen: Prediction, block: Block, sums: Sums) -> None:
        """Adds what the network says of a state."""
        if "eps_norm" in self.measures:
            norm = self._eps(row, xt, seen, block).flatten(1).norm(dim=1, keepdim=True)
            sums.add((f"norm.{side}", row), block.weights, norm)
        self._tell_energy("x0", side, row, seen.x0, block, sums)

    def _tell_energy(self, what: str, side: str, row: int, images: Tensor, block: Block, sums: Sums) -> None:
        if "energy" in self.measures:
            sums.add((f"energy.{what}.{side}", row), block.weights, energies(images))

    def _delta(self, block: Block, sums: Sums) -> None:
        """Walks that begin with true states at the first level."""
        plan = self.generator.plan
        levels = {point.row: point.alpha for point in self.later}
        start = float(plan.alpha[0]) * block.x0 + float(plan.sigma[0]) * self.generator.noise(block.indices)
        sums.add_moments("x0", 0, block.weights, block.x0)
        for state in self.generator.walk(block.indices, start, block.labels):
            if state.row in levels:
                sums.add_moments("r", state.row, block.weights, state.xt - levels[state.row] * block.x0)
                sums.add_moments("x", state.row, block.weights, state.xt)

    def _errors(self, block: Block, sums: Sums) -> None:
        """Walks from true states at several levels to the end."""
        for point, generator in self.starts:
            walk = generator.walk(block.indices, self._true(point, block), block.labels)
            one_step, end = None, block.x0
            for state in walk:
                if one_step is None and state.seen is not None:
                    one_step = block.x0 - state.seen.x0
                end = state.xt
            assert one_step is not None, "a walk has a visit"
            error = block.x0 - end
            for name, images in (("one_step", one_step), ("accumulated", error)):
                squares = images.square().flatten(1).mean(dim=1, keepdim=True)
                sums.add((f"error.{name}", point.row), block.weights, squares)
            sums.add_moments("e", point.row, block.weights, error)
            _add_normality(point.row, error, block, sums)

    def _true(self, point: Point, block: Block) -> Tensor:
        """``alpha x_0 + sigma eps``, with the same noise for image i at the level whatever else is measured."""
        if point.sigma == 0:
            return block.x0 if point.alpha == 1 else point.alpha * block.x0
        word = max(0, round(point.t * 1024)) + 1
        noise = Draws(self.generator.sampling.seed, word, block.indices).eps(block.x0.shape[1:])
        return point.alpha * block.x0 + point.sigma * noise

    def _eps(self, row: int, xt: Tensor, seen: Prediction, block: Block) -> Tensor:
        """What the network itself says, (B, C, H, W)."""
        if self._is_eps:
            return seen.output
        generator, known = self.generator, self.generator.model.denoiser
        told = None if block.labels is None else Cond(block.labels)
        x, at = asked(generator.sampling.all_corrections(), xt, self._visits.row(row, xt)._replace(cond=told))
        return known.read(seen.output, x, at.alpha, at.sigma)[1]

    @property
    def _is_eps(self) -> bool:
        return self.generator.model.denoiser.prediction_type == "pred_eps"

    @cached_property
    def _visits(self) -> Visits:
        generator = self.generator
        sampling = generator.sampling
        return Visits(generator.plan, generator.model.denoiser, sampling.seed, sampling.all_corrections())

    @cached_property
    def points(self) -> list[Point]:
        """Where the walk is looked at, except for its end."""
        return points(self.generator.plan)

    @cached_property
    def last(self) -> Point:
        """Its end."""
        return last_point(self.generator.plan)

    @property
    def later(self) -> list[Point]:
        """The same without the state that walks begin with, and with the end."""
        return [*(point for point in self.points if point.row > 0), self.last]

    @cached_property
    def starts(self) -> list[tuple[Point, Generator]]:
        """Where the walks of ``errors`` begin, each with the walk of the same sampling from there to the end.

        A point from where the sampler cannot walk, since too few times are left, is none.
        """
        sampling, schedule = self.generator.sampling, self.generator.model.denoiser.schedule
        times = sampling.times(schedule)
        found = []
        for point in points(self.generator.plan, STARTS):
            left = tuple(t for t in times if t <= point.t)
            own = replace(sampling, spacing=left, steps=None, afs=False)
            try:
                found.append((point, replace(self.generator, sampling=own, plan=own.plan(schedule))))
            except (ConfigError, ValueError):
                continue
        return found


def _add_normality(row: int, error: Tensor, block: Block, sums: Sums) -> None:
    """Adds how many pixels' errors are not normal, of each whole group of images that count; pixels without any error
    are none.
    """
    counted = int((block.weights[0] > 0).sum())
    size = min(GROUP, len(error))
    if size < LEAST:
        return
    values = error.flatten(1)
    for first in range(0, len(error) - size + 1, size):
        found = p_values(values[first : first + size])
        share = (found < LEVEL).double().sum().reshape(1, 1) / found.isfinite().sum().clamp(min=1)
        one = torch.ones_like(share) * (first + size <= counted) * found.isfinite().any()
        told = torch.cat((one, share * one, share.square() * one), dim=1)
        sums.add(("normal", row), one, told)
