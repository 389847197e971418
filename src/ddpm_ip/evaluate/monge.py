"""The Monge distance: optimal transport between two sets of features along random lines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ddpm_ip.evaluate.rows import HELD, PIECE, SEED, Rows
from ddpm_ip.precise import place

DIRECTIONS = 1000


def monge_distance(fake: Rows, real: Rows, device: torch.device, directions: int = DIRECTIONS) -> float:
    """``3 D`` times the mean, over random directions u, of the squared 2-Wasserstein distance of u·x and u·y.

    (Berthet et al. 2026, arXiv 2605.06797; with Inception features it is the MIND.) On a line the best transport joins
    the smallest to the smallest, so sorting is all there is to do. Of the larger set a random subset is taken, as large
    as the smaller one. Subset and directions are those that torch-fidelity draws (0.5, at 5e211a9); in float64, where
    torch-fidelity works in float32.

    Args:
        fake, real: features (N, D) and (M, D).
        device: where it is computed. Memory does not grow with N, M or the number of directions.
        directions: how many.
    """
    device, generator = place(device), torch.Generator().manual_seed(SEED)
    n, width = min(len(fake), len(real)), int(fake.shape[1])
    # in order, since what is read lies on a disk and is sorted anyway
    chosen = [np.sort(_subset(len(rows), n, generator)) for rows in (fake, real)]
    lines = torch.randn(directions, width, generator=generator)
    origin = torch.tensor(np.asarray(fake[0]), dtype=torch.float64)  # near all features: no digit is lost
    total = 0.0
    for few in torch.split(lines, max(1, HELD // n)):
        units = few.double() / few.double().norm(dim=1, keepdim=True)
        x, y = (
            _projected(rows, order, origin.to(device), units.to(device)).sort(dim=1).values
            for rows, order in zip((fake, real), chosen, strict=True)
        )
        total += float((x - y).square_().mean(dim=1).sum())
    return 3.0 * width * total / directions


def _subset(there: int, n: int, generator: torch.Generator) -> npt.NDArray[np.int64]:
    """Which n of so many rows; all of them cost no draw."""
    found = torch.arange(n) if there == n else torch.randperm(there, generator=generator)[:n]
    return found.numpy()


def _projected(rows: Rows, order: npt.NDArray[np.int64], origin: Tensor, units: Tensor) -> Tensor:
    """``u·(x - origin)``, float64 (directions, rows of the order)."""
    pieces = np.array_split(order, -(-len(order) // max(1, min(PIECE, HELD // len(origin)))))
    parts = (torch.from_numpy(rows[piece]).to(units.device).double() - origin for piece in pieces)
    return torch.cat([units @ part.T for part in parts], dim=1)
