r"""Randomness is a function, not a state.

Every random number is ``f(seed, stream, step, row, position)``: a counter-based generator (Philox-4x32-10; Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is *asked* for a draw; it does not advance. So

* resuming needs no saved generator state and is exact by construction,
* a row of the global batch draws the same numbers on whichever process, GPU or micro-batch it lands,
* an image that is sampled draws the same numbers whatever the batch around it,
* two streams (say ``eps`` and the perturbation ``xi``) never share a number: a run with another ``gamma`` sees the same
  data, times and noise.

The integers are the same on every device; the normal numbers made of them agree to float rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLY = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


class Stream(IntEnum):
    """What a random number is for. The numbers are part of every published result: never renumber, only add."""

    TIME = 0  # training: the time t of a row
    EPS = 1  # training: the noise eps
    XI = 2  # training: the perturbation noise xi
    FLIP = 3  # training: horizontal flips
    DROPOUT = 4  # training: the seed of the dropout masks of a step
    START = 5  # sampling: x_T
    STEP = 6  # sampling: the noise of one reverse step
    LABEL = 7  # training: which labels are hidden
    STRENGTH = 8  # training: the strength of a random perturbation
    CHANCE = 9  # training: which rows are perturbed
    RESAMPLE = 10  # measuring: how often an image counts in a bootstrap


def philox(c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, seed: int | Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32-10: four counters and a 64-bit key to four random 32-bit words.

    Args:
        c0, c1, c2, c3: int64 tensors of broadcastable shapes with values in [0, 2^32).
        seed: the key, in [0, 2^64); or its low and high word, int64 (2,).

    Returns:
        Four int64 tensors of the broadcast shape, values uniform in [0, 2^32).
    """
    k0, k1 = seed.unbind(0) if isinstance(seed, Tensor) else (seed & _MASK, (seed >> 32) & _MASK)
    for _ in range(10):
        # A product of two 32-bit words wraps around in int64, but its 64 bits are right.
        p0, p1 = c0 * _MULTIPLY[0], c2 * _MULTIPLY[1]
        c0, c1 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK
        c2, c3 = ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


@dataclass(frozen=True)
class Draws:
    """The random numbers of some rows at one step.

    In training a row is a place in the global batch and ``step`` the training step; in sampling a row is an image index
    and ``step`` the time that is left.

    Args:
        seed: in [0, 2^64); or its low and high word, int64 (2,) on the rows' device (:func:`words`).
        step: in [0, 2^32); or an int64 tensor with one such number on the rows' device, so that a captured graph can
            be replayed for every step.
        rows: int64 (B,), values in [0, 2^32); its device is where the numbers are made.
    """

    seed: int | Tensor
    step: int | Tensor
    rows: Tensor

    def bits(self, stream: Stream, n: int) -> Tensor:
        """Random words, int64 (B, n) with values in [0, 2^32)."""
        device = self.rows.device
        if self.rows.is_cuda and (kernel := _kernel()):
            found: Tensor = kernel.bits(self.rows, self._step_tensor(), self.seed, stream, n)
            return found
        blocks = torch.arange(math.ceil(n / 4), device=device)
        step, kind = self._step_tensor().reshape(1, 1), torch.full((1, 1), int(stream), device=device)
        words = philox(blocks[None, :], self.rows[:, None], step, kind, self.seed)
        return torch.stack(words, dim=-1).reshape(len(self.rows), -1)[:, :n]

    def normal(self, stream: Stream, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers, float32 (B, *shape), by the Box-Muller transform."""
        n = math.prod(shape)
        if self.rows.is_cuda and (kernel := _kernel()):
            numbers: Tensor = kernel.normal(self.rows, self._step_tensor(), self.seed, stream, tuple(shape))
            return numbers
        pairs = self.bits(stream, n + n % 2).reshape(len(self.rows), -1, 2)
        radius = torch.sqrt(-2.0 * torch.log((pairs[..., 0] + 1).float() * 2.0**-32))  # the logarithm's argument is > 0
        angle = pairs[..., 1].float() * (2.0 * math.pi * 2.0**-32)
        both = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
        return both.reshape(len(self.rows), -1)[:, :n].reshape(len(self.rows), *shape)

    def times(self, total_steps: int) -> Tensor:
        """Training times, int64 (B,), uniform in [0, total_steps)."""
        return (self.bits(Stream.TIME, 1)[:, 0] * total_steps) >> 32

    def eps(self, shape: Sequence[int]) -> Tensor:
        """The noise ``eps`` of training, float32 (B, *shape)."""
        return self.normal(Stream.EPS, shape)

    def xi(self, shape: Sequence[int]) -> Tensor:
        """The perturbation noise ``xi`` of training, float32 (B, *shape), independent of ``eps``."""
        return self.normal(Stream.XI, shape)

    def flips(self) -> Tensor:
        """Which images are mirrored, bool (B,)."""
        return self.bits(Stream.FLIP, 1)[:, 0] < 2**31

    def keys(self) -> Tensor:
        """What the dropout masks of an image are made from, int64 (B,) with values in [0, 2^32)."""
        return self.bits(Stream.DROPOUT, 1)[:, 0]

    def hidden(self, labels: Tensor, probability: float) -> Tensor:
        """Labels int64 (B,), each replaced by -1 with a probability in [0, 1); of 0 they stay as they are."""
        if probability == 0:
            return labels
        return labels.masked_fill(self.bits(Stream.LABEL, 1)[:, 0] < round(probability * 2**32), -1)

    def start(self, shape: Sequence[int]) -> Tensor:
        """The starting point ``x_T`` of sampling, float32 (B, *shape)."""
        return self.normal(Stream.START, shape)

    def noise(self, shape: Sequence[int]) -> Tensor:
        """The fresh noise of the sampling step that leaves time ``step``, float32 (B, *shape)."""
        return self.normal(Stream.STEP, shape)

    def _step_tensor(self) -> Tensor:
        if isinstance(self.step, Tensor):
            return self.step
        return torch.full((), self.step, device=self.rows.device)


@lru_cache(maxsize=1)
def _kernel() -> ModuleType | None:
    """The same numbers in one GPU kernel; None where Triton is not installed, which only costs speed."""
    try:
        from ddpm_ip import draws_kernel
    except ImportError:
        return None
    return draws_kernel


def words(seed: int) -> Tensor:
    """The low and the high word of a seed in [0, 2^64), int64 (2,)."""
    return torch.tensor([seed & _MASK, (seed >> 32) & _MASK])


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """A 63-bit seed for the dropout masks of one step on one process."""
    high, low = Draws(seed, step, torch.tensor([rank])).bits(Stream.DROPOUT, 2)[0].tolist()
    return (int(high) << 31) ^ int(low)
