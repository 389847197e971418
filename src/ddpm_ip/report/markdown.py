"""A table of a report in Markdown, for a terminal or a README."""

from __future__ import annotations

import re
from collections.abc import Callable

from ddpm_ip.report.markup import INVISIBLE
from ddpm_ip.report.numbers import signed
from ddpm_ip.report.results import TIE, bold, of_spreads, verdict
from ddpm_ip.report.table import Column, Setting, Table


def markdown(table: Table) -> str:
    """One table, and beneath it who is ahead and what ± is over; bold is only what is ahead beyond a known spread."""
    show = table.formatter()
    head = ["sampler", "steps", *(plain(column.label) for column in table.columns)]
    head += ["ratio", "difference"] if len(table.columns) == 2 else []
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for setting in table.settings:
        steps = f"{setting.steps} ({setting.other_evaluations})" if setting.other_evaluations else str(setting.steps)
        row = [plain(table.family_label(setting)), plain(steps)]
        row += [_cell(table, setting, column, show) for column in table.columns]
        row += _change(table, setting, show) if len(table.columns) == 2 else []
        lines.append(row)
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join([text, *map(plain, filter(None, [verdict(table, bold(table)), *of_spreads(table)]))])


def _change(table: Table, setting: Setting, show: Callable[[float], str]) -> list[str]:
    """Ratio and difference of the second column to the first."""
    change = table.change(setting)
    if change is None:
        return ["–", "–"]
    ratio, gap = change
    spread = "" if gap.spread is None else f" ± {show(gap.spread)}"
    return ["–" if ratio is None else f"{ratio:.3f}", f"{signed(show(gap.size))}{spread}"]


def _cell(table: Table, setting: Setting, column: Column, show: Callable[[float], str]) -> str:
    cell = table.cells.get((setting, column))
    if cell is None:
        return "–"
    value = f"**{show(cell.value)}**" if table.sure(setting, column) else show(cell.value)
    tie = f"{TIE} " if table.tied(setting, column) else ""
    return tie + (value if cell.spread is None else f"{value} ± {show(cell.spread)}")


def plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line; an underscore within a word is harmless."""
    return re.sub(r"[\\`|<>\[\]*&~#]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(INVISIBLE.sub("\ufffd", text).split()))
