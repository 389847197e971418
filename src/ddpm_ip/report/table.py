"""Numbers side by side, and only those that may stand side by side.

Two Fréchet distances compare only if metric, features, reference set, number of images and what they were computed with
agree. So rows of ``results.json`` are
first sorted into protocols, and each protocol gets a table of its own: rows are variance and steps, columns are runs.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ddpm_ip.report.run import Result, Run
from ddpm_ip.report.texts import higher_is_better

VARIANCES = ("fixed_large", "fixed_small", "learned_range", "analytic")


@dataclass(frozen=True)
class Protocol:
    """What must agree before two numbers may be compared."""

    metric: str
    reference: str | None
    reference_sha256: str | None
    n_reference: int | None
    n_samples: int | None
    extractor: str | None
    computed: str | None

    @classmethod
    def of(cls, result: Result) -> Protocol:
        # The hash identifies the reference set; its name counts only where there is no hash.
        name = None if result.reference_sha256 else result.reference
        return cls(
            result.metric,
            name,
            result.reference_sha256,
            result.n_reference,
            result.n_samples,
            result.extractor,
            result.computed,
        )


@dataclass(frozen=True)
class Setting:
    """How samples were made, apart from the weights and the seed."""

    var_type: str
    sampler: str | None
    respace_type: str | None
    steps: int

    @classmethod
    def of(cls, result: Result) -> Setting:
        return cls(result.var_type, result.sampler, result.respace_type, result.steps)

    @property
    def family(self) -> tuple[str, str | None, str | None]:
        """All but the number of steps: one line of a plot, one group of table rows."""
        return self.var_type, self.sampler, self.respace_type

    @property
    def order(self) -> tuple[int, str, str, str, int]:
        rank = VARIANCES.index(self.var_type) if self.var_type in VARIANCES else len(VARIANCES)
        return rank, self.var_type, self.sampler or "", self.respace_type or "", self.steps


@dataclass(frozen=True)
class Column:
    """One run; a run that was measured with several weights has one column for each."""

    run: int
    weights: str | None
    label: str


@dataclass(frozen=True)
class Cell:
    """One number: a single measurement, or the mean over ``seeds`` with their standard deviation."""

    value: float
    spread: float | None
    seeds: int


@dataclass(frozen=True)
class Table:
    """All comparable numbers of one protocol."""

    protocol: Protocol
    reference: str | None
    lines: tuple[str, ...]
    settings: tuple[Setting, ...]
    columns: tuple[Column, ...]
    cells: dict[tuple[Setting, Column], Cell]

    def best(self, setting: Setting) -> set[Column]:
        """The columns with the best value of a row; none where there is nothing to compare or no better or worse."""
        higher = higher_is_better(self.protocol.metric)
        values = {column: cell.value for column in self.columns if (cell := self.finite(setting, column))}
        if higher is None or len(values) < 2:
            return set()
        target = (max if higher else min)(values.values())
        return {column for column, value in values.items() if value == target}

    def finite(self, setting: Setting, column: Column) -> Cell | None:
        """The cell, if it was measured and is a finite number."""
        cell = self.cells.get((setting, column))
        return cell if cell and math.isfinite(cell.value) else None

    def change(self, setting: Setting) -> tuple[float | None, float] | None:
        """(ratio, difference) of the second column to the first, if there are just two; no ratio at or below 0."""
        if len(self.columns) != 2:
            return None
        first, second = (self.finite(setting, column) for column in self.columns)
        if not first or not second:
            return None
        ratio = second.value / first.value if first.value > 0 and second.value > 0 else None
        return ratio, second.value - first.value

    def wins(self) -> dict[Column, int]:
        """In how many rows each column alone is best."""
        sole = [best for setting in self.settings if len(best := self.best(setting)) == 1]
        return {column: sum(column in best for best in sole) for column in self.columns}

    def family_label(self, setting: Setting) -> str:
        """``fixed_small``, with sampler and respacing named only where the table mixes several."""
        parts = zip(*(s.family for s in self.settings), strict=True)
        varies = [i == 0 or len(set(values)) > 1 for i, values in enumerate(parts)]
        return " · ".join(str(part or "–") for part, show in zip(setting.family, varies, strict=True) if show)

    def formatter(self) -> Callable[[float], str]:
        """One number of decimals for the whole table, so that digits line up: three figures for the smallest value."""
        sizes = [abs(cell.value) for cell in self.cells.values() if cell.value and math.isfinite(cell.value)]
        if not sizes or max(sizes) / min(sizes) > 1e5 or min(sizes) < 1e-3:
            return lambda value: f"{value:.3g}"
        decimals = max(0, 2 - math.floor(math.log10(min(sizes))))
        return lambda value: f"{value:.{decimals}f}"


def tables(runs: Sequence[Run]) -> list[Table]:
    """Every result of every run, sorted into comparable groups, in the order of first appearance."""
    groups: dict[Protocol, list[tuple[int, Result]]] = {}
    for i, run in enumerate(runs):
        for result in run.results:
            groups.setdefault(Protocol.of(result), []).append((i, result))
    return [_table(protocol, rows, runs) for protocol, rows in groups.items()]


def _table(protocol: Protocol, rows: list[tuple[int, Result]], runs: Sequence[Run]) -> Table:
    weights = {i: list(dict.fromkeys(r.weights for j, r in rows if j == i)) for i, _ in rows}
    columns = [
        Column(i, w, runs[i].name if len(weights[i]) == 1 else f"{runs[i].name} ({(w or 'unknown')[:8]})")
        for i in sorted(weights)
        for w in weights[i]
    ]
    settings = sorted({Setting.of(result) for _, result in rows}, key=lambda setting: setting.order)
    cells = {}
    for column in columns:
        for setting in settings:
            mine = [r for i, r in rows if (i, r.weights) == (column.run, column.weights) and Setting.of(r) == setting]
            if mine:
                cells[setting, column] = _cell(mine)
    return Table(
        protocol,
        next((r.reference for _, r in rows if r.reference), None),
        tuple(dict.fromkeys(r.protocol for _, r in rows if r.protocol)),
        tuple(settings),
        tuple(columns),
        cells,
    )


def _cell(results: list[Result]) -> Cell:
    """One seed: its value (the newest, if measured twice). Several: mean and standard deviation over seeds."""
    by_seed = {result.seed: result for result in results}
    values = [result.value for result in by_seed.values()]
    if len(values) == 1:
        (result,) = by_seed.values()
        return Cell(result.value, result.spread, 1)
    return Cell(statistics.fmean(values), statistics.stdev(values), len(values))


def markdown(table: Table) -> str:
    """One table in Markdown; the best value of a row is bold."""
    show = table.formatter()
    head = ["variance", "steps", *(_plain(column.label) for column in table.columns)]
    head += ["ratio"] if len(table.columns) == 2 else []
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for setting in table.settings:
        row = [_plain(table.family_label(setting)), str(setting.steps)]
        row += [_markdown_cell(table, setting, column, show) for column in table.columns]
        if len(table.columns) == 2:
            change = table.change(setting)
            row.append(f"{change[0]:.3f}" if change and change[0] is not None else "–")
        lines.append(row)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _markdown_cell(table: Table, setting: Setting, column: Column, show: Callable[[float], str]) -> str:
    cell = table.cells.get((setting, column))
    if cell is None:
        return "–"
    value = f"**{show(cell.value)}**" if column in table.best(setting) else show(cell.value)
    return value if cell.spread is None else f"{value} ± {show(cell.spread)}"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line; an underscore within a word is harmless."""
    return re.sub(r"[\\`|<>\[\]*]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))
