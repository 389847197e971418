"""The results section: one table and one plot for each protocol, and what the numbers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ddpm_ip.errors import UserError
from ddpm_ip.metric import find, higher_is_better
from ddpm_ip.report.compare import grouped, show
from ddpm_ip.report.downloads import Entry, csv_text, framed
from ddpm_ip.report.groups import SEED
from ddpm_ip.report.markup import Markup, join, sentence_list, tag
from ddpm_ip.report.numbers import signed
from ddpm_ip.report.plots import MOST_LINES, can_be_drawn, column_style, is_alone, metric_by_evaluations
from ddpm_ip.report.run import Run
from ddpm_ip.report.svg import run_label, to_svg
from ddpm_ip.report.table import Column, Setting, Table
from ddpm_ip.report.texts import UNKNOWN_METRIC

TITLE = "Distance"
TIE = "≈"  # before a number that shares the best place of its row
MOST_TABLES = 24
MOST_ROWS = 300


def results_section(
    tables: Sequence[Table],
    runs: Sequence[Run],
    notes: Sequence[str],
    floors: Mapping[str, float],
    during: Markup | None = None,
) -> Markup:
    """All tables and plots; ``notes`` stand beneath them, then ``during``, what was measured during training.

    Raises:
        UserError: if a floor names a metric that is not there, or is there under several protocols.
    """
    metrics = [table.protocol.metric for table in tables]
    for metric in floors:
        if (found := metrics.count(metric)) != 1:
            raise UserError(
                f"A floor was given for {metric}; it needs one table of that metric, and there are {found}."
            )
    if not tables:
        none = "No run has results yet." if during is None else "No run has been measured after its training yet."
        return tag("section", tag("h2", TITLE), tag("p", none), _notes(notes), during)
    # Notes belong beneath the table; beneath several, since they do not say which they mean.
    beneath = notes if len(tables) == 1 else ()
    shown, left_out = tables[:MOST_TABLES], len(tables) - MOST_TABLES
    several = tag(
        "p",
        "These numbers were measured under different protocols. Each table holds one; do not compare across tables.",
    )
    return tag(
        "section",
        tag("h2", TITLE),
        several if len(tables) > 1 else None,
        [_one_protocol(table, i, runs, floors.get(table.protocol.metric), beneath) for i, table in enumerate(shown)],
        tag("p", f"Tables of {left_out} more protocols are not shown.") if left_out > 0 else None,
        None if beneath else _notes(notes),
        during,
        [_explanation(table.protocol.metric) for table in {t.protocol.metric: t for t in shown}.values()],
    )


def _notes(notes: Sequence[str]) -> Markup | None:
    return tag("div", [tag("p", note) for note in notes]) if notes else None


def _one_protocol(table: Table, index: int, runs: Sequence[Run], floor: float | None, notes: Sequence[str]) -> Markup:
    """A table, what its signs mean, and its figure; of one column, the first figure stands on top of the page."""
    metric = table.protocol.metric
    title = f"{metric} against the number of network evaluations"
    floor_text = f"Floor of {metric}, as given: {table.formatter()(floor)}." if floor is not None else None
    above = index == 0 and len(table.columns) == 1
    drawn = not above and any(can_be_drawn(table, *place) for place in table.cells)
    label = f"{title}: the numbers of the table"
    picture = to_svg(metric_by_evaluations(table, floor), f"metric{index}", label) if drawn else None
    name = f"{metric} {index + 1}" if index else metric
    return tag(
        "div.protocol",
        tag("h3", metric),
        tag("p", said) if (said := verdict(table, f"marked; {bold(table)}")) else None,
        # Not a <caption>: that would be as wide as the table, and on a phone scroll out of sight with it.
        tag("p.quiet", _caption(table), id=f"caption{index}"),
        tag("div.scroll", _html_table(table, f"caption{index}")),
        _notes(notes),
        [tag("p.quiet", line) for line in [floor_text, *_beneath(table)] if line],
        framed(picture, name, title, legend(table), numbers_csv(table, runs)) if picture else None,
    )


def bold(table: Table) -> str:
    """Which numbers that are ahead are bold."""
    if any(table.sure(setting, column) for setting, column in table.cells):
        return "bold: by more than known spreads"
    some = any(cell.spread is not None for cell in table.cells.values())
    return f"not bold, since {'not every' if some else 'no'} spread is known"


def verdict(table: Table, mark: str) -> str | None:
    """Who is ahead in how many rows, which are marked in some way, counted and nothing more."""
    higher = higher_is_better(table.protocol.metric)
    rows = sum(map(table.compared, table.settings))
    if not rows:
        return None
    wins = table.wins()
    ties = rows - sum(wins.values())
    spread = any(cell.spread is not None for cell in table.cells.values())
    together = "by no more than their spreads (±) together"
    within = "seed by seed by no more than the spread of these differences" if table.pairs else together
    why = "the values print the same" + (f", or differ {within}" if spread else "")
    opening = f"{'Higher' if higher else 'Lower'} is better."
    if ties == rows:
        return f"{opening} Nobody is ahead in any of {rows} rows: {why}." if rows > 1 else f"{opening} A tie: {why}."
    counts = [f"{column.label} in {count} of {rows}" for column, count in wins.items()]
    tied = f" In {ties} of {rows} nobody is ({TIE}): {why}." if ties else ""
    return f"{opening} Ahead in a row ({mark}) is {sentence_list(counts)}.{tied}"


def of_spreads(table: Table) -> list[str]:
    """What each ± of a table is over."""
    lines = []
    for over in dict.fromkeys(cell.over for cell in table.cells.values() if cell.over and cell.seeds > 1):
        most = max(cell.seeds for cell in table.cells.values() if cell.over == over)
        lines.append(f"Values of several {over} (up to {most}) are means, ± the standard deviation over them.")
    if pairs := table.pairs:
        lines.append(
            f"Differences are taken seed by seed ({pairs} seeds), so that what runs of a seed have in common, such as "
            "the order of the images and the noise, is no part of them. Their ± is their own standard deviation."
        )
    return lines


def _beneath(table: Table) -> list[str]:
    """What the signs in a table mean, and what it does not show."""
    more = len(table.settings) - MOST_ROWS
    return [*([f"{more} more rows are not shown."] if more > 0 else []), *of_spreads(table)]


def _html_table(table: Table, caption: str) -> Markup:
    families: dict[tuple[str, str | None], list[Setting]] = {}
    for setting in table.settings[:MOST_ROWS]:
        families.setdefault(setting.family, []).append(setting)
    names: list[str] = [run_label(column_style(table, i), column.label) for i, column in enumerate(table.columns)]
    if is_alone(table):
        names = [column.label for column in table.columns]
    headers = [tag("th", name, scope="col") for name in names]
    changes = [tag("th", "Ratio", scope="col"), tag("th", "Difference", scope="col")] if len(table.columns) == 2 else []
    return tag(
        "table.results",
        tag("thead", tag("tr", tag("th", "Sampler", scope="col"), tag("th", "Steps", scope="col"), headers, changes)),
        [tag("tbody", [_row(table, s, len(rows) if s is rows[0] else 0) for s in rows]) for rows in families.values()],
        aria_labelledby=caption,
    )


def _caption(table: Table) -> str:
    protocol = table.protocol
    samples = f"{grouped(protocol.n_images)} samples" if protocol.n_images is not None else "Samples"
    count = f"{grouped(protocol.n_reference)} images of " if protocol.n_reference is not None else ""
    digest = f" (SHA-256 {protocol.reference_sha256[:12]}…)" if protocol.reference_sha256 else ""
    caption = f"{samples} against {count}{protocol.reference or 'an unnamed reference set'}{digest}."
    if len(table.columns) == 2:
        first, second = table.columns
        caption += f" Ratio and difference: {second.label} to {first.label}."
    return caption


def _row(table: Table, setting: Setting, span: int) -> Markup:
    """One row; the first of a sampler carries its name for ``span`` rows."""
    return tag(
        "tr",
        tag("th", table.family_label(setting), scope="rowgroup", rowspan=span) if span else None,
        tag("td", show(setting.steps), _evaluations(setting)),
        [_cell(table, setting, column) for column in table.columns],
        _change(table, setting),
    )


def _evaluations(setting: Setting) -> Markup | None:
    """Of the network, where their number is not that of the steps."""
    return tag("span.spread", f" ({setting.other_evaluations})") if setting.other_evaluations else None


def _cell(table: Table, setting: Setting, column: Column) -> Markup:
    cell, text = table.cells.get((setting, column)), table.formatter()
    if cell is None:
        return tag("td", "–")
    best, tied = column == table.best(setting), table.tied(setting, column)
    value = tag("data", text(cell.value), value=repr(cell.value))
    return tag(
        "td.best" if best else "td",
        tag("span.tie", f"{TIE} ", title="tied with the best of its row") if tied else None,
        tag("strong", value) if table.sure(setting, column) else value,
        tag("span.spread", f" ± {text(cell.spread)}") if cell.spread is not None else None,
        tag("span.hidden", " (best)" if best else " (tied)") if best or tied else None,
    )


def _change(table: Table, setting: Setting) -> list[Markup]:
    if len(table.columns) != 2:
        return []
    change, text = table.change(setting), table.formatter()
    if change is None:
        return [tag("td.change", "–"), tag("td.change", "–")]
    ratio, difference = change
    spread = difference.spread
    return [
        tag("td.change", "–" if ratio is None else f"{ratio:.3f}"),
        tag("td.change", signed(text(difference.size)), f" ± {text(spread)}" if spread is not None else None),
    ]


def legend(table: Table) -> list[Entry]:
    """The lines of the figure of a table: its runs by colour and marker, its samplers by dashes."""
    labels = list(dict.fromkeys(table.family_label(setting) for setting in table.settings))[:MOST_LINES]
    if is_alone(table):
        return [(i, i, label) for i, label in enumerate(labels)]
    runs: list[Entry] = [(column_style(table, i), 0, c.label) for i, c in enumerate(table.columns)]
    return runs + ([(None, i, label) for i, label in enumerate(labels)] if len(labels) > 1 else [])


def numbers_csv(table: Table, runs: Sequence[Run]) -> str:
    """Each measurement behind a table, unrounded: a line a number, so that other spreads can be computed of it."""
    head = ("metric", "value", "spread", "run", "training_seed", "row", "spacing", "steps", "evaluations")
    return csv_text(
        (*head, "sampling_seed", "images", "weights", "protocol"),
        (
            (
                r.metric, r.value, "" if r.spread is None else r.spread, runs[i].name, runs[i].settings.get(SEED, ""),
                r.label, r.spacing or "", r.steps or "", r.evaluations or "", "" if r.seed is None else r.seed,
                r.n_images or "", r.weights or "", r.line or "",
            )
            for i, r in table.measured
        ),
    )  # fmt: skip


def _explanation(metric: str) -> Markup:
    if found := find(metric):
        return join(tag("h3", f"What {metric} is, and what it is not"), tag("p", found.what), tag("p", found.limits))
    return join(tag("h3", f"About {metric}"), tag("p", UNKNOWN_METRIC))
