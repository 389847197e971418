"""Which numbers stand side by side, which of them is best, and what differs between runs."""

import json
import math

import pytest
import yaml

from ddpm_ip.report.compare import differing_keys, lead, other_differences
from ddpm_ip.report.page import markdown_table
from ddpm_ip.report.plots import metric_by_evaluations
from ddpm_ip.report.run import load_runs
from ddpm_ip.report.table import tables

from .synthetic import VALUES, config, make_run, result


def write(run, *rows):
    (run / "results.json").write_text(json.dumps(rows))


def record(value, sampler, **facts):
    """A row of results in today's form."""
    row = result(value)
    sampling = {"sampler": sampler, "corrections": [], "clip": "rederive", "seed": 0, **facts}
    kept = ("metric", "value", "spread", "weights", "reference", "reference_sha256", "n_reference")
    return {**{key: row[key] for key in kept}, "n_images": row["n_samples"], "sampling": sampling}


def only_table(runs):
    (table,) = tables(load_runs(runs))
    return table


def test_values_and_best(runs):
    table = only_table(runs)
    assert [(s.row, s.steps) for s in table.settings] == sorted(VALUES)
    baseline, perturbed = table.columns
    for setting in table.settings:
        assert table.cells[setting, baseline].value == VALUES[setting.row, setting.steps]
        assert table.best(setting) == {perturbed}
        assert table.change(setting)[0] == pytest.approx(0.8)
    assert table.wins() == {baseline: 0, perturbed: 4}


@pytest.mark.parametrize(
    ("metric", "winners"), [("FD-pixels", {0}), ("FD-other", {0}), ("IS", {1}), ("recall", {1}), ("novel", set())]
)
def test_best_follows_the_metric(runs, metric, winners):
    write(runs[0], result(1.0, metric=metric))
    write(runs[1], result(2.0, metric=metric))
    table = only_table(runs)
    assert {column.run for column in table.best(table.settings[0])} == winners


def test_ties_and_non_finite_values(runs):
    write(runs[0], result(1.0), result(math.nan, steps=20), result(3.0, steps=30))
    write(runs[1], result(1.0), result(2.0, steps=20))
    table = only_table(runs)
    assert [len(table.best(setting)) for setting in table.settings] == [2, 0, 0]
    assert table.wins() == dict.fromkeys(table.columns, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"metric": "FID"},
        {"reference_sha256": "99" * 32},
        {"n_samples": 50000},
        {"n_reference": 10},
        {"extractor": "x (sha 2)"},
        {"computed": "blocks of 8, float32, on cpu"},
    ],
)
def test_protocols_are_never_mixed(runs, change):
    write(runs[0], result(1.0))
    write(runs[1], result(2.0, **change))
    found = tables(load_runs(runs))
    assert [len(table.columns) for table in found] == [1, 1]
    assert not any(table.best(setting) for table in found for setting in table.settings)


def test_sampler_and_respacing_make_rows_of_their_own(runs):
    write(runs[0], result(1.0), result(2.0, sampler="ddim"), result(3.0, respace_type="quad"))
    table = only_table(runs[:1])
    labels = [table.family_label(setting) for setting in table.settings]
    assert labels == [
        "ddim, var_type fixed_large · uniform-linspace",
        "fixed_large · quad",
        "fixed_large · uniform-linspace",
    ]
    write(runs[0], result(1.0), result(2.0, sampler="ddim"))
    table = only_table(runs[:1])
    assert [table.family_label(setting) for setting in table.settings] == ["ddim, var_type fixed_large", "fixed_large"]


def test_rows_are_named_in_order_and_steps_may_be_a_string(runs):
    """Evaluations are told where they are not the steps, and are what a plot is over."""
    ddim = record(2.0, {"name": "ddim", "eta": 0.0}, steps=30, spacing="10,10,10", evaluations=30)
    heun = record(3.0, {"name": "heun"}, steps=10, spacing="uniform-linspace", evaluations=19)
    write(runs[0], ddim, heun, record(1.0, {"name": "ddim", "eta": 0.0}, steps=50, spacing="uniform-linspace"))
    table = only_table(runs[:1])
    assert [(table.family_label(s), s.steps, s.evaluations) for s in table.settings] == [
        ("ddim, eta 0", 50, 50), ("ddim, eta 0 · sections", "10,10,10", 30), ("heun", 10, 19),
    ]  # fmt: skip
    text = markdown_table(runs[:1])
    assert "| ddim, eta 0 · sections | 10,10,10 (30 evaluations) | 2.00 |" in text
    assert "| heun | 10 (19 evaluations) | 3.00 |" in text
    assert "| ddim, eta 0 | 50 | 1.00 |" in text
    lines = metric_by_evaluations(table).axes[0].lines
    assert [list(line.get_xdata()) for line in lines if len(line.get_xdata()) == 1] == [[50], [30], [19]]
    assert len({(line.get_color(), line.get_marker()) for line in lines if len(line.get_xdata()) == 1}) == 3


def test_many_samplers_of_two_runs_differ_in_dashes_or_markers(runs):
    for run in runs:
        write(run, *(record(1.0 + i, {"name": "ddim", "eta": i / 10}, steps=5) for i in range(8)))
    axes = metric_by_evaluations(only_table(runs)).axes[0]
    lines = [container[0] for container in axes.containers]
    assert len({(line.get_color(), str(line._dash_pattern), line.get_markerfacecolor()) for line in lines}) == 16


def test_seeds_are_averaged_and_weights_are_not(runs):
    write(runs[0], result(1.0), result(3.0, seed=1), result(9.0, weights="ee" * 32))
    table = only_table(runs[:1])
    first, second = (table.cells[table.settings[0], column] for column in table.columns)
    assert (first.value, first.spread, first.seeds) == (2.0, pytest.approx(math.sqrt(2)), 2)
    assert (second.value, second.seeds) == (9.0, 1)
    assert [column.label for column in table.columns] == ["baseline (abababab)", "baseline (eeeeeeee)"]


def test_differing_keys_and_lead(runs):
    loaded = load_runs(runs)
    assert differing_keys(loaded) == ["perturbation.gamma", "perturbation.name"]
    text = lead(loaded)
    assert text.startswith("Two runs are compared: baseline (plain DDPM) and perturbed (input perturbation, γ = 0.1).")
    assert "perturbation.gamma (0, 0.1)" in text
    assert "the other seven settings are the same, the seed among them" in text


def test_the_same_number_written_differently_is_no_difference(tmp_path):
    paths = [make_run(tmp_path / "a"), make_run(tmp_path / "b")]
    for path, value in zip(paths, ["2e-4", "0.0002"], strict=True):
        (path / "config.yaml").write_text(yaml.safe_dump(config(0.0)) + f"lr: {value}\n")
    assert differing_keys(load_runs(paths)) == []
    assert "the same in all" in lead(load_runs(paths))


def test_differences_outside_the_config_are_told(runs):
    path = runs[1] / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hardware": "another machine"}))
    (sentence,) = other_differences(load_runs(runs))
    assert "hardware (baseline: a machine; perturbed: another machine)" in sentence


def test_markdown(runs):
    text = markdown_table(runs)
    assert "FD-pixels, 1797 samples against 1797 images of digits (SHA-256 cdcdcdcdcdcd)" in text
    assert "| sampler | steps | baseline | perturbed | ratio |" in text
    assert "| fixed_large | 10 | 6.500 | **5.200** | 0.800 |" in text


def test_markdown_escapes(tmp_path):
    text = markdown_table([make_run(tmp_path / "a|b*<i>")])
    assert r"a\|b\*\<i\>" in text
