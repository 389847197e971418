"""A results table as lines: the distance against the number of network evaluations, a line a row.

For the page the text stands in HTML; :func:`write_grid` makes files for a document, in which each line has its name at
its end.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_ip.files import write_bytes, write_text
from ddpm_ip.report.markup import INVISIBLE
from ddpm_ip.report.plots import (
    DASHES,
    INK,
    LARGEST,
    MOST_LINES,
    PAPER,
    evaluations_axis,
    is_hollow,
    log_y,
    make_figure,
    style_of,
    styled,
)
from ddpm_ip.run.record import MOST_STEPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CSV = "table/grid.csv"
HEAD = ("metric", "row", "sampler", "corrections", "spacing", "evaluations", "steps", "value", "spread", "seeds")
GAP, MARGIN, WIDTH = 0.15, 0.55, 4.8  # inches: between two names; around the axes; of the axes
LETTER = 0.064  # inches, of a letter of a name on average
AWAY = 1.1  # where the names begin, in widths of the axes
LOG = 4.0  # from this ratio of the largest value to the smallest on, the axis is logarithmic


@dataclass(frozen=True)
class Point:
    """A cell: how often the network was asked, in how many steps, and the number."""

    evaluations: int
    steps: int | str
    value: float
    spread: float | None
    seeds: int


@dataclass(frozen=True)
class Line:
    """A row.

    Attributes:
        label: the row as ``--rows`` reads it; ``sampler``, ``corrections`` and ``spacing`` are its parts.
        style: colour and marker, and dashes, by number, as :func:`ddpm_ip.report.svg.swatch` counts them.
        points: in the order of their evaluations.
    """

    label: str
    sampler: str
    corrections: str
    spacing: str
    style: tuple[int, int]
    points: tuple[Point, ...]


def lines_of(block: Mapping[str, Any], columns: Sequence[Any]) -> list[Line]:
    """The rows of a block of ``table.json`` that were measured here and have a number.

    Samplers differ in colour and marker, what is done to a sampler in dashes; of one sampler alone, the rows differ in
    colour.

    Raises:
        KeyError, TypeError, ValueError: the block is damaged.
    """
    rows = [row for row in block["rows"] if not row["source"]]
    parts = [tuple(str(row.get(key) or "") for key in ("sampler", "corrections", "spacing")) for row in rows]
    samplers, variants = (list(dict.fromkeys(which)) for which in ([p[0] for p in parts], [p[1:] for p in parts]))
    lines = []
    for i, (row, (sampler, corrections, spacing)) in enumerate(zip(rows, parts, strict=True)):
        style = (samplers.index(sampler), variants.index((corrections, spacing))) if len(samplers) > 1 else (i, i)
        points = (_point(cell, column) for cell, column in zip(row["cells"], columns, strict=True) if cell)
        found = sorted(filter(None, points), key=lambda point: point.evaluations)
        if found:
            lines.append(Line(str(row["label"]), sampler, corrections, spacing, style, tuple(found)))
    return lines


def _point(cell: Mapping[str, Any], column: Any) -> Point | None:
    """A cell that has a place in the figure; cells of version 0.1 have as many evaluations as steps."""
    evaluations, steps = cell.get("evaluations") or column, cell.get("steps") or column
    value, spread = float(cell["value"]), cell["spread"]
    if type(evaluations) is not int or not 0 < evaluations < MOST_STEPS or not abs(value) < LARGEST:
        return None
    return Point(evaluations, steps, value, None if spread is None else float(spread), int(cell["seeds"]))


def draw_lines(lines: Sequence[Line]) -> Figure:
    """The lines of one metric without any text of theirs, for a page."""
    figure, axes = make_figure(4.8, 2.8)
    _draw(axes, lines)
    axes.set_xlabel("network evaluations")
    return figure


def as_csv(grid: Mapping[str, Any]) -> str:
    """A line a number, unrounded."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*HEAD, "images", "protocol"])
    images = (grid.get("protocol") or {}).get("n_samples")
    for block in grid["blocks"]:
        for line in lines_of(block, grid["steps"]):
            row = (line.label, line.sampler, line.corrections or "none", line.spacing)
            for p in line.points:
                numbers = (p.evaluations, p.steps, repr(p.value), p.spread, p.seeds)
                fields = (block["metric"], *row, *numbers, images, grid["protocol_id"])
                writer.writerow([INVISIBLE.sub("\ufffd", x) if isinstance(x, str) else x for x in fields])
    return file.getvalue()


def check() -> None:
    """Says that matplotlib is missing before hours are spent on what it is to draw.

    Raises:
        UserError: it is.
    """
    make_figure(1, 1)


