"""Mean and sample standard deviation over seeds, of what was measured in one way."""

import csv
import io
import math
import statistics

import pytest
from tests.sweep.test_plan import asked

from ddpm_ip.files import write_json
from ddpm_ip.sweep.summary import Number, Summary

VALUES = {("gamma=0", 0): 3.0, ("gamma=0", 1): 5.0, ("gamma=0", 2): 4.0, ("gamma=0.1", 0): 2.5, ("gamma=0.1", 2): 2.0}


def summary(values=VALUES, **changed) -> Summary:
    numbers = [
        Number(
            *{"point": point, "seed": seed, "metric": "FID", "row": "ddim", "column": "10", "way": "w"}.values(), value
        )
        for (point, seed), value in values.items()
    ]
    points = {"gamma=0": {"gamma": 0}, "gamma=0.1": {"gamma": 0.1}, "gamma=0.2": {"gamma": 0.2}}
    given = {"points": list(points), "values": points, "seeds": 3, "numbers": numbers}
    return Summary(**{**given, **changed})


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_numbers_are_those_of_statistics():
    first, second, third = rows(summary().as_csv())
    assert (first["gamma"], first["metric"], first["row"], first["steps"], first["seeds"]) == (
        "0", "FID", "ddim", "10", "3",
    )  # fmt: skip
    assert float(first["mean"]) == 4.0
    assert float(first["deviation"]) == 1.0  # sqrt((1 + 1 + 0) / 2)
    assert float(second["deviation"]) == pytest.approx(statistics.stdev([2.5, 2.0]))
    assert (second["gamma"], second["seeds"]) == ("0.1", "2")
    assert (third["mean"], third["deviation"], third["seeds"]) == ("", "", "0")


def test_what_is_missing_is_a_dash_and_fewer_seeds_are_told():
    text = summary().as_markdown()
    assert "| gamma=0 | ddim | 4.00 ± 1.00 |" in text
    assert "| gamma=0.1 | ddim | 2.25 ± 0.35 (2) |" in text
    assert "| gamma=0.2 | ddim | - |" in text


def test_points_are_compared_seed_by_seed():
    """What the runs of a seed have in common, such as a lucky order of the images, is no part of a difference."""
    values = {("gamma=0", seed): 10.0 * seed for seed in range(3)}
    values |= {("gamma=0.1", seed): 10.0 * seed - 1 + 0.01 * seed for seed in (0, 2)}
    _, second, third = rows(summary(values).as_csv())
    assert float(second["difference"]) == pytest.approx(-0.99)
    assert float(second["difference_deviation"]) == pytest.approx(statistics.stdev([0, 0.02]))
    assert third["difference"] == ""
    text = summary(values).as_markdown()
    assert "Differences from gamma=0, seed by seed, ± the deviation of the differences; a tie is within it:" in text
    assert "| gamma=0.1 | ddim | -0.990 ± 0.014 (2) |" in text
    assert text.count("| gamma=0 |") == 1


def test_a_difference_within_its_deviation_is_a_tie_and_zero_has_no_sign():
    """-0.0001 ± 0.001 is one, and prints as 0.000; -0.5 is none."""
    values = {("gamma=0", seed): 3.0 for seed in (0, 1)} | {("gamma=0.1", 0): 2.9992, ("gamma=0.1", 1): 3.0006}
    values |= {("gamma=0.2", 0): 2.5, ("gamma=0.2", 1): 2.5}
    text = summary(values, seeds=2).as_markdown()
    assert "| gamma=0.1 | ddim | 0.000 ± 0.001 (tie) |" in text
    assert "| gamma=0.2 | ddim | -0.500 ± 0.000 |" in text


def test_one_seed_has_no_deviation_and_says_so():
    text = summary({("gamma=0", 0): 3.0}, seeds=1).as_markdown()
    assert "| gamma=0 | ddim | 3.00 |" in text
    assert "by chance is not known" in text


def test_numbers_that_are_not_finite_stay_and_break_nothing():
    text = summary({("gamma=0", 0): 3.0, ("gamma=0", 1): math.inf}).as_markdown()
    assert "| gamma=0 | ddim | inf (2) |" in text


def test_numbers_of_two_protocols_are_not_averaged():
    other = Number("gamma=0", 3, "FID", "ddim", "10", "other", 100.0)
    both = summary(numbers=[*summary().numbers, other])
    assert [float(row["mean"]) for row in rows(both.as_csv()) if row["gamma"] == "0"] == [4.0, 100.0]
    assert "## FID (protocol w)" in both.as_markdown()
    assert "## FID (protocol other)" in both.as_markdown()


def test_small_numbers_have_three_figures():
    assert "| 0.00123 |" in summary({("gamma=0", 0): 0.001234}, seeds=1).as_markdown()


def test_a_damaged_table_is_told_and_the_others_count(tmp_path):
    wanted = asked()
    grid = {"blocks": [{"metric": "FID", "rows": [{"label": "ddim", "source": None, "cells": [{"value": 2.0}]}]}]}
    for run in wanted.runs[:2]:
        write_json(tmp_path / run.name / "table/table.json", {**grid, "steps": [10], "results": []})
    (tmp_path / wanted.runs[2].name / "table").mkdir(parents=True)
    (tmp_path / wanted.runs[2].name / "table/table.json").write_text("{")
    found = Summary.of(wanted, tmp_path)
    assert len(found.problems) == 3  # and the first two name no metric
    assert "table.json" in found.as_markdown()
    assert "There are no numbers yet." in found.as_markdown()
