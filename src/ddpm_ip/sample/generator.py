"""Images from a model: fixed blocks of consecutive indices, whichever process makes them.

Image ``i`` depends on (weights, sampler, seed, i, block size) only. Each block of ``block`` consecutive indices goes
through the network as one batch, padded to that size, so that the number of GPUs, an interruption, or how many images
are wanted change no byte.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.engine import agreed, in_one_line, why_not_fast
from ddpm_ip.images import UInt8, to_uint8
from ddpm_ip.nn.unet import UNet
from ddpm_ip.sampler import Ancestral, State, trajectory
from ddpm_ip.sampler.graph import Replayed
from ddpm_ip.schedule import respace

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ddpm_ip.config import Config

log = logging.getLogger("ddpm_ip.sample.generator")


@dataclass(frozen=True)
class Generator:
    """A model and how it is sampled.

    Args:
        denoiser: the model, in evaluation mode.
        sampler: the algorithm.
        times: the times to visit, falling.
        shape: (C, H, W).
        seed: of the random numbers.
        block: images that go through the network together.
        device: where.
        autocast: makes the precision context; full precision by default.
        replayed: the walk as a CUDA graph, where there is one.
    """

    denoiser: Denoiser
    sampler: Ancestral
    times: Sequence[int]
    shape: tuple[int, int, int]
    seed: int
    block: int
    device: torch.device
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    replayed: Replayed | None = None

    def states(self, block: int) -> Iterator[State]:
        """The states of one block, from noise to images; see :func:`ddpm_ip.sampler.trajectory`."""
        indices = torch.arange(block * self.block, (block + 1) * self.block, device=self.device)
        if self.replayed is not None:
            yield from self.replayed(indices)
            return
        with self.autocast():
            yield from trajectory(self.sampler, self.denoiser, self.times, self.seed, indices, self.shape)

    def images(self, block: int) -> UInt8:
        """The images of one block, ``uint8`` (block, C, H, W)."""
        xt: Tensor | None = None
        for state in self.states(block):
            xt = state.xt
        assert xt is not None
        array: UInt8 = to_uint8(xt).cpu().numpy()
        return array


def make_generator(
    config: Config, network: UNet, sampler: Ancestral, times: Sequence[int], seed: int, block: int, engine: Accelerator
) -> Generator:
    """A model and how it is sampled: replayed as a CUDA graph where that is possible, else plain, with the reason.

    Args:
        config: of the model.
        network: its network, in evaluation mode.
        sampler, times, seed, block: see :class:`Generator`.
        engine: device and precision.
    """
    plain = Generator(
        config.denoiser(network), sampler, times, config.shape, seed, block, engine.device, autocast=engine.autocast
    )
    reason, replayed = why_not_fast(config.train.fast, engine), None
    if reason is None:
        try:
            replayed = _replay(config, network, plain, engine.mixed_precision)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler or a driver comes up with: the plain path needs neither
            reason = in_one_line(error)
    reason = agreed(engine, reason)  # or a process would make other bytes than the rest
    if reason is None:
        return replace(plain, replayed=replayed)
    if engine.device.type == "cuda":
        log.warning("fast path off (%s); images are sampled by the plain one", reason)
    return plain


def _replay(config: Config, network: UNet, plain: Generator, precision: str) -> Replayed:
    from ddpm_ip.nn.fused.check import compare_outputs
    from ddpm_ip.nn.fused.launch import compile_together
    from ddpm_ip.nn.fused.operations import Shadow

    start = time.monotonic()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    shadow = Shadow(network, dtype)
    shadow.module.eval()
    p = plain
    first = torch.zeros(p.block, *p.shape, device=p.device), torch.zeros(p.block, dtype=torch.int64, device=p.device)
    with torch.no_grad():
        compile_together(lambda: shadow(*first))
    walk = Replayed(p.sampler, config.denoiser(shadow), p.times, p.seed, p.block, p.shape, p.device)
    xt, t, output = walk.first_step()
    error = compare_outputs(network, xt[:8], t[:8], output[:8], dtype)
    log.info(
        "fast path (%s): fused kernels, each step of %d images one CUDA graph; its first step differs by %.1e from the "
        "plain network in float32; ready in %.1f s",
        precision, p.block, error, time.monotonic() - start,
    )  # fmt: skip
    return walk


def preview(config: Config, network: UNet, accelerator: Accelerator) -> UInt8:
    """A few samples during training, shared among the processes; ``uint8`` (train.n_samples, C, H, W) on each.

    Fixed-small variance, since fixed-large leaves visible noise at few steps.
    """
    t, d = config.train, config.diffusion
    generator = make_generator(
        config,
        network,
        Ancestral("learned_range" if d.learned_variance else "fixed_small"),
        respace(d.total_steps, min(t.sample_steps, d.total_steps), "uniform-linspace"),
        config.seed,
        -(-t.n_samples // accelerator.num_processes),
        accelerator,
    )
    mine = torch.from_numpy(generator.images(accelerator.process_index)).to(accelerator.device)
    everyone: UInt8 = accelerator.gather(mine).cpu().numpy()
    return everyone[: t.n_samples]
