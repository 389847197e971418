"""Corrections that a calibration tries: fitted to measured curves, each judged by the images that it makes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddpm_ip.errors import ConfigError, Diverged
from ddpm_ip.exposure import shapes
from ddpm_ip.exposure.fit import Balance, Fitted, Method, Scale, Target, Watch, fit
from ddpm_ip.exposure.mismatch import Mismatch
from ddpm_ip.exposure.truth import Truth
from ddpm_ip.sample.calibrated import placed
from ddpm_ip.sample.generator import Generator, Sampled
from ddpm_ip.sampler.correction import Auto, Correction, IPEmulator
from ddpm_ip.sampler.correction.auto import items
from ddpm_ip.sampler.sampling import Sampling

log = logging.getLogger("ddpm_ip.exposure")

NONE, BALANCE, BOTH = "none", "band_gains", "band_gains of both"
BY_T, BY_SLOPE, CONSTANT = "epsilon_scaling by t", "epsilon_scaling by the network's slope", "epsilon_scaling, constant"
UNDONE = "undone perturbation"
FEW = 5  # what is fitted by few numbers is judged on one image of so many


@dataclass(frozen=True, eq=False)
class Candidate:
    """A chain of corrections and what it leaves.

    Attributes:
        name: what it is called.
        chain: the corrections, which stand where ``auto`` does.
        mismatch: of its images (:mod:`ddpm_ip.exposure.mismatch`).
        before: of as many images without it.
        fitted: the walks.
    """

    name: str
    chain: tuple[Correction, ...]
    mismatch: float
    before: float
    fitted: Fitted

    @property
    def share(self) -> float:
        """The share of the mismatch without it that is left; 1 where there was none."""
        return self.mismatch / self.before if self.before > 0 else 1.0

    @property
    def n(self) -> int:
        """The images that it was judged by."""
        return len(self.fitted.statistics)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``distance`` is in features of somebody's own, where that was measured."""
        return {
            "name": self.name, "corrections": [items(c) for c in self.chain], "mismatch": self.mismatch,
            "share": self.share, "n": self.n, "distance": None,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Trial:
    """How candidates are walked and judged.

    Args:
        model: the network.
        sampling: how it is sampled; nothing is left open but ``auto``, where the candidates stand.
        target: what true states hold.
        judge: how far images are from real ones.
        n: images.
    """

    model: Sampled
    sampling: Sampling
    target: Target
    judge: Mismatch
    n: int

    @property
    def taken(self) -> set[str]:
        """The names of the corrections that the sampling has anyway."""
        return {c.name for c in self.sampling.corrections}

    def generator(self, chain: Sequence[Correction] = ()) -> Generator:
        """The model, sampled with a chain."""
        return self.model.generator(placed(self.sampling, chain))

    def walked(self, chain: Sequence[Correction] = (), method: Method | None = None, few: bool = False) -> Fitted:
        """Images with a chain, or with what a method decides on the way."""
        n = max(1, self.n // FEW) if few else self.n
        return fit(self.generator(chain), n, self.target, method or Watch())

    def balanced(self, method: Balance) -> Fitted:
        """Images with the gains that a method decides: those of its own walk, or, where a correction comes after
        ``auto``, of another.
        """
        fitted = self.walked(method=method)
        if fitted.correction is None or isinstance(self.sampling.corrections[-1], Auto):
            return fitted
        return self.walked((fitted.correction,))._replace(correction=fitted.correction)

    def candidate(self, name: str, chain: Sequence[Correction], fitted: Fitted, plain: Fitted) -> Candidate:
        """What was walked, judged."""
        n = min(len(fitted.statistics), len(plain.statistics))
        found, before = (self.judge(one.statistics[:n].to(self.judge.mean.device)) for one in (fitted, plain))
        judged = Candidate(name, tuple(chain), found, before, fitted)
        told = f", {judged.share:.2f} times that without it" if chain else ""
        log.info("%s: mismatch %.3g of %d images%s", name, found, n, told)
        return judged


def candidates(trial: Trial, known: Truth, gamma: float | None) -> Iterator[Candidate]:
    """Each correction, fitted and judged; the first is none.

    Args:
        trial: how.
        known: what the network says of true states.
        gamma: the strength of the perturbation that can be undone, 0 or None for none.
    """
    plain = trial.walked()
    yield trial.candidate(NONE, (), plain, plain)
    yield from _of_few_numbers(trial, known, gamma, plain)
    if "band_gains" in trial.taken:
        return
    for name, predicted in ((BALANCE, None), (BOTH, known.predicted)):
        fitted = trial.balanced(Balance(predicted))
        if fitted.correction is not None:
            yield trial.candidate(name, (fitted.correction,), fitted, plain)


def _of_few_numbers(trial: Trial, known: Truth, gamma: float | None, plain: Fitted) -> Iterator[Candidate]:
    """Corrections of few numbers, on fewer images.

    A constant, a line and TSR are read off a table of factors: of the two, that fitted on the way and that of the
    network's slope, the one whose images are better.
    """
    generator = trial.generator()
    plan, schedule = generator.plan, trial.model.denoiser.schedule
    if gamma:
        yield from _judged(trial, UNDONE, IPEmulator(gamma, undo=True), plain)
    tables = [*_judged(trial, BY_SLOPE, shapes.table(plan.t.tolist(), known.slope.tolist()), plain)]
    if "epsilon_scaling" not in trial.taken:
        tables += _judged(trial, BY_T, trial.walked(method=Scale(), few=True).correction, plain)
    yield from tables
    if tables:
        factors = min(tables, key=lambda c: c.share).chain[0].numbers(plan, schedule)[:, 0]
        yield from _judged(trial, CONSTANT, shapes.constant(factors.tolist()), plain)
        yield from _judged(trial, "epsilon_scaling, line", shapes.line(plan, factors), plain)
        yield from _judged(trial, "tsr", shapes.tsr(plan, schedule, factors), plain)
    ratio = energy_ratio(generator, plain.ratio, trial.target)
    shift = shapes.time_shift(plan, schedule, ratio, float(trial.target.images.sum()))
    yield from _judged(trial, "time_shift", shift, plain)


def _judged(trial: Trial, name: str, correction: Correction | None, plain: Fitted) -> Iterator[Candidate]:
    """A correction, judged on fewer images; nothing if there is none, or if images cannot be made with it."""
    if correction is None or correction.name in trial.taken:
        return
    try:
        yield trial.candidate(name, (correction,), trial.walked((correction,), few=True), plain)
    except (ConfigError, Diverged) as error:
        log.info("%s: %s", name, error)


def energy_ratio(generator: Generator, ratio: Tensor, target: Target) -> Tensor:
    """The energy of all bands together over that of true states after each visit, (V,), of that in each, (V, 4)."""
    wanted = torch.stack([target.at(*after).cpu() for after in generator.plan.after.tolist()])
    return (ratio * wanted).sum(dim=1) / wanted.sum(dim=1)
