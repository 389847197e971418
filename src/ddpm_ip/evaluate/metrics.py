"""Distances between sets of images: from streamed moments of their features, or from the features themselves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ddpm_ip.evaluate.monge import monge_distance
from ddpm_ip.evaluate.neighbours import clipped_density_coverage, precision_recall
from ddpm_ip.evaluate.neighbours import copies as share_of_copies
from ddpm_ip.evaluate.rows import PIECE, SEED, Rows
from ddpm_ip.metric import METRICS
from ddpm_ip.precise import place

Float64 = npt.NDArray[np.float64]

# torch-fidelity's settings, which are those of the papers.
SPLITS = METRICS["isc"].parts
SUBSETS = METRICS["kid"].parts
NEIGHBOURS = METRICS["prc"].fewest - 1

COVERED = METRICS["cdc"].fewest - 1
UNKNOWN = sys.maxsize  # how many images statistics are of: as many as one likes


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of rows of D features.

    The mean is kept in two parts, so that the difference of two means that are large and close keeps the digits that
    a float64 of either would have lost.

    Attributes:
        count: of rows; :data:`UNKNOWN` if nobody says.
        origin, offset: ``float64`` (D,) each; the mean is their sum.
        covariance: ``float64`` (D, D), unbiased (N - 1), as ``numpy.cov`` and torch-fidelity have it.
    """

    count: int
    origin: Float64
    offset: Float64
    covariance: Float64

    @property
    def dimensions(self) -> int:
        """D."""
        return len(self.origin)

    @property
    def mean(self) -> Float64:
        """``float64`` (D,)."""
        return self.origin + self.offset


class Sums:
    """Count, sum and sum of outer products of feature rows, in float64; memory does not grow with their number.

    What is added up is the distance of a row from the first one. The square of a mean that is large against the spread
    would otherwise cancel in the covariance: of a mean of 1e6 deviations it takes 12 digits, of 1e8 all. The first row
    is within sqrt(N) deviations of the mean whatever it is, so what is lost is at most N roundings
    (Chan, Golub & LeVeque 1983, "shifted data").
    """

    def __init__(self) -> None:
        self.count = 0
        self._origin = self._total = self._outer = torch.empty(0)

    def add(self, rows: Tensor) -> None:
        """Takes in rows (N, D), where they are; sums stay on the device of the first ones."""
        rows = rows.double()
        if self.count == 0:
            self._origin = rows[0].clone()
            self._total = torch.zeros_like(self._origin)
            self._outer = self._origin.new_zeros(len(self._origin), len(self._origin))
        rows = rows - self._origin
        self.count += len(rows)
        self._total += rows.sum(dim=0)
        self._outer.addmm_(rows.T, rows)

    def moments(self) -> Moments:
        """Of all rows, of which there must be one; the sums become the covariance and cannot be added to any more."""
        offset, covariance = self._total / self.count, self._outer
        covariance.addr_(offset, offset, alpha=-self.count).div_(max(1, self.count - 1))
        return Moments(self.count, *(x.cpu().numpy() for x in (self._origin, offset, covariance)))


def moments(batches: Iterable[npt.NDArray[np.floating]]) -> Moments:
    """The moments of all rows of all batches."""
    sums = Sums()
    for batch in batches:
        sums.add(torch.tensor(batch))
    return sums.moments()


@dataclass(frozen=True, eq=False)
class Features:
    """What a pass over images leaves.

    Attributes:
        count: number of images; :data:`UNKNOWN` if nobody says.
        shape: (C, H, W) of each; empty if nobody says.
        moments: by kind.
        rows: by kind, (count, D) in the precision of the extractor, ``float32`` or ``float64``; mapped from files.
    """

    count: int
    shape: tuple[int, ...]
    moments: dict[str, Moments]
    rows: dict[str, Rows]


Compute = Callable[[Features, Features, torch.device], tuple[float, ...]]
COMPUTE: dict[str, Compute] = {}
"""How each metric's numbers are computed of samples and reference, in the order of their names.

A metric that does not look at the reference is given the samples twice.
"""


def computes(name: str) -> Callable[[Compute], Compute]:
    """Marks the function that computes a metric of :data:`ddpm_ip.metric.METRICS`."""

    def mark(function: Compute) -> Compute:
        COMPUTE[name] = function
        return function

    return mark


@computes("fid")
def fid(fake: Features, real: Features, device: torch.device) -> tuple[float, ...]:
    """The Fréchet distance of pool features."""
    return (frechet_distance(fake.moments["pool"], real.moments["pool"]),)


