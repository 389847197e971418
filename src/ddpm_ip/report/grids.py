"""What ``ddpm-ip table`` wrote, in the published shape: rows are samplers, columns are steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ddpm_ip.plain import UNREADABLE, reason
from ddpm_ip.report.compare import show
from ddpm_ip.report.downloads import framed
from ddpm_ip.report.lines import CSV, as_csv, draw_lines, lines_of
from ddpm_ip.report.markup import Markup, join, tag
from ddpm_ip.report.numbers import counted, fixed
from ddpm_ip.report.plots import MOST_LINES
from ddpm_ip.report.reading import TABLE
from ddpm_ip.report.run import Run
from ddpm_ip.report.svg import run_label, to_svg

MOST_DECIMALS = 20
MOST_OPEN = 4  # tables that are not folded


def grids_section(runs: Sequence[Run]) -> Markup | None:
    """The tables of all runs that have one; in place of a damaged one a sentence."""
    tables = [(run, run.table) for run in runs if run.table]
    lines = [_line(grid) for _, grid in tables]
    notes = [note for note in _notes(tables[0][1]) if all(note in _notes(grid) for _, grid in tables)] if tables else []
    found = [_one_run(i, run, grid, _Told(lines.index(lines[i]) < i, notes)) for i, (run, grid) in enumerate(tables)]
    units = {str(run.table.get("columns", "steps")) for run in runs if run.table}
    by = "network evaluations" if units == {"evaluations"} else "steps"
    if not found:
        return None
    more = found[MOST_OPEN:]
    folded = tag("details", tag("summary", counted(len(more), "more run")), more) if more else None
    told = [tag("p.quiet", note) for note in notes]
    return tag("section", tag("h2", f"As in the papers: sampler by {by}"), found[:MOST_OPEN], folded, told)


class _Told(NamedTuple):
    """What the tables of other runs say, too, and is said once: the protocol above, the notes beneath all of them."""

    line: bool
    notes: Sequence[str]


def _line(grid: Mapping[str, Any]) -> str:
    """The protocol of a table but for the weights."""
    return re.sub(r"weights [0-9a-f]{12}; ", "", str(grid.get("line")))


def _notes(grid: Mapping[str, Any]) -> list[str]:
    notes = grid.get("notes")
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def _one_run(index: int, run: Run, grid: Mapping[str, Any], told: _Told) -> Markup:
    caption, name = f"grid{index}", tag("h3", run_label(run.series, run.name))
    try:
        return tag(
            "div.protocol",
            name,
            tag("p.quiet", _caption(grid, told.line), id=caption),
            [tag("div.scroll", _block(grid, block, caption)) for block in grid["blocks"]],
            [tag("p.quiet", note) for note in grid["notes"] if note not in told.notes],
            _lines(index, run, grid) if grid.get("columns") == "evaluations" or run.file(CSV) else None,
        )
    except (*UNREADABLE, ArithmeticError) as error:
        damage = f"{TABLE} is damaged ({type(error).__name__}: {reason(error)}): `ddpm-ip table` writes it again."
        return tag("div.protocol", name, tag("p", damage))


def _caption(grid: Mapping[str, Any], told: bool) -> str:
    begin = f"{grid['method']}. Protocol {grid['protocol_id']}"
    return f"{begin}: as above, of other weights." if told else f"{begin}: {grid['line']}."


def _lines(index: int, run: Run, grid: Mapping[str, Any]) -> Markup:
    """The numbers against the evaluations, a line a row, and as CSV."""
    figures, numbers = [], as_csv(grid)
    for i, block in enumerate(grid["blocks"]):
        if lines := lines_of(block, grid["steps"])[:MOST_LINES]:
            title = f"{run.name}: {block['metric']} against the number of network evaluations"
            picture = to_svg(draw_lines(lines), f"grid{index}-{i}", f"{title}: the numbers of the table above")
            entries = [(*line.style, line.label) for line in lines]
            figures.append(framed(picture, f"table {run.name} {block['metric']}", title, entries, numbers))
    return join(figures)


def _block(grid: Mapping[str, Any], block: Mapping[str, Any], caption: str) -> Markup:
    rows, decimals, unit = block["rows"], block["decimals"], str(grid.get("columns", "steps"))
    if not 0 <= decimals <= MOST_DECIMALS:
        raise ValueError(f"{show(decimals)} decimals")
    groups = [[row for row in rows if not row["source"]], [row for row in rows if row["source"]]]
    names = [tag("th", show(k) + (f" {unit}" if i == 0 else ""), scope="col") for i, k in enumerate(grid["steps"])]
    head = tag("thead", tag("tr", tag("th", block["metric"], scope="col"), names))
    bodies = [tag("tbody", [_row(row, decimals) for row in group]) for group in groups if group]
    return tag("table", head, bodies, aria_labelledby=caption)


def _row(row: Mapping[str, Any], decimals: int) -> Markup:
    cells = [_cell(cell, decimals) for cell in row["cells"]]
    return tag("tr.published" if row["source"] else "tr", tag("th", row["label"], scope="row"), cells)


def _cell(cell: Mapping[str, Any] | None, decimals: int) -> Markup:
    if cell is None:
        return tag("td", "–")
    spread = None if cell["spread"] is None else tag("span.spread", f" ± {fixed(cell['spread'], decimals)}")
    return tag("td", fixed(cell["value"], decimals), cell["mark"], spread)
