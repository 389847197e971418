"""Rows of a results table that are corrected as a calibration says."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny import tiny

import ddpm_ip as ip
from ddpm_ip.cli import main
from ddpm_ip.errors import ConfigError
from ddpm_ip.report.run import load_runs
from ddpm_ip.report.table import tables
from ddpm_ip.run.weights import find_weights
from ddpm_ip.sample import calibrated
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.table.rows import TableOptions

SCALED = [{"name": "epsilon_scaling", "scale": 1.05}]


@pytest.fixture
def run(trained, tmp_path):
    """A run that may be written to."""
    return shutil.copytree(trained, tmp_path / "run")


def keep(run, steps, chain=SCALED, config=None, sampler=None):
    of = find_weights(run)
    sampling = Sampling(sampler or ip.DDIM(), steps=steps)
    found = {"corrections": chain, "chosen": "a", "why": "b."}
    return calibrated.keep(sampling, config or tiny(), of.sha256, Path(of.origin), found)


def measured(*runs, name="table", rows=("--corrections", "none", "auto"), steps=("--steps", "2", "3")):
    given = ["--extractor", "pixels", "--n_samples", "4", "--batch_size", "4", "--sampler", "ddim"]
    where = ["-e", str(runs[0])] if name == "table" else [str(run) for run in runs]
    return main([name, *where, *given, *rows, *steps])


def cells(run):
    """(row, column) -> value, of the table of the newest call."""
    grid = json.loads((run / "table" / "table.json").read_text())
    (block,) = grid["blocks"]
    rows = {row["label"]: zip(grid["steps"], row["cells"], strict=True) for row in block["rows"]}
    return {(label, k): cell and cell["value"] for label, found in rows.items() for k, cell in found}


def files(run):
    return sorted(path.name for path in run.glob("table/*/cell-*.json"))


def test_one_row_takes_a_calibration_for_each_number_of_steps(run):
    """With the numbers of the chains that they hold; several seeds are one cell; the report has the row, too."""
    keep(run, 2)
    keep(run, 3, [])
    seeds = ("--steps", "2", "3", "--seeds", "0", "1")
    assert measured(run, steps=seeds) == 0
    found = cells(run)
    assert list(found) == [("ddim", 2), ("ddim", 3), ("ddim+auto", 2), ("ddim+auto", 3)]
    assert found["ddim", 3] == found["ddim+auto", 3]
    assert measured(run, rows=("--rows", "ddim+auto", "ddim+epsilon_scaling,scale=1.05"), steps=seeds) == 0
    typed = cells(run)
    assert typed["ddim+epsilon_scaling,scale=1.05", 2] == found["ddim+auto", 2] != found["ddim", 2]
    assert len(files(run)) == 12, "the rows of both calls, with their seeds"
    (table,) = tables(load_runs([run]))
    assert {"ddim", "ddim+auto"} < {setting.row for setting in table.settings}


def test_another_calibration_begins_a_new_cell(run, capsys):
    keep(run, 2)
    assert measured(run, steps=("--steps", "2")) == 0
    first = cells(run)
    keep(run, 2)  # the same again
    assert measured(run, steps=("--steps", "2")) == 0
    assert len(files(run)) == 2
    keep(run, 2, [{"name": "epsilon_scaling", "scale": 1.2}])
    assert measured(run, steps=("--steps", "2")) == 0
    assert len(files(run)) == 3
    second = cells(run)
    assert second["ddim", 2] == first["ddim", 2]
    assert second["ddim+auto", 2] != first["ddim+auto", 2]
    keep(run, 2)  # back to the first, whose cell is there
    assert measured(run, steps=("--steps", "2")) == 0
    assert (cells(run), len(files(run))) == (first, 3)
    (beside,) = run.glob("table/*/table.txt")
    assert "Not shown: 1 cells that were made with an earlier calibration" in " ".join(beside.read_text().split())
    grid = json.loads(beside.with_suffix(".json").read_text())
    assert [cell["value"] for row in grid["blocks"][0]["rows"] for cell in row["cells"]] == list(first.values())


def test_every_missing_calibration_is_named_before_anything_is_made(run, capsys):
    keep(run, 3)
    assert measured(run, rows=("--corrections", "none", "auto", "tsr+auto"), steps=("--steps", "2", "3")) == 2
    said = capsys.readouterr().err
    assert "3 calibrations are missing" in said
    for words in ("--sampler ddim --steps 2`", "--steps 2 --corrections tsr`", "--steps 3 --corrections tsr`"):
        assert words in said
    assert "--sampler ddim --steps 3`" not in said
    assert not (run / "table").exists()
    keep(run, 2).write_text("{}")
    assert measured(run, steps=("--steps", "2", "3")) == 2, "no hole in a table"
    assert "calibration-ddim-2-" in capsys.readouterr().err
    assert not (run / "table").exists()


def test_several_runs_are_looked_at_before_the_first_is_measured(run, tmp_path, capsys):
    keep(run, 2)
    other = shutil.copytree(run, tmp_path / "other")
    next(other.glob("calibration*")).unlink()
    given = {"name": "compare-samplers", "rows": ("--corrections", "auto"), "steps": ("--steps", "2")}
    assert measured(run, other, **given) == 2
    said = capsys.readouterr().err
    assert f"there is no {other}/calibration-ddim-2-" in said
    assert not (run / "table").exists()
    keep(other, 2)
    assert measured(run, other, **given) == 0
    assert list(cells(run)) == list(cells(other)) == [("ddim+auto", 2)]


def test_every_average_is_looked_at_before_the_first_is_measured(tmp_path, capsys):
    config = tiny(n_steps=2, save_freq=2, ema_decay=[0.9, 0.5])
    run = ip.new(config, tmp_path / "run").train().folder
    keep(run, 2, config=config)
    rows = ("--corrections", "auto", "--ema", "0.9", "0.5")
    assert measured(run, rows=rows, steps=("--steps", "2")) == 2
    assert "there is no" in capsys.readouterr().err
    assert not (run / "table").exists()


def test_a_column_of_evaluations_counts_what_a_calibration_asks(trained_with_classes, tmp_path):
    """Steps are chosen before it is known; a chain that asks twice then has no place in the column."""
    run = ip.load(shutil.copytree(trained_with_classes, tmp_path / "run"))
    guided = (ip.Guidance(2),)
    row = Sampling(ip.DDIM(), (ip.Auto(),), block=4)
    options = TableOptions([row], evaluations=[4])
    (slot,) = options.slots(run.config, lambda s: (calibrated.placed(s, ()), "spacing"))
    assert (slot.cell.sampling.steps, slot.why_not) == (4, None)
    with pytest.raises(ConfigError, match=r"with its calibration \(auto\) it asks the network 8 times"):
        options.slots(run.config, lambda s: (calibrated.placed(s, guided), "spacing"))
    assert replace(row, steps=4).evaluations(replace(row, steps=4).plan(run.schedule)) == 4
