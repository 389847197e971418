"""Which candidate of a calibration is used: by the mismatch, or by a distance in features that somebody names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from ddpm_ip.data import ImageSet
from ddpm_ip.evaluate.evaluate import Evaluator
from ddpm_ip.evaluate.images import open_samples
from ddpm_ip.exposure.candidates import BALANCE, BOTH, NONE, Candidate, Trial
from ddpm_ip.sampler.correction import BandGains, Correction

log = logging.getLogger("ddpm_ip.exposure")

PAYS = 0.6  # of the mismatch without a correction: what the best must leave at most, or nothing is corrected
CLEARLY = 0.75  # of the mismatch of the usual one: what another must leave at most, to be taken instead
BETTER = 0.98  # the same in features that somebody names
NEAR = 3  # candidates of the least mismatch that are judged in features
STRENGTHS = (0.5, 0.75, 1.25)  # of gains, as exponents, that a search in features tries


class Chosen(NamedTuple):
    """What is used, and what it was chosen from.

    Attributes:
        best: what is used.
        tried: all candidates; the first is none.
        features: what the features are called that decided; None where the mismatch did.
        distances: of those that were judged in features, by name.
    """

    best: Candidate
    tried: Sequence[Candidate]
    features: str | None
    distances: dict[str, float]


def choose(tried: Sequence[Candidate]) -> Candidate:
    """What to use: balanced bands if they remove enough, else nothing; another candidate only if it is clearly better.

    The mismatch is not the distance that counts in the end, so small differences decide nothing.
    """
    by_name = {c.name: c for c in tried}
    best = by_name[NONE]
    usual = by_name.get(BALANCE)
    if usual is not None and usual.share < PAYS:
        best = usual
    others = [c for c in tried if c.share < CLEARLY * best.share and (best.name != NONE or c.share < PAYS)]
    return min(others, key=lambda c: c.share, default=best)


def by_mismatch(trial: Trial, tried: Sequence[Candidate]) -> Chosen:
    """The choice by the mismatch; what is chosen was judged on all images."""
    tried = list(tried)
    while (best := choose(tried)).n < tried[0].n:
        tried[tried.index(best)] = _whole(trial, best, tried[0])
    return Chosen(best, tried, None, {})


def by_features(trial: Trial, tried: Sequence[Candidate], evaluator: Evaluator, source: ImageSet) -> Chosen:
    """The choice by a distance of the images in features, and a search in the strength of gains around the best."""
    near = sorted(tried, key=lambda c: c.share)[:NEAR]
    judged = [_whole(trial, c, tried[0]) for c in tried if c.name in (NONE, BALANCE, BOTH) or c in near]
    distances = {c.name: _distance(c, evaluator, source) for c in judged}
    best = min(judged, key=lambda c: distances[c.name])
    for strength in STRENGTHS if best.name in (BALANCE, BOTH) else ():
        chain = tuple(stronger(c, strength) for c in best.chain)
        name = f"{best.name}, strength {strength:g}"
        judged.append(trial.candidate(name, chain, trial.walked(chain), tried[0].fitted))
        distances[name] = _distance(judged[-1], evaluator, source)
    best = min(judged, key=lambda c: distances[c.name])
    if distances[best.name] > BETTER * distances[NONE]:
        best = judged[0]
    whole = {c.name: c for c in judged}
    every = [*(whole.pop(c.name, c) for c in tried), *whole.values()]
    return Chosen(best, every, evaluator.extractor.name, distances)


def _whole(trial: Trial, one: Candidate, plain: Candidate) -> Candidate:
    """The same, judged on all images."""
    if one.n >= plain.n:
        return one
    return trial.candidate(one.name, one.chain, trial.walked(one.chain), plain.fitted)


def _distance(one: Candidate, evaluator: Evaluator, source: ImageSet) -> float:
    samples = open_samples(iter(one.fitted.images), {"calibration": one.name})
    (found,) = evaluator.evaluate(samples, source).values.values()
    log.info("%s: distance %.4g in the features of %s", one.name, found, evaluator.extractor.name)
    return float(found)


def stronger(correction: Correction, strength: float) -> Correction:
    """Gains to a power; any other correction unchanged."""
    if not isinstance(correction, BandGains):
        return correction

    def powered(gain: float | tuple[tuple[float, float], ...]) -> float | tuple[tuple[float, float], ...]:
        return gain**strength if isinstance(gain, float) else tuple((t, g**strength) for t, g in gain)

    return BandGains(tuple(map(powered, correction.x0)), tuple(map(powered, correction.eps)))
