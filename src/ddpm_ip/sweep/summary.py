"""What a sweep found: each point's mean and sample standard deviation over the seeds, as CSV and Markdown.

Runs of one seed see the same images, times and noise, so points are also compared seed by seed: the mean and deviation
of the differences from the first point, which may be known better than either mean.

The numbers are those of the runs' tables. Only what was measured in the same way is averaged
(:meth:`ddpm_ip.run.record.Record.comparable`): where the runs were measured in several ways, such as after another
``--batch_size``, each way has rows of its own.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm_ip.errors import UserError
from ddpm_ip.files import read_json, write_text
from ddpm_ip.metric import fixed
from ddpm_ip.plain import visible
from ddpm_ip.run.record import records
from ddpm_ip.sweep.plan import Asked, SweepRun, in_words

MISSING = "-"
TABLE = {"blocks": list, "steps": list, "results": list}
TIES = ", ± the deviation of the differences; a tie is within it"
AS_CONFIGURED = "as configured"


@dataclass(frozen=True)
class Number:
    """A number of one run: its metric, the row and the column of the run's table, and how it was measured."""

    point: str
    seed: int
    metric: str
    row: str
    column: str
    way: str
    value: float


@dataclass(frozen=True)
class Cell:
    """Of a point: the mean over the seeds, and their sample standard deviation, None of a single one."""

    mean: float
    deviation: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Cell:
        deviation = statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None
        return cls(statistics.fmean(values), deviation, len(values))


