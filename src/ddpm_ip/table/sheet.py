"""The cells on the disk, by protocol, and the tables that are made of them.

    EXP_DIR/table/PROTOCOL/protocol.json     what all numbers next to it have in common; PROTOCOL is its hash
    EXP_DIR/table/PROTOCOL/cell-....json     one row, number of steps and seed; appears whole
    EXP_DIR/table/PROTOCOL/table.{txt,...}   the table of all these cells, written again after each
    EXP_DIR/table/table.{txt,md,csv,json}    that of the newest call, of what it asked for

Whatever changes a number but is no row or column of the table (the weights, the number of images, the reference, ...)
is part of the protocol, so that numbers of two protocols never meet. With one exception: the spacing of the times is
part of the protocol, too, and a table may have rows of several. Its cells then lie in as many folders, each where a
table of this spacing alone has it and finds it again, and only the table of the call shows them together.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.files import read_json, reading, sweep, write_json, write_text
from ddpm_ip.images import save_png
from ddpm_ip.plain import NOT_FINITE, kind_of
from ddpm_ip.run.record import Evaluation, records, understood
from ddpm_ip.run.row import ROW, is_hash, row_label
from ddpm_ip.sample.program import SampleOptions
from ddpm_ip.sample.store import sample_files
from ddpm_ip.table.layout import Grid, as_csv, as_markdown, as_text, lay_out, place_key
from ddpm_ip.table.rows import Place, Slot, complete, each, labels
from ddpm_ip.turns import alone

PLACE = (*ROW, "steps", "seed")
NEEDED = ("sampler", "corrections", "clip", "steps", "seed")
LARGEST_BLOCK = 1_000_000  # images
LONGEST, LONGEST_WORD = 10_000, 200  # characters of a sentence; of a setting or a name
LONGEST_NAME = 120  # characters of a row in the name of a file
OLDER = "Not shown: {} cells that were made with an earlier calibration, or earlier variances; their files stay."
SAFE, REMOVE = "Finished cells stay", "Remove it, and the next call makes it again"


@dataclass(frozen=True)
class Sheet:
    """The cells of a table, of one protocol for each spacing.

    Args:
        home: ``EXP_DIR/table``.
        method: what was trained, such as ``DDPM-IP, gamma 0.1``.
        protocol: what all cells have in common; its spacing gives way to that of each cell.
        slots: the places of the table, in its order.
        columns_are: ``steps`` or ``evaluations``.
    """

    home: Path
    method: str
    protocol: dict[str, Any]
    slots: Sequence[Slot]
    columns_are: str = "steps"

    @cached_property
    def cells(self) -> list[SampleOptions]:
        """Those that can be, each once (two columns may need the same)."""
        return list(dict.fromkeys(slot.cell for slot in self.slots if slot.why_not is None))

    @cached_property
    def _spacings(self) -> dict[SampleOptions, str]:
        return {slot.cell: slot.spacing for slot in self.slots}

    @cached_property
    def names(self) -> dict[SampleOptions, str]:
        """``fixed_small, 10 steps, seed 0``, by cell."""
        rows = labels([self._place(slot.cell) for slot in self.slots])
        return {
            slot.cell: f"{row}, {slot.cell.sampling.steps or slot.column} steps, seed {slot.cell.sampling.seed}"
            for slot, row in zip(self.slots, rows, strict=True)
        }

    @cached_property
    def folders(self) -> dict[str, Path]:
        """By spacing the folder of its protocol: the one that is there, also of version 0.1, or a new one."""
        found = {}
        for spacing in dict.fromkeys(self._spacings[cell] for cell in self.cells):
            protocol = self._protocol(spacing)
            text = json.dumps(protocol, sort_keys=True)
            there = find_protocol(self.home, protocol)
            found[spacing] = there or self.home / hashlib.sha256(text.encode()).hexdigest()[:12]
        return found

    def images(self, cell: SampleOptions) -> Path:
        """Where the images of a cell are, if they are kept."""
        file = self._file(cell)
        return file.with_name(f"images-{file.stem.removeprefix('cell-')}")

    def lacks(self, cell: SampleOptions, with_images: bool) -> bool:
        """Whether the cell, or its images, have still to be made."""
        kept = len(sample_files(self.images(cell))) if with_images else cell.n_samples
        return kept < cell.n_samples or not self._file(cell).exists()

    def put(self, cell: SampleOptions, evaluation: Evaluation, picture: Image.Image) -> None:
        """Keeps a cell and a picture of some of its images, and shows it in the table."""
        with suppress(OSError):  # writing says what is wrong
            self.home.mkdir(parents=True, exist_ok=True)
        with alone(self.home):
            file, spacing = self._file(cell), self._spacings[cell]
            write_json(file.with_name("protocol.json"), self._protocol(spacing), advice=SAFE)
            save_png(picture, file.with_suffix(".png"), advice=SAFE)
            write_json(file, {**place_of(cell), **evaluation.to_dict(), "grid": f"{file.stem}.png"}, advice=SAFE)
            self._publish([spacing])

    def publish(self) -> Grid:
        """Writes the table of the cells asked for, and that of all next to the cells; none before the first."""
        with alone(self.home):  # of two calls that end cells together, the later one must show both
            return self._publish(list(self.folders))

    def _publish(self, changed: Sequence[str]) -> Grid:
        sweep(self.home, "table.*")  # what a killed call left half written; all of it is written under this lock
        for folder in self.folders.values():
            sweep(folder, "*")
        there: dict[str, dict[str, Any]] = {}
        for spacing, folder in self.folders.items():
            about = {"spacing": spacing, "identity": folder.name}
            there |= {str(file): {**_read_cell(file), **about} for file in sorted(folder.glob("cell-*.json"))}
        _refuse_mixture(there)
        asked = [
            {**self._place(slot.cell), "column": slot.column, "why_not": slot.why_not} for slot in self.slots
        ]  # what is not possible has no cell
        wanted = {place_key(place) for place in asked}
        for spacing in changed:
            of_spacing = {file: cell for file, cell in there.items() if cell["spacing"] == spacing}
            own = _newest(of_spacing, wanted)
            places = sorted(({**_place(cell), "spacing": spacing} for cell in own), key=_order)
            if places:
                grid = self._lay_out(places, own, "steps")
                if older := len(of_spacing) - len(own):
                    grid["notes"].append(OLDER.format(older))
                _write_forms(self.folders[spacing], grid)
        grid = self._lay_out(asked, [cell for cell in there.values() if place_key(cell) in wanted], self.columns_are)
        if there:
            _write_forms(self.home, grid)
        return grid

    def _file(self, cell: SampleOptions) -> Path:
        """Where a cell is: under its name, or under the one that it had when its sampler had fewer settings."""
        folder = self.folders[self._spacings[cell]]
        path = folder / f"cell-{_stem(cell)}.json"
        if not path.exists():
            wanted = place_key(self._place(cell))
            first = path.stem.split("-")[1]
            for other in sorted(folder.glob(f"cell-{first}*-{_column(cell)}.json")):
                if place_key({**_read_cell(other), "spacing": self._spacings[cell]}) == wanted:
                    return other
        return path

    def _place(self, cell: SampleOptions) -> Place:
        return {**place_of(cell), "spacing": self._spacings[cell]}

    def _protocol(self, spacing: str) -> dict[str, Any]:
        return {**self.protocol, "spacing": spacing}

    def _lay_out(self, places: Sequence[Place], measured: Sequence[Mapping[str, Any]], columns_are: str) -> Grid:
        spacings = list(dict.fromkeys(place["spacing"] for place in places if not place.get("why_not")))
        names = ", ".join(self.folders[spacing].name for spacing in spacings)
        protocol = {**self.protocol, "spacing": spacings[0] if len(spacings) == 1 else spacings}
        return {**lay_out(self.method, names, protocol, places, measured), "columns": columns_are}


def place_of(cell: SampleOptions) -> Place:
    """Where a cell is in a table of one spacing: its row (sampler, corrections, clip), its steps, and its seed."""
    return {**cell.sampling.row(), "steps": cell.sampling.steps, "seed": cell.sampling.seed}


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


def _order(place: Place) -> tuple[str, int, int]:
    """Rows by name, and guided-diffusion's strings behind numbers of steps."""
    return row_label(place), -place["steps"] if isinstance(place["steps"], int) else 0, place["seed"]


