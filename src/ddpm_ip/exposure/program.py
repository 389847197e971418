"""The program ``exposure``: curves of exposure bias for weights and ways to sample them, kept next to the weights.

A file holds what was measured for one sampling (:mod:`ddpm_ip.exposure.curves`). What is there already is not measured
again; a call that asks for more measures what is missing, and adds it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from ddpm_ip.config import Config
from ddpm_ip.data import DataConfig, ImageSet
from ddpm_ip.data.labels import check_labels
from ddpm_ip.engine import from_main, in_turns
from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.exposure.curves import FOLDER, Curve, Exposure
from ddpm_ip.exposure.estimates import curves
from ddpm_ip.exposure.measure import MEASURES, Measurement, Real
from ddpm_ip.memory import enough_memory
from ddpm_ip.run.log import setup
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.row import row_label
from ddpm_ip.run.weights import Weights
from ddpm_ip.sample.analytic import chosen
from ddpm_ip.sample.calibrated import NotCalibrated, all_missing
from ddpm_ip.sample.filled import calibrated_alone, filled, together
from ddpm_ip.sample.generator import Generator, Model
from ddpm_ip.sample.program import default_block, load_model, sampling_engine
from ddpm_ip.sampler.correction import Auto
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.sampler.spacing import listed, shown
from ddpm_ip.table.rows import brief

log = logging.getLogger("ddpm_ip.exposure")

USUAL_STEPS = 50  # where nobody says
USUAL_SPACING = "uniform-linspace"
LEAST = 10  # images
DIGITS = 8  # of the hash, in the name of a file


@dataclass(frozen=True)
class ExposureOptions:
    """What to measure.

    Args:
        n: images; at most as many as there are real ones.
        measures: of :data:`ddpm_ip.exposure.measure.MEASURES`; all if none is named.
        again: also what is there already.
        reference: the real images; None for those that the run was trained on.
    """

    n: int = 10_000
    measures: Sequence[str] = ()
    again: bool = False
    reference: DataConfig | None = None

    def __post_init__(self) -> None:
        if self.n < LEAST:
            raise ConfigError(f"{self.n} images: a spread over images, with its error, needs at least {LEAST}")
        if unknown := [name for name in self.measures if name not in MEASURES]:
            raise ConfigError(f"unknown measure {unknown[0]!r:.80}: choose of {', '.join(MEASURES)}")
        object.__setattr__(self, "measures", tuple(self.measures) or MEASURES)


@dataclass(frozen=True)
class Kept:
    """An exposure, and the file that holds it."""

    exposure: Exposure
    file: Path


@dataclass(frozen=True, eq=False)
class Subject:
    """Whose exposure bias is measured.

    Attributes:
        config: of the model.
        weights: of it.
        model: with these weights.
        source: real images.
    """

    config: Config
    weights: Weights
    model: Model
    source: ImageSet


def exposures(config: Config, weights: Weights, samplings: Sequence[Sampling], options: ExposureOptions) -> list[Kept]:
    """Measures what is missing; all processes call this together.

    Args:
        config: of the model.
        weights: of it.
        samplings: ways to sample it, of one block and one precision; see :func:`with_usual_steps`.
        options: what to measure.

    Raises:
        UserError: anything that the user can put right; what was measured before stays.
    """
    engine = sampling_engine(config, samplings[0])
    setup(None, engine.is_main_process)
    together(engine, lambda: refuse_uncalibrated(config, weights, samplings))
    source = real_images(config, engine, options.reference)
    block = from_main(engine, samplings[0].block or default_block(config, engine))
    with enough_memory(lambda: f"there is too little memory: take --batch_size {max(1, block // 2)}, or fewer steps"):
        subject = Subject(config, weights, load_model(config, weights.tensors, engine, weights.origin), source)
        return [exposure_of(subject, replace(sampling, block=block), options) for sampling in samplings]


def refuse_uncalibrated(config: Config, weights: Weights, samplings: Sequence[Sampling]) -> None:
    """Names every calibration that ``auto`` needs and that is not there, before anything is measured.

    Raises:
        ConfigError: one is missing, or cannot be used.
    """
    store, missing = Measured.of(weights.sha256, Path(weights.origin)), []
    for sampling in samplings:
        if any(isinstance(c, Auto) for c in sampling.corrections):
            try:
                calibrated_alone(sampling, config, store)
            except NotCalibrated as error:
                missing.append(error)
    if missing:
        raise all_missing(missing)


def with_usual_steps(sampling: Sampling, config: Config) -> Sampling:
    """With :data:`USUAL_STEPS` where no number of steps is given, at most all that the model has."""
    if sampling.steps is not None or listed(sampling.spacing) is not None:
        return sampling
    return replace(sampling, steps=min(USUAL_STEPS, config.diffusion.total_steps))


def exposure_of(subject: Subject, sampling: Sampling, options: ExposureOptions) -> Kept:
    """The exposure of one sampling whose block is known, from its file or measured; all processes call this together.

    Raises:
        UserError: see :func:`exposures`.
    """
    model, weights = subject.model, subject.weights
    beside = Measured.of(weights.sha256, Path(weights.origin))
    generator = model.generator(filled(sampling, subject.config, beside, model))
    measurement = Measurement(generator, chosen_images(subject.source, generator, options.n), options.n)
    measurement = replace(measurement, n=len(measurement.real.pixels))
    store = Measured(beside.at_home().folder / FOLDER, weights.sha256)
    settings = _settings(measurement)
    name = name_of(settings, weights.sha256)
    found = together(model.engine, lambda: _read(store, name))
    there = () if found is None else found[1]
    missing = tuple(m for m in MEASURES if m in options.measures and (options.again or m not in there))
    if found is not None and not missing:
        log.info("%s has it already; --again measures it once more", store.file(name))
        return Kept(found[0], store.file(name))
    together(model.engine, lambda: store.refuse_unwritable(name))
    if measurement.n < options.n:
        log.warning("there are %d real images in %s: as many are measured", measurement.n, subject.source.name)
    label = _label(sampling, generator)
    drawn = _curves(replace(measurement, measures=missing), label)
    data = {"name": subject.source.name, "sha256": subject.source.fingerprint}
    earlier = {} if found is None else found[0].curves
    exposure = Exposure(label, weights.sha256, generator.facts(), measurement.n, data, {**earlier, **drawn})
    kept = [m for m in MEASURES if m in missing or m in there]
    numbers = {key: value for key, value in exposure.to_dict().items() if key != "weights"}
    file = together(model.engine, lambda: store.write(name, numbers, {**settings, "measures": kept}))
    log.info("kept in %s", file)
    return Kept(exposure, file)


def _curves(measurement: Measurement, label: str) -> dict[str, Curve]:
    """Measures."""
    engine = measurement.generator.model.engine
    log.info("measuring %s of %s on %d images", ", ".join(measurement.measures), label, measurement.n)
    total = -(-measurement.n // engine.num_processes)
    with tqdm(total=total, unit="img", disable=None if engine.is_main_process else True) as bar:
        return curves(measurement, measurement.sums(bar.update).together(engine))


def real_images(config: Config, engine: Accelerator, reference: DataConfig | None = None) -> ImageSet:
    """The images that sampled states are compared with; all processes call this together.

    Raises:
        ConfigError: they cannot be had, or do not fit the network.
    """
    try:
        source = in_turns(engine, lambda: (reference or config.data).open(progress=engine.is_main_process))
        if config.classes is not None:
            check_labels(source.labels, source.name, config.classes.count)
    except UserError as error:
        raise ConfigError(
            f"exposure bias is measured against real images, and those of the run cannot be had: {error}\nMake them "
            "available, or name the same or similar ones with --reference DATA"
            if reference is None
            else f"--reference: {error}"
        ) from None
    if source.shape != config.shape:
        raise ConfigError(f"the images of {source.name} are {source.shape}, and the network makes {config.shape}")
    return source


def chosen_images(source: ImageSet, generator: Generator, n: int) -> Real:
    """Some real images, by the seed of the sampling; of the classes that are sampled.

    Args:
        source: all there are.
        generator: how images are sampled. Where that is without a class, so are the real ones shown to the network.
        n: how many, at most.

    Raises:
        ConfigError: there are too few of these classes.
    """
    sampling, classes = generator.sampling, generator.model.classes
    which, wanted = chosen(of_classes(source, generator), n, sampling.seed), _wanted(sampling)
    if len(which) < LEAST:
        of = f" of the classes {', '.join(map(str, wanted))}" if wanted else ""
        raise ConfigError(f"{source.name} has {len(which)} images{of}, and {LEAST} or more are needed")
    pixels = torch.from_numpy(np.array(source.pixels[which]))
    if classes is None or source.labels is None:
        return Real(pixels)
    labels = torch.from_numpy(np.array(source.labels[which]))
    return Real(pixels, labels if wanted or sampling.classes is None else torch.full_like(labels, -1))


def of_classes(source: ImageSet, generator: Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The indices of the real images that sampled ones are to be like: of their classes, if they are of some."""
    wanted = _wanted(generator.sampling)
    if generator.model.classes is None or not wanted or source.labels is None:
        return np.arange(len(source))
    return np.flatnonzero(np.isin(source.labels, wanted))


