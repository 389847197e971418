"""The program ``calibrate``: the corrections that weights, a sampler and its times need, fitted to what is measured.

No image is compared by a trained network, unless somebody names one: states are held against what follows from the
training images alone (:mod:`ddpm_ip.exposure.fit`), finished images by a distance that a few thousand of them can tell
(:mod:`ddpm_ip.exposure.mismatch`). The corrections are kept beside the weights, for ``--corrections auto``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_ip.config import Config
from ddpm_ip.data import ImageSet
from ddpm_ip.engine import from_main
from ddpm_ip.errors import ConfigError
from ddpm_ip.evaluate.evaluate import Evaluator
from ddpm_ip.evaluate.features import find_extractor
from ddpm_ip.evaluate.images import open_samples
from ddpm_ip.exposure.candidates import BALANCE, BOTH, NONE, Candidate, Trial, candidates, energy_ratio
from ddpm_ip.exposure.fit import Target
from ddpm_ip.exposure.haar import BANDS, energy
from ddpm_ip.exposure.mismatch import Mismatch, statistics
from ddpm_ip.exposure.program import real_images
from ddpm_ip.exposure.truth import Truth, truth
from ddpm_ip.images import to_unit
from ddpm_ip.memory import enough_memory
from ddpm_ip.run.log import setup
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.weights import Weights
from ddpm_ip.sample import calibrated
from ddpm_ip.sample.analytic import chosen
from ddpm_ip.sample.filled import filled, together
from ddpm_ip.sample.generator import Model
from ddpm_ip.sample.program import default_block, load_model, sampling_engine
from ddpm_ip.sampler.correction import BandGains, Correction
from ddpm_ip.sampler.correction.auto import items
from ddpm_ip.sampler.sampling import Sampling

log = logging.getLogger("ddpm_ip.exposure")

PAYS = 0.6  # of the mismatch without a correction: what the best must leave at most, or nothing is corrected
CLEARLY = 0.75  # of the mismatch of the usual one: what another must leave at most, to be taken instead
BETTER = 0.98  # the same in features that somebody names
STRENGTHS = (0.5, 0.75, 1.25)  # of gains, as exponents, that a search in features tries
BLOCKS = 5  # that the images are made in, at least
REAL = 10_000  # images behind the statistics of real ones
MOST_NUMBERS = 2**30  # of real images that are looked at


@dataclass(frozen=True)
class CalibrateOptions:
    """How a calibration is made.

    Args:
        n: walks behind each fit.
        seed: of their noise, and of the choice of real images; another than images are made with.
        extractor: of features that decide instead of the mismatch (:func:`ddpm_ip.evaluate.features.find_extractor`);
            None for none.
    """

    n: int = 2000
    seed: int = 1
    extractor: str | None = None

    def __post_init__(self) -> None:
        if self.n < 10:
            raise ConfigError(f"--n {self.n}: a fit needs some hundreds of walks; at least 10")


@dataclass(frozen=True, repr=False)
class Calibration:
    """What was found.

    Attributes:
        file: where it is kept.
        found: what it holds; see :func:`ddpm_ip.sample.calibrated.keep`.
    """

    file: Path
    found: Mapping[str, Any]

    def as_text(self) -> str:
        """The candidates as a table, and the sentences."""
        rows = [("", "mismatch", "share", *(["distance"] if self._judged else []))]
        for c in self.found["candidates"]:
            mark = "* " if c["name"] == self.found["chosen"] else "  "
            told = [] if not self._judged else ["" if c["distance"] is None else f"{c['distance']:.2f}"]
            rows.append((mark + c["name"], f"{c['mismatch']:.3f}", f"{c['share']:.2f}", *told))
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        lines = [
            "  ".join(w.ljust(widths[k]) if k == 0 else w.rjust(widths[k]) for k, w in enumerate(row)) for row in rows
        ]
        sentences = [self.found["why"], *self.found["expects"], *self.found["suggestions"].values()]
        return "\n".join([*lines, "", *sentences, *self.found["cannot_know"], str(self.file)])

    @property
    def _judged(self) -> bool:
        return any(c["distance"] is not None for c in self.found["candidates"])

    __str__ = as_text

    def __repr__(self) -> str:
        held = "+".join(item["name"] for item in self.found["corrections"]) or "no correction"
        return f"<calibration {self.file.name}: {held}. {self.found['why']}>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.as_text())}</pre>"


def calibrate(config: Config, weights: Weights, sampling: Sampling, options: CalibrateOptions) -> Calibration:
    """Fits corrections and keeps them; all processes call this together.

    Args:
        config: of the model.
        weights: of it.
        sampling: how it is sampled; ``auto`` in it is where the corrections will stand.
        options: how.

    Raises:
        UserError: anything that the user can put right; an earlier calibration stays.
    """
    engine = sampling_engine(config, sampling)
    setup(None, engine.is_main_process)
    source = real_images(config, engine, None)
    extractor = None if options.extractor is None else find_extractor(options.extractor, engine.device)
    wanted = sampling.block or min(default_block(config, engine), max(1, options.n // BLOCKS))
    block = from_main(engine, wanted)
    with enough_memory(lambda: f"there is too little memory: take --batch_size {max(1, block // 2)} or a smaller --n"):
        model = load_model(config, weights.tensors, engine, weights.origin)
        store = Measured.of(weights.sha256, Path(weights.origin))
        together(engine, lambda: store.at_home().refuse_unwritable("calibration"))
        base = replace(calibrated.base(sampling), block=block, seed=options.seed)
        base = filled(base.filled(config.diffusion.var_type), config, store, model)
        pixels, labels = _shown(source, base, config, options)
        trial = _trial(model, config, base, source, options)
        known = truth(model.generator(base), pixels[: max(block, len(pixels) // 2)], labels, options.seed)
        gamma = _gamma(config)
        tried = list(candidates(trial, known, gamma))
        found = _told(trial, known, tried, gamma)
        if extractor is not None:
            evaluator = Evaluator(extractor, ["fid"], engine.device)
            found = _by_features(trial, tried, found, evaluator, source)
    found["settings"] = {
        "n": options.n, "seed": options.seed, "block": block, "extractor": options.extractor, "data": source.name,
        "data_sha256": source.fingerprint, "precision": engine.mixed_precision, "device": engine.device.type,
    }  # fmt: skip
    file = together(engine, lambda: calibrated.keep(sampling, config, weights.sha256, Path(weights.origin), found))
    return Calibration(file, found)


def _gamma(config: Config) -> float:
    """The strength of the perturbation behind the weights, where it is one number of all steps."""
    strength = getattr(config.perturbation, "gamma", 0.0)
    return float(strength) if isinstance(strength, int | float) else 0.0


def _shown(
    source: ImageSet, sampling: Sampling, config: Config, options: CalibrateOptions
) -> tuple[Tensor, Tensor | None]:
    """Real images that the network is asked about, of the classes that are sampled: ``uint8``, and their labels."""
    which = chosen(_of_classes(source, sampling, config), options.n, options.seed)
    pixels = torch.from_numpy(np.array(source.pixels[which]))
    if sampling.block is not None and len(pixels) < sampling.block:
        pixels = pixels[torch.arange(sampling.block) % len(pixels)]
        which = which[np.arange(sampling.block) % len(which)]
    if config.classes is None or source.labels is None:
        return pixels, None
    labels = torch.from_numpy(np.array(source.labels[which]))
    return pixels, torch.full_like(labels, -1) if set(sampling.classes or ()) == {-1} else labels


def _of_classes(source: ImageSet, sampling: Sampling, config: Config) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The indices of the real images that images of this sampling are to be like."""
    wanted = [c for c in sampling.classes or () if c >= 0]
    if config.classes is None or not wanted or source.labels is None:
        return np.arange(len(source))
    which = np.flatnonzero(np.isin(source.labels, wanted))
    if len(which) < 2:
        raise ConfigError(f"{source.name} has {len(which)} images of the classes {wanted}: choose others")
    return which


