"""Curves of exposure bias over seeds."""

import csv
import math

import pytest
from tests.sweep.test_plan import asked

from ddpm_ip.exposure.curves import Curve, Exposure
from ddpm_ip.files import write_json
from ddpm_ip.sweep import curves
from ddpm_ip.sweep.curves import write_curves


def put(folder, value: float, label: str = "ddim, 9 steps", name: str = "a") -> None:
    curve = Curve((0.0, 9.0), (value, 2 * value), (0.1, 0.1), (0.0, 0.0), (1.0, 1.0))
    found = Exposure(label, "0" * 64, {}, 20, {}, {"delta": curve})
    write_json(folder / f"exposure/{name}.json", found.to_dict())


def test_the_mean_and_deviation_of_each_point_are_drawn(tmp_path, monkeypatch):
    drawn: list[Exposure] = []
    monkeypatch.setattr(curves, "write_figures", lambda exposures, stem: drawn.extend(exposures) or [stem])
    wanted = asked()
    for run, value in zip(wanted.runs, (1.0, 5.0, 2.0, 5.0), strict=True):  # of two points, seed by seed
        put(tmp_path / run.name, value)
    put(tmp_path / wanted.runs[0].name, 7.0, "heun, 9 steps", "b")
    files, problems = write_curves(wanted, tmp_path)
    assert (files, problems) == ([tmp_path / "exposure.csv", tmp_path / "curves"], [])
    by_label = {one.label: one.curves["delta"] for one in drawn}
    assert list(by_label) == ["gamma=0: ddim, 9 steps", "gamma=0: heun, 9 steps", "gamma=0.1: ddim, 9 steps"]
    first = by_label["gamma=0: ddim, 9 steps"]
    assert (first.t, first.value) == ((0.0, 9.0), (1.5, 3.0))
    spread = 0.5**0.5  # of 1 and 2
    assert first.low == pytest.approx((1.5 - spread, 3 - 2 * spread))
    assert first.high == pytest.approx((1.5 + spread, 3 + 2 * spread))
    assert first.se == pytest.approx((spread / 2**0.5, 2 * spread / 2**0.5))
    rows = list(csv.DictReader((tmp_path / "exposure.csv").open()))
    assert [(r["gamma"], r["sampling"][:4], float(r["mean"]), r["seeds"]) for r in rows[::2]] == [
        ("0", "ddim", 1.5, "2"), ("0", "heun", 7.0, "1"), ("0.1", "ddim", 5.0, "2"),
    ]  # fmt: skip
    assert [r["deviation"] for r in rows[2:4]] == ["", ""]


def test_what_a_seed_could_not_measure_is_no_part_of_the_mean(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "write_figures", lambda exposures, stem: [stem])
    wanted = asked()
    for run, value in zip(wanted.runs, (1.0, math.inf, math.nan, math.nan), strict=True):  # of two points, by seed
        put(tmp_path / run.name, value)
    write_curves(wanted, tmp_path)
    rows = list(csv.DictReader((tmp_path / "exposure.csv").open()))
    assert [(row["gamma"], row["t"], row["mean"], row["seeds"]) for row in rows] == [
        ("0", "0.0", "1.0", "1"), ("0", "9.0", "2.0", "1"),
    ]  # fmt: skip


def test_the_figure_is_made(tmp_path):
    wanted = asked(seeds=[0])
    put(tmp_path / wanted.runs[0].name, 1.0)
    files, _ = write_curves(wanted, tmp_path)
    assert {file.suffix for file in files} == {".csv", ".svg", ".png"}
    assert all(file.stat().st_size for file in files)


def test_without_curves_there_is_no_file_and_damage_is_told(tmp_path):
    wanted = asked()
    assert write_curves(wanted, tmp_path) == ([], [])
    write_json(tmp_path / wanted.runs[0].name / "exposure/a.json", {"curves": {"delta": {"t": [0]}}})
    files, problems = write_curves(wanted, tmp_path)
    assert files == []
    assert "holds no curves" in problems[0]
