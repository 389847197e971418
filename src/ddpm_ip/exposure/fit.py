r"""Corrections fitted while walking: after each visit the states of all images are compared with what they should hold.

A true state ``x_s = alpha_s x_0 + sigma_s eps`` has, in each band b of frequencies, the energy

    T_b(s) = alpha_s^2 E_b[x_0] + sigma_s^2 E_b[eps],

which follows from the training images alone. A sampled one has a different energy: too little where a step forgets that
x_0 is not known (too little noise), too much where the predicted noise is too small. Many walks run side by side
(:mod:`ddpm_ip.exposure.lockstep`); after each step, gains are chosen that give each band its energy and are applied, so
that the next step begins from states that are right: later gains need not mend what earlier ones have left.

    balance:  x_s <- w_b x_s                         w_b^2 = T_b / E_b[x_s]
    both:     x_s <- A_b alpha_s x_0 + B_b (x_s - alpha_s x_0),   A_b^2 = E_b[x_0 on true states] / E_b[x_0 in sampling]
    scale:    eps <- eps / lambda,  with the lambda that brings all bands nearest to T_b

The energies of n walks are known to about ``sqrt(2 / n)`` of their size, and so are the gains. Shrinking them towards 1
where they are within their error was tried and made images worse (benchmarks/results/h200_calibration_trial.json):
small errors of the same sign at every step add up.
The family of corrections is that of ``band_gains``; to
multiply bands by measured energies is DPM-FR's idea (arXiv 2507.10072). How it is fitted here is this project's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ddpm_ip.denoiser import Prediction
from ddpm_ip.exposure.bands import noise_energy, products, split
from ddpm_ip.exposure.curves import HAAR
from ddpm_ip.exposure.lockstep import Lockstep, Standing
from ddpm_ip.exposure.mismatch import statistics
from ddpm_ip.images import UInt8, to_uint8
from ddpm_ip.precise import place, precise
from ddpm_ip.sample.generator import Generator
from ddpm_ip.sampler.base import Plan
from ddpm_ip.sampler.correction import BandGains, EpsilonScaling, Row
from ddpm_ip.sampler.correction.bands import first_visits, noisy_ends

SMALLEST, LARGEST = 0.5, 2.0  # gains
SCALES = torch.linspace(0.9, 1.15, 251, dtype=torch.float64)  # factors of the noise that are tried


class Energies(NamedTuple):
    """Of a visit, means over images for each band, float64 (4,): of ``u = alpha_s x_0``, ``r = x_s - u`` and the change
    ``e`` that one unit of eps makes to ``x_s``; and the mean norm of eps.
    """

    uu: Tensor
    ur: Tensor
    rr: Tensor
    xe: Tensor
    ee: Tensor
    norm: Tensor

    @property
    def state(self) -> Tensor:
        """The energy of ``x_s``."""
        return self.uu + 2 * self.ur + self.rr


@dataclass(frozen=True)
class Target:
    """What true states hold.

    Args:
        images: the mean energy of the training images in each band, float64 (4,).
        noise: that of standard normal noise, (4,).
    """

    images: Tensor
    noise: Tensor

    @classmethod
    def of(cls, images: Tensor, height: int, width: int) -> Target:
        """Of images with these mean energies, float64 (4,)."""
        return cls(images, noise_energy(height, width).to(images.device))

    def at(self, alpha: float, sigma: float) -> Tensor:
        """``T_b``, float64 (4,)."""
        return alpha**2 * self.images + sigma**2 * self.noise


class Fitted(NamedTuple):
    """What a walk of many images left.

    Attributes:
        ratio: the energy of the states after each visit over that of true ones, before it was corrected, (V, 4).
        norm: the mean norm of the predicted noise at each visit, (V,).
        statistics: of the finished images, in the order of their indices, float64 (N, S).
        images: the finished images of this process, ``uint8`` (block, C, H, W) each.
        correction: what was fitted; None where nothing was.
    """

    ratio: Tensor
    norm: Tensor
    statistics: Tensor
    images: Sequence[UInt8]
    correction: BandGains | EpsilonScaling | None


class Method(Protocol):
    """What is decided after each step, by the energies of all images."""

    def decide(self, plan: Plan, i: int, seen: Energies, wanted: Tensor) -> None: ...

    def change(self, plan: Plan, i: int, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        """What the decision changes, (B, C, H, W)."""
        ...

    def weights(self, plan: Plan, i: int) -> Sequence[float]:
        """How often the change is added to the state and to each memory, (1 + M)."""
        ...

    def correction(self) -> BandGains | EpsilonScaling | None: ...


class Watch:
    """Nothing is corrected."""

    def decide(self, plan: Plan, i: int, seen: Energies, wanted: Tensor) -> None:
        pass

    def change(self, plan: Plan, i: int, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def weights(self, plan: Plan, i: int) -> Sequence[float]:
        return [0.0] * (1 + plan.memories)

    def correction(self) -> None:
        return None


@dataclass
class Balance:
    """Gains of the bands: one factor for all of the state; or, with ``predicted``, for prediction and rest.

    A time that is visited again (restart) keeps its gains, since a table has one for each time.

    Args:
        predicted: the energies of ``x_0`` as predicted on true states at each visit, float64 (V, 4); None for one
            factor.
    """

    predicted: Tensor | None = None
    _gains: dict[float, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def decide(self, plan: Plan, i: int, seen: Energies, wanted: Tensor) -> None:
        a = torch.ones_like(wanted)
        if self.predicted is not None:
            a = (self.predicted[i].to(wanted) / (seen.uu / plan.after[i, 0] ** 2)).sqrt().nan_to_num(1.0)
            a = a.clamp(SMALLEST, LARGEST)
        state = seen.state
        if self.predicted is None:
            a = b = (wanted / state).sqrt()
        else:
            b = nearest_root(seen.rr, a * seen.ur, a**2 * seen.uu - wanted, near=1.0)
        t = float(plan.t[first_visits(plan)[i]])
        self._gains.setdefault(t, (a.clamp(SMALLEST, LARGEST), b.clamp(SMALLEST, LARGEST)))

    def change(self, plan: Plan, i: int, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        t = float(plan.t[first_visits(plan)[i]])
        gains = BandGains(*_tables({t: self._gains[t]}))
        numbers = gains.numbers(plan, None)[i].to(x.device, torch.float32)  # type: ignore[arg-type]  # of no schedule
        return gains.after(x, x0, Row(x, x, x, {gains.name: numbers}))

    def weights(self, plan: Plan, i: int) -> Sequence[float]:
        return plan.carry[i].tolist()

    def correction(self) -> BandGains | None:
        return BandGains(*_tables(self._gains)) if self._gains else None


@dataclass
class Scale:
    """A factor of the predicted noise at each visit; a time that is visited again keeps its own.

    What is done on the way is the correction, in what is remembered, too, but for inner stages and the last visit. So
    its images are those of another walk, with the correction.
    """

    _factors: dict[float, float] = field(default_factory=dict)

    def decide(self, plan: Plan, i: int, seen: Energies, wanted: Tensor) -> None:
        c = (1 / SCALES - 1)[:, None].to(wanted)
        ratio = (seen.state + 2 * c * seen.xe + c**2 * seen.ee) / wanted
        best = ratio.clamp(min=1e-9).log().square().sum(dim=1).argmin()
        self._factors.setdefault(float(plan.t[i]), float(SCALES[best]))

    def change(self, plan: Plan, i: int, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        return (1 / self._factors[float(plan.t[i])] - 1) * eps

    def weights(self, plan: Plan, i: int) -> Sequence[float]:
        return effects_of_noise(plan, i)

    def correction(self) -> EpsilonScaling | None:
        rising = dict(sorted(self._factors.items()))
        if len(rising) < 2:
            return EpsilonScaling(next(iter(rising.values()))) if rising else None
        return EpsilonScaling(times=tuple(rising), scales=tuple(rising.values()))


def fit(generator: Generator, n: int, target: Target, method: Method) -> Fitted:
    """Walks from noise to images with a method that decides after each step. All processes call this together.

    Args:
        generator: model and sampling; what the sampling corrects stays.
        n: images, rounded up to whole blocks.
        target: what true states hold.
        method: collects what it decides.

    Raises:
        Diverged: what the network says, or a state, is not finite.
    """
    walks, plan, engine = Lockstep(generator, n), generator.plan, generator.model.engine
    ends, ratios, norms = noisy_ends(plan).tolist(), [], []
    for i in range(plan.visits):
        alpha, sigma = plan.after[i].tolist()
        kept, sums = [], torch.zeros(6, HAAR, dtype=torch.float64, device=place(generator.model.device))
        for block in walks.visit(i):
            assert block.seen is not None
            kept.append((block.seen.x0.clone(), block.seen.eps.clone()))
            sums += _sums(plan, i, block)
        seen = Energies(*engine.reduce(sums, "sum") / (walks.count * generator.block))
        if not all(bool(means.isfinite().all()) for means in seen):
            raise generator.model.diverged()
        wanted = target.at(alpha, sigma)
        ratios.append((seen.state / wanted).cpu())
        norms.append(seen.norm[0].cpu())
        if not ends[i]:
            continue
        method.decide(plan, i, seen, wanted)
        for block, (x0, eps) in zip(walks.blocks, kept, strict=True):
            walks.change(block, method.change(plan, i, block.x, x0, eps), method.weights(plan, i))
    found = _everyones([statistics(block.x.clamp(-1, 1)) for block in walks.blocks], walks, generator)
    images: list[UInt8] = [to_uint8(block.x).cpu().numpy() for block in walks.blocks]
    return Fitted(torch.stack(ratios), torch.stack(norms), found, images, method.correction())


def _everyones(mine: Sequence[Tensor], walks: Lockstep, generator: Generator) -> Tensor:
    """The rows of all blocks on all processes, (N, S) on the CPU, in the order of the images."""
    engine, size = generator.model.engine, generator.block
    width = statistics(torch.zeros(1, *generator.model.shape)).shape[1]
    each = -(-walks.count // engine.num_processes)
    where = place(generator.model.device)
    rows = torch.zeros(1, each, size, width, dtype=torch.float64, device=where)
    for j, block in enumerate(mine):
        rows[0, j] = block
    found: Tensor = engine.gather(rows).transpose(0, 1).flatten(0, 2)
    return found[: walks.count * size].cpu()


def effects_of_noise(plan: Plan, i: int) -> list[float]:
    """What one unit of predicted noise adds to the state and to each memory at a visit, ``x_0`` following from it."""
    x0, eps = plan.update[i, :, -3:-1].unbind(dim=1)
    return (eps - x0 * plan.sigma[i] / plan.alpha[i]).tolist()


def nearest_root(a: Tensor, b: Tensor, c: Tensor, near: float) -> Tensor:
    """Of ``a g^2 + 2 b g + c = 0`` the solution next to ``near``; where there is none, the least value."""
    root = (b**2 - a * c).clamp(min=0).sqrt()
    larger, smaller = (-b + root) / a, (-b - root) / a
    return torch.where((larger - near).abs() <= (smaller - near).abs(), larger, smaller).clamp(SMALLEST, LARGEST)


def _sums(plan: Plan, i: int, block: Standing) -> Tensor:
    """Sums over the images of a block, float64 (6, 4)."""
    assert block.seen is not None
    u, e = float(plan.after[i, 0]) * block.seen.x0, effects_of_noise(plan, i)[0] * block.seen.eps
    us, rs, xs, es = (split(z) for z in (u, block.x - u, block.x, e))
    norm = norms(block.seen)[:, None].expand(-1, HAAR)
    each = [products(us, us), products(us, rs), products(rs, rs), products(xs, es), products(es, es), norm]
    return torch.stack(each).sum(dim=1)


def norms(seen: Prediction) -> Tensor:
    """The Euclidean norm of each image's predicted noise, float64 (B,); NaN where the network's output is not finite,
    which clipping would hide.
    """
    finite = (0 * seen.output).flatten(1).sum(dim=1)
    found: Tensor = torch.linalg.vector_norm(seen.eps.flatten(1), dim=1)
    return precise(found) + precise(finite)


def _tables(gains: Mapping[float, tuple[Tensor, Tensor]]) -> tuple[tuple[tuple[tuple[float, float], ...], ...], ...]:
    """Tables of gains, one a band, of x_0 and of eps."""
    return tuple(
        tuple(tuple((t, float((a, b)[which][band])) for t, (a, b) in gains.items()) for band in range(HAAR))
        for which in (0, 1)
    )
