"""Curves of exposure bias as a figure and as numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ddpm_ip.exposure.curves import KINDS, Exposure, Kind
from ddpm_ip.files import write_bytes, write_text
from ddpm_ip.report.markup import INVISIBLE
from ddpm_ip.report.plots import make_figure, style_of, styled


def write_figures(exposures: Sequence[Exposure], stem: Path) -> list[Path]:
    """Writes the curves as a figure for a document, one panel a kind, and as numbers.

    Args:
        exposures: a line of each panel.
        stem: the files, without their ends.

    Returns:
        ``stem.svg``, ``stem.png`` and ``stem.csv``.

    Raises:
        UserError: a file cannot be written, or matplotlib is missing.
    """
    from matplotlib.figure import Figure

    make_figure(1, 1)
    names = [name for name in KINDS if any(name in one.curves for one in exposures)]
    figure = Figure(figsize=(4.5, 2.6 * len(names)), facecolor="white", layout="constrained")
    for i, name in enumerate(names):
        axes, kind = figure.add_subplot(len(names), 1, i + 1), KINDS.get(name, Kind(name, ""))
        styled(axes)
        for j, one in enumerate(exposures):
            if (curve := one.curves.get(name)) is not None:
                axes.plot(curve.t, curve.value, color=style_of(j)[0], label=one.label)
                axes.fill_between(curve.t, curve.low, curve.high, color=style_of(j)[0], alpha=0.2, linewidth=0)
        if kind.none is not None:
            axes.axhline(kind.none, color="#22262a", linewidth=0.6, linestyle=":")
        axes.set_title(kind.title, loc="left", size=8, parse_math=False)
    files = [stem.with_name(f"{stem.name}.{end}") for end in ("svg", "png", "csv")]
    for file in files[:2]:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=file.suffix[1:], dpi=120)
        write_bytes(file, buffer.getvalue())
    write_text(files[2], _csv(exposures))
    return files


def _csv(exposures: Sequence[Exposure]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("label", "curve", "t", "value", "se", "low", "high"))
    for one in exposures:
        for name, curve in one.curves.items():
            for row in zip(curve.t, curve.value, curve.se, curve.low, curve.high, strict=True):
                writer.writerow((INVISIBLE.sub("\ufffd", one.label), name, *map(repr, row)))
    return file.getvalue()
