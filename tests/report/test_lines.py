"""A table as lines: which points, which styles, which names, and the files."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ddpm_ip.report.lines import as_csv, lines_of, named_figure, spread, write_grid

from .test_page import report, saved


def cell(value: float, evaluations: int, steps: int | None = None, of: float | None = None) -> dict[str, Any]:
    return {
        "value": value, "spread": of, "seeds": 1, "mark": "", "evaluations": evaluations, "steps": steps or evaluations,
    }  # fmt: skip


def row(label: str, *cells: Any, source: str | None = None) -> dict[str, Any]:
    text, _, spacing = label.partition("@")
    sampler, _, corrections = text.partition("+")
    parts = {"sampler": sampler, "corrections": corrections, "spacing": spacing}
    return {"label": label, "source": source, "cells": list(cells), **parts}


ROWS = [
    row("ddim@quad", cell(40.0, 6), cell(20.0, 10, of=0.5)),
    row("ddim+tsr@quad", cell(41.0, 6), None),
    row("heun@quad", cell(80.0, 5, 3), cell(10.0, 9, 5)),
    row("heun+tsr@quad", None, None),
    row("published", cell(1.0, 6), cell(1.0, 10), source="somebody"),
]
GRID: dict[str, Any] = {
    "method": "DDPM, gamma $0.1$", "protocol_id": "0123456789ab", "line": "x",
    "steps": [6, 10], "columns": "evaluations", "seeds": [0],
    "blocks": [{"metric": "FID", "decimals": 2, "rows": ROWS}],
    "notes": [], "results": [],
    "protocol": {"n_samples": 2000},
}  # fmt: skip


def test_points_are_where_the_network_was_asked_so_often() -> None:
    lines = lines_of(GRID["blocks"][0], GRID["steps"])
    assert [(line.label, [(p.evaluations, p.value) for p in line.points]) for line in lines] == [
        ("ddim@quad", [(6, 40.0), (10, 20.0)]),
        ("ddim+tsr@quad", [(6, 41.0)]),
        ("heun@quad", [(5, 80.0), (9, 10.0)]),
    ]
    assert [line.style for line in lines] == [(0, 0), (0, 1), (1, 0)], (
        "colours are samplers, dashes what is done to one"
    )
    alone = lines_of({"rows": ROWS[:2]}, GRID["steps"])
    assert [line.style for line in alone] == [(0, 0), (1, 1)], "of one sampler the rows have the colours"


def test_a_table_of_version_0_1_has_as_many_evaluations_as_steps() -> None:
    old = {"value": 2.0, "spread": None, "seeds": 1, "mark": ""}
    rows = [{"label": name, "source": None, "cells": [old, old]} for name in ("fixed_large", "fixed_small")]
    lines = lines_of({"rows": rows}, [100, "10,10"])
    assert [[p.evaluations for p in line.points] for line in lines] == [[100], [100]]
    assert len({line.style for line in lines}) == 2


def test_csv_holds_every_number_unrounded() -> None:
    rows = list(csv.DictReader(as_csv(GRID).splitlines()))
    assert [(r["metric"], r["row"], r["evaluations"], r["steps"], r["value"], r["spread"]) for r in rows] == [
        ("FID", "ddim@quad", "6", "6", "40.0", ""), ("FID", "ddim@quad", "10", "10", "20.0", "0.5"),
        ("FID", "ddim+tsr@quad", "6", "6", "41.0", ""),
        ("FID", "heun@quad", "5", "3", "80.0", ""), ("FID", "heun@quad", "9", "5", "10.0", ""),
    ]  # fmt: skip
    assert {(r["sampler"], r["corrections"], r["spacing"], r["images"], r["protocol"]) for r in rows} == {
        (s, c, "quad", "2000", "0123456789ab") for s, c in (("ddim", "none"), ("ddim", "tsr"), ("heun", "none"))
    }


def test_each_line_has_its_name_once_and_within_the_picture() -> None:
    rows = [row(f"s{i}+{'long' * 8}@quad", cell(10.0 + i / 100, 6), cell(9.0 + i / 100, 10)) for i in range(30)]
    figure = named_figure({**GRID, "blocks": [{"metric": "FID", "decimals": 2, "rows": rows}]})
    figure.draw_without_rendering()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    assert sorted(text.get_text() for text in texts) == sorted(r["label"] for r in rows)
    boxes = [text.get_window_extent() for text in texts]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    heights = sorted((box.y0 + box.y1) / 2 for box in boxes)
    assert min(b - a for a, b in pairwise(heights)) > 0.9 * boxes[0].height, "no name on another"


def test_a_wide_range_is_logarithmic_and_a_narrow_one_is_not() -> None:
    def scale(*values: float) -> str:
        rows = [row("ddim", *(cell(v, 6 + i) for i, v in enumerate(values)))]
        grid = {**GRID, "steps": list(range(len(values))), "blocks": [{"metric": "FID", "decimals": 2, "rows": rows}]}
        return str(named_figure(grid).axes[0].get_yscale())

    assert [scale(100, 1), scale(3, 2), scale(1, -0.1)] == ["log", "linear", "linear"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.001, 0.2))
def test_names_are_spread_no_further_than_needed(wanted: list[float], gap: float) -> None:
    wanted = sorted(wanted)
    places = spread(wanted, gap)
    steps = [b - a for a, b in pairwise(places)]
    assert all(step >= gap * (1 - 1e-6) for step in steps)
    room = gap * (len(wanted) - 1) <= 1
    assert not room or (places[0] >= -1e-9 and places[-1] <= 1 + 1e-9)
    if all(b - a >= gap for a, b in pairwise(wanted)):
        assert places == pytest.approx(wanted)


def test_the_files(tmp_path: Path) -> None:
    assert write_grid(tmp_path, GRID) == f"{tmp_path}/grid.csv, .png, .svg"
    assert (tmp_path / "grid.csv").read_text() == as_csv(GRID)
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.format == "PNG"
    svg = (tmp_path / "grid.svg").read_bytes()
    assert b"<svg" in svg
    write_grid(tmp_path, GRID)
    assert (tmp_path / "grid.svg").read_bytes() == svg, "the same numbers give the same bytes"
    write_grid(tmp_path, {**GRID, "blocks": []})


def test_the_page_shows_the_lines_of_a_grid(runs: list[Path], tmp_path: Path) -> None:
    (runs[0] / "table").mkdir()
    file = runs[0] / "table" / "table.json"
    file.write_text(json.dumps({**GRID, "columns": "steps"}))
    assert 'download="table-baseline-fid.csv"' not in report(runs, tmp_path)[0]
    (runs[0] / "table" / "grid.csv").write_text("")
    assert 'download="table-baseline-fid.csv"' in report(runs, tmp_path)[0], "asked for with --grid"
    (runs[0] / "table" / "grid.csv").unlink()
    file.write_text(json.dumps(GRID))
    text, page = report(runs, tmp_path)
    assert "baseline: FID against the number of network evaluations" in text
    assert "6 evaluations</th>" in text
    assert "FID,heun@quad,heun,none,quad,9,5,10.0" in saved(page, "table-baseline-fid.csv")
    assert len(page.ids) == len(set(page.ids))
    file.write_text(json.dumps({**GRID, "blocks": [{**GRID["blocks"][0], "rows": [{**ROWS[0], "cells": [3, None]}]}]}))
    assert "table/table.json is damaged" in report(runs, tmp_path)[0]
