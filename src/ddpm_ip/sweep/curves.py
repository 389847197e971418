"""Exposure bias over the seeds of a sweep: of each point and time the mean of a curve and its deviation.

In the figure a line is a point of the sweep, and its band one sample standard deviation over the seeds to each side.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from ddpm_ip.errors import UserError
from ddpm_ip.exposure.curves import FOLDER, Curve, Exposure
from ddpm_ip.files import read_json, write_text
from ddpm_ip.plain import visible
from ddpm_ip.report.exposure import write_figures
from ddpm_ip.sweep.plan import Asked, in_words
from ddpm_ip.sweep.summary import AS_CONFIGURED, Cell

Place = tuple[str, str, int, str, float]  # point, what was sampled, images, curve, time


def write_curves(asked: Asked, folder: Path) -> tuple[list[Path], list[str]]:
    """Writes ``exposure.csv``, and ``curves.svg``, ``.png`` and ``.csv``, where the runs of a sweep have curves.

    Args:
        asked: what the sweep is.
        folder: of the sweep.

    Returns:
        The files, and what could not be read, a sentence each.
    """
    values: dict[Place, list[float]] = {}
    problems = []
    for run in asked.runs:
        for file in sorted((folder / run.name / FOLDER).glob("*.json")):
            try:
                found = Exposure.from_dict(read_json(file), str(file))
            except UserError as error:
                problems.append(str(error))
                continue
            for name, curve in found.curves.items():
                for t, value in curve.known().items():
                    values.setdefault((run.point, found.label, found.n, name, t), []).append(value)
    if not values:
        return [], problems
    write_text(folder / "exposure.csv", _csv(asked, values))
    return [folder / "exposure.csv", *write_figures(_means(values), folder / "curves")], problems


def _means(values: dict[Place, list[float]]) -> list[Exposure]:
    """Of each point, and each way that it was sampled, the mean curves as those of one exposure."""
    cells: dict[tuple[str, str, int], dict[str, list[tuple[float, Cell]]]] = {}
    for (point, label, images, name, t), found in values.items():
        cells.setdefault((point, label, images), {}).setdefault(name, []).append((t, Cell.of(found)))
    return [
        Exposure(f"{point or AS_CONFIGURED}: {label}", "", {}, images, {}, {k: _curve(c) for k, c in curves.items()})
        for (point, label, images), curves in cells.items()
    ]


def _curve(cells: list[tuple[float, Cell]]) -> Curve:
    rows = []
    for t, cell in sorted(cells, key=lambda pair: pair[0]):
        spread = cell.deviation or 0.0
        rows.append((t, cell.mean, spread / math.sqrt(cell.seeds), cell.mean - spread, cell.mean + spread))
    return Curve(*(tuple(column) for column in zip(*rows, strict=True)))


def _csv(asked: Asked, values: dict[Place, list[float]]) -> str:
    points = {run.point: [in_words(run.values[key]) for key in asked.over] for run in asked.runs}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*asked.short.values(), "sampling", "images", "curve", "t", "mean", "deviation", "seeds"])
    for (point, label, images, name, t), found in values.items():
        cell = Cell.of(found)
        row = [visible(label), images, visible(name), t, cell.mean, cell.deviation, cell.seeds]
        writer.writerow([*points[point], *row])
    return file.getvalue()