def _newest(cells: Mapping[str, dict[str, Any]], wanted: Collection[str]) -> list[dict[str, Any]]:
    """Of cells that differ in nothing but what was measured of the weights (a calibration), those of the newest.

    Args:
        cells: by file.
        wanted: the keys of those that the call asks for, which are the newest.
    """
    last: dict[str, tuple[float, str]] = {}
    keys = {}
    for file, cell in cells.items():
        row = {key: value for key, value in _place(cell).items() if key != "seed"}
        keys[file] = (json.dumps(each(_without_hashes, row), sort_keys=True), json.dumps(row, sort_keys=True))
        asked, made = keys[file]
        when = math.inf if place_key(cell) in wanted else Path(file).stat().st_mtime
        last[asked] = max(last.get(asked, (0.0, "")), (when, made))
    return [cell for file, cell in cells.items() if last[keys[file][0]][1] == keys[file][1]]


def _without_hashes(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if not is_hash(value)}


def _stem(cell: SampleOptions) -> str:
    """A name for files: readable, and of one cell alone."""
    place = place_of(cell)
    row = {key: place[key] for key in ROW if key in place}
    label = re.sub(r"[^A-Za-z0-9_.]+", "-", _in_old_words(row)).strip("-")
    plain = {"sampler": {"name": "ancestral", "var_type": row["sampler"].get("var_type")}, "corrections": []}
    if row != {**complete(plain), "clip": "rederive"}:
        label += f"-{hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:6]}"
    return f"{label}-{_column(cell)}"


