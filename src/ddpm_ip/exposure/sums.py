"""Running sums over images, each also in a bootstrap: what is kept does not grow with the number of images.

In a Poisson bootstrap an image counts, in each replicate, as often as a Poisson number of mean 1 says (Hanley &
MacGibbon 2006; Chamandy et al. 2012). The number is a function of (seed, image, replicate), so sums over blocks and
over processes can be taken in any order, and everything that is measured of an image counts equally often.

Sums are float64. A variance is the mean of squares less the square of the mean, which loses ``mean^2 / variance`` times
1e-16: images are in [-1, 1], and nothing here is nearer to that than 1e-9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor

from ddpm_ip.draws import Draws, Stream
from ddpm_ip.precise import precise

REPLICATES = 100
POSITIONS = 4096  # of an image, at most, whose moments are kept
Key = tuple[str, int]


def counts(seed: int, indices: Tensor, n: int, replicates: int = REPLICATES) -> Tensor:
    """How often images count: once, and in each replicate a Poisson number of mean 1; float64 (1 + replicates, B).

    Args:
        seed: of the bootstrap.
        indices: int64 (B,) of the images; those from ``n`` on fill up a block, and count 0 times.
        n: images in all.
        replicates: of the bootstrap.
    """
    words = Draws(seed, 0, indices).bits(Stream.RESAMPLE, replicates)
    chances = [math.exp(-1) / math.factorial(k) for k in range(12)]
    ends = torch.tensor([round(sum(chances[: k + 1]) * 2**32) for k in range(12)], device=words.device)
    drawn = precise(torch.bucketize(words, ends, right=True)).T
    return torch.cat((torch.ones_like(drawn[:1]), drawn)) * (indices < n).to(drawn.device)


def positions(images: Tensor) -> Tensor:
    """The values of images (B, ...) whose moments are kept, (B, K): all, or of large images evenly spread ones."""
    stride = -(-images[0].numel() // POSITIONS)
    return images.flatten(1)[:, :: stride + 1 - stride % 2]  # odd, so that it meets every column of pixels


@dataclass
class Sums:
    """Sums of this process by name and row of the plan, float64 (1 + replicates, K): the plain one is the first."""

    values: dict[Key, Tensor] = field(default_factory=dict)

    def add(self, key: Key, weights: Tensor, values: Tensor) -> None:
        """Adds what was measured of some images.

        Args:
            key: name, and row.
            weights: of :func:`counts`, (1 + replicates, B).
            values: (B, K).
        """
        more = weights @ precise(values)
        found = self.values.get(key)
        if found is None:
            self.values[key] = more
        else:
            found += more

    def add_moments(self, name: str, row: int, weights: Tensor, images: Tensor) -> None:
        """Adds images (B, C, H, W) and their squares, at :func:`positions`; :meth:`deviations` reads them."""
        values = precise(positions(images))
        self.add((name, row), weights, values)
        self.add((f"{name}^2", row), weights, values.square())

    def variances(self, name: str, row: int) -> Tensor:
        """The variance over images at each position, (1 + replicates, K), unbiased in the first row.

        The others are those of a sample that was drawn again, and spread around it.
        """
        n, mean = self.n, self.values[name, row] / self.n
        found = (self.values[f"{name}^2", row] / n - mean.square()).clamp(min=0)
        found[0] *= n[0] / (n[0] - 1).clamp(min=1)
        return found

    def mean(self, name: str, row: int) -> Tensor:
        """The mean over images, (1 + replicates, K)."""
        return self.values[name, row] / self.n

    @property
    def n(self) -> Tensor:
        """How many images, (1 + replicates, 1); 1 for a replicate of few images that drew none."""
        return self.values["n", 0].clamp(min=1)

    def together(self, engine: Accelerator) -> Sums:
        """Those of all processes, on the CPU; all call this together, with the same names."""
        several = engine.num_processes > 1
        for key in sorted(self.values):
            if several:
                self.values[key] = engine.reduce(self.values[key], "sum")
            self.values[key] = self.values[key].cpu()
        return self
