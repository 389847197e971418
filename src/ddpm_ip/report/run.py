"""A finished (or unfinished) run, read from its folder.

Nothing here imports the training code: a run folder is a few plain files, and a report must be possible on a laptop
that received nothing else. What is damaged is left out and said (:mod:`ddpm_ip.report.reading`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ddpm_ip.errors import UserError
from ddpm_ip.exposure.curves import Exposure
from ddpm_ip.files import LARGEST_LINES, read_bytes
from ddpm_ip.report.evaluated import checkpoints_of, find_evaluations, kept_images, strips_of
from ddpm_ip.report.groups import grouped_by_seed
from ddpm_ip.report.laboratory import Calibration, calibration_files, calibrations_of, exposure_files, exposures_of
from ddpm_ip.report.reading import (
    CONFIG,
    EVALUATIONS,
    METRICS,
    PROVENANCE,
    RESULTS,
    TABLE,
    TABLES,
    Problems,
    evaluations_of,
    identity_of,
    joined,
    json_of,
    lines_of,
    results_of,
)
from ddpm_ip.run.record import Record, flatten

SAMPLES = "samples/step*.png"
CHECKPOINTS = "ckpt"


@dataclass(frozen=True)
class Run:
    """What one run folder says.

    Args:
        path: the folder.
        name: what the report calls the run; unique within a report.
        config: the settings that the newest checkpoint was made with, nested; empty if nothing says them.
        history: the changes of settings on the way, as :class:`ddpm_ip.run.identity.Identity` has them.
        imported: where its first weights are from, if they are from elsewhere; as there.
        step: of the newest checkpoint; None if there is none.
        metrics: logged lines in the order of their step; after a resume, the newer line of a step counts. What was
            measured by ``train.eval`` stands in the line of its step, under the name of the metric.
        evaluations: of ``train.eval``, those of the newest curve, in order, with ``values``, ``protocol`` and
            ``warnings``.
        results: measured numbers: of ``ddpm-ip evaluate``, of ``results.json``, and of ``ddpm-ip table``, of every
            protocol, in this order.
        table: what ``ddpm-ip table`` wrote last, in its shape.
        provenance: command, versions, hardware and the rest, as far as known.
        grids: (step, file) of the sample grids made during training, in order.
        folders: of samples that were evaluated, by the name that the grid of a result has.
        kept: folders of images that a table kept, and how many each holds.
        files: of evaluations.
        exposures: what was measured of exposure bias, in the order of their files.
        calibrations: which correction was chosen for which sampling, in the order of their files.
        checkpoints: the files of averaged weights in the folder, by their SHA-256.
        strips: folders of pictures of how images came about (``ddpm-ip sample --mode denoise``).
        problems: what was damaged and therefore left out, one sentence each.
        series: colour and marker in all figures, by number; runs that differ in their seed alone share it.
        group: what these runs are called together; the name of a run alone.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...] = ()
    imported: Mapping[str, Any] | None = None
    step: int | None = None
    metrics: tuple[Mapping[str, Any], ...] = ()
    evaluations: tuple[Mapping[str, Any], ...] = ()
    results: tuple[Record, ...] = ()
    table: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] | None = None
    grids: tuple[tuple[int, Path], ...] = ()
    folders: Mapping[str, Path] = field(default_factory=dict)
    kept: tuple[tuple[str, int], ...] = ()
    files: tuple[Path, ...] = ()
    exposures: tuple[Exposure, ...] = ()
    calibrations: tuple[Calibration, ...] = ()
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    strips: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()
    series: int = 0
    group: str = ""

    @classmethod
    def load(cls, path: Path | str) -> Run:
        """Reads a run folder; what is damaged in it is left out and told in ``problems``.

        Raises:
            UserError: if it is not one.
        """
        try:
            folder = Path(os.path.realpath(path))
        except ValueError:  # a name that no folder can have
            raise UserError(f"{str(path)!r} is not a run folder: it does not exist") from None
        if not any(os.path.lexists(folder / name) for name in (CONFIG, METRICS, RESULTS, PROVENANCE, CHECKPOINTS)):
            is_one = "is a file" if os.path.exists(folder) else "does not exist"
            state = f"has no {CONFIG}" if os.path.isdir(folder) else is_one
            raise UserError(
                f"{path} is not a run folder: it {state}. Looked for {CONFIG}, {METRICS}, {SAMPLES}, "
                f"{RESULTS} and {PROVENANCE}. Give the folder that training wrote (its EXP_DIR)."
            )
        problems = Problems(folder)
        own = identity_of(folder, problems)
        evaluations = evaluations_of(folder, problems)
        results = results_of(folder, problems)
        evaluated = find_evaluations(folder, {record.weights for record in results}, problems)
        return cls(
            path=folder,
            name=folder.name or "run",
            config=own.config,
            history=own.history,
            imported=own.imported,
            step=own.step,
            metrics=joined(lines_of(folder / METRICS, {}, problems), evaluations),
            evaluations=tuple(evaluations),
            results=(*evaluated.records, *results),
            table=json_of(folder / TABLE, problems),
            provenance=json_of(folder / PROVENANCE, problems),
            grids=_find_grids(folder),
            folders=evaluated.folders,
            kept=tuple(kept_images(folder)),
            files=(*evaluated.files, *exposure_files(folder), *calibration_files(folder)),
            exposures=tuple(exposures_of(folder, problems)),
            calibrations=tuple(calibrations_of(folder, problems)),
            checkpoints=checkpoints_of(folder),
            strips=tuple(strips_of(folder)),
            problems=problems.told(),
        )

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration with dotted keys, e.g. ``{"perturbation.gamma": 0.1}``."""
        return flatten(self.config)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the files that the report was made from."""
        names = [self.path / name for name in (CONFIG, METRICS, EVALUATIONS, RESULTS, TABLE, PROVENANCE)]
        found = {}
        for path in [*names, *sorted(self.path.glob(TABLES)), *self.files]:
            try:
                found[os.path.relpath(path, self.path)] = hashlib.sha256(read_bytes(path, LARGEST_LINES)).hexdigest()
            except UserError:  # absent, or told of in the problems
                continue
        return found

    def file(self, relative: str) -> Path | None:
        """A file of this run, or None if it does not exist or lies outside the folder."""
        try:
            path = Path(os.path.realpath(self.path / relative))
            return path if path.is_relative_to(self.path) and path.is_file() else None
        except (OSError, ValueError):  # a name that no file can have
            return None

    def missing(self) -> list[str]:
        """What a complete run would have and this one has not, with the consequence."""
        nothing = f"no {RESULTS}, no {TABLE} and no evaluation of its samples: "
        if self.evaluations:
            nothing += "it was evaluated during training alone (train.eval), so the run is not in the tables"
        else:
            nothing += "nothing has been evaluated yet, so the run is not in the tables"
        checks = [
            (self.config, f"no {CONFIG}, so its settings are unknown"),
            (self.metrics, f"no {METRICS}, so there are no training curves"),
            (self.results, nothing),
            (self.grids, f"no {SAMPLES}, so there are no pictures from training"),
            (self.provenance, f"no {PROVENANCE}: command, versions and hardware are unknown"),
        ]
        told = {problem.partition(" ")[0] for problem in self.problems}
        return [text for present, text in checks if not present and text.split(" ")[1].rstrip(",:") not in told]


def load_runs(runs: Sequence[Run | Path | str]) -> list[Run]:
    """Loads run folders and gives each a name of its own: the folder's, with as many parents as it takes."""
    loaded = [run if isinstance(run, Run) else Run.load(run) for run in runs]
    if not loaded:
        raise UserError("A report needs at least one run folder.")
    paths = [run.path for run in loaded]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"The run {path} is given twice.")
    return grouped_by_seed([replace(run, name=_short_name(run.path, paths)) for run in loaded])


def _short_name(path: Path, paths: Sequence[Path]) -> str:
    for depth in range(1, len(path.parts)):
        tail = path.parts[-depth:]
        if sum(other.parts[-depth:] == tail for other in paths) == 1:
            return "/".join(tail)
    return path.name or "run"


def _find_grids(folder: Path) -> tuple[tuple[int, Path], ...]:
    """Pictures from training, in the folder itself: not what a link shows from elsewhere."""
    own = (path for path in folder.glob(SAMPLES) if Path(os.path.realpath(path)).is_relative_to(folder))
    found = ((re.search(r"step(\d+)\.png$", path.name), path) for path in own)
    return tuple(sorted((int(match[1]), path) for match, path in found if match))