def _trial(model: Model, config: Config, sampling: Sampling, source: ImageSet, options: CalibrateOptions) -> Trial:
    """What candidates are held against: the energies of all real images, and statistics of some."""
    which = _of_classes(source, sampling, config)
    most = max(options.n, MOST_NUMBERS // math.prod(source.shape))
    which = chosen(which, most, options.seed)
    sums, seen, rows = torch.zeros(BANDS, dtype=torch.float64, device=model.device), 0, []
    for start in range(0, len(which), 512):
        pixels = torch.from_numpy(np.array(source.pixels[which[start : start + 512]])).to(model.device)
        images = to_unit(pixels)
        sums += energy(images).sum(dim=0)
        if seen < REAL:
            rows.append(statistics(images))
        seen += len(images)
    _, height, width = source.shape
    return Trial(model, sampling, Target.of(sums / seen, height, width), Mismatch.to(torch.cat(rows)), options.n)


def choose(tried: Sequence[Candidate]) -> Candidate:
    """What to use: balanced bands where they take away enough, else nothing; another only where it is clearly better.

    The mismatch is not the distance that counts in the end, so small differences decide nothing.
    """
    by_name = {c.name: c for c in tried}
    best = by_name[NONE]
    usual = by_name.get(BALANCE)
    if usual is not None and usual.share < PAYS:
        best = usual
    others = [c for c in tried if c.share < CLEARLY * best.share and (best.name != NONE or c.share < PAYS)]
    return min(others, key=lambda c: c.share, default=best)


def _told(trial: Trial, known: Truth, tried: Sequence[Candidate], gamma: float) -> dict[str, Any]:
    """All of a calibration but its settings, chosen by the mismatch."""
    best = choose(tried)
    generator = trial.model.generator(trial.sampling)
    plain = tried[0]
    if best.name == NONE:
        least = min(tried[1:], key=lambda c: c.share, default=plain)
        why = (
            f"Nothing is corrected: of {len(tried) - 1} corrections none takes away enough of the mismatch to be sure "
            f"that it helps ({least.name} leaves {least.share:.2f} of it, and {PAYS} would be little enough)."
        )
    else:
        why = f"{best.name} leaves {best.share:.2f} times the mismatch that there is without a correction."
    return {
        "corrections": [items(c) for c in best.chain],
        "chosen": best.name,
        "why": why,
        "candidates": [c.to_dict() for c in tried],
        "expects": [_expected(best, plain)],
        "cannot_know": [
            "The mismatch sees noise, detail, contrast and colour, not what an image shows: measure with `ddpm-ip "
            "table --corrections none auto`."
        ],
        "suggestions": suggestions(tried, known, gamma),
        "curves": _curves(generator.plan.t.tolist(), generator.plan.times()[1:], known, tried, trial),
    }


def _expected(best: Candidate, plain: Candidate) -> str:
    n = min(len(best.fitted.statistics), len(plain.fitted.statistics))
    if best.name == NONE:
        return f"The mismatch of {n} images stays at {plain.mismatch:.3g}."
    return f"The mismatch of {n} images goes from {best.mismatch / best.share:.3g} to {best.mismatch:.3g}."


def suggestions(tried: Sequence[Candidate], known: Truth, gamma: float) -> dict[str, str]:
    """What the measurements say about training, in sentences."""
    by_name = {c.name: c for c in tried}
    slope = float(known.slope.mean())
    expected = f"; about {1 / math.sqrt(1 + gamma**2):.3f} of it is the perturbation's" if gamma else ""
    told = {
        "slope": f"On real noisy images the network says {slope:.3f} times the noise that an optimal one would, in the "
        f"mean over the times{expected}."
    }
    constant = by_name.get("epsilon_scaling, constant")
    if constant is not None:
        scale = float(constant.chain[0].scale)  # type: ignore[attr-defined]
        total = scale * math.sqrt(1 + gamma**2)
        if scale > 1.001:
            told["gamma"] = (
                f"States on the way lack noise: a constant epsilon scale of {scale:.4g} would bring them nearest. "
                f"Training with gamma {math.sqrt(total**2 - 1):.2g} builds such a scale in, for this sampler."
            )
        else:
            told["gamma"] = (
                f"States on the way do not lack noise (the epsilon scale that brings them nearest is {scale:.4g}): for "
                f"this sampler {'less' if gamma else 'no'} perturbation is asked for."
            )
    undone = by_name.get("undone perturbation")
    if undone is not None:
        told["undo"] = (
            f"Undoing the perturbation (ip_emulator,gamma={gamma:g},undo=true) leaves {undone.share:.2f} times the "
            f"mismatch: with this sampler it {'helps' if undone.share < 1 else 'does not help'}."
        )
    return told


def _curves(
    asked: Sequence[float], after: Sequence[float], known: Truth, tried: Sequence[Candidate], trial: Trial
) -> dict[str, dict[str, list[float]]]:
    """What was measured, by time."""
    plain = tried[0].fitted
    total = energy_ratio(trial.model.generator(trial.sampling), plain.ratio, trial.target)
    found = {
        "slope": {"t": list(asked), "value": known.slope.tolist()},
        "eps_norm.ratio": {"t": list(asked), "value": (plain.norm / known.norm).tolist()},
        "energy.ratio": {"t": list(after), "value": total.tolist()},
    }
    for band in range(BANDS):
        found[f"energy.haar{band}.ratio"] = {"t": list(after), "value": plain.ratio[:, band].tolist()}
    for candidate in tried:
        for correction in candidate.chain:
            if isinstance(correction, BandGains):
                of = {BALANCE: "balance", BOTH: "both"}.get(candidate.name, candidate.name)
                for letter, gains in (("a", correction.x0), ("b", correction.eps)):
                    for band, gain in enumerate(gains):
                        t, value = zip(*gain, strict=True) if isinstance(gain, tuple) else ((0.0,), (gain,))
                        found[f"gain.{of}.{letter}.haar{band}"] = {"t": list(t), "value": list(value)}
    return found


def _by_features(
    trial: Trial, tried: Sequence[Candidate], found: dict[str, Any], evaluator: Evaluator, source: ImageSet
) -> dict[str, Any]:
    """The same, chosen by a distance of the images in features, and searched a little around the best."""

    def distance(candidate: Candidate) -> float:
        images = iter([block[: trial.n] for block in candidate.fitted.images])
        values = evaluator.evaluate(open_samples(images, {"calibration": candidate.name}), source).values
        log.info("%s: distance %.4g in the features of %s", candidate.name, (one := next(iter(values.values()))),
                 evaluator.extractor.name)  # fmt: skip
        return float(one)

    plain = tried[0].fitted
    whole = len(plain.statistics)
    near = sorted(tried, key=lambda c: c.share)[:3]
    judged: list[Candidate] = []
    for one in tried:
        if one.name not in (NONE, BALANCE, BOTH) and one not in near:
            continue
        if len(one.fitted.statistics) < whole:
            one = trial.candidate(one.name, one.chain, trial.walked(one.chain), plain)
        judged.append(one)
    distances = {c.name: distance(c) for c in judged}
    best = min(judged, key=lambda c: distances[c.name])
    for strength in STRENGTHS if best.name in (BALANCE, BOTH) else ():
        chain = tuple(_stronger(c, strength) for c in best.chain)
        one = trial.candidate(f"{best.name}, strength {strength:g}", chain, trial.walked(chain), plain)
        judged.append(one)
        distances[one.name] = distance(one)
    best = min(judged, key=lambda c: distances[c.name])
    before = distances[NONE]
    if distances[best.name] > BETTER * before:
        best = judged[0]
    names = {c.name for c in judged}
    every = [*(c for c in tried if c.name not in names), *judged]
    features = evaluator.extractor.name
    why = (
        f"Nothing is corrected: no correction brings {whole} images nearer to real ones in the features of {features}."
        if best.name == NONE
        else f"{best.name} brings the distance of {whole} images in the features of {features} from {before:.4g} to "
        f"{distances[best.name]:.4g}."
    )
    return {
        **found,
        "corrections": [items(c) for c in best.chain],
        "chosen": best.name,
        "why": why,
        "expects": [_expected(best, judged[0])],
        "candidates": [{**c.to_dict(), "distance": distances.get(c.name)} for c in every],
    }


def _stronger(correction: Correction, strength: float) -> Correction:
    """Gains to a power."""
    if not isinstance(correction, BandGains):
        return correction

    def powered(gain: float | tuple[tuple[float, float], ...]) -> float | tuple[tuple[float, float], ...]:
        return gain**strength if isinstance(gain, float) else tuple((t, g**strength) for t, g in gain)

    return BandGains(tuple(map(powered, correction.x0)), tuple(map(powered, correction.eps)))