def _wanted(sampling: Sampling) -> list[int]:
    """The classes that somebody named."""
    return [c for c in sampling.classes or () if c >= 0]


def _settings(measurement: Measurement) -> dict[str, Any]:
    """What the numbers depend on besides the weights, and by which a file is named."""
    sampling, schedule = measurement.generator.sampling, measurement.generator.model.denoiser.schedule
    pixels = hashlib.sha256(measurement.real.pixels.numpy().tobytes()).hexdigest()
    return {
        **sampling.row(),
        "steps": len(sampling.times(schedule)),
        "spacing": sampling.steps if isinstance(sampling.steps, str) else shown(sampling.spacing),
        "seed": sampling.seed,
        "n": measurement.n,
        "pixels": pixels,
    }


def name_of(settings: Mapping[str, Any], weights: str) -> str:
    """The name of a file, such as ``ddim-10-1a2b3c4d``.

    Args:
        settings: all that the numbers depend on; the sampler and the number of steps among them.
        weights: SHA-256 of their file.
    """
    told = json.dumps({"weights": weights, **settings}, sort_keys=True, separators=(",", ":"))
    sampler = re.sub("[^a-z0-9]+", "_", str(settings["sampler"]["name"]).lower()).strip("_") or "sampler"
    return f"{sampler}-{settings['steps']}-{hashlib.sha256(told.encode()).hexdigest()[:DIGITS]}"


def _label(sampling: Sampling, generator: Generator) -> str:
    """As a row of a table is called, with the spacing where it is not the usual one, and the number of steps."""
    facts = generator.facts()
    spacing = sampling.steps if isinstance(sampling.steps, str) else shown(sampling.spacing).replace(" ", "")
    named = "" if spacing == USUAL_SPACING else f"@{spacing}"
    return f"{row_label(brief(facts))}{named}, {facts['steps']} step{'' if facts['steps'] == 1 else 's'}"


def _read(store: Measured, name: str) -> tuple[Exposure, tuple[str, ...]] | None:
    """What was measured, and which of the measures; None if nothing was.

    Raises:
        ConfigError: the file is damaged.
    """
    needs = {"label": str, "sampling": dict, "n": int, "data": dict, "curves": dict}
    advice = "Remove it, and it is measured again"
    found = store.read(name, needs, advice=advice)
    if found is None:
        return None
    try:
        exposure = Exposure.from_dict(found, str(store.file(name)))
    except ConfigError as error:
        raise ConfigError(f"{error}. {advice}") from None
    return exposure, tuple(map(str, found["settings"].get("measures", ())))
