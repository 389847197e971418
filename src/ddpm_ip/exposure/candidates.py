"""Corrections that a calibration tries: fitted to measured curves, each judged by the images that it makes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ddpm_ip.errors import ConfigError
from ddpm_ip.exposure import shapes
from ddpm_ip.exposure.fit import Balance, Fitted, Method, Scale, Target, Watch, fit
from ddpm_ip.exposure.mismatch import Mismatch
from ddpm_ip.exposure.truth import Truth
from ddpm_ip.sample.generator import Generator, Model
from ddpm_ip.sampler.correction import Correction, IPEmulator
from ddpm_ip.sampler.correction.auto import items
from ddpm_ip.sampler.sampling import Sampling

log = logging.getLogger("ddpm_ip.exposure")

NONE, BALANCE, BOTH = "none", "band_gains", "band_gains of both"
FEW = 5  # what is fitted by few numbers is judged on one image of so many


@dataclass(frozen=True)
class Candidate:
    """A chain of corrections and what it leaves.

    Attributes:
        name: what it is called.
        chain: the corrections, after those of the sampling itself.
        mismatch: of its images (:mod:`ddpm_ip.exposure.mismatch`).
        share: that over the mismatch of as many images without it.
        fitted: the walks.
    """

    name: str
    chain: tuple[Correction, ...]
    mismatch: float
    share: float
    fitted: Fitted

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``distance`` is in features of somebody's own, where that was measured."""
        n = len(self.fitted.statistics)
        return {
            "name": self.name, "corrections": [items(c) for c in self.chain], "mismatch": self.mismatch,
            "share": self.share, "n": n, "distance": None,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Trial:
    """How candidates are walked and judged.

    Args:
        model: the network.
        sampling: how it is sampled, with nothing left open.
        target: what true states hold.
        judge: how far images are from real ones.
        n: images.
    """

    model: Model
    sampling: Sampling
    target: Target
    judge: Mismatch
    n: int

    def walked(self, chain: Sequence[Correction] = (), method: Method | None = None, few: bool = False) -> Fitted:
        """Images with a chain, or with what a method decides on the way."""
        sampling = replace(self.sampling, corrections=(*self.sampling.corrections, *chain))  # type: ignore[arg-type]
        n = max(1, self.n // FEW) if few else self.n
        return fit(self.model.generator(sampling), n, self.target, method or Watch())

    def mismatch(self, fitted: Fitted, n: int | None = None) -> float:
        """Of the first ``n`` images of a walk, or of all."""
        return self.judge(fitted.statistics[:n].to(self.judge.mean.device))

    def candidate(self, name: str, chain: Sequence[Correction], fitted: Fitted, plain: Fitted) -> Candidate:
        """What was walked, judged."""
        n = min(len(fitted.statistics), len(plain.statistics))
        found, before = self.mismatch(fitted, n), self.mismatch(plain, n)
        log.info("%s: mismatch %.3g of %d images, %.3g without it", name, found, n, before)
        return Candidate(name, tuple(chain), found, found / before if before > 0 else 1.0, fitted)


def candidates(trial: Trial, known: Truth, gamma: float) -> Iterator[Candidate]:
    """Each correction, fitted and judged; the first is none.

    Args:
        trial: how.
        known: what the network says of true states.
        gamma: the strength of the perturbation that the network was trained with, 0 for none.
    """
    plain = trial.walked()
    yield trial.candidate(NONE, (), plain, plain)
    yield from fixed(trial, trial.model.generator(trial.sampling), known, gamma, plain)
    taken = {c.name for c in trial.sampling.corrections}
    if "band_gains" in taken:
        return
    for name, predicted in ((BALANCE, None), (BOTH, known.predicted)):
        fitted = trial.walked(method=Balance(predicted))
        if fitted.correction is not None:
            yield trial.candidate(name, (fitted.correction,), fitted, plain)


def fixed(trial: Trial, generator: Generator, known: Truth, gamma: float, plain: Fitted) -> Iterator[Candidate]:
    """Corrections of few numbers, on fewer images."""
    plan, schedule = generator.plan, trial.model.denoiser.schedule
    tried: dict[str, Correction | None] = {}
    if gamma > 0:
        tried["undone perturbation"] = IPEmulator(gamma, undo=True)
    tried["epsilon_scaling by the network's slope"] = shapes.table(plan.t.tolist(), known.slope.tolist())
    taken = {c.name for c in trial.sampling.corrections}
    if "epsilon_scaling" not in taken:
        scaled = trial.walked(method=Scale(), few=True)
        if scaled.correction is not None:
            yield trial.candidate("epsilon_scaling by t", (scaled.correction,), scaled, plain)
            factors = scaled.correction.numbers(plan, schedule)[:, 0]
            tried |= {
                "epsilon_scaling, constant": shapes.constant(factors.tolist()),
                "epsilon_scaling, line": shapes.line(plan, factors),
                "tsr": shapes.tsr(plan, schedule, factors),
            }
    ratio = energy_ratio(generator, plain.ratio, trial.target)
    tried["time_shift"] = shapes.time_shift(plan, schedule, ratio, float(trial.target.images.sum()))
    for name, correction in tried.items():
        if correction is None or correction.name in taken:
            continue
        try:
            yield trial.candidate(name, (correction,), trial.walked((correction,), few=True), plain)
        except ConfigError as error:
            log.info("%s: %s", name, error)


def energy_ratio(generator: Generator, ratio: Tensor, target: Target) -> Tensor:
    """The energy of all bands together over that of true states after each visit, (V,), of that in each, (V, 4)."""
    wanted = torch.stack([target.at(*after).cpu() for after in generator.plan.after.tolist()])
    return (ratio * wanted).sum(dim=1) / wanted.sum(dim=1)
