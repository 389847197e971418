"""The figures of a report, drawn with matplotlib's object interface (no global state).

Runs are told apart by colour *and* marker, samplers by line style *and* filled or hollow marker, so that a figure
reads in print and with colour blindness. Text from the run folders is never drawn: titles and legends are HTML, which
wraps, scales and escapes better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ddpm_ip.errors import UserError
from ddpm_ip.extras import how_to_install
from ddpm_ip.report.table import Column, Setting, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

INK, RULE, PAPER = "#22262a", "#d9dce0", "#fefefe"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#b0498c", "#8a6d00", "#4b5fc4")
"""Colours of the runs, after Okabe and Ito: told apart with every common kind of colour blindness."""

MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[Any, ...] = ("solid", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
LARGEST = 1e30
"""Beyond it nothing is drawn: no axis could be read."""

MOST_LINES = 48
"""Samplers of a plot."""

FAR = 5.0
"""How many times below the lowest value a floor is too far away to be drawn."""

POINTS = 500
"""Points drawn of a long curve."""


def style_of(run: int) -> tuple[str, str]:
    """Colour and marker of a run; more than six runs share colours, but not with the same marker."""
    return SERIES[run % 6], MARKERS[(run + run // 6) % 6]


def metric_by_evaluations(table: Table, floor: float | None = None) -> Figure:
    """The metric against the number of network evaluations, one line per run and sampler.

    Args:
        table: numbers of one protocol.
        floor: what a perfect sampler would score, drawn as a dotted line.
    """
    figure, axes = make_figure(4.8, 2.8)
    families = list(dict.fromkeys(setting.family for setting in table.settings))[:MOST_LINES]
    values: list[float] = []
    for column_index, column in enumerate(table.columns):
        for family_index, family in enumerate(families):
            color, marker = style_of(line_style(table, column_index, family_index))
            settings = [s for s in table.settings if s.family == family and can_be_drawn(table, s, column)]
            cells = [table.cells[s, column] for s in settings]
            values += [cell.value for cell in cells]
            axes.errorbar(
                [s.evaluations for s in settings],
                [cell.value for cell in cells],
                yerr=[min(cell.margin, LARGEST) for cell in cells] if any(cell.margin for cell in cells) else None,
                color=color, marker=marker, markersize=4.2, linewidth=1.3, capsize=2, elinewidth=0.8,
                linestyle=DASHES[family_index % len(DASHES)],
                markerfacecolor=PAPER if is_hollow(family_index) else color,
            )  # fmt: skip
    if floor is not None and _is_near(floor, values):
        values.append(floor)
        axes.axhline(floor, color=INK, linewidth=1, linestyle=(0, (1, 2)))
        axes.annotate("floor", (0, floor), (4, 3), ("axes fraction", "data"), "offset points", color=INK, size=8)
    evaluations_axis(axes, sorted({s.evaluations for s in table.settings if s.evaluations}) or [1])
    if values and min(values) > 1 / LARGEST:
        log_y(axes, min(values), max(values))
    axes.set_xlabel("network evaluations")
    return figure


def _is_near(floor: float, values: Sequence[float]) -> bool:
    """Whether a floor leaves the lines room: far below them it is told in words alone."""
    return not values or not 0 < floor < min(values) / FAR


def can_be_drawn(table: Table, setting: Setting, column: Column) -> bool:
    """Whether a number has a place in :func:`metric_by_evaluations`: it is finite, and its evaluations are known."""
    cell = table.finite(setting, column)
    return cell is not None and setting.evaluations > 0 and abs(cell.value) < LARGEST


def column_style(table: Table, column: int) -> int:
    """A run keeps its colour in every plot; only where one has several weights must columns take colours in turn."""
    series = [c.series for c in table.columns]
    return series[column] if len(set(series)) == len(series) else column


def is_alone(table: Table) -> bool:
    """Whether there is one run with several samplers: then these have the colours."""
    return len(table.columns) == 1 and len({setting.family for setting in table.settings}) > 1


def line_style(table: Table, column: int, family: int) -> int:
    """Of a line its run's colour and marker; of one run with several samplers these tell the samplers apart."""
    return family if is_alone(table) else column_style(table, column)


