"""The cells of one protocol on the disk, and the table that is made of them.

    EXP_DIR/table/PROTOCOL/protocol.json     what all numbers beside it have in common; PROTOCOL is its hash
    EXP_DIR/table/PROTOCOL/cell-....json     one row, number of steps and seed; appears whole
    EXP_DIR/table/PROTOCOL/table.{txt,...}   the table of all these cells, written again after each
    EXP_DIR/table/table.{txt,md,csv,json}    that of the newest call, of what it asked for

Whatever changes a number but is no row or column of the table (the weights, the number of images, the reference, ...)
is part of the protocol, so that numbers of two protocols never meet.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.files import read_json, reading, write_json, write_text
from ddpm_ip.images import save_png
from ddpm_ip.plain import NOT_FINITE, kind_of
from ddpm_ip.run.record import ROW, UNUSUAL, Evaluation, records, row_label, understood
from ddpm_ip.sample.program import SampleOptions
from ddpm_ip.sample.store import sample_files
from ddpm_ip.table.layout import Grid, as_csv, as_markdown, as_text, lay_out
from ddpm_ip.turns import alone

Place = dict[str, Any]
PLACE = (*ROW, "steps", "seed")
LARGEST_BLOCK = 1_000_000  # images
LONGEST, LONGEST_WORD = 10_000, 200  # characters of a sentence; of a setting or a name
SAFE, REMOVE = "Finished cells stay", "Remove it, and the next call makes it again"


@dataclass(frozen=True)
class Sheet:
    """The cells of one protocol.

    Args:
        home: ``EXP_DIR/table``.
        method: what was trained, such as ``DDPM-IP, gamma 0.1``.
        protocol: what all cells have in common.
        cells: those that are asked for, in the order of the table.
    """

    home: Path
    method: str
    protocol: dict[str, Any]
    cells: Sequence[SampleOptions]

    @property
    def folder(self) -> Path:
        """The folder of the protocol: the one that is there, also of version 0.1, or a new one."""
        there = find_protocol(self.home, self.protocol)
        text = json.dumps(self.protocol, sort_keys=True)
        return there or self.home / hashlib.sha256(text.encode()).hexdigest()[:12]

    def images(self, cell: SampleOptions) -> Path:
        """Where the images of a cell are, if they are kept."""
        return self.folder / f"images-{_stem(cell)}"

    def lacks(self, cell: SampleOptions, with_images: bool) -> bool:
        """Whether the cell, or its images, have still to be made."""
        kept = len(sample_files(self.images(cell))) if with_images else cell.n_samples
        return kept < cell.n_samples or not self._file(cell).exists()

    def put(self, cell: SampleOptions, evaluation: Evaluation, picture: Image.Image) -> None:
        """Keeps a cell and a picture of some of its images, and shows it in the table."""
        with suppress(OSError):  # writing says what is wrong
            self.home.mkdir(parents=True, exist_ok=True)
        with alone(self.home):
            folder, file = self.folder, self._file(cell)
            write_json(folder / "protocol.json", self.protocol, advice=SAFE)
            save_png(picture, file.with_suffix(".png"), advice=SAFE)
            write_json(file, {**place_of(cell), **evaluation.to_dict(), "grid": f"{file.stem}.png"}, advice=SAFE)
            self._publish()

    def publish(self) -> Grid:
        """Writes the table of the cells that are asked for, and beside the cells that of all; none before the first."""
        with alone(self.home):  # of two calls that end cells together, the later one must show both
            return self._publish()

    def _publish(self) -> Grid:
        folder = self.folder
        there = {str(file): _read_cell(file) for file in sorted(folder.glob("cell-*.json"))}
        _refuse_mixture(there)
        every = sorted((_place(cell) for cell in there.values()), key=lambda p: (row_label(p), -_count(p), p["seed"]))
        grid = self._lay_out([place_of(cell) for cell in self.cells], there)
        if there:
            _write_forms(folder, self._lay_out(every, there))
            _write_forms(self.home, grid)
        return grid

    def _file(self, cell: SampleOptions) -> Path:
        return self.folder / f"cell-{_stem(cell)}.json"

    def _lay_out(self, places: Sequence[Place], there: Mapping[str, Mapping[str, Any]]) -> Grid:
        measured = [cell for cell in there.values() if _place(cell) in places]
        return lay_out(self.method, self.folder.name, self.protocol, places, measured)


def place_of(cell: SampleOptions) -> Place:
    """Where a cell is in the table: its row (sampler, corrections, clip), its steps, and its seed."""
    facts = cell.sampling.row()
    return {**facts, "steps": cell.sampling.steps, "seed": cell.sampling.seed}


def cell_name(cell: SampleOptions) -> str:
    """``fixed_small, 10 steps, seed 0``."""
    return f"{row_label(place_of(cell))}, {cell.sampling.steps} steps, seed {cell.sampling.seed}"


def find_protocol(home: Path, protocol: Mapping[str, Any]) -> Path | None:
    """The folder of a protocol, if it is there; if ``protocol`` says no block, the first of any block."""
    for path in sorted(home.glob("*/protocol.json")):
        old = {
            k: v for k, v in understood(read_json(path, advice=REMOVE)).items() if k not in ROW and k != "evaluations"
        }
        if "block" not in protocol:
            old.pop("block", None)
        if old == protocol:
            return path.parent
    return None


def block_used(home: Path, protocol: Mapping[str, Any]) -> int | None:
    """The block of the cells that are there under the same protocol: free memory is not the same every day."""
    folder = find_protocol(home, protocol)
    if folder is None:
        return None
    path = folder / "protocol.json"
    block: int = read_json(path, {"block": int}, advice=REMOVE)["block"]
    if not 1 <= block <= LARGEST_BLOCK:
        raise UserError(f"{path}: a block of {block} images. {REMOVE}")
    return block


def _place(cell: Mapping[str, Any]) -> Place:
    return {key: cell[key] for key in PLACE if key in cell}


def _count(place: Place) -> int:
    """The number of steps to sort by; guided-diffusion's strings come last."""
    return place["steps"] if isinstance(place["steps"], int) else 0