@dataclass(frozen=True)
class Summary:
    """The numbers of a sweep.

    Attributes:
        points: their names, in the order of the sweep.
        values: of each point, by the last part of the key.
        seeds: how many there are.
        numbers: of all runs.
        problems: what could not be read, a sentence each.
        columns_are: ``steps`` or ``evaluations``.
    """

    points: Sequence[str]
    values: Mapping[str, Mapping[str, Any]]
    seeds: int
    numbers: Sequence[Number]
    problems: Sequence[str] = ()
    columns_are: str = "steps"

    @classmethod
    def of(cls, asked: Asked, folder: Path) -> Summary:
        """Of the tables that are there, in the folder of a sweep."""
        numbers: list[Number] = []
        problems, columns_are = [], "steps"
        for run in asked.runs:
            file = folder / run.name / "table" / "table.json"
            if file.is_file():
                try:
                    grid = read_json(file, TABLE)
                    numbers += numbers_of(run, grid, str(file))
                    columns_are = str(grid.get("columns", columns_are))
                except UserError as error:
                    problems.append(str(error))
        points = {run.point: {asked.short[key]: value for key, value in run.values.items()} for run in asked.runs}
        return cls(list(points), points, len(asked.seeds), numbers, problems, columns_are)

    def cells(self, metric: str, way: str) -> dict[tuple[str, str, str], Cell]:
        """By point, row and column."""
        return {place: Cell.of(list(by_seed.values())) for place, by_seed in self._by_seed(metric, way).items()}

    def differences(self, metric: str, way: str) -> dict[tuple[str, str, str], Cell]:
        """From the first point, seed by seed; by (other) point, row and column."""
        values, found = self._by_seed(metric, way), {}
        for (point, row, column), by_seed in values.items():
            first = values.get((self.points[0], row, column), {})
            if point != self.points[0] and (both := by_seed.keys() & first.keys()):
                found[point, row, column] = Cell.of([by_seed[seed] - first[seed] for seed in sorted(both)])
        return found

    def _by_seed(self, metric: str, way: str) -> dict[tuple[str, str, str], dict[int, float]]:
        found: dict[tuple[str, str, str], dict[int, float]] = {}
        for one in self.numbers:
            if (one.metric, one.way) == (metric, way):
                found.setdefault((one.point, one.row, one.column), {})[one.seed] = one.value
        return found

    def blocks(self) -> list[tuple[str, str]]:
        """Metrics, with the way that they were measured."""
        return _unique((one.metric, one.way) for one in self.numbers)

    def places(self, metric: str, way: str) -> tuple[list[str], list[str]]:
        """Rows and columns of the runs' tables."""
        own = [one for one in self.numbers if (one.metric, one.way) == (metric, way)]
        return _unique(one.row for one in own), _unique(one.column for one in own)

    def as_csv(self) -> str:
        """One line a point, row and column; numbers unrounded, empty where they are missing."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        keys = _unique(key for values in self.values.values() for key in values)
        head = ["mean", "deviation", "seeds", "difference", "difference_deviation", "protocol"]
        writer.writerow([*keys, "metric", "row", self.columns_are, *head])
        for metric, way in self.blocks():
            cells, (rows, columns) = self.cells(metric, way), self.places(metric, way)
            differences = self.differences(metric, way)
            for point in self.points:
                values = [in_words(self.values[point][key]) for key in keys]
                for row in rows:
                    for column in columns:
                        cell = cells.get((point, row, column))
                        other = differences.get((point, row, column))
                        numbers = ["", "", 0] if cell is None else [cell.mean, cell.deviation, cell.seeds]
                        paired = ["", ""] if other is None else [other.mean, other.deviation]
                        writer.writerow([*values, metric, row, column, *numbers, *paired, way])
        return file.getvalue()

    def as_markdown(self) -> str:
        """A table a metric, points by columns, mean ± deviation; and one of the differences from the first point."""
        parts = [f"# Sweep of {len(self.points)} points, {self.seeds} seed{'s' if self.seeds > 1 else ''} each"]
        parts.append(
            f"Mean ± sample standard deviation over {self.seeds} seeds of training; (n) where there are fewer. "
            "Runs of one seed see the same images, times and noise."
            if self.seeds > 1
            else "One seed of training: how far a number moves by chance is not known."
        )
        blocks = self.blocks()
        for metric, way in blocks:
            several = len([one for one, _ in blocks if one == metric]) > 1
            parts.append(f"## {_cell(metric)}{f' (protocol {way})' if several else ''}")
            cells, differences = self.cells(metric, way), self.differences(metric, way)
            decimals = _decimals([cell.mean for cell in cells.values()])
            texts = {place: self._show(cell, decimals) for place, cell in cells.items()}
            parts.append(self._table(self.points, texts, self.places(metric, way)))
            if differences:
                largest = max(abs(cell.mean) for cell in differences.values())
                decimals = max(decimals, _decimals([largest]))
                parts.append(f"Differences from {_cell(self.points[0])}, seed by seed{TIES if self.seeds > 1 else ''}:")
                texts = {place: self._show(cell, decimals, signs=True) for place, cell in differences.items()}
                parts.append(self._table(self.points[1:], texts, self.places(metric, way)))
        if not blocks:
            parts.append("There are no numbers yet.")
        return "\n\n".join([*parts, *("\n".join(f"* {_cell(p)}" for p in self.problems),) * bool(self.problems)]) + "\n"

    def _table(
        self,
        points: Sequence[str],
        texts: Mapping[tuple[str, str, str], str],
        places: tuple[Sequence[str], Sequence[str]],
    ) -> str:
        rows, columns = places
        head = [f"{column} {self.columns_are}" if i == 0 else column for i, column in enumerate(columns)]
        lines = [["point", "row", *head], ["---", "---", *["--:"] * len(columns)]]
        for row in rows:
            for point in points:
                numbers = [texts.get((point, row, column), MISSING) for column in columns]
                lines.append([_cell(point or AS_CONFIGURED), _cell(row), *numbers])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _show(self, cell: Cell, decimals: int, signs: bool = False) -> str:
        """A mean, or with its sign a difference, which is called a tie where it is within its deviation."""
        spread = "" if cell.deviation is None else f" ± {fixed(cell.deviation, decimals)}"
        tie = " (tie)" if signs and cell.deviation is not None and abs(cell.mean) <= cell.deviation else ""
        fewer = f" ({cell.seeds})" if cell.seeds < self.seeds else ""
        return f"{fixed(cell.mean, decimals, signs)}{spread}{fewer}{tie}"

    def write(self, folder: Path) -> list[Path]:
        """Writes ``sweep.csv`` and ``sweep.md``."""
        files = {folder / "sweep.csv": self.as_csv(), folder / "sweep.md": self.as_markdown()}
        for file, text in files.items():
            write_text(file, text)
        return list(files)


def numbers_of(run: SweepRun, grid: Mapping[str, Any], where: str) -> list[Number]:
    """The numbers of a run's table; each the mean over the seeds of the sampling.

    Args:
        run: of the sweep.
        grid: the table, as :func:`ddpm_ip.table.layout.lay_out` makes it.
        where: its file, for messages.

    Raises:
        UserError: it is damaged.
    """
    ways: dict[str, str] = {}
    for i, row in enumerate(grid["results"], 1):
        for record in records(row, f"{where}, result {i}"):
            ways[record.metric] = hashlib.sha256(record.comparable().encode()).hexdigest()[:8]
    numbers = []
    try:
        for block in grid["blocks"]:
            metric = str(block["metric"])
            for row in block["rows"]:
                for column, cell in zip(grid["steps"], row["cells"], strict=True):
                    if cell is not None and row["source"] is None:
                        place = metric, str(row["label"]), str(column), ways[metric]
                        numbers.append(Number(run.point, run.seed, *place, float(cell["value"])))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} is damaged ({error!r:.100}). Call the sweep again, which makes it again") from None
    return numbers


def _decimals(values: Iterable[float]) -> int:
    """As many as give the smallest number three figures, and at least two."""
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    return min(6, max(2, 2 - math.floor(math.log10(min(sizes))))) if sizes else 2


def _cell(text: str) -> str:
    return visible(text).replace("|", "\\|").replace("<", "&lt;")


def _unique(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))
