"""Many walks side by side: a visit of all images at a time, so that what is done after it can depend on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddpm_ip.denoiser import Prediction
from ddpm_ip.nn.network import Cond
from ddpm_ip.sample.generator import Generator
from ddpm_ip.sampler.walk import Visits


@dataclass
class Standing:
    """A block of images on their way.

    Attributes:
        indices: int64 (B,), which images of the seed.
        x: their states, float32 (B, C, H, W).
        memories: of the plan.
        seen: what the denoiser said at the last visit.
    """

    indices: Tensor
    x: Tensor
    memories: Sequence[Tensor | None]
    seen: Prediction | None = None


Visitor = Callable[[int, Standing, Tensor | None], tuple[Tensor, Sequence[Tensor | None], Prediction]]


def visitor(generator: Generator) -> Visitor:
    """Makes visit ``i`` of a block with labels (B,): the state and the memories afterwards, and what was seen.

    By the graph of the generator where it has one; what was seen is then overwritten by the next visit.
    """
    model, corrections, seed = generator.model, generator.sampling.all_corrections(), generator.sampling.seed

    def plain(i: int, block: Standing, labels: Tensor | None) -> tuple[Tensor, Sequence[Tensor | None], Prediction]:
        denoiser = replace(model.denoiser, cond=None if labels is None else Cond(labels))
        with model.autocast():
            return Visits(generator.plan, denoiser, seed, corrections)(i, block.x, block.memories, block.indices)

    def fast(i: int, block: Standing, labels: Tensor | None) -> tuple[Tensor, Sequence[Tensor | None], Prediction]:
        assert generator.graph is not None
        cond = None if labels is None else Cond(labels)
        return generator.graph.visit(i, block.x, block.memories, block.indices, cond)

    if generator.graph is None:
        return plain
    generator.graph.load(generator.plan, corrections, seed)  # another generator may have used it meanwhile
    return fast


class Lockstep:
    """This process's blocks of the first ``n`` images of a generator, from noise to images.

    It keeps the states of all its images: 4 bytes a number, and as much for each memory of the plan.

    Args:
        generator: model and sampling.
        n: images, rounded up to whole blocks.

    Attributes:
        count: blocks of all processes; block ``j`` of process ``p`` is block ``j P + p`` of P processes.
        blocks: this process's.
    """

    def __init__(self, generator: Generator, n: int) -> None:
        engine, device, size = generator.model.engine, generator.model.device, generator.block
        self.generator, self.plan = generator, generator.plan
        self.count = -(-n // size)
        mine = range(engine.process_index, self.count, engine.num_processes)
        self.blocks = [self._begun(torch.arange(b * size, (b + 1) * size, device=device)) for b in mine]

    def _begun(self, indices: Tensor) -> Standing:
        x = self.generator.noise(indices)
        return Standing(indices, x if self.plan.start == 1 else self.plan.start * x, [None] * self.plan.memories)

    def visit(self, i: int) -> Iterator[Standing]:
        """All blocks, each after visit ``i``; what was seen there lasts until the next block is asked for."""
        visit = visitor(self.generator)
        for block in self.blocks:
            block.x, block.memories, block.seen = visit(i, block, self.generator.labels(block.indices))
            yield block
            block.seen = None

    def change(self, block: Standing, change: Tensor, weights: Sequence[float]) -> None:
        """Adds a change (B, C, H, W) to the state of a block and to its memories, each as often as ``weights`` say."""
        moved = [
            z if w == 0 or z is None else z + w * change
            for w, z in zip(weights, [block.x, *block.memories], strict=True)
        ]
        assert moved[0] is not None
        block.x, block.memories = moved[0], moved[1:]
