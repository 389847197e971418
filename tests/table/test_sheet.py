"""Cells on the disk: what was damaged or planted is told by name, and cells that end together are all shown."""

from __future__ import annotations

import copy
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpm_ip.errors import UserError
from ddpm_ip.images import grid as picture_of
from ddpm_ip.run.record import Evaluation
from ddpm_ip.sample.program import SampleOptions
from ddpm_ip.sampler import DDIM, Ancestral
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.table.rows import Slot
from ddpm_ip.table.sheet import Sheet, block_used, find_protocol

PROTOCOL: dict[str, Any] = {
    "extractor": "pixels",
    "extractor_identity": {"range": "[0, 1]"},
    "metrics": ["fid"],
    "n_samples": 20,
    "rounding": "uint8, to nearest",
    "averaged": True,
    "weights": "ab" * 32,
    "data": "digits",
    "image_size": 8,
    "reference": "digits",
    "reference_sha256": "cd" * 32,
    "n_reference": 1797,
    "spacing": "uniform-linspace",
    "diffusion": {"total_steps": 1000},
    "precision": "no",
    "fast": False,
    "device": "cpu",
    "block": 8,
}
SAMPLERS = [Ancestral("fixed_small"), Ancestral("fixed_large"), DDIM(), DDIM(0.5)]
CELLS = [SampleOptions(20, Sampling(s, steps=k, block=8)) for s in SAMPLERS for k in (2, 3, 4)]
PICTURE = picture_of(np.zeros((4, 1, 8, 8), np.uint8))


def evaluation(value: float = 1.0) -> Evaluation:
    return Evaluation({"FD-pixels": value}, {"extractor": "pixels", "n_images": 20, "line": "x"}, [])


def sheet(home: Path) -> Sheet:
    return Sheet(home, "DDPM", PROTOCOL, [Slot(cell, cell.sampling.steps or 0, "uniform-linspace") for cell in CELLS])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A cell that was written."""
    made = sheet(tmp_path / "table")
    made.put(CELLS[0], evaluation(), PICTURE)
    (path,) = (tmp_path / "table").glob("*/cell-*.json")
    return path


def changed(path: Path, keys: tuple[Any, ...], value: Any) -> None:
    whole = json.loads(path.read_text())
    place = whole
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = copy.deepcopy(value)
    path.write_text(json.dumps(whole))


ODD: list[Any] = [None, 3, -1, 1e999, True, "", "x" * 100_000]
ODD += [[], [[]], {}, {"name": []}, {"name": {"a": 1}}, [{}], [3]]
PLACES: list[tuple[Any, ...]] = [
    ("sampler",),
    ("sampler", "name"),
    ("sampler", "eta"),
    ("corrections",),
    ("clip",),
    ("steps",),
    ("seed",),
    ("values",),
    ("values", "FD-pixels"),
    ("protocol",),
    ("protocol", "n_images"),
    ("protocol", "sampling"),
    ("warnings",),
    ("grid",),
    ("schema",),
]


@pytest.mark.parametrize("keys", PLACES, ids=".".join)
def test_a_cell_with_odd_values_is_shown_or_told_by_name(file: Path, keys: tuple[Any, ...]) -> None:
    """Never an error of Python's, and never a table of a megabyte."""
    whole, told = file.read_text(), []
    for value in ODD:
        file.write_text(whole)
        changed(file, keys, value)
        try:
            sheet(file.parents[1]).publish()
        except UserError as error:
            told.append(str(error))
        else:
            told.append("shown")
            assert (file.parent / "table.md").stat().st_size < 20_000
    assert sum(text != "shown" for text in told) >= 3
    assert all(text == "shown" or ("cell" in text and len(text) < 3000) for text in told)


def test_damaged_files_are_told_by_name(file: Path) -> None:
    home = file.parents[1]
    for path in (file, file.with_name("protocol.json")):
        whole = path.read_bytes()
        for content in (b"", whole[: len(whole) // 2], b"\xff" * 50, b"[" * 100_000, b"[]", b"3", b"\0" * 100):
            path.write_bytes(content)
            with pytest.raises(UserError, match=path.name):
                sheet(home).publish()
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(UserError, match=path.name):
            sheet(home).publish()
        path.unlink()
        path.write_bytes(whole)


@pytest.mark.parametrize("block", [0, -8, 10**9, 1e999, "8", None, [8], True])
def test_a_block_that_cannot_be_is_refused(file: Path, block: Any) -> None:
    path = file.with_name("protocol.json")
    changed(path, ("block",), block)
    wanted = {key: value for key, value in PROTOCOL.items() if key != "block"}
    assert find_protocol(file.parents[1], wanted) is not None
    with pytest.raises(UserError, match=r"protocol\.json"):
        block_used(file.parents[1], wanted)


def test_cells_that_end_together_are_all_in_the_table(tmp_path: Path) -> None:
    home = tmp_path / "table"
    failed: list[BaseException] = []

    def put(mine: list[SampleOptions]) -> None:
        try:
            for cell in mine:
                sheet(home).put(cell, evaluation(), PICTURE)
        except BaseException as error:
            failed.append(error)

    sheet(home).put(CELLS[0], evaluation(), PICTURE)
    threads = [threading.Thread(target=put, args=(CELLS[1 + i :: 3],)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for path in (home / "table.json", *home.glob("*/table.json")):
        rows = json.loads(path.read_text())["blocks"][0]["rows"]
        assert sum(cell is not None for row in rows for cell in row["cells"]) == len(CELLS)


def test_what_a_killed_call_left_half_written_is_removed(file: Path) -> None:
    """And nothing else: a person's files stay."""
    home, folder = file.parents[1], file.parent
    left = [home / ".table.json.71.0123abcd.partial", folder / f".{file.name}.72.0123abcd.partial"]
    left += [folder / ".protocol.json.73.0123abcd.partial", folder / ".table.md.74.0123abcd.partial"]
    own = [home / "notes.partial", folder / ".notes.txt"]
    for path in (*left, *own):
        path.write_text("x")
    sheet(home).publish()
    assert [path for path in left if path.exists()] == []
    assert all(path.exists() for path in own)
