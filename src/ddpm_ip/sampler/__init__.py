"""Samplers: one algorithm a file, each with one ``step``; and the loop that walks through the times.

The loop is a generator, so that every intermediate state can be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.sampler.ancestral import Ancestral, VarType
from ddpm_ip.sampler.state import State

__all__ = ["Ancestral", "State", "VarType", "trajectory"]


def trajectory(
    sampler: Ancestral, denoiser: Denoiser, times: Sequence[int], seed: int, indices: Tensor, shape: Sequence[int]
) -> Iterator[State]:
    """Walks from noise to images; yields the starting point and then the state after each step.

    Args:
        sampler: the algorithm.
        denoiser: the model.
        times: the times to visit, falling (:func:`ddpm_ip.schedule.respace`).
        seed: of the random numbers.
        indices: int64 (B,), which images of that seed; its device is where the work is done.
        shape: (C, H, W).
    """
    xt = Draws(seed, 0, indices).start(shape)
    yield State(times[0], xt, None)
    for t, s in zip(times, [*times[1:], -1], strict=True):
        with torch.no_grad():
            xt, x0 = sampler.step(denoiser, xt, t, s, Draws(seed, t, indices).noise(shape))
        yield State(s, xt, x0)
