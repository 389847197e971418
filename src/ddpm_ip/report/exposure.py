"""Figures of exposure bias: a panel a kind of curve, a line an exposure with its 95 % band; and their section."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ddpm_ip.exposure.curves import KINDS, Curve, Exposure, Kind
from ddpm_ip.extras import how_to_install
from ddpm_ip.files import write_bytes, write_text
from ddpm_ip.report.compare import grouped, show
from ddpm_ip.report.downloads import csv_text, files, standalone
from ddpm_ip.report.markup import INVISIBLE, Markup, tag
from ddpm_ip.report.numbers import counted, figures, minus, percent
from ddpm_ip.report.plots import DASHES, INK, LARGEST, MARKERS, make_figure, style_of, styled
from ddpm_ip.report.run import Run
from ddpm_ip.report.svg import swatch, to_svg
from ddpm_ip.report.weights import weights_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger("ddpm_ip.report")

TOGETHER = {"eps_norm.training": "eps_norm.sampling", "x0_error.accumulated": "x0_error.one_step"}
"""Curves that are drawn dotted in the panel of another, which they are to be compared with."""

HEAD = ("label", "weights", "images", "curve", "t", "value", "se", "low", "high")
MOST_LINES, MOST_PANELS, MOST_POINTS, MOST_SENTENCES = 16, 40, 4000, 4
MOST_COLUMNS = 3
FIRST = ("eps_norm.sampling", "eps_norm.ratio", "drift", "delta")
ENERGY = (
    "Energies by band in sampling, of the states (xt) and of the clean images that are predicted (x0), over those on "
    "real noisy images of the same level: 1 is no bias. haar0 and ring0 are the coarsest bands."
)
BANDS = "energy."  # of a band: many, so the page folds them
ALSO = "the figure that ddpm-ip exposure draws has its numbers next to it"
WIDE, TALL = 3.6, 2.6  # inches of a panel, with what is around its axes
LOG = 50.0  # from this ratio of the largest value to the smallest on, an axis is logarithmic

Style: TypeAlias = tuple[int, int]  # colour, and marker of the legend and dashes


@dataclass(frozen=True)
class Panel:
    """One figure.

    Attributes:
        name: of its kind of curve.
        dotted: the kind that is drawn dotted next to it, if there is one.
    """

    name: str
    dotted: str | None

    @property
    def kind(self) -> Kind:
        """What it shows; of a kind that is not known here, its name."""
        return kind_of(self.name)


def kind_of(name: str) -> Kind:
    """What a curve is; of one that a newer version added, its name."""
    return KINDS.get(name) or Kind(name.replace("_", " "), "")


def panels(exposures: Sequence[Exposure]) -> list[Panel]:
    """What there is to draw, in the order of their kinds, unknown ones last."""
    there = dict.fromkeys(name for exposure in exposures for name in exposure.curves)
    order = {name: i for i, name in enumerate([*FIRST, *(name for name in KINDS if name not in FIRST)])}
    names = sorted(there, key=lambda name: (order.get(name, len(order)), name))
    alone = [name for name in names if TOGETHER.get(name) not in there]
    beside = {other: name for name, other in TOGETHER.items() if name in there}
    return [Panel(name, beside.get(name)) for name in alone][:MOST_PANELS]


def as_csv(exposures: Sequence[Exposure]) -> str:
    """Every point of every curve, unrounded; what is no finite number, and so could not be measured, is empty."""
    return csv_text(
        HEAD,
        (
            (e.label, e.weights, e.n, name, *(x if math.isfinite(x) else "" for x in point))
            for e in exposures
            for name, c in e.curves.items()
            for point in zip(c.t, c.value, c.se, c.low, c.high, strict=True)
        ),
    )


def labels(exposures: Sequence[Exposure], weights: Mapping[str | None, str] | None = None) -> list[str]:
    """What each is called; where others are called the same, by its weights, by their names, and its seed too."""
    said = [exposure.label for exposure in exposures]
    names = weights or {}
    seeds = {exposure.sampling.get("seed") for exposure in exposures}
    of_seeds = [f", seed {show(e.sampling.get('seed'))}" if len(seeds) > 1 or not weights else "" for e in exposures]
    more = [f" ({names.get(e.weights, e.weights[:8])}{seed})" for e, seed in zip(exposures, of_seeds, strict=True)]
    return [one if said.count(one) == 1 else one + other for one, other in zip(said, more, strict=True)]


def write_figures(exposures: Sequence[Exposure], stem: Path) -> list[Path]:
    """Writes the curves as a figure for a document, and as numbers.

    Args:
        exposures: a line of each panel; the first 16 are drawn, and all are in the numbers.
        stem: the files, without their ends.

    Returns:
        ``stem.svg``, ``stem.png`` and ``stem.csv``; where matplotlib is missing the numbers alone, and a line in the
        log says so.

    Raises:
        ValueError: there is no curve.
        UserError: a file cannot be written.
    """
    found, shown = panels(exposures), exposures[:MOST_LINES]
    if not found:
        raise ValueError("there is no curve to draw")
    numbers = stem.with_name(f"{stem.name}.csv")
    write_text(numbers, as_csv(exposures))
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        log.warning("nothing is drawn without matplotlib: %s", how_to_install("plot"))
        return [numbers]
    columns = min(3, len(found))
    rows = math.ceil(len(found) / columns)
    foot = 0.2 * len(shown) + 0.1
    height = TALL * rows + foot
    width = WIDE * columns
    figure = Figure(figsize=(width, height), facecolor="white")  # placed by hand: a layout engine moves the last bits
    styles = [(i, i) for i in range(len(shown))]
    for i, panel in enumerate(found):
        left, top = WIDE * (i % columns) + 0.65, TALL * (i // columns) + 0.4
        place = (left / width, 1 - (top + TALL - 0.9) / height, (WIDE - 0.8) / width, (TALL - 0.9) / height)
        axes = figure.add_axes(place)
        styled(axes)
        _draw(axes, panel, shown, styles)
        title = f"{panel.kind.title}\n(dotted: {kind_of(panel.dotted).title})" if panel.dotted else panel.kind.title
        axes.set_title(title, loc="left", size=8, color=INK, parse_math=False)
    for i, name in enumerate(labels(shown)):
        _legend(figure, i, name, (foot - 0.2 * (i + 0.6)) / height)
    with rc_context({"svg.hashsalt": "ddpm-ip"}):
        for kind, about in (("svg", {"Date": None}), ("png", {"Software": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=160, metadata=about)
            write_bytes(stem.with_name(f"{stem.name}.{kind}"), buffer.getvalue())
    return [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png", "csv")]


def _legend(figure: Figure, number: int, name: str, y: float) -> None:
    """One line of the legend, at a height of the figure."""
    from matplotlib.lines import Line2D

    color, marker = style_of(number)
    line = Line2D([0.02, 0.05, 0.08], [y] * 3, color=color, marker=marker, markevery=[1], markersize=4)
    line.set_linestyle(DASHES[number % len(DASHES)])
    figure.add_artist(line)
    figure.text(0.09, y, INVISIBLE.sub("\ufffd", name), size=8, color=INK, va="center", parse_math=False)


def _draw(axes: Axes, panel: Panel, exposures: Sequence[Exposure], styles: Sequence[Style]) -> None:
    """The lines of one panel, with bands, and the value that no bias has."""
    drawn: list[float] = []
    for exposure, (color, dashes) in zip(exposures, styles, strict=True):
        for name in filter(None, (panel.name, panel.dotted)):
            points = finite(exposure.curves.get(name))
            if not points:
                continue
            t, value, low, high = (list(column) for column in zip(*points, strict=True))
            line = (0, (1, 1.5)) if name == panel.dotted else DASHES[dashes % len(DASHES)]
            marker = MARKERS[color % len(MARKERS)] if len(t) <= 12 else None
            axes.plot(t, value, color=style_of(color)[0], linestyle=line, linewidth=1.3, marker=marker, markersize=3)
            axes.fill_between(t, low, high, color=style_of(color)[0], alpha=0.15, linewidth=0)
            drawn += [*value, *low, *high]
    none = panel.kind.none
    if none is not None:
        axes.axhline(none, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        bottom, top = axes.get_ylim()
        above = none - bottom < 0.2 * (top - bottom)
        place = ((1, none), (-2, 3 if above else -9), ("axes fraction", "data"), "offset points")
        axes.annotate("no bias", *place, ha="right", size=7, color=INK)
    elif drawn and min(drawn) > 0 and max(drawn) / min(drawn) > LOG:
        axes.set_yscale("log")
    axes.set_xlabel("t, from image to noise")


def finite(curve: Curve | None) -> list[tuple[float, float, float, float]]:
    """(t, value, low, high) where all can be drawn, in the order of t; a band that is missing has no width."""
    if curve is None:
        return []
    points = []
    for t, value, low, high in zip(curve.t, curve.value, curve.low, curve.high, strict=True):
        if all(math.isfinite(x) and abs(x) < LARGEST for x in (t, value)):
            ends = [end if math.isfinite(end) and abs(end) < LARGEST else value for end in (low, high)]
            points.append((t, value, *ends))
    return sorted(points)[:MOST_POINTS]  # type: ignore[return-value]


def exposure_section(runs: Sequence[Run]) -> Markup | None:
    """Curves of all runs that were measured, what each kind says, and where each is farthest from no bias."""
    found = [(run, exposure) for run in runs for exposure in sorted(run.exposures, key=_plain_first)]
    if not found:
        return None
    shown = dealt(found, MOST_LINES)
    exposures, styles = [exposure for _, exposure in shown], styles_of(shown)
    names = _names(shown, len(runs) > 1)
    entries = [(*style, name) for style, name in zip(styles, _legend_names(shown, names), strict=True)]
    more = len(found) - len(shown)
    every = panels(exposures)
    drawn = [(_figure(panel, exposures, entries, i), panel) for i, panel in enumerate(every)]
    bands = [figure for figure, panel in drawn if panel.name.startswith(BANDS)]
    said = [tag("li", sentence) for sentence in _said(names, exposures)]
    return tag(
        "section",
        tag("h2", "Exposure bias"),
        tag("ul", said) if said else None,
        tag("ul.legend", [tag("li", swatch(*style), tag("span", name)) for *style, name in dict.fromkeys(entries)]),
        tag("div.panels", [figure for figure, panel in drawn if not panel.name.startswith(BANDS)]),
        _folded(bands) if bands else None,
        _farthest(names, exposures),
        tag("p.quiet", "Bands: 95 % bootstrap intervals. Sampling runs from the right (noise) to the left (image)."),
        tag("p.quiet", f"{counted(more, 'more measurement')} not drawn.") if more > 0 else None,
        files("exposure bias", {"csv": as_csv(exposures)}, "all curves", ALSO),
    )  # fmt: skip


def dealt(found: Sequence[tuple[Run, Exposure]], most: int) -> list[tuple[Run, Exposure]]:
    """So many of them, as equally many of each run as there can be, in their order."""
    by_run: dict[Path, list[int]] = {}
    for index, (run, _) in enumerate(found):
        by_run.setdefault(run.path, []).append(index)
    in_turn = [index for turn in zip_longest(*by_run.values()) for index in turn if index is not None]
    return [found[index] for index in sorted(in_turn[:most])]


def _folded(bands: Sequence[Markup]) -> Markup:
    summary = tag("summary", "Energy by frequency band")
    return tag("details.folded", summary, tag("p.quiet", ENERGY), tag("div.panels", bands))


def _names(shown: Sequence[tuple[Run, Exposure]], several: bool) -> list[str]:
    """What the lines are called: on a page of several runs, each by its run too."""
    by_run = {}
    for run in {run.path: run for run, _ in shown}.values():
        own = [exposure for other, exposure in shown if other.path == run.path]
        by_run[run.path] = iter(labels(own, weights_names(run, dict.fromkeys(e.weights for e in own))))
    return [f"{run.name}: {next(by_run[run.path])}" if several else next(by_run[run.path]) for run, _ in shown]


def _legend_names(shown: Sequence[tuple[Run, Exposure]], names: Sequence[str]) -> list[str]:
    """The names of the lines; of several groups of runs that differ in their seed alone those of the groups."""
    if len({run.series for run, _ in shown}) == 1:
        return list(names)
    return [
        f"{run.group}: {e.label}" if run.group != run.name else name
        for (run, e), name in zip(shown, names, strict=True)
    ]


def styles_of(shown: Sequence[tuple[Run, Exposure]]) -> list[Style]:
    """Of several runs each keeps its colour, and dashes tell its samplings apart; of one, these have the colours."""
    series = [run.series for run, _ in shown]
    if len(set(series)) == 1:
        return [(i, i) for i in range(len(shown))]
    samplings = list(dict.fromkeys(exposure.label for _, exposure in shown))
    return [(run.series, samplings.index(exposure.label)) for run, exposure in shown]


def _figure(panel: Panel, exposures: Sequence[Exposure], entries: Sequence[tuple[int, int, str]], index: int) -> Markup:
    figure, axes = make_figure(3.3, 2.2)
    _draw(axes, panel, exposures, [(color, dashes) for color, dashes, _ in entries])
    title = panel.kind.title
    dotted = kind_of(panel.dotted).meaning if panel.dotted else ""
    folded = panel.name.startswith(
        BANDS
    )  # whose meaning is told once, and whose numbers are in the CSV with all others
    meaning = ["" if folded else panel.kind.meaning, f"Dotted: {dotted[0].lower()}{dotted[1:]}" if dotted else ""]
    picture = to_svg(figure, f"exposure{index}", f"{title} by time")
    return tag(
        "figure",
        tag("figcaption", tag("strong", title), f"; dotted: {kind_of(panel.dotted).title}" if panel.dotted else None),
        picture,
        tag("p.quiet", " ".join(filter(None, meaning))) if any(meaning) else None,
        None
        if folded
        else files(f"exposure {panel.name}", {"svg": standalone(picture, title, list(dict.fromkeys(entries)))}),
    )


def _plain_first(exposure: Exposure) -> str:
    """By label, a sampling before the same with corrections."""
    return exposure.label.replace(",", " ").replace("+", "~")


def _said(names: Sequence[str], exposures: Sequence[Exposure]) -> list[str]:
    """What the ratio of norms supports: a sentence for each measurement, with its interval; of many one for all."""
    found = [(name, points) for name, e in zip(names, exposures, strict=True)
             if (points := finite(e.curves.get("eps_norm.ratio")))]  # fmt: skip
    farthest = [(name, max(points, key=lambda point: abs(point[1] - 1))) for name, points in found]
    if len(farthest) <= MOST_SENTENCES:
        return [_sentence(name, point) for name, point in farthest]
    longer = sorted((value, name) for name, (_, value, low, _) in farthest if low > 1)
    shorter = sorted(((value, name) for name, (_, value, _, high) in farthest if high < 1), reverse=True)
    told = [
        "Taken where it is farthest from its length on real states, the predicted noise is longer in sampling in "
        f"{len(longer)} of {len(farthest)} measurements and shorter in {len(shorter)}, beyond 95 % intervals."
    ]
    for word, ends in (("longer", longer), ("shorter", shorter)):
        if len(ends) > 1:
            least, most = (f"{percent(abs(value - 1)).lstrip('+')} ({name})" for value, name in (ends[0], ends[-1]))
            told.append(f"It is {least} to {most} {word}.")
    return told


def _sentence(name: str, point: tuple[float, float, float, float]) -> str:
    """What the ratio of norms says where it is farthest from 1."""
    t, value, low, high = point
    if low <= 1 <= high:
        return f"{name}: in sampling the predicted noise is as long as on real states, within its 95 % intervals."
    longer = "longer" if value > 1 else "shorter"
    interval = f"95 % interval {percent(low - 1, 2)} to {percent(high - 1, 2)}"
    return (
        f"{name}: in sampling the predicted noise is up to {percent(abs(value - 1), 2).lstrip('+')} {longer} "
        f"than on real states ({interval}, at t = {figures(t, 4)})."
    )


def _farthest(names: Sequence[str], exposures: Sequence[Exposure]) -> Markup | None:
    """For each curve that has a value of no bias: where it is farthest from that."""
    there = {name for exposure in exposures for name in exposure.curves}
    kinds = [name for name, kind in KINDS.items() if kind.none is not None and name in there]
    kinds = [name for name in kinds if name != "nu.normal" and not name.startswith(BANDS)][:MOST_COLUMNS]
    if not kinds:
        return None
    head = tag("tr", tag("th", "Farthest from no bias", scope="col"), tag("th", "Images", scope="col"),
               [tag("th", kind_of(name).title, scope="col") for name in kinds])  # fmt: skip
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", grouped(e.n)),
            [_cell(e.curves.get(kind), kind) for kind in kinds],
        )
        for name, e in zip(names, exposures, strict=True)
    ]
    return tag("div.scroll", tag("table.farthest", tag("thead", head), tag("tbody", rows)), tabindex=0)


def _cell(curve: Curve | None, kind: str) -> Markup:
    none = kind_of(kind).none
    if none is None or not (points := finite(curve)):
        return tag("td", "–")
    t, value, low, high = max(points, key=lambda point: abs(point[1] - none))
    interval = f" [{figures(low, 4)}, {figures(high, 4)}] at t = {figures(t, 4)}"
    return tag("td", minus(figures(value, 4)), tag("span.spread", minus(interval)))
