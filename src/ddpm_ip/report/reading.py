"""The files of a run, read so that what is damaged costs its own part of the report and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ddpm_ip.errors import UserError
from ddpm_ip.files import NUMBER, Lines, Shape, read_json, read_lines, read_rows, read_yaml
from ddpm_ip.plain import UNREADABLE, reason
from ddpm_ip.run.identity import Identity, identity
from ddpm_ip.run.record import Record, flatten, records

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"
RESULTS = "results.json"
TABLE = "table/table.json"
TABLES = "table/*/table.json"
PROVENANCE = "provenance.json"
LEFT_OUT = "It is left out of this report"
LARGEST_STEP = 10**12  # of a training; a line that says more is damaged
MOST_PROBLEMS = 12  # that are told of one run

T = TypeVar("T")


class Problems:
    """What is damaged in the folder of a run and therefore left out, a sentence each.

    Args:
        folder: of the run; files in it are named relative to it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._found = folder, list[str]()

    def add(self, sentence: str) -> None:
        told = sentence.replace(f"{self._folder}/", "").rstrip(".")
        self._found += [told] if told not in self._found else []

    def instead(self, otherwise: T, what: str, read: Callable[..., T], *arguments: Any) -> T:
        """What ``read(*arguments)`` returns; if ``what`` is damaged, ``otherwise``, and a sentence is kept."""
        try:
            return read(*arguments)
        except UserError as error:
            self.add(str(error))
        except (*UNREADABLE, ArithmeticError) as error:
            self.add(f"{what} is damaged ({reason(error)}). {LEFT_OUT}")
        return otherwise

    def told(self) -> tuple[str, ...]:
        """The first of them, and how many more there are."""
        more = len(self._found) - MOST_PROBLEMS
        return (*self._found[:MOST_PROBLEMS], *([f"{more} more like these"] if more > 0 else []))


def identity_of(folder: Path, problems: Problems) -> Identity:
    """What the run is: its newest checkpoint says it, or else config.yaml; empty if neither does."""
    path = folder / CONFIG
    said: dict[str, Any] = problems.instead({}, CONFIG, lambda: read_yaml(path)) if os.path.lexists(path) else {}
    try:
        found = identity(folder)
    except UserError:  # told of just now, if there is anything to tell
        return Identity({}, path)
    if found.origin != path and said:
        own, written = flatten(found.config), flatten(said)
        if other := [key for key in own if key in written and written[key] != own[key]]:
            keys = ", ".join(other[:5])
            problems.add(f"{CONFIG} is not what the newest checkpoint was made with ({keys}): the checkpoint counts")
    return found


def json_of(path: Path, problems: Problems) -> dict[str, Any] | None:
    """The content of a JSON file; None if it is absent or damaged."""
    if not os.path.lexists(path):
        return None
    return problems.instead(None, path.name, lambda: read_json(path, advice=LEFT_OUT))


def lines_of(path: Path, needs: Shape, problems: Problems) -> list[dict[str, Any]]:
    """Logged lines by step; of two of the same step the newer counts. A cut last line is how a killed run ends."""
    if not os.path.lexists(path):
        return []
    rows, damaged = problems.instead(
        Lines([], []), path.name, lambda: read_lines(path, {"step": NUMBER, **needs}, advice=LEFT_OUT)
    )
    by_step = {row["step"]: row for row in rows if 0 <= row["step"] <= LARGEST_STEP}
    if damaged:
        shown = ", ".join(map(str, damaged[:5])) + (" and more" if len(damaged) > 5 else "")
        problems.add(f"unreadable lines in {path.name}, left out: {shown}")
    if impossible := sum(not 0 <= row["step"] <= LARGEST_STEP for row in rows):
        problems.add(f"lines of an impossible step in {path.name}, left out: {impossible}")
    return [by_step[step] for step in sorted(by_step)]


def evaluations_of(folder: Path, problems: Problems) -> list[dict[str, Any]]:
    """What ``train.eval`` measured, in order; of several protocols, what was measured under the newest."""
    lines = lines_of(folder / EVALUATIONS, {"values": dict, "protocol": dict}, problems)
    curves = []
    for line in lines:
        where = f"{EVALUATIONS}, step {line['step']}"
        curves.append(problems.instead(None, where, curve_of, line, where))
    newest = next((curve for curve in reversed(curves) if curve is not None), None)
    return [line for line, curve in zip(lines, curves, strict=True) if curve is not None and curve == newest]


def curve_of(evaluation: Mapping[str, Any], where: str = EVALUATIONS) -> str | None:
    """What the values of two evaluations must have in common to share a curve; None for one without values."""
    numbers = records(evaluation, where)
    return numbers[0].curve() if numbers else None


def joined(metrics: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The logged lines with what was measured at their steps, or at steps of their own."""
    by_step = {row["step"]: dict(row) for row in metrics}
    for row in evaluations:
        by_step[row["step"]] = {**row["values"], **by_step.get(row["step"], {"step": row["step"]})}
    return tuple(by_step[step] for step in sorted(by_step))


def results_of(folder: Path, problems: Problems) -> list[Record]:
    """The numbers of ``results.json``, then those of the tables of every protocol."""
    found: list[Record] = []
    for where, row, about in [*_results(folder, problems), *_tables(folder, problems)]:
        found += problems.instead([], where, _placed, row, where, about)
    return found


Row = tuple[str, Mapping[str, Any], Mapping[str, Any]]  # where it is, the row, and what it has in common with others


def _results(folder: Path, problems: Problems) -> Iterator[Row]:
    path = folder / RESULTS
    if not os.path.lexists(path):
        return
    rows: list[dict[str, Any]] = problems.instead([], RESULTS, lambda: read_rows(path, advice=LEFT_OUT))
    yield from ((f"{RESULTS}, row {i}", row, {}) for i, row in enumerate(rows, 1))


def _tables(folder: Path, problems: Problems) -> Iterator[Row]:
    for path in sorted(folder.glob(TABLES)) or [folder / TABLE]:
        table, name = json_of(path, problems) or {}, path.relative_to(folder)
        rows, about = table.get("results") or [], table.get("protocol") or {}
        if not isinstance(rows, list) or not isinstance(about, dict) or not all(isinstance(row, dict) for row in rows):
            problems.add(f"{name} holds no list of results: `ddpm-ip table` writes it again")
            continue
        yield from ((f"{name}, row {i}", row, about) for i, row in enumerate(rows, 1))


def _placed(row: Mapping[str, Any], where: str, about: Mapping[str, Any]) -> list[Record]:
    """The numbers of a row, which must have a place in a table."""
    numbers = records(row, where, about)
    if any(record.steps is None or not record.row for record in numbers):
        raise UserError(f"{where}: sampler or steps missing. Evaluate the run again.")
    return numbers
