"""Exposure bias over the seeds of a sweep: of each point and time the mean of a curve and its deviation, as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ddpm_ip.errors import UserError
from ddpm_ip.exposure.curves import FOLDER, Exposure
from ddpm_ip.files import read_json, write_text
from ddpm_ip.plain import visible
from ddpm_ip.sweep.plan import Asked, in_words
from ddpm_ip.sweep.summary import Cell

Place = tuple[str, str, int, str, float]  # point, what was sampled, images, curve, time


def write_curves(asked: Asked, folder: Path) -> tuple[list[Path], list[str]]:
    """Writes ``exposure.csv`` of all curves that the runs of a sweep have, if there are any.

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
                for t, value in zip(curve.t, curve.value, strict=True):
                    values.setdefault((run.point, found.label, found.n, name, t), []).append(value)
    if not values:
        return [], problems
    write_text(folder / "exposure.csv", _csv(asked, values))
    return [folder / "exposure.csv"], problems


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
