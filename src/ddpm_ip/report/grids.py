"""What ``ddpm-ip table`` wrote, in the published shape: rows are samplers, columns are steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddpm_ip.plain import UNREADABLE, reason
from ddpm_ip.report.compare import show
from ddpm_ip.report.markup import Markup, tag
from ddpm_ip.report.reading import TABLE
from ddpm_ip.report.run import Run
from ddpm_ip.report.svg import run_label

MOST_DECIMALS = 20


def grids_section(runs: Sequence[Run]) -> Markup | None:
    """The tables of all runs that have one; in place of a damaged one a sentence."""
    found = [_one_run(i, run, run.table) for i, run in enumerate(runs) if run.table]
    return tag("section", tag("h2", "As in the papers: sampler by steps"), found) if found else None


def _one_run(index: int, run: Run, grid: Mapping[str, Any]) -> Markup:
    caption, name = f"grid{index}", tag("h3", run_label(index, run.name))
    try:
        return tag(
            "div.protocol",
            name,
            tag("p.quiet", f"{grid['method']}. Protocol {grid['protocol_id']}: {grid['line']}.", id=caption),
            [tag("div.scroll", _block(grid["steps"], block, caption)) for block in grid["blocks"]],
            [tag("p.quiet", note) for note in grid["notes"]],
        )
    except (*UNREADABLE, ArithmeticError) as error:
        told = f"{TABLE} is damaged ({type(error).__name__}: {reason(error)}): `ddpm-ip table` writes it again."
        return tag("div.protocol", name, tag("p", told))


def _block(steps: Sequence[int | str], block: Mapping[str, Any], caption: str) -> Markup:
    rows, decimals = block["rows"], block["decimals"]
    if not 0 <= decimals <= MOST_DECIMALS:
        raise ValueError(f"{show(decimals)} decimals")
    groups = [[row for row in rows if not row["source"]], [row for row in rows if row["source"]]]
    names = [tag("th", show(k) + (" steps" if i == 0 else ""), scope="col") for i, k in enumerate(steps)]
    head = tag("thead", tag("tr", tag("th", block["metric"], scope="col"), names))
    bodies = [tag("tbody", [_row(row, decimals) for row in group]) for group in groups if group]
    return tag("table", head, bodies, aria_labelledby=caption)


def _row(row: Mapping[str, Any], decimals: int) -> Markup:
    cells = [_cell(cell, decimals) for cell in row["cells"]]
    return tag("tr.published" if row["source"] else "tr", tag("th", row["label"], scope="row"), cells)


def _cell(cell: Mapping[str, Any] | None, decimals: int) -> Markup:
    if cell is None:
        return tag("td", "–")
    spread = None if cell["spread"] is None else tag("span.spread", f" ± {cell['spread']:.{decimals}f}")
    return tag("td", f"{cell['value']:.{decimals}f}", cell["mark"], spread)