def _column(cell: SampleOptions) -> str:
    steps = re.sub(r"[^0-9a-z]+", "_", str(cell.sampling.steps))
    return f"{steps}-seed{cell.sampling.seed}"


def _in_old_words(row: Mapping[str, Any]) -> str:
    """The row in the words that names of files had first, and keep."""
    sampler = dict(row["sampler"])
    name = sampler.pop("name")
    words = [str(sampler.pop("var_type", None) or name) if name == "ancestral" else name]
    words += [f"{key} {_short(value)}" for key, value in sampler.items() if value is not None]
    for correction in row["corrections"]:
        settings = {key: value for key, value in correction.items() if key != "name" and value is not None}
        words += [correction["name"]]
        words += [f"{key} {_short(value)}" if len(settings) > 1 else _short(value) for key, value in settings.items()]
    words += [] if row["clip"] == "rederive" else [f"clip {row['clip']}"]
    return ", ".join(words)[:LONGEST_NAME]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


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
    if missing := [key for key in NEEDED if key not in cell]:
        raise UserError(f"{path} lacks {', '.join(missing)}. {REMOVE}")
    with reading(path, REMOVE):
        _check(cell)
    return complete(cell)


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
    _refuse_odd("clip, steps, classes or grid", [cell["clip"], steps, cell.get("classes"), cell.get("grid")])
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
    """Settings and names are short texts and finite numbers; a setting may be a list of them."""
    for value in values:
        if isinstance(value, list) and 0 < len(value) <= LONGEST and not any(isinstance(v, dict | list) for v in value):
            _refuse_odd(where, value)
            continue
        short = len(value) <= LONGEST_WORD if isinstance(value, str) else not isinstance(value, dict | list)
        if not short or kind_of(value) == NOT_FINITE:
            raise TypeError(f"{where}: there is {kind_of(value)} that no version wrote")


def _write_forms(folder: Path, grid: Grid) -> None:
    for suffix, form in {"txt": as_text, "md": as_markdown, "csv": as_csv}.items():
        write_text(folder / f"table.{suffix}", form(grid), advice=SAFE)
    write_json(folder / "table.json", grid, advice=SAFE)
