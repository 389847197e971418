"""Numbers side by side, and only those that may stand side by side.

Two Fréchet distances compare only if metric, features, reference set, number of images and what they were computed with
agree (:meth:`ddpm_ip.run.record.Record.comparable`). So numbers are sorted by that, and each kind gets a table of its
own: rows are sampler and steps, columns are runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from ddpm_ip.metric import higher_is_better
from ddpm_ip.report.cells import PARTS, SAMPLING, TRAINING, Cell, Gap, gap
from ddpm_ip.report.groups import SEED
from ddpm_ip.report.numbers import canonical, figures, fixed
from ddpm_ip.report.run import Run
from ddpm_ip.report.weights import weights_names
from ddpm_ip.run.record import SECTIONS, Record
from ddpm_ip.run.row import spacing_name

UNKNOWN = "–"


@dataclass(frozen=True)
class Setting:
    """How samples were made, apart from the weights and the seed.

    Attributes:
        row: sampler, corrections and clipping (:func:`ddpm_ip.run.row.short_label`).
        spacing: of the times, if that is known.
        steps: a number, or one of guided-diffusion's strings; :data:`UNKNOWN` if nothing is known of the sampling.
        evaluations: of the network for one image; 0 if that is not known.
    """

    row: str
    spacing: str | None
    steps: int | str
    evaluations: int

    @classmethod
    def of(cls, record: Record) -> Setting:
        steps = UNKNOWN if record.steps is None else record.steps
        return cls(record.label, record.spacing, steps, record.evaluations or 0)

    @property
    def family(self) -> tuple[str, str | None]:
        """All but the number of steps: one line of a plot, one group of table rows."""
        return self.row, self.spacing

    @property
    def order(self) -> tuple[str, bool, str, int, str]:
        return self.row, self.spacing == SECTIONS, self.spacing or "", self.evaluations, str(self.steps)

    @property
    def other_evaluations(self) -> str | None:
        """How often the network is asked, where that is not the number of steps."""
        return f"{self.evaluations} evaluations" if self.evaluations not in (0, self.steps) else None


@dataclass(frozen=True)
class Column:
    """One run, or the runs that differ in their seed alone; a run measured with several weights has a column for each.

    Attributes:
        run: the first, by number.
        weights: of a run alone.
        label: its name, or that of the group.
        series: colour and marker, by number.
        members: all of its runs.
    """

    run: int
    weights: str | None
    label: str
    series: int = 0
    members: tuple[int, ...] = ()


@dataclass(frozen=True)
class Table:
    """Numbers that may stand side by side.

    Attributes:
        protocol: one of them, for what they all share.
        lines: of the protocols, for a person.
        settings, columns: rows and columns.
        cells: the numbers.
        measured: each measurement behind them, with the number of its run.
    """

    protocol: Record
    lines: tuple[str, ...]
    settings: tuple[Setting, ...]
    columns: tuple[Column, ...]
    cells: dict[tuple[Setting, Column], Cell]
    measured: tuple[tuple[int, Record], ...] = ()

    def compared(self, setting: Setting) -> bool:
        """Whether a row has values to compare, and it is known which way they are better."""
        there = [column for column in self.columns if self.finite(setting, column)]
        return len(there) > 1 and higher_is_better(self.protocol.metric) is not None

    def best(self, setting: Setting) -> Column | None:
        """The column that is ahead of all others in a row; None where nothing can be compared, and in a tie.

        A tie is what prints the same, and what is within the margin of a difference (:func:`ddpm_ip.report.cells.gap`).
        """
        first = self.leaders(setting)
        return first[0] if len(first) == 1 else None

    def leaders(self, setting: Setting) -> list[Column]:
        """The column with the best number of a row, and those that are tied with it; none where nothing compares."""
        if not self.compared(setting):
            return []
        sign = -1 if higher_is_better(self.protocol.metric) else 1
        cells = {column: cell for column in self.columns if (cell := self.finite(setting, column))}
        first, *others = sorted(cells, key=lambda column: sign * cells[column].value)
        return [first, *(other for other in others if not self.differ(cells[first], cells[other]))]

    def tied(self, setting: Setting, column: Column) -> bool:
        """Whether a column shares the best place of a row."""
        first = self.leaders(setting)
        return len(first) > 1 and column in first

    def sure(self, setting: Setting, column: Column) -> bool:
        """Whether a column is ahead in a row by more than spreads that are known."""
        if column != self.best(setting):
            return False
        cells = {other: cell for other in self.columns if (cell := self.finite(setting, other))}
        return all(gap(cells[column], cell).known for other, cell in cells.items() if other != column)

    def differ(self, one: Cell, other: Cell) -> bool:
        """Whether two numbers print differently and are further apart than chance is known to bring."""
        show = self.formatter()
        return gap(one, other).beyond and show(one.value) != show(other.value)

    def finite(self, setting: Setting, column: Column) -> Cell | None:
        """The cell, if it was measured and is a finite number."""
        cell = self.cells.get((setting, column))
        return cell if cell and math.isfinite(cell.value) else None

    def change(self, setting: Setting) -> tuple[float | None, Gap] | None:
        """Ratio and difference of the second column to the first, if there are just two; no ratio at or below 0."""
        if len(self.columns) != 2:
            return None
        first, second = (self.finite(setting, column) for column in self.columns)
        if not first or not second:
            return None
        ratio = second.value / first.value if first.value > 0 and second.value > 0 else None
        return ratio, gap(first, second)

    @property
    def pairs(self) -> int:
        """How many seeds the differences between columns are taken over, seed by seed, at most; 0 for none."""
        rows = ([cell for c in self.columns if (cell := self.finite(s, c))] for s in self.settings)
        return max((gap(one, other).seeds for row in rows for one, other in combinations(row, 2)), default=0)

    def wins(self) -> dict[Column, int]:
        """In how many rows each column is ahead."""
        ahead = [self.best(setting) for setting in self.settings]
        return {column: ahead.count(column) for column in self.columns}

    def family_label(self, setting: Setting) -> str:
        """``fixed_small``; where the table mixes several spacings, ``fixed_small@quad``."""
        if setting.spacing == SECTIONS:
            return f"{setting.row} · {SECTIONS}"
        if len({s.spacing for s in self.settings} - {SECTIONS}) < 2:
            return setting.row
        name = self.spacing_label(setting)
        return f"{setting.row}@{name.replace(' ', '')}" if name else f"{setting.row} · –"

    def spacing_label(self, setting: Setting) -> str | None:
        """``optimised``; with how these times were found only where the table has several kinds of them."""
        kinds = {s.spacing for s in self.settings if s.spacing and spacing_name(s.spacing) != s.spacing}
        return spacing_name(setting.spacing) if setting.spacing and len(kinds) < 2 else setting.spacing

    def formatter(self) -> Callable[[float], str]:
        """One number of decimals for the whole table, so that digits line up: three figures for the smallest value."""
        sizes = [abs(cell.value) for cell in self.cells.values() if cell.value and math.isfinite(cell.value)]
        if not sizes or max(sizes) / min(sizes) > 1e5 or min(sizes) < 1e-3 or max(sizes) > 1e9:
            return figures
        decimals = max(0, 2 - math.floor(math.log10(min(sizes))))
        return lambda value: fixed(value, decimals)


def tables(runs: Sequence[Run]) -> list[Table]:
    """Every result of every run, sorted into comparable groups, in the order of first appearance."""
    groups: dict[str, list[tuple[int, Record]]] = {}
    for i, run in enumerate(runs):
        for record in run.results:
            groups.setdefault(record.comparable(), []).append((i, record))
    return [_table(rows, runs) for rows in groups.values()]


def _table(rows: list[tuple[int, Record]], runs: Sequence[Run]) -> Table:
    columns = _columns(rows, runs)
    settings = sorted({Setting.of(record) for _, record in rows}, key=lambda setting: setting.order)
    places = {(i, None if len(c.members) > 1 else c.weights): c for c in columns for i in c.members}
    measured: dict[tuple[Setting, Column], list[tuple[int, Record]]] = {}
    for i, record in rows:
        column = places.get((i, record.weights)) or places[i, None]
        measured.setdefault((Setting.of(record), column), []).append((i, record))
    return Table(
        rows[0][1],
        tuple(dict.fromkeys(r.line for _, r in rows if r.line)),
        tuple(settings),
        tuple(columns),
        {place: _cell(found, runs) for place, found in measured.items()},
        tuple(rows),
    )


def _columns(rows: list[tuple[int, Record]], runs: Sequence[Run]) -> list[Column]:
    """A column for each group of seeds whose runs have one set of weights each, and for each weights of other runs."""
    weights = {i: list(dict.fromkeys(r.weights for j, r in rows if j == i)) for i in sorted({i for i, _ in rows})}
    columns, done = list[Column](), set[int]()
    for i, own in weights.items():
        if i in done:
            continue
        members = tuple(j for j in weights if j == i or (runs[i].group and runs[j].group == runs[i].group))
        if len(members) > 1 and all(len(weights[j]) == 1 for j in members):
            columns.append(Column(i, None, runs[i].group, runs[i].series, members))
            done |= set(members)
            continue
        words = weights_names(runs[i], {r.weights: r.averaged for j, r in rows if j == i})
        for w in own:
            label = runs[i].name if len(own) == 1 else f"{runs[i].name} ({words[w]})"
            columns.append(Column(i, w, label, runs[i].series, (i,)))
    return columns


def _cell(found: list[tuple[int, Record]], runs: Sequence[Run]) -> Cell:
    """Of one training seed, see :func:`_of_one_run`; of several the mean of theirs, and its standard deviation."""
    cells = {i: _of_one_run([record for j, record in found if j == i]) for i in dict.fromkeys(i for i, _ in found)}
    if len(cells) == 1:
        return next(iter(cells.values()))
    return Cell.mean({canonical(runs[i].settings.get(SEED)): cell.value for i, cell in cells.items()}, TRAINING)


def _of_one_run(results: list[Record]) -> Cell:
    """One sampling seed: its value (the newest, if measured twice). Several: mean and standard deviation over seeds."""
    by_seed = {canonical(result.seed): result for result in results}
    if len(by_seed) == 1:
        (result,) = by_seed.values()
        return Cell(result.value, result.spread, 1, "" if result.spread is None else PARTS)
    return Cell.mean({seed: result.value for seed, result in by_seed.items()}, SAMPLING)
