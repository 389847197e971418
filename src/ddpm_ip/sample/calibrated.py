"""Calibrations: the corrections that were found best for weights and one way to sample them, next to the weights.

    EXP_DIR/calibration-ddim-10-1a2b3c4d.json     of a run
    FOLDER/calibration-ddim-10-1a2b3c4d.json      next to a file of weights that is in no run

The name is the sampler, the number of times, and a hash of all that the calibration depends on: weights, sampler with
its settings, other corrections, clipping, times. ``ddpm-ip calibrate`` writes such a file, and the correction ``auto``
stands for the ``corrections`` in it (:mod:`ddpm_ip.sampler.correction.auto`). Neither the seed nor the block matters: a
calibration is of the walk, not of certain images.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddpm_ip.config import Config, from_dict
from ddpm_ip.errors import ConfigError
from ddpm_ip.files import Shape
from ddpm_ip.plain import NOT_FINITE, kind_of, shown
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.row import corrections_label, sampler_label
from ddpm_ip.sampler import Ancestral
from ddpm_ip.sampler.ancestral import ANALYTIC
from ddpm_ip.sampler.correction import Auto, Correction
from ddpm_ip.sampler.facts import canonical, facts_of
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.sampler.spacing import shown as spacing_shown
from ddpm_ip.schedule import Schedule

NEEDS: Shape = {"corrections": list, "chosen": str, "why": str}  # besides what every measured file has
MAY_HAVE: Shape = {"candidates": list, "expects": list, "cannot_know": list, "suggestions": dict, "curves": dict}
DIGITS = 8  # of the hash, in a name
USUAL_SPACING = "uniform-linspace"


class Calibration(NamedTuple):
    """What a file says, as far as images depend on it or a person sees it.

    Attributes:
        file: where it is.
        chain: the corrections; none where nothing needs to be corrected.
        chosen: what they are called.
        why: they were chosen, in a sentence.
    """

    file: Path
    chain: tuple[Correction, ...]
    chosen: str
    why: str

    def __str__(self) -> str:
        held = "+".join(c.name for c in self.chain) or "no correction"
        return f"{shown(self.file)}: {held}. {shown(self.why)}"


class Unusable(ConfigError):
    """The calibration of a sampling is not there, or cannot be used: for a person to put right."""


class NotCalibrated(Unusable):
    """There is no calibration for a sampling.

    Args:
        file: where it would be.
        sampling: as it was asked for.
    """

    def __init__(self, file: Path, sampling: Sampling) -> None:
        self.file, self.command = file, command(sampling)
        super().__init__(
            f"the correction auto: there is no {shown(file)}, the calibration of these weights for this sampling. Run "
            f"`{self.command}` with these weights"
        )


def all_missing(missing: Sequence[NotCalibrated]) -> ConfigError:
    """One error that names every calibration that is missing, with its command."""
    if len(missing) == 1:
        return missing[0]
    lines = dict.fromkeys(f"  {shown(one.file)}: `{one.command}`" for one in missing)
    return ConfigError(
        f"the correction auto: {len(lines)} calibrations are missing. Make them with the same weights:\n"
        + "\n".join(lines)
    )


def base(sampling: Sampling) -> Sampling:
    """The same without ``auto``: what a calibration measures and corrects."""
    kept = tuple(c for c in sampling.corrections if not isinstance(c, Auto))
    return dataclasses.replace(sampling, corrections=kept)


def placed(sampling: Sampling, chain: Sequence[Correction]) -> Sampling:
    """The same where ``auto`` stands for these corrections."""
    filled = (dataclasses.replace(c, chain=tuple(chain)) if isinstance(c, Auto) else c for c in sampling.corrections)
    return dataclasses.replace(sampling, corrections=tuple(filled))


def about(sampling: Sampling, schedule: Schedule) -> dict[str, Any]:
    """What a calibration depends on besides the weights, as plain values; ``auto`` is left out.

    Args:
        sampling: with nothing left to the model or the weights (:func:`ddpm_ip.sample.filled.filled`).
        schedule: of the model.

    Raises:
        ConfigError: there are no such times, or a variance is left open.
    """
    sampler = sampling.sampler
    if isinstance(sampler, Ancestral) and (
        sampler.var_type is None or (sampler.var_type in ANALYTIC and sampler.gammas is None)
    ):
        raise ConfigError("a calibration is of a sampling whose variance is known, and here it is left to the weights")
    spacing = sampling.steps if isinstance(sampling.steps, str) else spacing_shown(sampling.spacing)
    return {**base(sampling).row(), "steps": len(sampling.times(schedule)), "spacing": spacing}


def name_of(sampling: Sampling, weights_sha: str, schedule: Schedule) -> str:
    """The name of a calibration in its store, such as ``calibration-ddim-10-1a2b3c4d``.

    Args:
        sampling, schedule: see :func:`about`.
        weights_sha: SHA-256 of the weights' file.

    Raises:
        ConfigError: see :func:`about`.
    """
    facts = about(sampling, schedule)
    word = re.sub("[^a-z0-9]+", "_", sampling.sampler.name.lower()).strip("_") or "sampler"
    hashed = hashlib.sha256(canonical({"weights": weights_sha, **facts}).encode()).hexdigest()
    return f"calibration-{word}-{facts['steps']}-{hashed[:DIGITS]}"


def command(sampling: Sampling) -> str:
    """The command that calibrates a sampling; the weights are left open."""
    return f"ddpm-ip calibrate --weights ... {options(base(sampling))}"


def options(sampling: Sampling) -> str:
    """The options of a command that samples so; the seed and the block are left open."""
    row = sampling.row()
    words = ["--sampler", sampler_label({"sampler": _brief(sampling.sampler)})]
    words += [] if sampling.steps is None else ["--steps", str(sampling.steps)]
    spacing = spacing_shown(sampling.spacing).replace(" ", "")
    words += [] if spacing == USUAL_SPACING or isinstance(sampling.steps, str) else ["--spacing", spacing]
    chain = corrections_label({"corrections": [_brief(c) for c in sampling.corrections]})
    words += ["--corrections", *chain] if chain else []
    words += [] if sampling.clip == "rederive" else ["--clip", sampling.clip]
    words += ["--afs"] if sampling.afs else []
    words += [] if sampling.denoise_to_zero else ["--denoise_to_zero", "false"]
    if classes := row.get("classes"):
        words += ["--class", *("none" if c == -1 else str(c) for c in classes)]
    return shlex.join(words)


def there(store: Measured, sampling: Sampling, schedule: Schedule) -> Path | None:
    """The calibration of just this sampling, if there is one; it is not read.

    Args:
        store: of the weights, at home (:meth:`ddpm_ip.run.measured.Measured.at_home`).
        sampling, schedule: see :func:`about`.
    """
    file = store.file(name_of(sampling, store.weights, schedule))
    return file if file.is_file() else None


def read(store: Measured, sampling: Sampling, config: Config) -> Calibration | None:
    """The calibration of a sampling, checked.

    Args:
        store: of the weights, at home.
        sampling: see :func:`about`; with ``auto``.
        config: of the model.

    Returns:
        None if there is none.

    Raises:
        ConfigError: the file is damaged, of another sampling or other weights, or holds what the sampling cannot have.
        NewerVersion: a newer version of ddpm-ip wrote it.
    """
    schedule = config.diffusion.schedule
    name = name_of(sampling, store.weights, schedule)
    advice = f"Remove it, and calibrate again: `{command(sampling)}`"
    found = store.read(name, NEEDS, advice=advice)
    if found is None:
        return None
    file = store.file(name)
    try:
        if canonical(found["settings"].get("sampling")) != canonical(about(sampling, schedule)):
            raise ConfigError("it was calibrated for another sampling (its settings.sampling), whatever its name says")
        chain = _checked(found, sampling, config)
    except ConfigError as error:
        raise ConfigError(f"{shown(file)}: {error}. {advice}") from None
    return Calibration(file, chain, found["chosen"], found["why"])


def keep(sampling: Sampling, config: Config, weights_sha: str, path: Path, found: Mapping[str, Any]) -> Path:
    """Keeps a calibration next to the weights, in place of an earlier one of the same sampling; one process calls this.

    Args:
        sampling: what was calibrated; a variance that it leaves to the model is that of the model. ``auto`` in it is
            where the corrections will stand; without it they come last.
        config: of the model.
        weights_sha: SHA-256 of the weights' file.
        path: where the weights were found.
        found: ``corrections`` (items as in ``sampling.corrections``), ``chosen``, ``why`` (a sentence); and what people
            are told: ``candidates`` (a list of objects with a ``name``), ``expects``, ``cannot_know`` (sentences),
            ``suggestions`` (sentences by key), ``curves`` (``t`` and ``value`` by name), ``settings``.

    Returns:
        The file.

    Raises:
        ConfigError: something of it is wrong, or it cannot be written.
    """
    sampling = sampling.filled(config.diffusion.var_type)
    if missing := [key for key in NEEDS if key not in found]:
        raise ConfigError(f"a calibration needs {', '.join(missing)}")
    check(base(sampling), config)
    _checked(found, sampling, config)
    schedule = config.diffusion.schedule
    numbers = {key: value for key, value in found.items() if key != "settings"}
    settings = {**found.get("settings", {}), "sampling": about(sampling, schedule)}
    return Measured.beside(weights_sha, path).write(name_of(sampling, weights_sha, schedule), numbers, settings)


def _checked(found: Mapping[str, Any], sampling: Sampling, config: Config) -> tuple[Correction, ...]:
    """The corrections of a calibration, once all of it was looked at.

    Raises:
        ConfigError: of what is wrong in it.
    """
    if wrong := _wrong(found):
        raise ConfigError(wrong)
    tree = {"data": {"name": "digits"}, "sampling": {"corrections": found["corrections"]}}
    chain = from_dict(tree, "its corrections").sampling.corrections
    if any(isinstance(c, Auto) for c in chain):
        raise ConfigError("its corrections: auto cannot stand for itself")
    if not any(isinstance(c, Auto) for c in sampling.corrections):
        sampling = dataclasses.replace(sampling, corrections=(*sampling.corrections, Auto()))
    check(placed(sampling, chain), config)
    return chain


def check(sampling: Sampling, config: Config) -> None:
    """Refuses what the model cannot do.

    Raises:
        ConfigError: see :meth:`ddpm_ip.sampler.sampling.Sampling.check`.
    """
    d = config.diffusion
    sampling.check(d.schedule, d.learned_variance, config.classes, d.objective)


def _wrong(found: Mapping[str, Any]) -> str | None:
    """What is wrong in the form of a calibration; None if nothing is."""
    for key, kind in {**NEEDS, **MAY_HAVE}.items():
        if key in found and not isinstance(found[key], kind):
            return f"its {key} is {kind_of(found[key])}"
    if (place := _not_finite(found)) is not None:
        return f"its {place} is no finite number"
    suggestions = found.get("suggestions", {})
    sentences = [*found.get("expects", ()), *found.get("cannot_know", ()), *suggestions.values()]
    if not all(isinstance(text, str) for text in sentences):
        return "its expects, cannot_know and suggestions must be sentences"
    candidates, curves = found.get("candidates", ()), found.get("curves", {}).values()
    if not all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in candidates):
        return "its candidates must be objects that have a name"
    if not all(isinstance(one, Mapping) and _same_length(one.get("t"), one.get("value")) for one in curves):
        return "its curves must have a list t, and a value for each"
    return None


def _not_finite(value: Any, place: str = "") -> str | None:
    """Where a number in plain values is not finite; None if all are."""
    if isinstance(value, Mapping):
        inner: list[tuple[str, Any]] = [(f"{place}.{key}".lstrip("."), one) for key, one in value.items()]
    elif isinstance(value, list | tuple):
        inner = [(f"{place}.{i}", one) for i, one in enumerate(value)]
    else:
        return shown(place) if kind_of(value) == NOT_FINITE else None
    return next((where for key, one in inner if (where := _not_finite(one, key)) is not None), None)


def _same_length(t: Any, value: Any) -> bool:
    return isinstance(t, list | tuple) and isinstance(value, list | tuple) and len(t) == len(value)


def _brief(method: Any) -> dict[str, Any]:
    """The settings of a sampler or a correction that are not its defaults."""
    defaults = {f.name: f.default for f in dataclasses.fields(method) if f.name != "name"}
    return {key: value for key, value in facts_of(method).items() if key not in defaults or value != defaults[key]}
