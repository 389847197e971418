"""Many walks side by side: a visit of all images at a time, so that what is done after it can depend on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddpm_ip.denoiser import Prediction
from ddpm_ip.nn.network import Cond
from ddpm_ip.sample.generator import Generator
from ddpm_ip.sampler.walk import Visits, changed


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


class Lockstep:
    """This process's blocks of the first ``n`` images of a generator, from noise to images.

    It keeps the states of all its images: 4 bytes a number, and as much for each memory of the plan.

    Args:
        generator: model and sampling.
        n: images, rounded up to whole blocks on each process.
    """

    def __init__(self, generator: Generator, n: int) -> None:
        engine, device, size = generator.model.engine, generator.model.device, generator.block
        self.generator, self.plan = generator, generator.plan
        if generator.graph is not None:
            generator.graph.load(self.plan, generator.sampling.all_corrections(), generator.sampling.seed)
        each = -(-n // (size * engine.num_processes))
        mine = range(engine.process_index, each * engine.num_processes, engine.num_processes)
        self.blocks = [self._begun(torch.arange(b * size, (b + 1) * size, device=device)) for b in mine]

    def _begun(self, indices: Tensor) -> Standing:
        x = self.generator.noise(indices)
        return Standing(indices, x if self.plan.start == 1 else self.plan.start * x, [None] * self.plan.memories)

    def visit(self, i: int) -> Iterator[Standing]:
        """All blocks, each after visit ``i``; what was seen there lasts until the next block is asked for."""
        visit = self._visit()
        for block in self.blocks:
            block.x, block.memories, block.seen = visit(i, block)
            yield block
            block.seen = None

    def _visit(self) -> Callable[[int, Standing], tuple[Tensor, Sequence[Tensor | None], Prediction]]:
        generator, model = self.generator, self.generator.model
        corrections, seed = generator.sampling.all_corrections(), generator.sampling.seed

        def plain(i: int, block: Standing) -> tuple[Tensor, Sequence[Tensor | None], Prediction]:
            denoiser = replace(model.denoiser, cond=self._cond(block))
            with model.autocast():
                return Visits(self.plan, denoiser, seed, corrections)(i, block.x, block.memories, block.indices)

        def fast(i: int, block: Standing) -> tuple[Tensor, Sequence[Tensor | None], Prediction]:
            assert generator.graph is not None
            return generator.graph.visit(i, block.x, block.memories, block.indices, self._cond(block))

        return plain if generator.graph is None else fast

    def _cond(self, block: Standing) -> Cond | None:
        labels = self.generator.labels(block.indices)
        return None if labels is None else Cond(labels)

    def change(self, i: int, block: Standing, change: Tensor) -> None:
        """Adds to the state of a block after visit ``i``, (B, C, H, W), and to the memories that carry it."""
        block.x, block.memories = changed(change, self.plan.carry[i].tolist(), block.x, block.memories)