@computes("sfid")
def sfid(fake: Features, real: Features, device: torch.device) -> tuple[float, ...]:
    """The Fréchet distance of spatial features (Nash et al. 2021)."""
    return (frechet_distance(fake.moments["spatial"], real.moments["spatial"]),)


@computes("fid_inf")
def fid_inf(fake: Features, real: Features, device: torch.device) -> tuple[float, ...]:
    """The Fréchet distance of pool features, of infinitely many samples."""
    return (extrapolated_distance(fake.rows["pool"], real.rows["pool"], device),)


@computes("isc")
def isc(fake: Features, real: Features, device: torch.device) -> tuple[float, ...]:
    """The class score and its deviation."""
    return class_score(fake.rows["logits"], device)


@computes("kid")
def kid(fake: Features, real: Features, device: torch.device) -> tuple[float, ...]:
    """The kernel distance of pool features and its deviation."""
    return kernel_distance(fake.rows["pool"], real.rows["pool"], device, subset_size("kid", fake.count, real.count))


@computes("prc")
def prc(fake: Features, real: Features, device: torch.device) -> tuple[float, ...]:
    """Precision and recall in pool features."""
    return precision_recall(fake.rows["pool"], real.rows["pool"], device, NEIGHBOURS)


@computes("mind")
def mind(fake: Features, real: Features, device: torch.device) -> tuple[float, ...]:
    """The Monge distance of pool features."""
    return (monge_distance(fake.rows["pool"], real.rows["pool"], device),)


@computes("cdc")
def cdc(fake: Features, real: Features, device: torch.device) -> tuple[float, ...]:
    """Clipped density and clipped coverage in pool features."""
    return clipped_density_coverage(fake.rows["pool"], real.rows["pool"], device, COVERED)


@computes("copies")
def copies(fake: Features, real: Features, device: torch.device) -> tuple[float, ...]:
    """The share of copies in pool features."""
    return (share_of_copies(fake.rows["pool"], real.rows["pool"], device),)


def subset_size(name: str, fake: int, real: int) -> int:
    """Images of a random subset that a metric is computed on, of so many samples and real images."""
    return min(METRICS[name].subset or fake, fake, real)


def frechet_distance(a: Moments, b: Moments, root: Float64 | None = None) -> float:
    """The Fréchet distance of the Gaussians fitted to two sets.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^{1/2})``

    (Dowson & Landau 1982; with Inception features it is the FID of Heusel et al. 2017, with others not.) The trace
    of the root is the sum of the singular values of ``C1^{1/2} C2^{1/2}``. Taken from the eigenvalues of ``C1 C2``, as
    is usual, the rounding of every eigenvalue that should be 0 would enter as its root: 1e-8 each, of which there are
    many as soon as there are fewer images than features. What rounding leaves below 0 is 0.

    Args:
        a, b: of the two sets.
        root: :func:`_root` of b, where it is known.
    """
    difference = (a.origin - b.origin) + (a.offset - b.offset)
    cross = np.linalg.svd(_root(a).T @ (_root(b) if root is None else root), compute_uv=False).sum()
    distance = difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return max(0.0, float(distance))


def _root(m: Moments) -> Float64:
    """A matrix R with R R^T = C, of as many columns as C can have eigenvalues that are not 0."""
    covariance, rank = m.covariance, m.count - 1
    if rank >= m.dimensions:
        return _symmetric_root(covariance)
    # Fewer images than features: any `rank` images of C span its range, in which the problem is a small one.
    span, _ = np.linalg.qr(covariance @ np.random.default_rng(0).normal(size=(m.dimensions, rank)))
    return span @ _symmetric_root(span.T @ covariance @ span)


def _symmetric_root(matrix: Float64) -> Float64:
    values, vectors = np.linalg.eigh(matrix)
    root: Float64 = vectors * np.sqrt(np.clip(values, 0, None))
    return root


def extrapolated_distance(fake: Rows, real: Rows, device: torch.device) -> float:
    """The Fréchet distance, less what there being finitely many samples adds to it; may be a little below 0.

    (Chong & Forsyth 2020; the subsets are those of dgm-eval, Stein et al. 2023, where it is FD-infinity.) What is added
    falls with their number N as 1/N, as soon as N is well above the number of features. So a line is fitted to the
    distances of random subsets over 1/N; its value at 0 is the result. All real images are taken, as they are.

    Args:
        fake, real: features (N, D) and (M, D), N at least 20.
        device: where moments are summed; a few rows at a time, so that memory stays flat.
    """
    random, sizes = np.random.default_rng(SEED), subset_sizes(len(fake))
    whole = _moments_of(real, np.arange(len(real)), device)
    root, distances = _root(whole), []
    for size in sizes:
        some = _moments_of(fake, np.sort(random.choice(len(fake), size, replace=False)), device)
        distances.append(frechet_distance(some, whole, root))
    _, at_zero = np.polyfit(1 / sizes, distances, 1)
    return float(at_zero)


