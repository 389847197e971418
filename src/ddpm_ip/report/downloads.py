"""Files that a page carries within itself: each figure as SVG, and its numbers as CSV."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import TypeAlias

from ddpm_ip.report.markup import INVISIBLE, Markup, escape, sentence_list, tag
from ddpm_ip.report.svg import COLORS, SWATCH, swatch

Entry: TypeAlias = tuple["int | None", int, str]  # colour and marker, dashes, and what the line is called

LINE = 15  # of the legend of a figure that stands alone, in points
LARGEST = 300_000  # characters of a file that a page carries


def csv_text(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV, unrounded; texts without what cannot be seen, and so that no program takes one for a formula."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_field(value) for value in row] for row in rows)
    return file.getvalue()


def _field(value: object) -> object:
    if not isinstance(value, str):
        return repr(value) if isinstance(value, float) else value
    text = INVISIBLE.sub("\ufffd", value)
    return f"'{text}" if text[:1] in tuple("=+@\t\r") or re.match(r"-[^\d.]", text) else text


def standalone(svg: str, title: str, entries: Sequence[Entry]) -> str:
    """A figure of the page as a file: with its title and legend, on white, in the colours of print.

    Args:
        svg: as :func:`ddpm_ip.report.svg.to_svg` makes it.
        title, entries: what is next to it on the page.
    """
    found = re.match(r'<svg class="plot" viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>', svg)
    if found is None:
        return svg
    width, height = float(found[1]), float(found[2])
    said = wrap(title, max(20, int(width / 5.6)))
    below = LINE * len(said) + 5
    top = below + LINE * len(entries)
    head = "".join(
        f'<text x="8" y="{13 + LINE * i}" font-size="10" font-weight="bold" fill="var(--ink)">{escape(line)}</text>'
        for i, line in enumerate(said)
    )
    legend = "".join(
        f'<g transform="translate(8 {below + LINE * i})">{swatch(run, family)}'
        f'<text x="36" y="9" font-size="9"{_narrowed(name, width - 50)}>{escape(name)}</text></g>'
        for i, (run, family, name) in enumerate(entries)
    )
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:g} {height + top:g}" width="{width:g}pt" height="{height + top:g}pt" '
        f'font-family="sans-serif" color="var(--ink)"><rect width="100%" height="100%" fill="#fff"/>'
        f"{head}{legend}"
        f'<svg y="{top:g}" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}">'
        f"{svg[found.end() :]}</svg>"
    )
    for variable, color in COLORS.items():
        text = text.replace(f"var(--{variable})", color)
    return text.replace("<use href=", "<use xlink:href=").replace(f'class="{SWATCH}"', "")


def _narrowed(name: str, room: float) -> str:
    """What makes a long name as wide as there is room."""
    return f' textLength="{room:g}" lengthAdjust="spacingAndGlyphs"' if 5.0 * len(name) > room else ""


IN_FOLDERS = "the numbers are in the run folders"


def files(name: str, contents: dict[str, str], what: str = "", instead: str = IN_FOLDERS) -> Markup | None:
    """Links that save files, with what is too large to be offered: they are addresses within the page.

    Args:
        name: of the files, without an end.
        contents: text by the kind of file, ``svg`` or ``csv``; what is too large for a page is left out, and that is
            said.
        what: is saved, where that is not the figure above.
        instead: where else to find what was left out.
    """
    kinds = {"svg": "image/svg+xml", "csv": "text/csv"}
    links = [
        tag("a", kind.upper(), href=_address(kinds[kind], text), download=f"{safe(name)}.{kind}")
        for kind, text in contents.items()
        if len(text) <= LARGEST
    ]
    large = [kind.upper() for kind, text in contents.items() if len(text) > LARGEST]
    left_out = f"Too large for this page: {what or name} as {sentence_list(large)}; {instead}." if large else None
    opening = f"Save {what} as " if what else "Save as "
    saved = [opening, *[part for link in links for part in (" · ", link)][1:]] if links else []
    space = " " if saved and left_out else None
    return tag("p.files", saved, space, left_out) if contents else None


def safe(name: str) -> str:
    """A name that any file may have."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:60].lower() or "figure"


def _address(kind: str, text: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}"


def framed(picture: Markup, name: str, title: str, entries: Sequence[Entry], numbers: str | None = None) -> Markup:
    """A figure with its legend above and its files beneath.

    Args:
        picture: of :func:`ddpm_ip.report.svg.to_svg`.
        name: of the files.
        title: what is drawn.
        entries: the lines.
        numbers: what is drawn, as CSV.
    """
    legend = tag("ul.legend", [tag("li", swatch(run, family), tag("span", label)) for run, family, label in entries])
    contents = {"svg": standalone(picture, title, entries), **({"csv": numbers} if numbers is not None else {})}
    return tag(
        "figure.main-plot",
        tag("figcaption", title),
        legend if entries else None,
        picture,
        files(name, contents),
    )