def write_grid(folder: Path, grid: Mapping[str, Any]) -> str:
    """Writes ``grid.csv``, ``grid.png`` and ``grid.svg`` of a table; returns their names for a person.

    Args:
        folder: ``EXP_DIR/table``.
        grid: ``table.json``.

    Raises:
        UserError: a file cannot be written, or matplotlib is missing.
    """
    from matplotlib import rc_context

    write_text(folder / "grid.csv", as_csv(grid))
    figure = named_figure(grid)
    with rc_context({"svg.hashsalt": "ddpm-ip"}):
        for kind, about in (("png", {"Software": None}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=160, metadata=about)
            write_bytes(folder / f"grid.{kind}", buffer.getvalue())
    return f"{folder}/grid.csv, .png, .svg"


def named_figure(grid: Mapping[str, Any]) -> Figure:
    """The figure for a document: the metrics one below another, each line with its name at its end."""
    from matplotlib.figure import Figure

    blocks = [(str(b["metric"]), lines_of(b, grid["steps"])) for b in grid["blocks"]]
    blocks = [(metric, lines[:MOST_LINES]) for metric, lines in blocks if lines]
    longest = max((len(line.label) for _, lines in blocks for line in lines), default=0)
    width = MARGIN + (AWAY + 0.09) * WIDTH + 0.1 + LETTER * longest
    heights = [max(2.8, GAP * len(lines)) for _, lines in blocks]
    height = sum(heights) + (MARGIN + 0.2) * len(blocks) + 0.35
    figure = Figure(figsize=(width, max(height, 1.0)), facecolor="white")
    top = height - 0.5
    for (metric, lines), tall in zip(blocks, heights, strict=True):
        axes = figure.add_axes((MARGIN / width, (top - tall) / height, WIDTH / width, tall / height))
        styled(axes)
        _draw(axes, lines)
        axes.set_xlabel("network evaluations")
        axes.set_title(metric, loc="left", size=9, color=INK, weight="bold", parse_math=False)
        _name(axes, lines, GAP / tall)
        top -= tall + MARGIN + 0.2
    if blocks:
        images = (grid.get("protocol") or {}).get("n_samples")
        about = f"{grid['method']}" + (f"; {images:,} images each" if isinstance(images, int) else "")
        figure.text(MARGIN / width, 1 - 0.1 / height, about, va="top", size=8, color=INK, parse_math=False)
    return figure


def _draw(axes: Axes, lines: Sequence[Line]) -> None:
    lines = lines[:MOST_LINES]
    for line in lines:
        spreads = [min(abs(p.spread or 0.0), LARGEST) for p in line.points]
        axes.errorbar(
            [p.evaluations for p in line.points],
            [p.value for p in line.points],
            yerr=spreads if any(spreads) else None,
            capsize=2,
            elinewidth=0.8,
            **_style(line),
        )
    values = [p.value for line in lines for p in line.points]
    evaluations_axis(axes, sorted({p.evaluations for line in lines for p in line.points}) or [1])
    if values and min(values) > 1 / LARGEST and max(values) / min(values) > LOG:
        log_y(axes, min(values), max(values))


def _style(line: Line) -> dict[str, Any]:
    color, marker = style_of(line.style[0])
    return {
        "color": color,
        "marker": marker,
        "markersize": 4.2,
        "linewidth": 1.3,
        "linestyle": DASHES[line.style[1] % len(DASHES)],
        "markerfacecolor": PAPER if is_hollow(line.style[1]) else color,
    }


def _name(axes: Axes, lines: Sequence[Line], gap: float) -> None:
    """Writes each line's name to the right of the axes, as near to its end as the others leave room."""
    low, high = axes.get_ylim()
    scale = math.log if axes.get_yscale() == "log" else float
    ends = sorted(
        ((scale(line.points[-1].value) - scale(low)) / (scale(high) - scale(low)), i) for i, line in enumerate(lines)
    )
    places = spread([end for end, _ in ends], gap)
    for (_, i), place in zip(ends, places, strict=True):
        line = lines[i]
        last, style = line.points[-1], _style(line)
        color = style["color"]
        axes.annotate(
            "", (last.evaluations, last.value), (AWAY, place), "data", "axes fraction",
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 0, "shrinkB": 3},
            annotation_clip=False,
        )  # fmt: skip
        middle, end = AWAY + 0.035, AWAY + 0.07
        axes.plot([AWAY, middle, end], [place] * 3, transform=axes.transAxes, clip_on=False, markevery=[1], **style)
        axes.text(
            end + 0.012, place, line.label, transform=axes.transAxes,
            color=color, size=7.5, va="center_baseline", parse_math=False,
        )  # fmt: skip


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Rising places at least ``gap`` apart, as near to the wanted ones as that allows, within 0..1 if there is room."""
    groups: list[tuple[float, int]] = []  # mean of (place - gap * number), and how many
    for i, place in enumerate(wanted):
        mean, count = place - gap * i, 1
        while groups and groups[-1][0] >= mean:
            before, many = groups.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        groups.append((mean, count))
    free = [mean for mean, count in groups for _ in range(count)]
    most = 1 - gap * (len(wanted) - 1)
    return [min(max(mean, 0.0), max(most, 0.0)) + gap * i for i, mean in enumerate(free)]
