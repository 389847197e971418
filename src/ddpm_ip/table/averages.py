"""One table in addition to those of several averages: the same cells, a column for each average.

    EXP_DIR/table/averages.{txt,csv}

Each average has weights, and so a protocol and cells of its own (:mod:`ddpm_ip.table.sheet`); here they only meet.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ddpm_ip.files import write_text
from ddpm_ip.metric import fixed
from ddpm_ip.table.layout import Grid

Line = tuple[str, str, Sequence[str]]  # metric, row with its column, a number for each average


def compared(grids: Mapping[str, Grid]) -> str:
    """Text: for each metric a block, with the cells below each other and the averages side by side.

    Args:
        grids: the tables of the same rows and columns, by the text that names the average.
    """
    blocks: dict[str, list[Line]] = {}
    for line in _lines(grids):
        blocks.setdefault(line[0], []).append(line)
    return "\n\n".join(_block(metric, list(grids), lines) for metric, lines in blocks.items()) + "\n"


def write(home: Path, grids: Mapping[str, Grid]) -> list[Path]:
    """Writes them into a folder.

    Raises:
        UserError: it cannot be written.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["metric", "row", *(f"ema {name}" for name in grids)])
    writer.writerows([metric, row, *numbers] for metric, row, numbers in _lines(grids))
    paths = [home / "averages.txt", home / "averages.csv"]
    for path, text in zip(paths, (compared(grids), file.getvalue()), strict=True):
        write_text(path, text)
    return paths


def _lines(grids: Mapping[str, Grid]) -> list[Line]:
    """The cells that some table has, in the order of the first, without numbers of others."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name, grid in grids.items():
        for block in grid["blocks"]:
            for row in (row for row in block["rows"] if not row["source"]):
                for column, cell in zip(grid["steps"], row["cells"], strict=True):
                    if cell is not None:
                        decimals = block["decimals"]
                        spread = "" if cell["spread"] is None else f" ± {fixed(cell['spread'], decimals)}"
                        text = f"{fixed(cell['value'], decimals)}{spread}"
                        key = (block["metric"], f"{row['label']}, {column} {grid['columns']}")
                        found.setdefault(key, {})[name] = text
    return [(metric, row, [own.get(name, "–") for name in grids]) for (metric, row), own in found.items()]


def _block(metric: str, names: Sequence[str], lines: Sequence[Line]) -> str:
    table = [[metric, *(f"ema {name}" for name in names)], *([row, *numbers] for _, row, numbers in lines)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(line[1:], widths[1:], strict=True))])
        for line in table
    )
