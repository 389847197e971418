"""Figures as inline SVG that follows the page: its font, its width, its light or dark colours."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from ddpm_ip.report.markup import Markup, escape, tag
from ddpm_ip.report.plots import INK, PAPER, RULE, SERIES, is_hollow, style_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VARIABLES = {INK: "ink", RULE: "rule", PAPER: "paper", **{color: f"series-{i}" for i, color in enumerate(SERIES)}}
"""Colours that the figures are drawn in, and the page's CSS variables that take their place."""

COLORS = {variable: color for color, variable in VARIABLES.items()}
SWATCH = "swatch"

SHAPES = {
    "o": '<circle cx="15" cy="6" r="3.6"/>',
    "s": '<rect x="11.6" y="2.6" width="6.8" height="6.8"/>',
    "^": '<path d="M15 1.6 19 9.4H11Z"/>',
    "D": '<path d="M15 1.2 19.6 6 15 10.8 10.4 6Z"/>',
    "v": '<path d="M15 10.4 19 2.6H11Z"/>',
    "P": '<path d="M13.5 2h3v2.5H19v3h-2.5V10h-3V7.5H11v-3h2.5Z"/>',
}
DASHES = ("", "6 3", "2 2.5", "7 2 1.5 2")


def swatch(run: int | None, family: int = 0) -> Markup:
    """A line with its marker, for a legend in HTML.

    Args:
        run: index of the run, for colour and marker; None for a neutral line.
        family: index of the sampler, for dashes and a filled or hollow marker.
    """
    color = "currentColor" if run is None else f"var(--series-{run % len(SERIES)})"
    fill = "var(--paper)" if is_hollow(family) else color
    return Markup(
        f'<svg class="{SWATCH}" viewBox="0 0 30 12" width="30" height="12" aria-hidden="true">'
        f'<path d="M1 6H29" stroke-width="1.8" stroke-dasharray="{DASHES[family % 4]}" style="stroke: {color}"/>'
        f'<g stroke-width="1.4" style="fill: {fill}; stroke: {color}">{SHAPES[style_of(run or 0)[1]]}</g></svg>'
    )


def run_label(run: int, name: str) -> Markup:
    """A run's swatch and name, which stay together; the same in tables, captions, headings and legends."""
    return tag("span.name", swatch(run), tag("span", name))


def to_svg(figure: Figure, ident: str, label: str) -> Markup:
    """A figure of :mod:`ddpm_ip.report.plots` as an ``<svg>`` element, the same bytes for the same numbers.

    Args:
        figure: the figure.
        ident: makes the identifiers inside unique on the page; letters, digits and hyphens.
        label: what a screen reader says; plain text.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    # Text stays text (fonttype none), so that the page's own font is used and words can be found and copied.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "ddpm-ip"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", buffer.getvalue(), flags=re.DOTALL)
    view_box, body = re.search(r'<svg[^>]*(viewBox="[^"]*")[^>]*>(.*)', svg, flags=re.DOTALL).groups()  # type: ignore[union-attr]
    body = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{ident}-", body).replace("xlink:href", "href")
    for color, variable in VARIABLES.items():
        body = body.replace(color, f"var(--{variable})")
    body = re.sub(r"\s*\n\s*", "\n", body).strip()
    return Markup(f'<svg class="plot" {view_box} role="img" aria-label="{escape(label)}">{body}')
