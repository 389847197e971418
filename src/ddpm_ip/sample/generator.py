"""Images from a model: fixed blocks of consecutive indices, whichever process makes them.

Image ``i`` depends on (weights, sampling, i) only, and the block is part of the sampling. Each block of ``block``
consecutive indices goes through the network as one batch, padded to that size, so that the number of GPUs, an
interruption, or how many images are wanted change no byte.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module

from ddpm_ip.denoiser import Denoiser, Prediction
from ddpm_ip.draws import Draws
from ddpm_ip.engine import agreed, in_one_line, refuse_too_much, why_not_fast
from ddpm_ip.errors import ConfigError, Diverged
from ddpm_ip.images import UInt8, to_uint8
from ddpm_ip.memory import is_out_of_memory
from ddpm_ip.nn.network import Cond
from ddpm_ip.run.tensors import first_not_finite
from ddpm_ip.sampler import Plan, State, VarType, walk
from ddpm_ip.sampler.graph import Graph, Kind, kinds
from ddpm_ip.sampler.sampling import Computed, Sampling
from ddpm_ip.sampler.walk import Visits

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ddpm_ip.config import Config
    from ddpm_ip.nn.fused.operations import Shadow
    from ddpm_ip.sampler.classes import KnownClasses

log = logging.getLogger("ddpm_ip.generate")


def image_bytes(config: Config, precision: str) -> int:
    """An estimate, on the safe side, of the GPU memory that one image takes while the network is evaluated.

    The estimate is twice what the activations take that are alive at one time.
    """
    _, height, width = config.shape
    return 2 * config.model.activation_bytes(height, width, 4 if precision == "no" else 2)


def refuse_too_many(config: Config, engine: Accelerator, images: int) -> None:
    """Fails before the work begins if this many images at once certainly take more memory than there is.

    Raises:
        MemoryError: they take a quarter of what :func:`image_bytes` estimates, and that is too much.
    """
    refuse_too_much(engine.device, images * image_bytes(config, engine.mixed_precision) // 4)


@dataclass(frozen=True, eq=False)
class Generator:
    """A denoiser and how it is sampled; made by :meth:`Sampled.generator`.

    Args:
        model: the denoiser, where it runs, and its graphs.
        sampling: how; nothing of it is open.
        plan: of the sampling.
        graph: the walk as a CUDA graph, where there is one.
    """

    model: Sampled
    sampling: Sampling
    plan: Plan
    graph: Graph | None = None

    @property
    def block(self) -> int:
        """Images that go through the network together."""
        assert self.sampling.block is not None
        return self.sampling.block

    @property
    def evaluations(self) -> int:
        """Network evaluations for an image."""
        return self.sampling.evaluations(self.plan)

    @property
    def period(self) -> int:
        """After how many images their classes begin again; 1 for an unconditional model."""
        return self.sampling.period(self.model.classes)

    @property
    def classes(self) -> list[int] | None:
        """The classes of images 0, 1, ..., over and over; None if no image is of any."""
        labels = self.labels(torch.arange(self.period))
        return None if labels is None or int(labels.max()) < 0 else [int(label) for label in labels]

    def labels(self, indices: Tensor) -> Tensor | None:
        """The classes of images, int64 (N,), -1 for none; None if the model is unconditional.

        Args:
            indices: int64 (N,).
        """
        return self.sampling.labels(indices, self.model.classes)

    def states(self, block: int) -> Iterator[State]:
        """The states of one block, from noise to images; see :func:`ddpm_ip.sampler.walk.walk`."""
        return self.walk(torch.arange(block * self.block, (block + 1) * self.block, device=self.model.device))

    def walk(self, indices: Tensor, start: Tensor | None = None, labels: Tensor | None = None) -> Iterator[State]:
        """The states of any images of the seed, of as many as a block has.

        Args:
            indices: int64 (block,) on the model's device: whose noise is drawn, and of which classes they are.
            start: the state to begin with, float32 (block, C, H, W); the ``x_T`` of the images if None.
            labels: other classes, int64 (block,) on the model's device.
        """
        model, sampling = self.model, self.sampling
        corrections, cond = sampling.all_corrections(), self._cond(indices, labels)
        if self.graph is not None:
            self.graph.load(self.plan, corrections, sampling.seed)  # another generator may have used it meanwhile
            yield from self.graph(indices, start, cond)
            return
        with model.autocast():
            begin = model.shape if start is None else start
            denoiser = replace(model.denoiser, cond=cond)
            yield from walk(self.plan, denoiser, sampling.seed, indices, begin, corrections)

    def visits(
        self, asked: Iterable[tuple[int, Tensor]], indices: Tensor, labels: Tensor | None = None
    ) -> Iterator[Prediction]:
        """What the denoiser says, within all corrections, of states that no walk has led to.

        Args:
            asked: rows of the plan, each with the states that are at its level, float32 (block, C, H, W).
            indices, labels: see :meth:`walk`.

        Yields:
            The prediction for each row; it is overwritten when the next is asked for.
        """
        corrections, cond = self.sampling.all_corrections(), self._cond(indices, labels)
        if self.graph is not None:
            self.graph.load(self.plan, corrections, self.sampling.seed)
            for row, xt in asked:
                yield self.graph.visit(row, xt, (), indices, cond)[2]
            return
        visits = Visits(self.plan, replace(self.model.denoiser, cond=cond), self.sampling.seed, corrections)
        for row, xt in asked:
            with self.model.autocast():
                seen = visits.said(row, xt)
            yield seen

    def _cond(self, indices: Tensor, labels: Tensor | None) -> Cond | None:
        """What the network is told about images: their own labels, or others."""
        told = self.labels(indices) if labels is None else labels
        return None if told is None else Cond(told)

    def noise(self, indices: Tensor) -> Tensor:
        """``x_T`` of images of the seed, float32 (N, C, H, W); ``indices`` int64 (N,) on the model's device."""
        return Draws(self.sampling.seed, 0, indices).start(self.model.shape)

    def images(self, block: int) -> UInt8:
        """The images of one block, ``uint8`` (block, C, H, W).

        Raises:
            Diverged: they are not finite.
        """
        (last,) = deque(self.states(block), maxlen=1)
        return self.pixels(last, last.xt)

    def pixels(self, state: State, images: Tensor) -> UInt8:
        """Images of a state as ``uint8``, of the same shape.

        Args:
            state: where the walk is.
            images: float32 (B, C, H, W) in [-1, 1]: of the state, or those that are predicted in it.

        Raises:
            Diverged: they, or what the network put out, are not finite numbers, of which black pixels would be made.
        """
        tensors = {"images": images} if state.seen is None else {"images": images, "output": state.seen.output}
        if first_not_finite(tensors) is not None:
            raise self.model.diverged()
        array: UInt8 = to_uint8(images).cpu().numpy()
        return array

    def mine(self, n: int) -> Iterator[UInt8]:
        """This process's blocks of the first ``n`` images, ``uint8`` (at most block, C, H, W) each.

        Of P processes the first has blocks 0, P, 2P, ..., the second 1, P + 1, ...
        """
        engine = self.model.engine
        for block in range(engine.process_index, -(-n // self.block), engine.num_processes):
            yield self.images(block)[: n - block * self.block]

    def facts(self) -> dict[str, Any]:
        """All that an image depends on besides the weights and its index; see :meth:`Sampling.facts`."""
        engine = self.model.engine
        computed = Computed(engine.mixed_precision, self.graph is not None, engine.device.type)
        return self.sampling.facts(self.model.diffusion, computed, self.model.classes)


def preview(model: Model, sampling: Sampling, n: int) -> UInt8:
    """A few images, shared among the processes; ``uint8`` (n, C, H, W) on each.

    Args:
        model: the model.
        sampling: how; the block is chosen here.
        n: how many.
    """
    engine = model.engine
    generator = model.generator(replace(sampling, block=-(-n // engine.num_processes)))
    mine = torch.from_numpy(generator.images(engine.process_index)).to(engine.device)
    everyone: UInt8 = engine.gather(mine).cpu().numpy()
    return everyone[:n]


class Sampled:
    """A denoiser as it is sampled: by the plain walk.

    Args:
        denoiser: whose network is on the engine's device, in evaluation mode; unconditional.
        shape: (C, H, W) of its images.
        engine: device and precision.
        origin: of the network, for messages.
    """

    def __init__(
        self, denoiser: Denoiser, shape: tuple[int, int, int], engine: Accelerator, origin: str = "the network"
    ) -> None:
        self.denoiser, self.shape, self.origin = denoiser, shape, origin
        self.engine, self.device = engine, engine.device
        self.autocast: Callable[[], AbstractContextManager[object]] = engine.autocast
        self.diffusion: dict[str, Any] = {**asdict(denoiser.schedule), "objective": denoiser.prediction_type}
        self.var_type: VarType = "learned_range" if denoiser.learned_variance else "fixed_small"
        self.classes: KnownClasses | None = None

    def generator(self, sampling: Sampling) -> Generator:
        """The denoiser and how it is sampled.

        All processes call this together.

        Args:
            sampling: how; its block is known. A variance that is left to the model is filled in.

        Raises:
            ConfigError: this model cannot be sampled so.
        """
        if sampling.block is None:
            raise ConfigError("the block of images (batch_size) is not known yet")
        sampling, known = sampling.filled(self.var_type), self.denoiser
        generator = Generator(self, sampling, sampling.plan(known.schedule))
        sampling.check(known.schedule, known.learned_variance, self.classes, known.prediction_type)
        return generator

    def diverged(self) -> Diverged:
        """The error of a network whose numbers are not finite."""
        return Diverged(
            f"{self.origin} does not make images: what comes out is not finite. Take an earlier checkpoint, or "
            "--train.mixed_precision no, if it is fp16"
        )


class Model(Sampled):
    """A network as it is sampled: plain, or as CUDA graphs, which are captured once and serve every sampling.

    One graph serves a block size and a set of corrections, whatever the sampler, the number of steps and the seed.
    Should the network's weights change, as in training, the next :meth:`generator` takes them over.

    Args:
        config: of the model.
        network: its network, in evaluation mode.
        engine: device and precision.
        origin: of the weights, for messages.
    """

    def __init__(
        self, config: Config, network: Module, engine: Accelerator, origin: str = "the averaged network"
    ) -> None:
        super().__init__(config.denoiser(network), config.shape, engine, origin)
        self.diffusion, self.var_type = config.to_dict()["diffusion"], config.diffusion.var_type
        self.classes = config.classes
        self._config, self._network = config, network
        self._shadow: Shadow | None = None
        self._graphs: dict[tuple[int, tuple[Kind, ...]], Graph] = {}
        self._why_not = why_not_fast(config.train.fast, engine)

    def generator(self, sampling: Sampling) -> Generator:
        """The model and how it is sampled: by a CUDA graph where that is possible, else plain, with the reason.

        See :meth:`Sampled.generator`.

        Raises:
            ConfigError: this model cannot be sampled so.
            MemoryError: the block takes more memory than there is.
        """
        if sampling.block is not None:
            refuse_too_many(self._config, self.engine, sampling.block)
        plain = super().generator(sampling)
        reason, graph = self._why_not, None
        if reason is None:
            try:
                graph = self._graph(plain)
            except Exception as error:  # whatever a compiler or a driver comes up with: the plain path needs neither
                if is_out_of_memory(error):
                    raise
                reason = in_one_line(error)
        reason = agreed(self.engine, reason)  # or a process would make other bytes than the rest
        if reason is None:
            return replace(plain, graph=graph)
        if self.device.type == "cuda":
            log.warning("fast path off (%s); images are sampled by the plain one", reason)
        self._why_not = reason
        return plain

    @property
    def bytes_of_image(self) -> int:
        """See :func:`image_bytes`."""
        return image_bytes(self._config, self.engine.mixed_precision)

    def _graph(self, plain: Generator) -> Graph:
        """The graph of a sampling, captured if there is none yet, with the network's present weights."""
        from ddpm_ip.nn.fused.check import compare_outputs

        start = time.monotonic()
        dtype = torch.bfloat16 if self.engine.mixed_precision == "bf16" else torch.float32
        plan, corrections = plain.plan, plain.sampling.all_corrections()
        if self._shadow is not None:
            self._shadow.refresh()
        key = plain.block, kinds(plan, self.denoiser, corrections)
        graph, captured = self._graphs.get(key), False
        if graph is None or graph.capacity < plan.visits:
            graph, captured = self._capture(plain, dtype), True
        graph.load(plan, corrections, plain.sampling.seed)
        labels = plain.labels(torch.arange(plain.block, device=self.device))
        xt, t, output, cond = graph.first_visit(None if labels is None else Cond(labels))
        told = None if cond is None or cond.labels is None else Cond(cond.labels[:8])
        error = compare_outputs(self._network, xt[:8], t[:8], output[:8], dtype, told)
        self._graphs[key] = graph
        if captured:
            log.info(
                "fast path (%s): fused kernels, each visit of %d images one CUDA graph; its first visit differs by "
                "%.1e from the plain network in float32; ready in %.1f s",
                self.engine.mixed_precision, plain.block, error, time.monotonic() - start,
            )  # fmt: skip
        return graph

    def _capture(self, plain: Generator, dtype: torch.dtype) -> Graph:
        from ddpm_ip.nn.fused.launch import compile_together
        from ddpm_ip.nn.fused.operations import Shadow

        if self._shadow is None:
            self._shadow = Shadow(self._network, dtype)
            self._shadow.module.eval()
        shadow = self._shadow
        images = torch.zeros(plain.block, *self.shape, device=self.device)
        times = torch.zeros(plain.block, device=self.device)
        nobody = None if self.classes is None else Cond(torch.full((plain.block,), -1, device=self.device))
        with torch.no_grad():
            compile_together(lambda: shadow(images, times, nobody))
        corrections = plain.sampling.all_corrections()
        denoiser = replace(self.denoiser, network=shadow, cond=nobody)
        return Graph(denoiser, corrections, plain.plan, plain.block, self.shape, self.device)
