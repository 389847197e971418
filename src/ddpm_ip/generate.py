"""Images from a model: fixed blocks of consecutive indices, whichever process makes them.

Image ``i`` depends on (weights, sampler, seed, i, block size) only. Each block of ``block`` consecutive indices goes
through the network as one batch, padded to that size, so that the number of GPUs, an interruption, or how many images
are wanted change no byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.images import UInt8, to_uint8
from ddpm_ip.sampler import Ancestral, State, trajectory
from ddpm_ip.schedule import respace

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ddpm_ip.config import Config


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
    """

    denoiser: Denoiser
    sampler: Ancestral
    times: Sequence[int]
    shape: tuple[int, int, int]
    seed: int
    block: int
    device: torch.device
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext

    def states(self, block: int) -> Iterator[State]:
        """The states of one block, from noise to images; see :func:`ddpm_ip.sampler.trajectory`."""
        indices = torch.arange(block * self.block, (block + 1) * self.block, device=self.device)
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


def preview(config: Config, network: nn.Module, accelerator: Accelerator) -> UInt8:
    """A few samples during training, shared among the processes; ``uint8`` (train.n_samples, C, H, W) on each.

    Fixed-small variance, since fixed-large leaves visible noise at few steps.
    """
    t, d = config.train, config.diffusion
    steps = min(t.sample_steps, d.total_steps)
    block = -(-t.n_samples // accelerator.num_processes)
    generator = Generator(
        denoiser=config.denoiser(network),
        sampler=Ancestral("learned_range" if d.learned_variance else "fixed_small"),
        times=respace(d.total_steps, steps, "uniform-linspace"),
        shape=(config.model.in_channels, config.data.image_size, config.data.image_size),
        seed=config.seed,
        block=block,
        device=accelerator.device,
        autocast=accelerator.autocast,
    )
    mine = torch.from_numpy(generator.images(accelerator.process_index)).to(accelerator.device)
    everyone: UInt8 = accelerator.gather(mine).cpu().numpy()
    return everyone[: t.n_samples]
