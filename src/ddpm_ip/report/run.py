"""A finished (or unfinished) run, read from its folder.

Nothing here imports the training code: a run folder is a few plain files, and a report must be possible on a laptop
that received nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ddpm_ip.errors import UserError
from ddpm_ip.files import NUMBER, read_json, read_lines, read_rows, read_yaml
from ddpm_ip.run.record import row_label

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
class Result:
    """One measured number and the protocol it was measured under; a row of ``results.json``."""

    metric: str
    value: float
    var_type: str
    steps: int
    spread: float | None = None
    respace_type: str | None = None
    sampler: str | None = None
    n_samples: int | None = None
    seed: int | None = None
    weights: str | None = None
    reference: str | None = None
    reference_sha256: str | None = None
    n_reference: int | None = None
    extractor: str | None = None
    computed: str | None = None
    protocol: str | None = None
    grid: str | None = None

    @classmethod
    def from_row(cls, row: Any, where: str) -> Result:
        """Checks one row; keys that are not known here are left alone.

        Args:
            row: the JSON value, which should be an object.
            where: file and row number, for the message.
        """
        if not isinstance(row, Mapping):
            raise UserError(f"{where}: a row must be an object with metric, value, var_type and steps.")
        if isinstance(row.get("sampler"), Mapping):
            row = {**row, "sampler": row["sampler"].get("name"), "var_type": row_label(row)}
            row["respace_type"] = row.get("spacing")
        known = {field.name: row[field.name] for field in fields(cls) if row.get(field.name) is not None}
        if missing := [key for key in ("metric", "value", "var_type", "steps") if key not in known]:
            raise UserError(f"{where}: {', '.join(missing)} missing. Evaluate the run again.")
        result = cls(**{key: _convert(key, value, where) for key, value in known.items()})
        if result.steps < 1:
            raise UserError(f"{where}: steps must be at least 1, got {result.steps}.")
        return result


def _convert(key: str, value: Any, where: str) -> Any:
    """One value of a row, in the type of its field."""
    kind = float if key in ("value", "spread") else int if key in ("steps", "n_samples", "seed", "n_reference") else str
    try:
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: {key} must be a number, got {str(value)[:80]!r}.") from None


@dataclass(frozen=True)
class Run:
    """What one run folder says.

    Args:
        path: the folder.
        name: what the report calls the run; unique within a report.
        config: the resolved configuration, nested.
        metrics: logged lines in the order of their step; after a resume, the newer line of a step counts. What was
            measured by ``train.eval`` stands in the line of its step, under the name of the metric.
        evaluations: of ``train.eval``, those of the newest curve, in order, with ``values``, ``protocol``, ``warnings``
            and ``curve``, which is the same only for values that compare.
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
    results: tuple[Result, ...] = ()
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
        metrics, problems = _read_lines(folder / METRICS)
        lines, more = _read_lines(folder / EVALUATIONS)
        evaluations = tuple(line for line in lines if curve_of(line) == curve_of(lines[-1]))
        table = _read_json(folder / TABLE)
        rows = [(RESULTS, i, row) for i, row in enumerate(_read_rows(folder / RESULTS), 1)]
        for path in sorted(folder.glob(TABLES)) or [folder / TABLE]:  # of every protocol
            rows += [
                (str(path.relative_to(folder)), i, row) for i, row in enumerate(_results_of(_read_json(path), path), 1)
            ]
        return cls(
            path=folder,
            name=folder.name or "run",
            config=read_yaml(folder / CONFIG),
            metrics=_joined(metrics, evaluations),
            evaluations=evaluations,
            results=tuple(Result.from_row(row, f"{folder / file}, row {i}") for file, i, row in rows),
            table=table,
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


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` to ``{"a.b": 1}``; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


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


def _results_of(table: Mapping[str, Any] | None, path: Path) -> Sequence[Any]:
    """The rows of ``results.json`` that a table holds."""
    rows = table.get("results") if table else []
    if not isinstance(rows, list):
        raise UserError(f"{path} holds no list of results: `ddpm-ip table` writes it again.")
    return rows


def _joined(metrics: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The logged lines with what was measured at their steps, or at steps of their own."""
    by_step = {row["step"]: dict(row) for row in metrics}
    for row in evaluations:
        if isinstance(values := row.get("values"), Mapping):
            by_step.setdefault(row["step"], {"step": row["step"]}).update(values)
    return tuple(by_step[step] for step in sorted(by_step))


def curve_of(evaluation: Mapping[str, Any]) -> str:
    """What the values of two evaluations must have in common to share a curve; older versions wrote no ``curve``."""
    protocol = evaluation.get("protocol")
    line = protocol.get("line") if isinstance(protocol, Mapping) else None
    return str(evaluation.get("curve") or line)


def _read_lines(path: Path) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """Logged lines by step, and a sentence on unreadable ones; a cut last line is how a killed run ends."""
    if not path.exists():
        return (), ()
    rows, damaged = read_lines(path, {"step": NUMBER}, advice=WITHOUT)
    by_step = {row["step"]: row for row in rows}
    shown = ", ".join(map(str, damaged[:5])) + (" and more" if len(damaged) > 5 else "")
    problems = (f"unreadable lines in {path.name}, left out: {shown}",) if damaged else ()
    return tuple(by_step[step] for step in sorted(by_step)), problems


def _find_grids(folder: Path) -> tuple[tuple[int, Path], ...]:
    found = ((re.search(r"step(\d+)\.png$", path.name), path) for path in folder.glob(SAMPLES))
    return tuple(sorted((int(match[1]), path) for match, path in found if match))
