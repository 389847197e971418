"""What nearest neighbours say of two sets of features: precision and recall, density and coverage, copies.

Distances are taken in float64, a few rows at a time, so that memory stays flat.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_ip.evaluate.rows import Rows, as_tensor, squared_distances
from ddpm_ip.precise import place


def precision_recall(fake: Rows, real: Rows, device: torch.device, k: int) -> tuple[float, float]:
    """The share of samples that lie among the real images, and of real images that lie among the samples.

    (Kynkäänniemi et al. 2019.) A point lies among a set if it is within the ball of one of its points, whose radius is
    the distance to that point's k-th neighbour in the set.

    Args:
        fake, real: features (N, D) and (M, D), N and M above k.
        device: where the distances are taken.
        k: which neighbour.
    """
    device, sets = place(device), [as_tensor(rows) for rows in (fake, real)]
    radii = [
        torch.cat([d.kthvalue(k + 1, dim=1).values for d in squared_distances(rows, rows, device)]) for rows in sets
    ]
    precision, recall = (
        torch.cat([(d <= radius).any(dim=1) for d in squared_distances(points, among, device)]).double().mean().item()
        for points, among, radius in ((sets[0], sets[1], radii[1]), (sets[1], sets[0], radii[0]))
    )
    return precision, recall


class Neighbours(NamedTuple):
    """The k nearest others of each point of a set.

    Attributes:
        squares: ``float64`` (N, k), squared distances, ascending.
        indices: ``int64`` (N, k), which points they are.
    """

    squares: Tensor
    indices: Tensor


def neighbours(rows: Tensor, device: torch.device, k: int) -> Neighbours:
    """Of each row the k nearest others, of which copies are; on the device."""
    found, done = [], 0
    for d in squared_distances(rows, rows, device):
        own = torch.arange(len(d), device=d.device)
        d[own, done + own] = torch.inf
        done += len(d)
        found.append(d.topk(k, dim=1, largest=False))
    return Neighbours(torch.cat([f.values for f in found]), torch.cat([f.indices for f in found]))


def clipped_density_coverage(fake: Rows, real: Rows, device: torch.device, k: int) -> tuple[float, float]:
    """How densely samples lie where real images do, and how much of the real images they cover.

    (Salvy et al. 2025, arXiv 2507.01761.) Each real image has a ball up to its k-th neighbour among the real ones.

    * Density: in how many balls a sample lies, over k, at most 1; the mean over samples, as a share of what the real
      images themselves reach, at most 1. Radii above their median are cut to it, so that outliers do not count.
    * Coverage: how many of the k samples next to a real image lie in its ball, over k; the mean over real images. From
      it follows, by :func:`expected_coverage`, which share of good samples among the others, all bad, would give it.

    Args:
        fake, real: features (M, D) and (N, D); M at least k, and N above k.
        device: where the distances are taken.
        k: which neighbour.
    """
    device, (samples, images) = place(device), (as_tensor(rows) for rows in (fake, real))
    near = neighbours(images, device, k)
    radii = near.squares[:, -1]
    cut = radii.clamp(max=_square_of_the_median(radii))
    inside, covered, done = torch.zeros(len(samples), dtype=torch.int64, device=device), 0, 0
    for d in squared_distances(images, samples, device):
        here = slice(done, done := done + len(d))
        inside += (d <= cut[here, None]).sum(dim=0)
        covered += int((d.topk(k, dim=1, largest=False).values < radii[here, None]).sum())
    own = torch.bincount(near.indices[near.squares <= cut[:, None]], minlength=len(images))
    density, most = ((counts.double() / k).clamp(max=1).mean().item() for counts in (inside, own))
    expected = expected_coverage(len(samples), len(images), k)
    share = int((expected < covered / (k * len(images))).sum()) / len(expected)
    return min(1.0, density / most), share


def _square_of_the_median(squares: Tensor) -> Tensor:
    """Of the distances with these squares; of an even number the mean of the two in the middle."""
    ordered, n = squares.sort().values, len(squares)
    low, high = ordered[(n - 1) // 2], ordered[n // 2]
    return low if low == high else ((low.sqrt() + high.sqrt()) / 2) ** 2


def expected_coverage(samples: int, images: int, k: int) -> Tensor:
    """The coverage, before it is calibrated, where m of so many samples are as good as real images, and the rest far.

    Of m such samples, j lie nearer to a real image than its k-th neighbour with the probability
    ``C(m, j) B(k + j, N - k + m - j) / B(k, N - k)``; the coverage is the mean of ``min(j, k) / k``. Below m = k it is
    taken as 0, as the authors do.

    Returns:
        ``float64`` (samples + 1,): for m = 0, 1, ...
    """
    m, j = torch.arange(samples + 1, dtype=torch.float64)[:, None], torch.arange(k, dtype=torch.float64)[None, :]
    few = (m - j).clamp(min=0)  # of which none is nearer; where m < j the result is not used

    def log_beta(a: Tensor, b: Tensor) -> Tensor:
        return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)

    choices = torch.lgamma(m + 1) - torch.lgamma(j + 1) - torch.lgamma(few + 1)
    none = torch.tensor(float(images - k), dtype=torch.float64)
    first = log_beta(torch.tensor(float(k), dtype=torch.float64), none)
    missing = ((k - j) / k * (choices + log_beta(k + j, none + few) - first).exp()).sum(dim=1)
    found = 1 - missing
    found[:k] = 0
    return found


def copies(fake: Rows, real: Rows, device: torch.device) -> float:
    """The share of samples that lie no farther from their nearest real image than that is from every other.

    What is left of 1 is the authenticity (Alaa et al. 2022), AuthPct of dgm-eval.

    Args:
        fake, real: features (N, D) and (M, D), M at least 2.
        device: where the distances are taken.
    """
    device, (samples, images) = place(device), (as_tensor(rows) for rows in (fake, real))
    nearest = [d.min(dim=1) for d in squared_distances(samples, images, device)]
    apart = neighbours(images, device, 1).squares[:, 0]
    copied = [found.values <= apart[found.indices] for found in nearest]
    return torch.cat(copied).double().mean().item()
