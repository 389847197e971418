"""The top of the page: the one figure, and the one sentence that the numbers support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ddpm_ip.metric import higher_is_better
from ddpm_ip.report import effect
from ddpm_ip.report.downloads import Entry, csv_text, framed
from ddpm_ip.report.effect import Effects, effects, spread_known
from ddpm_ip.report.markup import Markup, join, tag
from ddpm_ip.report.numbers import counted
from ddpm_ip.report.plots import can_be_drawn, metric_by_evaluations
from ddpm_ip.report.results import legend, numbers_csv
from ddpm_ip.report.run import Run
from ddpm_ip.report.svg import to_svg
from ddpm_ip.report.table import Setting, Table

ABOUT = {
    True: "; above it is better",
    False: "; below it is better",
    None: "",
}


def headline(tables: Sequence[Table], runs: Sequence[Run], floors: Mapping[str, float]) -> Markup | None:
    """The comparison with most numbers; of a run that is compared with nothing, its distance by evaluations.

    None if nothing was measured.
    """
    if not tables:
        return None
    table = max(tables, key=lambda one: sum(map(one.compared, one.settings)))  # the first of equals
    found = effects(table, runs)
    if found is None and len(table.columns) > 1:
        return None  # numbers that have nothing in common
    other = len(tables) - 1
    more = f"{counted(other, 'other metric or protocol', 'other metrics or protocols')}: see “Distance” below."
    said, figure = _compared(found) if found else _alone(table, runs, floors.get(table.protocol.metric))
    return tag("section.headline", tag("div", said, tag("p.quiet", more) if other else None), tag("div", figure))


def _compared(found: Effects) -> tuple[Markup, Markup | None]:
    metric, baseline = found.table.protocol.metric, found.baseline.label
    said = effect.sentences(found)
    text = join([tag("p.finding", sentence) for sentence in said[:-1]], tag("p.sure", said[-1]))
    return text, _effect_figure(found, metric, baseline) if effect.can_be_drawn(found) else None


def _effect_figure(found: Effects, metric: str, baseline: str) -> Markup:
    unit = " in percent" if found.relative else ""
    title = f"Change of {metric}{unit} against {baseline}, the zero line{ABOUT[higher_is_better(metric)]}"
    picture = to_svg(effect.draw_effects(found), "headline", title)
    of_pairs = all(effect.seeds for effect in found.every if effect.margin is not None)
    what = "the deviation of the differences, seed by seed" if of_pairs else "the spreads of both together"
    bands = tag("p.quiet", f"Bands: {what}. Where they hold the zero line, it is a tie.")
    return join(
        framed(picture, f"change of {metric}", title, _entries(found), _csv(found)),
        bands if any(e.margin for e in found.every) else None,
    )


def _entries(found: Effects) -> list[Entry]:
    """The lines of the figure: runs by colour, samplers by dashes; of one run the samplers by colour."""
    table = found.table
    names = {e.setting.family: table.family_label(e.setting) for e in reversed(found.every)}
    samplers = [names[family] for family in found.families]
    columns: list[Entry] = [(column.series, 0, column.label) for column in found.others]
    if not found.by_column:
        return [(i, i, name) for i, name in enumerate(samplers)]
    if len(samplers) > effect.MOST_FAMILIES:
        return [(*entry[:2], f"{entry[2]}: median of {len(samplers)} samplers (thin: each)") for entry in columns]
    return columns + ([(None, i, name) for i, name in enumerate(samplers)] if len(samplers) > 1 else [])


def _csv(found: Effects) -> str:
    head = ("metric", "baseline", "compared", "sampler", "steps", "evaluations")
    unit = "share of the baseline" if found.relative else "difference"
    return csv_text(
        (*head, "change", "margin", "pairs", "tie", "unit"),
        (
            (
                found.table.protocol.metric, found.baseline.label, e.column.label, found.table.family_label(e.setting),
                e.setting.steps, e.setting.evaluations or "", e.size, "" if e.margin is None else e.margin,
                e.seeds, "yes" if e.tie else "no", unit,
            )
            for e in found.every
        ),
    )  # fmt: skip


def _alone(table: Table, runs: Sequence[Run], floor: float | None) -> tuple[Markup, Markup | None]:
    metric = table.protocol.metric
    title = f"{metric} against the number of network evaluations"
    drawn = any(can_be_drawn(table, *place) for place in table.cells)
    picture = to_svg(metric_by_evaluations(table, floor), "headline", title) if drawn else None
    text = join([tag("p.finding", text) for text in _best(table)], tag("p.sure", spread_known(table, table.columns)))
    return text, framed(picture, title, title, legend(table), numbers_csv(table, runs)) if picture else None


def _best(table: Table) -> list[str]:
    """The best number, and the best at the fewest evaluations; ties are told."""
    higher = higher_is_better(table.protocol.metric)
    column = table.columns[0]
    known = [s for s in table.settings if table.finite(s, column) is not None]
    if higher is None or not known or len(table.columns) > 1:
        return []
    budgets = sorted({s.evaluations for s in known if s.evaluations})
    word = "highest" if higher else "lowest"
    said = [f"The {word} {table.protocol.metric} is {_named(table, known, higher)}."]
    few = [s for s in known if s.evaluations == budgets[0]] if budgets else []
    if few and len(budgets) > 1:
        asked = counted(budgets[0], "network evaluation")
        said.append(f"With {asked} the {word} is {_named(table, few, higher)}.")
    return [" ".join(said)]


def _named(table: Table, among: Sequence[Setting], higher: bool) -> str:
    column, show = table.columns[0], table.formatter()
    first = (max if higher else min)(among, key=lambda s: table.cells[s, column].value)
    best = table.cells[first, column]
    ties = [s for s in among if s != first and not table.differ(best, table.cells[s, column])]
    spread = f" ± {show(best.spread)}" if best.spread is not None else ""
    at = f", {counted(first.evaluations, 'evaluation')}" if first.evaluations else ""
    tied = f"; {counted(len(ties), 'other setting')} tied with it" if ties else ""
    return f"{show(best.value)}{spread} ({table.family_label(first)}{at}){tied}"
