"""The tables of several runs as one, each row above the one that was published of it, with the difference.

SWEEP_DIR/paper_table.{txt,md,csv}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpm_ip.files import read_json, write_text
from ddpm_ip.table.layout import Cell, Grid, as_csv, as_markdown, as_text

DIFFERENCE = "difference from the published"


def read_grid(run: Path) -> Grid:
    """The newest table of a run.

    Raises:
        UserError: there is none, or it is damaged.
    """
    needs = {"method": str, "blocks": list, "steps": list, "notes": list, "line": str, "protocol": dict}
    return dict(read_json(run / "table" / "table.json", needs, advice="Remove it, and make the table again"))


def beside(grids: Sequence[Grid], notes: Sequence[str] = ()) -> Grid:
    """One table of several.

    Args:
        grids: of the same rows, columns and protocol, but for the weights.
        notes: sentences that come first below it.
    """
    first = grids[0]
    weights = [str(grid["protocol"]["weights"])[:12] for grid in grids]
    metrics = list(dict.fromkeys(block["metric"] for grid in grids for block in grid["blocks"]))
    return {
        **first,
        "method": "; ".join(grid["method"] for grid in grids),
        "protocol_id": ", ".join(dict.fromkeys(grid["protocol_id"] for grid in grids)),
        "line": first["line"].replace(weights[0], " and ".join(weights), 1),
        "blocks": [_block(metric, grids) for metric in metrics],
        "notes": list(dict.fromkeys([*notes, *(note for grid in grids for note in grid["notes"])])),
        "results": [result for grid in grids for result in grid["results"]],
    }


def write(folder: Path, name: str, grid: Grid) -> list[Path]:
    """Writes a table in three forms.

    Raises:
        UserError: it cannot be written.
    """
    forms = {".txt": as_text, ".md": as_markdown, ".csv": as_csv}
    for ending, form in forms.items():
        write_text(folder / f"{name}{ending}", form(grid))
    return [folder / f"{name}{ending}" for ending in forms]


def _block(metric: str, grids: Sequence[Grid]) -> dict[str, Any]:
    rows, decimals = [], 2
    for grid in grids:
        for block in grid["blocks"]:
            if block["metric"] == metric:
                decimals = max(decimals, block["decimals"])
                rows += _rows(grid["method"], block["rows"])
    return {"metric": metric, "decimals": decimals, "rows": rows}


def _rows(method: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a method, each followed by the published one of the same method and variance."""
    name = method.split(",")[0]  # DDPM-IP of "DDPM-IP, gamma 0.1"
    found: list[dict[str, Any]] = []
    for own in (row for row in rows if row["source"] is None):
        found.append({**own, "label": f"{method}, {own['label']}"})
        for other in rows:
            if other["source"] is not None and other["label"].startswith(f"published: {name}, {own['label']} "):
                cells = [_less(*pair) for pair in zip(own["cells"], other["cells"], strict=True)]
                found += [dict(other), {"label": DIFFERENCE, "source": None, "cells": cells}]
    return found


def _less(own: Cell, published: Cell) -> Cell:
    """The difference of two numbers; none where a number is missing, or the published one is of other times."""
    if own is None or published is None or published["mark"]:
        return None
    return {"value": own["value"] - published["value"], "spread": None, "seeds": own["seeds"], "mark": ""}
