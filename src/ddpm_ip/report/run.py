"""A finished (or unfinished) run, read from its folder.

Nothing here imports the training code: a run folder is a few plain files, and a report must be possible on a laptop
that received nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ddpm_ip.errors import UserError
from ddpm_ip.files import NUMBER, Shape, read_json, read_lines, read_rows, read_yaml
from ddpm_ip.run.record import Record, flatten, records

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"
RESULTS = "results.json"
TABLE = "table/table.json"
TABLES = "table/*/table.json"
PROVENANCE = "provenance.json"
SAMPLES = "samples/step*.png"
WITHOUT = "Write it again, or move it away to report without it"


@dataclass(frozen=True)
class Run:
    """What one run folder says.

    Args:
        path: the folder.
        name: what the report calls the run; unique within a report.
        config: the resolved configuration, nested.
        metrics: logged lines in the order of their step; after a resume, the newer line of a step counts. What was
            measured by ``train.eval`` stands in the line of its step, under the name of the metric.
        evaluations: of ``train.eval``, those of the newest curve, in order, with ``values``, ``protocol`` and
            ``warnings``.
        results: measured numbers, in file order; those of ``ddpm-ip table``, of every protocol, after those of
            ``results.json``.
        table: what ``ddpm-ip table`` wrote last, in its shape.
        provenance: command, versions, hardware and the rest, as far as known.
        grids: (step, file) of the sample grids made during training, in order.
        problems: what was damaged and therefore left out, one sentence each.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...] = ()
    evaluations: tuple[Mapping[str, Any], ...] = ()
    results: tuple[Record, ...] = ()
    table: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] | None = None
    grids: tuple[tuple[int, Path], ...] = ()
    problems: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path | str) -> Run:
        """Reads a run folder.

        Raises:
            UserError: if it is not one, or if a file in it is damaged beyond a cut last line.
        """
        folder = Path(path).resolve()
        if not (folder / CONFIG).is_file():
            state = f"has no {CONFIG}" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
            raise UserError(
                f"{path} is not a run folder: it {state}. Looked for {CONFIG} (required), {METRICS}, {SAMPLES}, "
                f"{RESULTS} and {PROVENANCE}. Give the folder that training wrote (its EXP_DIR)."
            )
        metrics, problems = _read_lines(folder / METRICS, {})
        lines, more = _read_lines(folder / EVALUATIONS, {"values": dict, "protocol": dict})
        evaluations = tuple(line for line in lines if curve_of(line) == curve_of(lines[-1]))
        return cls(
            path=folder,
            name=folder.name or "run",
            config=read_yaml(folder / CONFIG),
            metrics=_joined(metrics, evaluations),
            evaluations=evaluations,
            results=tuple(_results(folder)),
            table=_read_json(folder / TABLE),
            provenance=_read_json(folder / PROVENANCE),
            grids=_find_grids(folder),
            problems=(*problems, *more),
        )

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration with dotted keys, e.g. ``{"perturbation.gamma": 0.1}``."""
        return flatten(self.config)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the files that the report was made from."""
        names = (CONFIG, METRICS, EVALUATIONS, RESULTS, TABLE, PROVENANCE)
        present = [name for name in names if (self.path / name).is_file()]
        present += [str(path.relative_to(self.path)) for path in sorted(self.path.glob(TABLES))]
        return {name: hashlib.sha256((self.path / name).read_bytes()).hexdigest() for name in present}

    def file(self, relative: str) -> Path | None:
        """A file of this run, or None if it does not exist or lies outside the folder."""
        path = (self.path / relative).resolve()
        return path if path.is_relative_to(self.path) and path.is_file() else None

    def missing(self) -> list[str]:
        """What a complete run would have and this one has not, with the consequence."""
        checks = [
            (self.metrics, f"no {METRICS}, so there are no training curves"),
            (
                self.results,
                f"no {RESULTS} and no {TABLE}: nothing has been evaluated yet, so the run is not in the tables",
            ),
            (self.grids, f"no {SAMPLES}, so there are no pictures from training"),
            (self.provenance, f"no {PROVENANCE}: command, versions and hardware are unknown"),
        ]
        return [sentence for present, sentence in checks if not present]


def load_runs(runs: Sequence[Run | Path | str]) -> list[Run]:
    """Loads run folders and gives each a name of its own: the folder's, with as many parents as it takes."""
    loaded = [run if isinstance(run, Run) else Run.load(run) for run in runs]
    if not loaded:
        raise UserError("A report needs at least one run folder.")
    paths = [run.path for run in loaded]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"The run {path} is given twice.")
    return [replace(run, name=_short_name(run.path, paths)) for run in loaded]


def _short_name(path: Path, paths: Sequence[Path]) -> str:
    for depth in range(1, len(path.parts)):
        tail = path.parts[-depth:]
        if sum(other.parts[-depth:] == tail for other in paths) == 1:
            return "/".join(tail)
    return path.name or "run"


def _read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file; None if there is no such file."""
    return read_json(path, advice=WITHOUT) if path.exists() else None


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON file; none if there is no such file."""
    return read_rows(path, advice=WITHOUT) if path.exists() else []


def _results(folder: Path) -> Iterator[Record]:
    """The numbers of ``results.json``, then those of the tables of every protocol.

    Raises:
        UserError: one is damaged; names the file and the row.
    """
    for i, row in enumerate(_read_rows(folder / RESULTS), 1):
        yield from _placed(records(row, where := f"{folder / RESULTS}, row {i}"), where)
    for path in sorted(folder.glob(TABLES)) or [folder / TABLE]:
        table = _read_json(path) or {}
        rows, about = table.get("results") or [], table.get("protocol") or {}
        if not isinstance(rows, list) or not isinstance(about, dict) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{path} holds no list of results: `ddpm-ip table` writes it again.")
        for i, row in enumerate(rows, 1):
            yield from _placed(records(row, where := f"{path}, row {i}", about), where)


def _placed(numbers: Sequence[Record], where: str) -> Sequence[Record]:
    """The same, if they have a place in a table."""
    if any(record.steps is None or not record.row for record in numbers):
        raise UserError(f"{where}: sampler or steps missing. Evaluate the run again.")
    return numbers


def _joined(metrics: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The logged lines with what was measured at their steps, or at steps of their own."""
    by_step = {row["step"]: dict(row) for row in metrics}
    for row in evaluations:
        if isinstance(values := row.get("values"), Mapping):
            by_step.setdefault(row["step"], {"step": row["step"]}).update(values)
    return tuple(by_step[step] for step in sorted(by_step))


def curve_of(evaluation: Mapping[str, Any]) -> str | None:
    """What the values of two evaluations must have in common to share a curve; None for one without values."""
    numbers = records(evaluation, EVALUATIONS)
    return numbers[0].curve() if numbers else None


def _read_lines(path: Path, needs: Shape) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """Logged lines by step, and a sentence on unreadable ones; a cut last line is how a killed run ends."""
    if not path.exists():
        return (), ()
    rows, damaged = read_lines(path, {"step": NUMBER, **needs}, advice=WITHOUT)
    by_step = {row["step"]: row for row in rows}
    shown = ", ".join(map(str, damaged[:5])) + (" and more" if len(damaged) > 5 else "")
    problems = (f"unreadable lines in {path.name}, left out: {shown}",) if damaged else ()
    return tuple(by_step[step] for step in sorted(by_step)), problems


def _find_grids(folder: Path) -> tuple[tuple[int, Path], ...]:
    found = ((re.search(r"step(\d+)\.png$", path.name), path) for path in folder.glob(SAMPLES))
    return tuple(sorted((int(match[1]), path) for match, path in found if match))
