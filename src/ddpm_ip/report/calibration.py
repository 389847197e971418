"""The section “Calibration”: which correction was chosen for which sampling, why, and what it was measured to do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ddpm_ip.report.cells import Cell, gap
from ddpm_ip.report.laboratory import Calibration, Candidate
from ddpm_ip.report.markup import Markup, tag
from ddpm_ip.report.numbers import counted, figures, percent, signed
from ddpm_ip.report.run import Run
from ddpm_ip.report.svg import run_label
from ddpm_ip.report.table import Column, Setting, Table

AUTO = "auto"  # the correction that uses a calibration
UNMEASURED = "No number with --corrections auto was measured yet: nothing is known of its effect."
NUMBERS = {"mismatch": "Mismatch", "share": "Mismatch left", "distance": "Distance, few samples"}
MOST_SHOWN, MOST_CANDIDATES = 16, 40


def calibration_section(runs: Sequence[Run], tables: Sequence[Table]) -> Markup | None:
    """What was chosen, and the numbers with and without it; None where there is neither."""
    found = [(run, calibration) for run in runs for calibration in run.calibrations]
    pairs = [(table, pairs) for table in tables if (pairs := list(_pairs(table)))]
    if not found and not pairs:
        return None
    return tag(
        "section",
        tag("h2", "Calibration"),
        tag("p.quiet", "What ddpm-ip calibrate chose for each way to sample, and what the table measured with it."),
        [_measured(table, rows) for table, rows in pairs],
        None if pairs else tag("p", UNMEASURED),
        [_one(run, calibration) for run, calibration in found[:MOST_SHOWN]],
        tag("p.quiet", f"{len(found) - MOST_SHOWN} more are in the run folders.") if len(found) > MOST_SHOWN else None,
    )  # fmt: skip


def without_auto(row: str) -> str | None:
    """The row of a table without the correction ``auto``; None if it has none."""
    parts = row.split("+")
    return "+".join(part for part in parts if part != AUTO) if AUTO in parts[1:] else None


def _pairs(table: Table) -> Iterator[tuple[Column, Setting, Cell, Cell]]:
    """Numbers that differ in the correction alone: without, and with it."""
    places = {(s.row, s.spacing, s.steps): s for s in table.settings}
    for column in table.columns:
        for setting in table.settings:
            row = without_auto(setting.row)
            other = places.get((row, setting.spacing, setting.steps)) if row is not None else None
            if other is None:
                continue
            before, after = table.finite(other, column), table.finite(setting, column)
            if before is not None and after is not None:
                yield column, other, before, after


def _measured(table: Table, rows: Sequence[tuple[Column, Setting, Cell, Cell]]) -> Markup:
    show = table.formatter()
    head = ("Run", "Sampler", "without", "with auto", "Change")
    columns = [tag("th.left" if name == "Sampler" else "th", name, scope="col") for name in head]
    body = []
    for column, setting, before, after in rows:
        change = percent(after.value / before.value - 1) if before.value > 0 < after.value else None
        apart = gap(before, after)
        told = change or signed(show(apart.size))
        steps = setting.steps
        told_steps = counted(steps, "step") if isinstance(steps, int) else f"steps {steps}"
        spread = f" (difference {signed(show(apart.size))} ± {show(apart.spread)})" if apart.spread is not None else ""
        tied = spread + ("" if table.differ(before, after) else " (tie)")
        body.append(
            tag(
                "tr",
                tag("th", run_label(column.series, column.label), scope="row"),
                tag("td.left", table.family_label(setting), tag("span.spread", f" {told_steps}")),
                [tag("td", show(c.value), _spread(table, c)) for c in (before, after)],
                tag("td.change", told, tied),
            )
        )
    known = any(cell.spread is not None for _, _, *cells in rows for cell in cells)
    spread = "" if known else " One training seed and one sampling seed: no spread is known."
    return tag(
        "div.protocol",
        tag("h3", f"{table.protocol.metric} with and without it"),
        tag("div.scroll", tag("table", tag("thead", tag("tr", columns)), tag("tbody", body)), tabindex=0),
        tag("p.quiet", f"Same weights, sampler, steps and protocol.{spread}"),
    )  # fmt: skip


def _spread(table: Table, cell: Cell) -> Markup | None:
    return tag("span.spread", f" ± {table.formatter()(cell.spread)}") if cell.spread is not None else None


def _one(run: Run, calibration: Calibration) -> Markup:
    name = f" ({calibration.chosen})" if calibration.chosen != calibration.corrections else ""
    return tag(
        "div.calibration",
        tag("h3", run_label(run.series, f"{run.name}: {calibration.label}")),
        tag("p", "Chosen: ", tag("code", calibration.corrections), f"{name}. {calibration.why}"),
        tag("details", tag("summary", _summary(calibration)), _candidates(calibration), [
            _list(title, told) for title, told in (
                ("What it expects", calibration.expects),
                ("What it cannot know", calibration.cannot_know),
                ("Suggestions", calibration.suggestions),
            )
        ]),
        tag("p.quiet", f"{calibration.file}: {calibration.measured}.") if calibration.measured else None,
    )  # fmt: skip


def _summary(calibration: Calibration) -> str:
    """What unfolds."""
    tried = counted(len(calibration.candidates), "candidate") if calibration.candidates else ""
    return ", ".join(filter(None, (tried, "what it expects, cannot know and suggests")))


def _order(one: Candidate) -> tuple[bool, float]:
    """The best first: by distance where there is one, then by the mismatch that is left."""
    left = one.share if one.share is not None else one.mismatch
    value = one.distance if one.distance is not None else left
    return one.distance is None, math.inf if value is None else value


def _list(title: str, told: Sequence[str]) -> Markup | None:
    return tag("div.told", tag("h4", title), tag("ul", [tag("li", text) for text in told])) if told else None


def _candidates(calibration: Calibration) -> Markup | None:
    shown = sorted(calibration.candidates, key=_order)[:MOST_CANDIDATES]
    if not shown:
        return None
    kinds = [kind for kind in NUMBERS if any(getattr(one, kind) is not None for one in shown)]
    kinds = [kind for kind in kinds if kind != "mismatch" or "share" not in kinds]  # shares are of the same images
    names = ["Candidate", "Corrections", *(NUMBERS[kind] for kind in kinds)]
    head = tag("tr", [tag("th.left" if name == "Corrections" else "th", name, scope="col") for name in names])
    rows = [_candidate(one, one.name == calibration.chosen, kinds) for one in shown]
    return tag("div.scroll", tag("table.candidates", tag("thead", head), tag("tbody", rows)), tabindex=0)


def _candidate(one: Candidate, chosen: bool, kinds: Sequence[str]) -> Markup:
    numbers: list[float | None] = [getattr(one, kind) for kind in kinds]
    return tag(
        "tr.chosen" if chosen else "tr",
        tag("th", one.name, tag("span.spread", " (chosen)") if chosen else None, scope="row"),
        tag("td.left", tag("code", one.label)),
        [tag("td", "–" if number is None else figures(number)) for number in numbers],
    )
