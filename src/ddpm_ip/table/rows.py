"""What a results table is asked for: its rows and columns, and which of its cells can be.

Rows are the product of samplers, corrections and spacings, and rows that were written out one by one; columns are
numbers of steps, or of network evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, get_args

from ddpm_ip.config import Config
from ddpm_ip.errors import ConfigError
from ddpm_ip.plain import UNREADABLE
from ddpm_ip.run.row import is_hash, row_label, spacing_name
from ddpm_ip.sample.calibrated import NotCalibrated, Unusable, all_missing, placed
from ddpm_ip.sample.program import SampleOptions
from ddpm_ip.sampler import Ancestral, AnySampler, VarType
from ddpm_ip.sampler.ancestral import ANALYTIC, Variance
from ddpm_ip.sampler.correction import AnyCorrection
from ddpm_ip.sampler.facts import facts_of
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.sampler.spacing import OPTIMISED, shown
from ddpm_ip.schedule import Schedule
from ddpm_ip.variants import variant_name, variants

STEPS = (1000, 100, 50, 10)  # of the published tables
MOST_SAVED = 2  # evaluations that a walk can have less than steps

Place = dict[str, Any]


@dataclass(frozen=True)
class Slot:
    """A place in the table.

    Args:
        cell: how its images are made; of one that cannot be, as far as that is known.
        column: a number of steps, guided-diffusion's string, or a number of evaluations.
        spacing: of the times, as the protocol of the cell says it.
        why_not: why there is no such cell; None if there is.
    """

    cell: SampleOptions
    column: int | str
    spacing: str
    why_not: str | None = None

    def with_block(self, block: int) -> Slot:
        """The same with so many images at once."""
        return replace(self, cell=replace(self.cell, sampling=replace(self.cell.sampling, block=block)))


Fill = Callable[[Sampling], tuple[Sampling, str]]


def without_weights(sampling: Sampling) -> tuple[Sampling, str]:
    """A sampling that asks the network as often but leaves nothing to the weights, and the name of its spacing."""
    changed = sampling
    if sampling.spacing == OPTIMISED:
        changed = replace(changed, spacing="uniform-linspace")
    if isinstance(sampling.sampler, Ancestral) and sampling.sampler.var_type in ANALYTIC:
        changed = replace(changed, sampler=Ancestral("fixed_small"))
    return placed(changed, ()), shown(sampling.spacing)


@dataclass(frozen=True)
class TableOptions:
    """What to measure.

    Args:
        rows: of which all but steps, seed and block counts; an ancestral sampler whose variance is open is both fixed
            ones, or the learned one of a model that has it. None for ``sampling``.
        steps: columns, numbers or guided-diffusion's strings; None for that of ``sampling``, and if that is open for
            those of :data:`STEPS` that the model has, and all of its steps.
        evaluations: columns instead of ``steps``: a row takes the largest number of steps that asks the network at most
            so often.
        seeds: of the sampling; with several, a cell is their mean and standard deviation. None for that of
            ``sampling``.
        n_samples: images a cell.
        extractor: of the features, a name that :func:`ddpm_ip.evaluate.features.find_extractor` knows.
        metrics: None for those of :func:`ddpm_ip.metric.usual`.
        sampling: all else about how the images are made; where its block is open, that of the cells that are there is
            taken, else what the memory holds.
        keep_images: also writes every image, to ``EXP_DIR/table/PROTOCOL/images-...``.
        ema: which average is sampled, see :func:`ddpm_ip.run.weights.find_weights`; None for the first.
    """

    rows: Sequence[Sampling] | None = None
    steps: Sequence[int | str] | None = None
    evaluations: Sequence[int] | None = None
    seeds: Sequence[int] | None = None
    n_samples: int = 50_000
    extractor: str = "inception"
    metrics: Sequence[str] | None = None
    sampling: Sampling = field(default_factory=Sampling)
    keep_images: bool = False
    ema: str | None = None

    @property
    def columns_are(self) -> str:
        """``steps`` or ``evaluations``."""
        return "steps" if self.evaluations is None else "evaluations"

    def slots(self, config: Config, fill: Fill = without_weights) -> list[Slot]:
        """The places of the table in its order, those among them that can have no cell.

        Args:
            config: of the model.
            fill: what fills in what a sampling leaves to the weights, and names its spacing; by default
                they are not known yet, and the places only tell what cannot be with any.

        Raises:
            ConfigError: something is asked for twice, a column cannot be, no cell can, or calibrations are missing
                or of no use.
        """
        diffusion, seeds = config.diffusion, [self.sampling.seed] if self.seeds is None else self.seeds
        rows, columns = self._rows(diffusion.learned_variance), self._columns(diffusion.total_steps)
        _refuse_twice("seeds", seeds)
        slots = []
        missing: list[NotCalibrated] = []
        for row in rows:
            for column in columns:
                try:
                    sampling, spacing, why_not = self._cell(row, column, config, fill)
                except NotCalibrated as error:
                    missing.append(error)
                    continue
                for seed in seeds:
                    cell = SampleOptions(self.n_samples, _sampling(sampling, sampling.steps, seed))
                    slots.append(Slot(cell, column, spacing, why_not))
        if missing:
            raise all_missing(missing)
        if all(slot.why_not for slot in slots):
            raise ConfigError(str(slots[0].why_not))
        return slots

    def _rows(self, learned: bool) -> list[Sampling]:
        """The rows; a variance that is left open is those that a model has."""
        fixed: list[VarType] = ["learned_range"] if learned else ["fixed_large", "fixed_small"]
        filled: list[Sampling] = []
        for row in [self.sampling] if self.rows is None else self.rows:
            is_open = isinstance(row.sampler, Ancestral) and row.sampler.var_type is None
            filled += [row.filled(v) for v in fixed] if is_open else [row]
        _refuse_twice("sampler (or --variance, --corrections, --spacing, --rows)", filled)
        return filled

    def _columns(self, total: int) -> Sequence[int | str]:
        if self.evaluations is not None:
            if self.steps is not None:
                raise ConfigError("--steps and --evaluations are both columns: give one of them")
            _refuse_twice("evaluations", self.evaluations)
            if least := [n for n in self.evaluations if n < 1]:
                raise ConfigError(f"--evaluations {least[0]}: choose at least 1")
            return self.evaluations
        steps = self.steps
        if steps is None:
            usual = sorted({total, *(k for k in STEPS if k < total)}, reverse=True)
            steps = usual if self.sampling.steps is None else [self.sampling.steps]
        _refuse_twice("steps", steps)
        for count in steps:
            if isinstance(count, int) and not 1 <= count <= total:
                raise ConfigError(f"--steps {count}: choose from 1..{total} (diffusion.total_steps)")
        return steps

    def _cell(self, row: Sampling, column: int | str, config: Config, fill: Fill) -> tuple[Sampling, str, str | None]:
        """How the images of a cell are made, the name of the spacing, and if it cannot be, why."""
        diffusion = config.diffusion
        asked, spacing = _sampling(row, column, 0) if self.evaluations is None else row, shown(row.spacing)
        try:
            _check_variance(row, diffusion.learned_variance)
            if self.evaluations is not None:
                asked = _sampling(row, _fitting(without_weights(row)[0], int(column), diffusion.schedule), 0)
            sampling, spacing = fill(asked)
            sampling.check(diffusion.schedule, diffusion.learned_variance, config.classes, diffusion.objective)
            if self.evaluations is not None:
                _refuse_costly(sampling, int(column), diffusion.schedule)
        except Unusable:
            raise  # no hole in the table, but for a person to put right
        except ConfigError as error:
            return replace(asked, steps=column), spacing, str(error)
        return sampling, spacing, None


def _fitting(row: Sampling, evaluations: int, schedule: Schedule) -> int:
    """The largest number of steps that asks the network at most so often.

    Raises:
        ConfigError: there is none.
    """
    steps, why_not = min(evaluations + MOST_SAVED, schedule.total_steps), ""
    while steps >= 1:
        try:
            visits = row.evaluations(_sampling(row, steps, 0).plan(schedule))
        except ConfigError as error:
            why_not = str(error)
            steps -= 1
            continue
        if visits <= evaluations:
            return steps
        steps -= max(1, (visits - evaluations) // math.ceil(visits / steps))  # fewer cannot be too few
    raise ConfigError(why_not or f"one step asks the network more than {evaluations} times")


def _refuse_costly(sampling: Sampling, most: int, schedule: Schedule) -> None:
    """What a calibration asks of the network is known only now."""
    asks = sampling.evaluations(sampling.plan(schedule))
    if asks > most:
        raise ConfigError(f"with its calibration (auto) it asks the network {asks} times, and not at most {most}")


def _check_variance(row: Sampling, learned: bool) -> None:
    known = [v for v in get_args(Variance) if learned or v != "learned_range"]
    if isinstance(row.sampler, Ancestral) and row.sampler.var_type not in known:
        raise ConfigError(f"--variance {row.sampler.var_type}: this model has {', '.join(known)}")


def _refuse_twice(name: str, values: Sequence[Any]) -> None:
    if not values or len(set(values)) < len(values):
        raise ConfigError(f"--{name} must name at least one value, and none twice")


def _sampling(row: Sampling, steps: int | str | None, seed: int) -> Sampling:
    try:
        return replace(row, steps=steps, seed=seed)
    except ValueError as error:
        raise ConfigError(f"--{error}") from None


def labels(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of rows in a table, as ``--rows`` reads them: the spacing is named where they have several.

    Args:
        rows: ``sampler``, ``corrections``, ``spacing`` and the rest of each.
    """
    listed = list(rows)
    spacings = [spacing_name(row["spacing"]).replace(" ", "") for row in listed]
    mixed = len(set(spacings)) > 1
    return [row_label(brief(r)) + (f"@{spacing}" if mixed else "") for r, spacing in zip(listed, spacings, strict=True)]


