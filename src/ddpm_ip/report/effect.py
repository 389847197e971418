"""How far each run is from the baseline, in one figure and one sentence that say how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from ddpm_ip.metric import higher_is_better
from ddpm_ip.report.cells import SAMPLING, TRAINING, gap
from ddpm_ip.report.compare import describe
from ddpm_ip.report.markup import sentence_list
from ddpm_ip.report.numbers import counted, figures, percent, signed
from ddpm_ip.report.plots import DASHES, INK, LARGEST, evaluations_axis, make_figure, style_of
from ddpm_ip.report.run import Run
from ddpm_ip.report.table import Column, Setting, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_FAMILIES = 6  # samplers that are drawn apart; of more, each is thin and their median is bold
MOST_SENTENCES = 4
MANY_SEEDS = 5  # below that, a standard deviation is little known
ONE_TRAINING = "One training seed: how much training itself varies is not known."


@dataclass(frozen=True)
class Effect:
    """One number against that of the baseline.

    Attributes:
        setting, column: of which number.
        size: relative change, or the difference where a value is not above zero.
        margin: of :class:`ddpm_ip.report.cells.Gap`, in the same unit; None if no spread is known.
        seeds: how many pairs of one seed are compared; 0 where the numbers are not compared in pairs.
        tie: whether the two print the same or differ by no more than the margin.
    """

    setting: Setting
    column: Column
    size: float
    margin: float | None
    seeds: int
    tie: bool


@dataclass(frozen=True)
class Effects:
    """All numbers of a table against those of the baseline.

    Attributes:
        table: whose numbers.
        baseline: the column that all others are compared with.
        relative: whether sizes are relative changes.
        every: the effects, in the order of columns and rows.
    """

    table: Table
    baseline: Column
    relative: bool
    every: tuple[Effect, ...]

    def of(self, column: Column) -> list[Effect]:
        """Those of one column."""
        return [effect for effect in self.every if effect.column == column]

    @property
    def others(self) -> list[Column]:
        """The columns that have a number to compare."""
        return [column for column in self.table.columns if self.of(column)]

    @property
    def families(self) -> list[tuple[str, str | None]]:
        """Samplers that have a number to compare."""
        return list(dict.fromkeys(effect.setting.family for effect in self.every))

    @property
    def by_column(self) -> bool:
        """Whether colours tell the columns apart, and not the samplers of the only one."""
        return len(self.others) > 1 or len(self.families) > MOST_FAMILIES

    def style(self, column: Column, family: int) -> tuple[int, int]:
        """Colour and marker, and dashes, by number, as :func:`ddpm_ip.report.svg.swatch` counts them."""
        return (column.series, family) if self.by_column else (family, family)


def effects(table: Table, runs: Sequence[Run]) -> Effects | None:
    """The numbers of a table against those of its baseline: the first plain DDPM, or else the first column.

    None if there is nothing to compare.
    """
    plain = [column for column in table.columns if describe(runs[column.run]) == "plain DDPM"]
    baseline = (plain or list(table.columns))[0]
    pairs = [
        (setting, column, one, other)
        for column in table.columns
        for setting in table.settings
        if column != baseline
        and (one := table.finite(setting, baseline)) is not None
        and (other := table.finite(setting, column)) is not None
    ]
    if not pairs:
        return None
    relative = all(one.value > 0 and other.value > 0 for _, _, one, other in pairs)
    found = []
    for setting, column, one, other in pairs:
        unit = one.value if relative else 1.0
        apart = gap(one, other)
        margin = apart.margin / unit if apart.known else None
        if math.isfinite(size := apart.size / unit):
            found.append(Effect(setting, column, size, margin, apart.seeds, not table.differ(one, other)))
    return Effects(table, baseline, relative, tuple(found)) if found else None


def sentences(found: Effects) -> list[str]:
    """What the numbers support, a sentence for each column, and how sure it is."""
    metric, shown = found.table.protocol.metric, found.others[:MOST_SENTENCES]
    higher = higher_is_better(metric)
    better = "" if higher is None else f" ({'higher' if higher else 'lower'} is better)"
    said = [_of_column(found, column, f"{metric}{better if i == 0 else ''}") for i, column in enumerate(shown)]
    more = len(found.others) - len(shown)
    return [*said, *([f"{counted(more, 'more comparison')} are in the table below."] if more else []), _sure(found)]


def _of_column(found: Effects, column: Column, metric: str) -> str:
    own = found.of(column)
    ties = sum(effect.tie for effect in own)
    lower, higher = (sum(not e.tie and sign * e.size > 0 for e in own) for sign in (-1, 1))
    sizes = [effect.size for effect in own]
    show = percent if found.relative else (lambda size: signed(figures(size)))
    size = show(median(sizes)) if len(sizes) == 1 else f"median {show(median(sizes))}"
    span = f", from {show(min(sizes))} to {show(max(sizes))}" if len(sizes) > 1 else ""
    against = f"{column.label} against {found.baseline.label}: {metric} is"
    if ties == len(own):
        return f"{against} tied in all of {counted(len(own), 'setting')} ({size}{span})."
    settings = counted(len(own), "setting")
    for word, count in (("lower", lower), ("higher", higher)):
        if count == len(own):
            return f"{against} {word} in {'all of ' if count > 1 else ''}{settings} ({size}{span})."
    counts = {"lower": lower, "higher": higher, "tied": ties}
    told = sentence_list([f"{word} in {count}" for word, count in counts.items() if count])
    return f"{against} {told} of {settings} ({size}{span})."


def _sure(found: Effects) -> str:
    """What the spread is over, or that none is known."""
    columns = (found.baseline, *found.others)
    pairs = sorted({effect.seeds for effect in found.every} - {0})
    if not pairs:
        return spread_known(found.table, columns)
    over = {cell.over for (_, column), cell in found.table.cells.items() if column in columns}
    seeds = f"{counts_of(pairs)} {TRAINING if TRAINING in over else SAMPLING}"
    together = any(effect.margin is not None and not effect.seeds for effect in found.every)
    some = " Where the seeds are not the same, the spreads of both together count." if together else ""
    some += " With so few seeds, what is beyond it may still be chance." if pairs[0] < MANY_SEEDS else ""
    some += " Of some numbers no spread is known." if any(e.margin is None for e in found.every) else ""
    return (
        f"Compared seed by seed: the spread is the standard deviation of the differences over {seeds}; "
        f"what is within it is a tie.{some}{'' if TRAINING in over else f' {ONE_TRAINING}'}"
    )


def spread_known(table: Table, columns: Sequence[Column]) -> str:
    """A sentence on what is known of the spread of some columns."""
    cells = [cell for (_, column), cell in table.cells.items() if column in columns]
    over = {cell.over for cell in cells if cell.spread is not None}
    if TRAINING in over:
        seeds = counts_of(sorted({cell.seeds for cell in cells if cell.over == TRAINING}))
        some = " Of some numbers no such spread is known." if any(c.over != TRAINING for c in cells) else ""
        return f"Spread: the standard deviation over {seeds} training seeds; what is within it is a tie.{some}"
    if over:
        what = " or ".join(sorted(over))
        return f"Spread: over {what}. {ONE_TRAINING}"
    return "One training seed and one sampling seed: no spread is known, so that small differences may be chance."


def counts_of(counts: Sequence[int]) -> str:
    """``3``, or from which to which number, of rising ones."""
    return f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"


def draw_effects(found: Effects) -> Figure:
    """The effects against the network's evaluations, with a zero line for the baseline and bands of uncertainty."""
    figure, axes = make_figure(4.8, 2.8)
    unit = 100.0 if found.relative else 1.0
    axes.axhline(0, color=INK, linewidth=1.3)
    many = len(found.families) > MOST_FAMILIES
    for column in found.others:
        for number, family in enumerate(found.families):
            own = [e for e in found.of(column) if e.setting.family == family and e.setting.evaluations > 0]
            _line(axes, own, found.style(column, 0 if many else number), unit, thin=many)
        if many:
            _median(axes, found.of(column), column.series, unit)
    steps = sorted({e.setting.evaluations for e in found.every if e.setting.evaluations > 0})
    evaluations_axis(axes, steps or [1])
    axes.yaxis.set_major_formatter(lambda value, _: signed(f"{value:g}"))
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.1 * (high - low)), max(high, 0.1 * (high - low)))
    axes.set_xlabel("network evaluations")
    return figure


