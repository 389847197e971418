"""What ``ddpm-ip table`` wrote, in the published shape: rows are samplers, columns are steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddpm_ip.errors import UserError
from ddpm_ip.report.compare import show
from ddpm_ip.report.markup import Markup, tag
from ddpm_ip.report.run import TABLE, Run
from ddpm_ip.report.svg import run_label


def grids_section(runs: Sequence[Run]) -> Markup | None:
    """The tables of all runs that have one.

    Raises:
        UserError: one is damaged; names the file.
    """
    found = [_one_run(i, run, run.table) for i, run in enumerate(runs) if run.table]
    return tag("section", tag("h2", "As in the papers: sampler by steps"), found) if found else None


def _one_run(index: int, run: Run, grid: Mapping[str, Any]) -> Markup:
    caption = f"grid{index}"
    try:
        return tag(
            "div.protocol",
            tag("h3", run_label(index, run.name)),
            tag("p.quiet", f"{grid['method']}. Protocol {grid['protocol_id']}: {grid['line']}.", id=caption),
            [tag("div.scroll", _block(grid["steps"], block, caption)) for block in grid["blocks"]],
            [tag("p.quiet", note) for note in grid["notes"]],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{run.path / TABLE} is damaged ({type(error).__name__}: {error}). `ddpm-ip table` writes it again, or "
            "remove it to report without it."
        ) from None


def _block(steps: Sequence[int | str], block: Mapping[str, Any], caption: str) -> Markup:
    rows = block["rows"]
    groups = [[row for row in rows if not row["source"]], [row for row in rows if row["source"]]]
    names = [tag("th", show(k) + (" steps" if i == 0 else ""), scope="col") for i, k in enumerate(steps)]
    head = tag("thead", tag("tr", tag("th", block["metric"], scope="col"), names))
    bodies = [tag("tbody", [_row(row, block["decimals"]) for row in group]) for group in groups if group]
    return tag("table", head, bodies, aria_labelledby=caption)


def _row(row: Mapping[str, Any], decimals: int) -> Markup:
    cells = [_cell(cell, decimals) for cell in row["cells"]]
    return tag("tr.published" if row["source"] else "tr", tag("th", row["label"], scope="row"), cells)


def _cell(cell: Mapping[str, Any] | None, decimals: int) -> Markup:
    if cell is None:
        return tag("td", "–")
    spread = None if cell["spread"] is None else tag("span.spread", f" ± {cell['spread']:.{decimals}f}")
    return tag("td", f"{cell['value']:.{decimals}f}", cell["mark"], spread)