def complete(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with all settings of its sampler and corrections: a file of an earlier version may lack some."""
    return each(_complete, row)


def brief(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without the settings that its sampler and corrections have by themselves."""
    return each(_brief, row)


def each(change: Callable[[Mapping[str, Any]], dict[str, Any]], row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its sampler and each of its corrections changed."""
    return {**row, "sampler": change(row["sampler"]), "corrections": [change(one) for one in row["corrections"]]}


@cache
def _methods() -> dict[str, type]:
    return {variant_name(v): v for v in (*variants(AnySampler), *variants(AnyCorrection))}


def _complete(section: Mapping[str, Any]) -> dict[str, Any]:
    """What today's class makes of a section; one that it does not know stays as it is."""
    hashed = {key: value for key, value in section.items() if is_hash(value)}
    try:
        method = _methods()[str(section["name"])](**{key: v for key, v in section.items() if key not in hashed})
        return facts_of(method) | hashed
    except (KeyError, *UNREADABLE, ArithmeticError):
        return dict(section)


def _brief(section: Mapping[str, Any]) -> dict[str, Any]:
    whole = _complete(section)
    kept = {key: value for key, value in whole.items() if not is_hash(value)}
    for key in [key for key in kept if key not in ("name", "var_type")]:
        fewer = {k: v for k, v in kept.items() if k != key}
        if {**whole, **_complete(fewer)} == whole and _complete(fewer).keys() >= kept.keys():
            kept = fewer
    return kept