def is_hollow(family: int) -> bool:
    """Whether the markers of a sampler are: eight samplers differ in dashes or in this."""
    return bool((family + family // len(DASHES)) % 2)


def curve(series: Sequence[tuple[int, Floats, Floats]], wide: bool = False, log: bool = False) -> Figure:
    """A quantity over training: as logged (thin and light) and smoothed (bold).

    Args:
        series: (index of the run, steps, values), values may be NaN.
        wide: for the main curve of a page; others are small panels.
        log: logarithmic axis, where all values allow it.
    """
    figure, axes = make_figure(4.8, 2.4) if wide else make_figure(3.3, 2.0)
    drawn = []
    for run, steps, values in series:
        color, _ = style_of(run)
        bold = smooth(values)
        axes.plot(*envelope(steps, values), color=color, alpha=0.3, linewidth=0.6)
        axes.plot(*envelope(steps, bold), color=color, linewidth=1.5)
        drawn.append(values[np.isfinite(values)])
    finite = np.concatenate(drawn) if drawn else np.empty(0)
    if log and finite.size and finite.min() > 1 / LARGEST and finite.max() / finite.min() > 3:
        log_y(axes, float(finite.min()), float(finite.max()))
    elif finite.size and finite.min() >= 0 and finite.max() > 0:
        axes.set_ylim(0, float(finite.max()) * 1.08)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _training_axis(axes, 6 if wide else 4)
    return figure


def window(n: int) -> int:
    """Width of the moving mean for ``n`` logged values: a thirtieth of the curve, odd."""
    return 2 * (n // 60) + 1


def smooth(values: Floats) -> Floats:
    """Centred moving mean over :func:`window` values, shorter at the ends; NaN are left out of the means."""
    kernel = np.ones(window(len(values)))
    known = np.isfinite(values)
    count = np.convolve(known, kernel, "same")
    total = np.convolve(np.where(known, values, 0.0), kernel, "same")
    return np.where(known & (count > 0), total / np.maximum(count, 1), np.nan)


def envelope(steps: Floats, values: Floats) -> tuple[Floats, Floats]:
    """A long curve by the smallest and the largest value of each stretch, so that no spike is lost."""
    if len(steps) <= POINTS:
        return steps, values
    keep: list[int] = []
    for part in np.array_split(np.arange(len(steps)), POINTS // 2):
        finite = part[np.isfinite(values[part])]
        if finite.size:
            keep += sorted({int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])})
    return steps[keep], values[keep]


def make_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure, so many inches wide and high.

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(f"The plots of a report need matplotlib: {how_to_install('plot')}") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    styled(axes)
    return figure, axes


def styled(axes: Axes) -> None:
    """Light: a grid behind the lines, thin axes at the left and below."""
    axes.grid(True, color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8, length=3, width=0.6)
    axes.xaxis.label.set(color=INK, size=8)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=INK, linewidth=0.6)


def evaluations_axis(axes: Axes, steps: Sequence[int]) -> None:
    """A logarithmic axis with a tick at every number that was used, as far as their labels have room."""
    axes.set_xscale("log")
    room = 0.06 * max(math.log(max(steps) / min(steps)), 1.0) if min(steps) > 0 else 0.0
    ticks: list[int] = []
    for step in reversed(steps):
        if not ticks or math.log(ticks[-1] / step) >= room:
            ticks.append(step)
    axes.set_xticks(ticks, [str(step) for step in ticks])
    axes.set_xticks([], minor=True)
    low, high = min(steps), max(steps)
    axes.set_xlim((low / 2, high * 2) if low == high else (low / 1.15, high * 1.15))


def log_y(axes: Axes, low: float, high: float) -> None:
    """Logarithmic, with readable numbers: 1-2-5 over a wide range, even numbers over a narrow one."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    axes.set_yscale("log", nonpositive="clip")
    if low == high:
        axes.set_ylim(low / 2, high * 2)
    ratio = high / low
    many = (1.0,) if ratio > 3e3 else (1.0, 2.0, 5.0)
    axes.yaxis.set_major_locator(LogLocator(subs=many) if ratio > 4 else MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _training_axis(axes: Axes, ticks: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    axes.xaxis.set_major_formatter(lambda v, _: f"{v / 1000:g}k" if abs(v) >= 10_000 else f"{v:g}")
    axes.set_xlabel("training step")