def can_be_drawn(found: Effects) -> bool:
    """Whether any effect has a place in the figure."""
    return any(e.setting.evaluations > 0 and abs(e.size) < LARGEST for e in found.every)


def _line(axes: Axes, own: Sequence[Effect], style: tuple[int, int], unit: float, thin: bool) -> None:
    own = [effect for effect in own if abs(effect.size) < LARGEST]
    if not own:
        return
    (color, marker), dashes = style_of(style[0]), DASHES[style[1] % len(DASHES)]
    x, y = [e.setting.evaluations for e in own], [unit * e.size for e in own]
    if thin:
        axes.plot(x, y, color=color, linewidth=0.7, alpha=0.35)
        return
    margins = [unit * min(e.margin or 0.0, LARGEST) for e in own]
    if any(margins):
        low, high = ([v + sign * s for v, s in zip(y, margins, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        axes.errorbar(x, y, yerr=margins, fmt="none", ecolor=color, capsize=2, elinewidth=0.8)
    axes.plot(x, y, color=color, marker=marker, markersize=4.2, linewidth=1.3, linestyle=dashes)


def _median(axes: Axes, own: Sequence[Effect], series: int, unit: float) -> None:
    """The median over samplers at each number of evaluations."""
    at: dict[int, list[float]] = {}
    for effect in own:
        if effect.setting.evaluations > 0 and abs(effect.size) < LARGEST:
            at.setdefault(effect.setting.evaluations, []).append(unit * effect.size)
    color, marker = style_of(series)
    x = sorted(at)
    axes.plot(x, [median(at[k]) for k in x], color=color, marker=marker, markersize=4.5, linewidth=1.8)
