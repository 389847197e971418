"""What a sampling leaves to the weights, filled in before a plan is made.

``var_type: analytic`` needs ``Gamma_t`` of the network, ``spacing: optimised`` needs times that were found for it, and
the correction ``auto`` a calibration. All are looked up in what was measured for the weights
(:mod:`ddpm_ip.run.measured`). ``Gamma_t`` is measured on the run's own training images where it is not there; times are
made by ``ddpm-ip times``, calibrations by ``ddpm-ip calibrate``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

from ddpm_ip.config import Config
from ddpm_ip.data import ImageSet
from ddpm_ip.data.labels import check_labels
from ddpm_ip.engine import from_main
from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.nn.network import Cond
from ddpm_ip.run.measured import Measured
from ddpm_ip.sample import analytic, calibrated
from ddpm_ip.sample.generator import Model
from ddpm_ip.sampler import Ancestral
from ddpm_ip.sampler.ancestral import ANALYTIC
from ddpm_ip.sampler.correction import Auto
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.sampler.spacing import OPTIMISED
from ddpm_ip.schedule import Schedule

log = logging.getLogger("ddpm_ip.sample")

GAMMAS = "analytic"  # its name in the store
UNLABELLED = "analytic-without-class"  # of a class-conditional network that is asked without classes
SEED = 0  # of images and noise
IMAGES_ON_A_CPU = 128  # a time; 1,024 would take many minutes
T = TypeVar("T")


def filled(sampling: Sampling, config: Config, store: Measured, model: Model) -> Sampling:
    """The same sampling, with nothing left to the weights. All processes call this together.

    Args:
        sampling: how images are wanted.
        config: of the model; its data are what ``Gamma_t`` is measured on.
        store: of the weights.
        model: with these weights.

    Raises:
        Unusable: there is no calibration for ``auto``, or it cannot be used.
        ConfigError: nothing was measured, and it cannot be measured now.
    """
    asked = sampling
    if sampling.spacing == OPTIMISED:
        times = together(model.engine, lambda: optimised_times(sampling.steps, store, config.diffusion.schedule))
        sampling = replace(sampling, spacing=times)
    sampler = sampling.sampler
    if isinstance(sampler, Ancestral) and sampler.var_type in ANALYTIC and sampler.gammas is None:
        gammas = together(model.engine, lambda: _gammas(sampling, config, store, model))
        sampling = replace(sampling, sampler=replace(sampler, gammas=gammas))
    if any(isinstance(c, Auto) and c.chain is None for c in sampling.corrections):
        sampling = _calibrated(sampling.filled(config.diffusion.var_type), asked, config, store.at_home(), model)
    return sampling


def _calibrated(sampling: Sampling, asked: Sampling, config: Config, home: Measured, model: Model) -> Sampling:
    """With the corrections that ``auto`` stands for, which the log names.

    Args:
        sampling: with nothing else left open.
        asked: as a person said it.
        config, model: see :func:`filled`.
        home: the store of calibrations.
    """
    found = _looked_up(sampling, asked, config, home, lambda read: together(model.engine, read))
    if model.engine.is_main_process:
        log.info("corrections auto: %s", found)
    return calibrated.placed(sampling, found.chain)


def calibrated_alone(sampling: Sampling, config: Config, store: Measured) -> Sampling:
    """What :func:`filled` makes of ``auto``, as far as no model is needed: not where variances have to be measured.

    Raises:
        Unusable: there is no calibration, or it is of no use.
        ConfigError: the model cannot be sampled so, or there are no optimised times.
    """
    asked, schedule = sampling, config.diffusion.schedule
    sampling = sampling.filled(config.diffusion.var_type)
    if isinstance(sampling.sampler, Ancestral) and sampling.sampler.var_type in ANALYTIC:
        return calibrated.placed(sampling, ())
    if sampling.spacing == OPTIMISED:
        sampling = replace(sampling, spacing=optimised_times(sampling.steps, store, schedule))
    found = _looked_up(sampling, asked, config, store.at_home(), lambda read: read())
    return calibrated.placed(sampling, found.chain)


def _looked_up(
    sampling: Sampling,
    asked: Sampling,
    config: Config,
    home: Measured,
    by: Callable[[Callable[[], calibrated.Calibration | None]], calibrated.Calibration | None],
) -> calibrated.Calibration:
    """The calibration of a sampling that the model can do, read by who shall read it.

    Raises:
        ConfigError: the model cannot be sampled so, with whatever calibration.
        Unusable: there is no calibration, or it is of no use.
    """
    calibrated.check(calibrated.base(sampling), config)
    try:
        found = by(lambda: calibrated.read(home, sampling, config))
    except UserError as error:
        raise calibrated.Unusable(str(error)) from None
    if found is None:
        name = calibrated.name_of(sampling, home.weights, config.diffusion.schedule)
        raise calibrated.NotCalibrated(home.file(name), asked)
    return found


def times_name(steps: int) -> str:
    """The name, in the store, of the times for this many steps."""
    return f"times-{steps}"


def optimised_times(steps: int | str | None, store: Measured, schedule: Schedule) -> tuple[float, ...]:
    """The times that ``ddpm-ip times`` found for weights, falling.

    Raises:
        ConfigError: there are none; says how they are made.
    """
    times: list[float] = _found(steps, store, schedule)["times"]
    return tuple(float(t) for t in times)


def optimised_label(steps: Iterable[int | str | None], store: Measured, schedule: Schedule) -> str:
    """``optimised`` and the beginning of a hash of how the times for some numbers of steps were found.

    Raises:
        ConfigError: see :func:`optimised_times`.
    """
    settings = {json.dumps(_found(count, store, schedule)["settings"], sort_keys=True) for count in steps}
    return f"{OPTIMISED}, sha256:{hashlib.sha256(json.dumps(sorted(settings)).encode()).hexdigest()[:12]}"


def _found(steps: int | str | None, store: Measured, schedule: Schedule) -> dict[str, Any]:
    """What the store has of times, checked."""
    if not isinstance(steps, int):
        raise ConfigError(f"the spacing {OPTIMISED} needs a number of steps (--steps N), and that is {steps}")
    command = f"Run `ddpm-ip times --weights ... --steps {steps}` with these weights"
    found = store.read(times_name(steps), {"times": list}, advice=command)
    if found is None:
        raise ConfigError(f"the spacing {OPTIMISED}: no times for {steps} steps are in {store.folder}. {command}")
    times = found["times"]
    numbers = all(type(t) in (int, float) and 0 <= t <= schedule.total_steps - 1 for t in times)
    if len(times) != steps or not numbers or any(s >= t for t, s in pairwise(times)):
        raise ConfigError(
            f"{store.file(times_name(steps))} has no {steps} falling times in 0..{schedule.total_steps - 1}. {command}"
        )
    return found


def together(engine: Accelerator, work: Callable[[], T]) -> T:
    """What the main process finds, on every process; an error of the user is raised on all.

    Raises:
        ConfigError: the main process met one.
    """
    found: list[T] = []
    error = ""
    if engine.is_main_process:
        try:
            found = [work()]
        except UserError as mistake:
            error = str(mistake)
    found, error = from_main(engine, (found, error))
    if error:
        raise ConfigError(error)
    return found[0]


def _gammas(sampling: Sampling, config: Config, store: Measured, model: Model) -> tuple[float, ...]:
    """``Gamma_t`` at all times, from the store or measured."""
    var_type = getattr(sampling.sampler, "var_type", None)
    kind, advice = ("residual" if var_type == "analytic_residual" else "norm"), "Remove it, and it is measured again"
    schedule = config.diffusion.schedule
    needs = {"times": list, "norm": list, "residual": list}
    name = GAMMAS if config.classes is None or set(sampling.classes or ()) != {-1} else UNLABELLED
    found = store.kept.get(name) or store.read(name, needs, advice=advice)
    if found is None:
        found = _measured(name, config, store, model, sampling.block or 64)
    times, gammas, last = found["times"], found[kind], schedule.total_steps - 1
    whole = all(type(t) is int for t in times) and times == sorted(set(times))
    if not whole or times[:1] + times[-1:] != [0, last] or len(gammas) != len(times) or not all(map(_finite, gammas)):
        raise ConfigError(f"{store.file(name)} has no numbers for rising times from 0 to {last}. {advice}")
    if max(gammas) > 1.01:
        log.warning("var_type %s: Gamma_t is up to %.3f, and of a good network at most 1", var_type, max(gammas))
    return analytic.everywhere(gammas, times, schedule)


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _measured(name: str, config: Config, store: Measured, model: Model, block: int) -> dict[str, Any]:
    """Measures ``Gamma_t``, and keeps it where the store can be written."""
    schedule = config.diffusion.schedule
    times = analytic.times_between(schedule, analytic.TIMES)
    source = _training_images(config, model, name == UNLABELLED, store.file(name))
    wanted = IMAGES_ON_A_CPU if model.device.type == "cpu" else analytic.IMAGES
    images = torch.from_numpy(analytic.chosen(source.pixels, wanted, SEED)).to(model.device)
    labels = None if source.labels is None else torch.from_numpy(analytic.chosen(source.labels, wanted, SEED))
    cond = None if labels is None else labels.to(model.device)
    n = len(images)
    log.info("var_type analytic: measuring the network on %d images of %s at %d times", n, source.name, len(times))

    def predict(xt: Tensor, t: Tensor, which: Tensor) -> Tensor:
        with model.autocast():
            return model.denoiser(xt, t, None if cond is None else Cond(cond[which])).eps

    found = analytic.measure(predict, schedule, images, times, SEED, block)._asdict()
    settings = {
        "images": n, "data": source.name, "data_sha256": source.fingerprint, "seed": SEED,
        "precision": model.engine.mixed_precision, "device": model.device.type,
    }  # fmt: skip
    try:
        log.info("kept in %s", store.write(name, found, settings))
    except UserError as error:
        store.kept[name] = found
        log.warning("%s; what was measured is used now, and measured again by the next call", error)
    return found


def _training_images(config: Config, model: Model, unlabelled: bool, file: Path) -> ImageSet:
    """The images that ``Gamma_t`` is measured on, without labels where the network is asked without classes.

    Raises:
        ConfigError: they cannot be read, or are different ones.
    """
    try:
        source = config.data.open()
        if config.classes is None or unlabelled:
            source = replace(source, labels=None)
        else:
            check_labels(source.labels, source.name, config.classes.count)
    except UserError as error:
        raise ConfigError(
            f"var_type analytic measures the network on its training images (section data), which cannot be had: "
            f"{error}\nMake them available, or copy {file} from where they are, or choose fixed_small"
        ) from None
    if source.shape != model.shape:
        raise ConfigError(f"var_type analytic: the images of {source.name} are {source.shape}, not {model.shape}")
    return source