def _stem(cell: SampleOptions) -> str:
    """A name for files: readable, and of one cell alone."""
    place = place_of(cell)
    row = {key: place[key] for key in ROW if key in place}
    label = re.sub(r"[^A-Za-z0-9_.]+", "-", row_label(row)).strip("-")
    unusual = row["corrections"] or row["clip"] != "rederive" or row.keys() & set(UNUSUAL)
    if row["sampler"].get("name") != "ancestral" or unusual:
        label += f"-{hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:6]}"
    steps = re.sub(r"[^0-9a-z]+", "_", str(place["steps"]))
    return f"{label}-{steps}-seed{place['seed']}"


def _refuse_mixture(measured: Mapping[str, Mapping[str, Any]]) -> None:
    """All cells must have been measured in the same way, also as far as only the evaluation knows it.

    Raises:
        ConfigError: they were not; names the files.
    """
    kinds: dict[frozenset[str], list[str]] = {}
    for file, cell in measured.items():
        kinds.setdefault(frozenset(record.comparable() for record in records(cell, file)), []).append(file)
    if len(kinds) > 1:
        *_, fewest = sorted(kinds.values(), key=len, reverse=True)
        raise ConfigError(
            f"{', '.join(fewest)}: measured otherwise than the rest (by another version of the evaluation, or of its "
            "extractor), so they cannot share a table. Remove one kind, and the next call measures it again"
        )


def _read_cell(path: Path) -> dict[str, Any]:
    """A cell, in today's words (version 0.1 wrote ``var_type``)."""
    cell = read_json(path, {"seed": int, "values": dict, "protocol": dict, "warnings": list}, advice=REMOVE)
    cell = understood(cell if "sampler" in cell else {"sampler": "ancestral", **cell})
    if missing := [key for key in PLACE if key not in cell and key not in UNUSUAL]:
        raise UserError(f"{path} lacks {', '.join(missing)}. {REMOVE}")
    with reading(path, REMOVE):
        _check(cell)
    return cell


def _check(cell: Mapping[str, Any]) -> None:
    """Refuses a cell with values that none that was written has.

    Raises:
        TypeError, ValueError: of what is wrong, and where.
    """
    corrections, steps = cell["corrections"], cell["steps"]
    if not isinstance(corrections, list):
        raise TypeError(f"corrections must be a list, and is {kind_of(corrections)}")
    for word, section in (("sampler", cell["sampler"]), *(("corrections", one) for one in corrections)):
        if not isinstance(section, dict) or not isinstance(section.get("name"), str):
            raise TypeError(f"{word} must have a name")
        _refuse_odd(word, [*section, *section.values()])
    _refuse_odd("clip, steps or grid", [cell["clip"], steps, cell.get("grid")])
    if not isinstance(cell["clip"], str) or not (isinstance(steps, str) or (type(steps) is int and steps > 0)):
        raise TypeError("clip must be a word, and steps a number or a text")
    if not isinstance(cell.get("grid"), str | None):
        raise TypeError("grid must be the name of a file")
    if not all(isinstance(text, str) and len(text) < LONGEST for text in cell["warnings"]):
        raise TypeError(f"warnings must be sentences of at most {LONGEST} characters")
    _refuse_odd("values", list(cell["values"]))
    for name, value in cell["values"].items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise TypeError(f"the value of {name} must be a finite number, and is {kind_of(value)}")


def _refuse_odd(where: str, values: Sequence[Any]) -> None:
    """Settings and names are short texts and finite numbers."""
    for value in values:
        short = len(value) <= LONGEST_WORD if isinstance(value, str) else not isinstance(value, dict | list)
        if not short or kind_of(value) == NOT_FINITE:
            raise TypeError(f"{where}: there is {kind_of(value)} that no version wrote")


def _write_forms(folder: Path, grid: Grid) -> None:
    for suffix, form in {"txt": as_text, "md": as_markdown, "csv": as_csv}.items():
        write_text(folder / f"table.{suffix}", form(grid), advice=SAFE)
    write_json(folder / "table.json", grid, advice=SAFE)