def subset_sizes(count: int) -> npt.NDArray[np.int64]:
    """Of the subsets of so many samples: 15 from 5,000, or from a tenth of them, to all."""
    return np.linspace(min(5000, max(count // 10, 2)), count, 15).astype(np.int64)


def _moments_of(rows: Rows, order: npt.NDArray[np.int64], device: torch.device) -> Moments:
    sums = Sums()
    for piece in np.array_split(order, -(-len(order) // PIECE)):
        sums.add(_taken(rows, piece, device))
    return sums.moments()


def class_score(logits: Rows, device: torch.device, splits: int = SPLITS) -> tuple[float, float]:
    """``exp(E KL(p(y|x) || p(y)))``: mean and standard deviation over parts; with Inception's logits the IS.

    (Salimans et al. 2016, section 4.) The images are shuffled first, and split, as torch-fidelity does. The exponent is
    what an image tells of its class, ``H(y) - H(y|x)``, whose terms are sums over images.

    Args:
        logits: (N, K), N >= splits; may be a memory map, of which a few rows at a time are read.
        device: where the scores are computed.
        splits: number of parts.
    """
    order, scores = _random().permutation(len(logits)), []
    for i in range(splits):
        part = order[i * len(order) // splits : (i + 1) * len(order) // splits]
        known, total = 0.0, torch.zeros(logits.shape[1], dtype=torch.float64, device=place(device))
        for piece in np.array_split(part, -(-len(part) // PIECE)):
            log_p = _taken(logits, piece, device).log_softmax(dim=1)
            p = log_p.exp()
            known += (p * log_p).sum().item()
            total += p.sum(dim=0)
        mean = total / len(part)
        scores.append(np.exp(known / len(part) - torch.xlogy(mean, mean).sum().item()))
    return float(np.mean(scores)), float(np.std(scores))


def kernel_distance(a: Rows, b: Rows, device: torch.device, size: int, subsets: int = SUBSETS) -> tuple[float, float]:
    """The squared maximum mean discrepancy under the kernel ``(x y / D + 1)^3``: mean and deviation over subsets.

    (Bińkowski et al. 2018; with Inception features it is the KID.) The unbiased estimate, on random subsets drawn as
    torch-fidelity draws them; in float64, where torch-fidelity sums in float32.

    Args:
        a, b: features (N, D) and (M, D); may be memory maps, of which one subset at a time is read.
        device: where the kernels are computed.
        size: of a subset, at most N and M, and at least 2.
        subsets: how many.
    """
    random, values = _random(), []
    for _ in range(subsets):
        x, y = (_taken(rows, random.choice(len(rows), size, replace=False), device) for rows in (a, b))
        origin = x[0] + (y.mean(dim=0) - x[0]) / 2
        within = sum(k.sum() - k.trace() for k in (_cubic(x, x, origin), _cubic(y, y, origin)))
        values.append((within / (size * (size - 1)) - 2 * _cubic(x, y, origin).mean()).item())
    return float(np.mean(values)), float(np.std(values))


def _cubic(x: Tensor, y: Tensor, origin: Tensor) -> Tensor:
    """``k(x, y) - k(x, o) - k(o, y) + k(o, o)`` of the cubic kernel, o the origin.

    The discrepancy is the same as with k itself: what depends on one of the two alone cancels in it. Taken out
    beforehand, and multiplied out with ``x = o + u``, it takes no digits with it where features are large against their
    spread.

    Args:
        x, y: (N, D), (M, D).
        origin: (D,); any point will do, one among the features is best.
    """
    d, u, v = len(origin), x - origin, y - origin
    c, a, b = origin @ origin / d + 1, (u @ origin / d)[:, None], (v @ origin / d)[None, :]
    both, product, total = u @ v.T / d, a * b, a + b
    # (c + a + b + both)^3 - (c + a)^3 - (c + b)^3 + c^3
    first = 3 * c * (c * both + 2 * product + both * (both + 2 * total))
    return first + 3 * total * (product + both * (total + both)) + both**3


def _taken(rows: Rows, order: npt.NDArray[np.integer], device: torch.device) -> Tensor:
    """Some of the rows, ``float64``, where there is float64."""
    return torch.from_numpy(rows[order]).to(place(device)).double()


def _random() -> np.random.RandomState:
    """The generator that torch-fidelity draws with."""
    return np.random.RandomState(SEED)
