"""The results table of a class-conditional model: balanced classes, chosen ones as rows, and what guidance costs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.tiny import tiny, with_classes

from ddpm_ip.cli import main
from ddpm_ip.config import from_dict
from ddpm_ip.errors import ConfigError
from ddpm_ip.files import read_json
from ddpm_ip.options import row_overrides
from ddpm_ip.run.row import row_label
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.table.rows import TableOptions, brief

ROWS = ("ddim", "ddim+guidance,scale=2", "ddim+classes=3", "ddim+guidance,scale=2+classes=0/4", "ddim+classes=none")


def sampling(row: str) -> Sampling:
    return from_dict({"data": {"name": "digits"}}, overrides=row_overrides(row)).sampling


def test_a_row_names_its_classes_where_they_are_chosen() -> None:
    assert [sampling(row).classes for row in ROWS] == [None, None, (3,), (0, 4), (-1,)]
    assert sampling("ddim+classes=balanced") == sampling("ddim")
    for row in ROWS:
        assert sampling(row_label(sampling(row).row())) == sampling(row)
    assert "classes" not in sampling("ddim").row()


def test_a_column_of_evaluations_is_filled_by_half_as_many_visits_with_guidance() -> None:
    options = TableOptions([sampling(row) for row in ROWS[:2]], evaluations=(4, 7, 1), n_samples=20)
    slots = options.slots(with_classes())
    assert [slot.cell.sampling.steps for slot in slots if slot.why_not is None] == [4, 7, 1, 2, 3]
    assert [slot.why_not for slot in slots if slot.why_not] == ["one step asks the network more than 1 times"]
    with pytest.raises(ConfigError, match="unconditional"):
        TableOptions([sampling(ROWS[1])], steps=(2,)).slots(tiny())


def test_a_table_of_a_conditional_run(trained_with_classes: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained_with_classes, tmp_path / "run")
    words = ["--rows", *ROWS[:3], "--evaluations", "4", "--n_samples", "20", "--extractor", "pixels"]
    assert main(["table", "-e", str(folder), *words, "--batch_size", "8"]) == 0
    grid = read_json(folder / "table" / "table.json")
    rows = {row["label"]: row["cells"] for row in grid["blocks"][0]["rows"] if row["source"] is None}
    assert list(rows) == list(ROWS[:3])
    assert len({cells[0]["value"] for cells in rows.values()}) == 3
    said = [record["sampling"] for record in grid["results"]]
    assert [one["evaluations"] for one in said] == [4, 4, 4]
    wanted = dict(zip(ROWS[:3], ("balanced", "balanced", [3]), strict=True))
    assert {row_label(brief(one)): one["classes"] for one in said} == wanted
