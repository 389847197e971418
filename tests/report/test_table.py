"""Which numbers stand side by side, which of them is best, and what differs between runs."""

import json
import math
import re

import pytest
import yaml

from ddpm_ip.report.compare import differing_keys, lead, other_differences
from ddpm_ip.report.page import markdown_table, write_report
from ddpm_ip.report.plots import metric_by_evaluations, style_of
from ddpm_ip.report.run import Run, load_runs
from ddpm_ip.report.table import tables
from ddpm_ip.report.weights import weights_names

from .synthetic import VALUES, config, make_run, result


def write(run, *rows):
    (run / "results.json").write_text(json.dumps(rows))


def record(value, sampler, **facts):
    """A row of results in today's form."""
    row = result(value)
    sampling = {"sampler": sampler, "corrections": [], "clip": "rederive", "seed": 0, **facts}
    kept = ("metric", "value", "spread", "weights", "reference", "reference_sha256", "n_reference")
    return {**{key: row[key] for key in kept}, "n_images": row["n_samples"], "sampling": sampling}


def html(path):
    return path.read_text(encoding="utf-8")


def only_table(runs):
    (table,) = tables(load_runs(runs))
    return table


def test_values_and_best(runs):
    table = only_table(runs)
    assert [(s.row, s.steps) for s in table.settings] == sorted(VALUES)
    baseline, perturbed = table.columns
    for setting in table.settings:
        assert table.cells[setting, baseline].value == VALUES[setting.row, setting.steps]
        assert table.best(setting) == perturbed
        assert table.change(setting)[0] == pytest.approx(0.8)
    assert table.wins() == {baseline: 0, perturbed: 4}


@pytest.mark.parametrize(
    ("metric", "winner"), [("FD-pixels", 0), ("FD-other", 0), ("IS", 1), ("recall", 1), ("novel", None)]
)
def test_best_follows_the_metric(runs, metric, winner):
    write(runs[0], result(1.0, metric=metric))
    write(runs[1], result(2.0, metric=metric))
    table = only_table(runs)
    best = table.best(table.settings[0])
    assert (best and best.run) == winner


def test_ties_and_non_finite_values(runs):
    write(runs[0], result(1.0), result(math.nan, steps=20), result(3.0, steps=30))
    write(runs[1], result(1.0), result(2.0, steps=20))
    table = only_table(runs)
    assert [table.best(setting) for setting in table.settings] == [None, None, None]
    assert [table.compared(setting) for setting in table.settings] == [True, False, False]
    assert table.wins() == dict.fromkeys(table.columns, 0)


@pytest.mark.parametrize(
    ("first", "second", "ahead"),
    [
        ((0.1114, None), (0.1106, None), None),  # both print 0.111
        ((0.1116, None), (0.1106, None), 1),  # 0.112 and 0.111
        ((0.1106, None), (0.1114, None), None),
        ((12.0, None), (11.97, None), None),  # 12.0 twice
        ((0.5, 0.02), (0.48, 0.001), None),  # within the spread of one
        ((0.5, 0.011), (0.48, 0.011), None),  # ... of both together
        ((0.5, 0.009), (0.48, 0.009), 1),
        ((0.48, None), (0.5, 0.019), 0),
        ((0.48, math.nan), (0.5, None), None),  # a spread that is no number says nothing
        ((0.48, math.inf), (0.9, None), None),
        ((-0.02, None), (0.01, None), 0),  # KID may be below 0
    ],
)
def test_what_prints_the_same_or_differs_within_the_spread_is_a_tie(runs, tmp_path, first, second, ahead):
    for run, (value, spread) in zip(runs, (first, second), strict=True):
        write(run, result(value, spread=spread, metric="KID"))
    table = only_table(runs)
    best = table.best(table.settings[0])
    assert (best and best.run) == ahead
    assert sum(table.wins().values()) == (ahead is not None)
    text = html(write_report(runs, tmp_path / "page.html"))
    assert ('class="best"' in text, "(best)" in text) == (ahead is not None, ahead is not None)
    assert ("A tie: the values print the same" in text) == (ahead is None)
    markdown = markdown_table(runs)
    assert ("**" in markdown) == (ahead is not None and None not in (first[1], second[1])), "by a spread that is known"
    assert ("| ≈ " in markdown, "≈ </span>" in text) == (ahead is None, ahead is None)


def test_seeds_decide_only_beyond_their_spread(runs, tmp_path):
    """0.50, 0.54 against 0.51, 0.49 are within the spread; 0.60, 0.61 against 0.30, 0.32 are not."""
    near, far = ((0.50, 0.54), (0.51, 0.49)), ((0.60, 0.61), (0.30, 0.32))
    for i, run in enumerate(runs):
        rows = [(steps, pair[i]) for steps, pair in ((10, near), (20, far))]
        write(run, *(result(v, steps=k, seed=seed) for k, values in rows for seed, v in enumerate(values)))
    table = only_table(runs)
    assert table.wins() == {table.columns[0]: 0, table.columns[1]: 1}
    text = html(write_report(runs, tmp_path / "page.html"))
    assert text.count('class="best"') == 1
    assert "is baseline in 0 of 2 and perturbed in 1 of 2. In 1 of 2 nobody is" in text
    assert "Ahead in a row (marked; bold: by more than known spreads)" in text
    assert text.count("<strong><data") == 1
    assert "or differ seed by seed by no more than the spread of these differences" in text


def test_among_three_the_first_must_be_ahead_of_all(runs, tmp_path):
    third = make_run(tmp_path / "third")
    for run, value in zip([*runs, third], (0.1114, 0.1106, 0.5), strict=True):
        write(run, result(value))
    table = only_table([*runs, third])
    assert table.best(table.settings[0]) is None
    assert set(table.wins().values()) == {0}


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
        "ddim,var_type=fixed_large@uniform-linspace",
        "fixed_large@quad",
        "fixed_large@uniform-linspace",
    ]
    write(runs[0], result(1.0), result(2.0, sampler="ddim"))
    table = only_table(runs[:1])
    assert [table.family_label(setting) for setting in table.settings] == ["ddim,var_type=fixed_large", "fixed_large"]


def test_rows_are_named_in_order_and_steps_may_be_a_string(runs):
    """Evaluations are told where they are not the steps, and are what a plot is over."""
    ddim = record(2.0, {"name": "ddim", "eta": 0.0}, steps=30, spacing="10,10,10", evaluations=30)
    heun = record(3.0, {"name": "heun"}, steps=10, spacing="uniform-linspace", evaluations=19)
    write(runs[0], ddim, heun, record(1.0, {"name": "ddim", "eta": 0.0}, steps=50, spacing="uniform-linspace"))
    table = only_table(runs[:1])
    assert [(table.family_label(s), s.steps, s.evaluations) for s in table.settings] == [
        ("ddim", 50, 50), ("ddim · sections", "10,10,10", 30), ("heun", 10, 19),
    ]  # fmt: skip
    text = markdown_table(runs[:1])
    assert "| ddim · sections | 10,10,10 (30 evaluations) | 2.00 |" in text
    assert "| heun | 10 (19 evaluations) | 3.00 |" in text
    assert "| ddim | 50 | 1.00 |" in text
    lines = metric_by_evaluations(table).axes[0].lines
    assert [list(line.get_xdata()) for line in lines if len(line.get_xdata()) == 1] == [[50], [30], [19]]
    assert len({(line.get_color(), line.get_marker()) for line in lines if len(line.get_xdata()) == 1}) == 3


def test_optimised_times_are_named_and_not_listed(runs):
    """By a hash of how they were found only where there are several kinds."""
    kinds = [f"optimised, sha256:{digit * 12}" for digit in "ab"]
    for first, second, names in (
        ("quad", kinds[0], ["ddim@optimised", "ddim@quad"]),
        (*kinds, [f"ddim@{kind.replace(' ', '')}" for kind in kinds]),
    ):
        for run, spacing in zip(runs, (first, second), strict=True):
            write(run, record(1.0, {"name": "ddim"}, steps=5, spacing=spacing))
        table = only_table(runs)
        assert [table.family_label(setting) for setting in table.settings] == names


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


def test_averages_of_a_run_are_called_by_what_they_are(runs):
    write(runs[0], result(1.0), result(2.0, weights="ee" * 32, averaged="decay 0.5"))
    labels = [column.label for column in only_table(runs[:1]).columns]
    assert labels == ["baseline (abababab)", "baseline (decay 0.5)"]
    write(runs[0], *(result(1.0, weights=w * 32, averaged="decay 0.5") for w in ("ee", "ff")))  # of two steps
    assert [column.label for column in only_table(runs[:1]).columns] == ["baseline (eeeeeeee)", "baseline (ffffffff)"]


def test_the_first_average_is_called_by_its_decay_and_checkpoints_by_their_step(runs):
    """By a hash only where neither tells two weights apart."""
    (runs[0] / "config.yaml").write_text(yaml.safe_dump({**config(0.0), "train": {"ema_decay": [0.999, 0.5]}}))
    digests = {"aa" * 32: (1, "ema"), "bb" * 32: (1, "ema_2"), "cc" * 32: (2, "ema"), "dd" * 32: (2, "ema_2")}
    for step in (1, 2):
        folder = runs[0] / f"ckpt/step0000000{step}"
        folder.mkdir(parents=True)
        files = {f"{name}.safetensors": {"sha256": digest} for digest, (at, name) in digests.items() if at == step}
        (folder / "manifest.json").write_text(json.dumps(files))
    run = Run.load(runs[0])
    first, second, third, _ = digests
    assert weights_names(run, {first: True, second: "decay 0.5"}) == {first: "decay 0.999", second: "decay 0.5"}
    assert weights_names(run, {first: None, third: None}) == {first: "step 1", third: "step 2"}
    names = ["decay 0.999, step 1", "decay 0.5, step 1", "decay 0.999, step 2", "decay 0.5, step 2"]
    assert list(weights_names(run, dict.fromkeys(digests)).values()) == names
    assert weights_names(run, {"ee" * 32: None, "ff" * 32: None}) == {"ee" * 32: "eeeeeeee", "ff" * 32: "ffffffff"}


def test_a_single_sampler_has_the_colour_of_its_run_as_the_legend_says(runs):
    for run in runs[:1]:
        (run / "results.json").unlink()
    write(runs[1], result(1.0))
    (found,) = tables(load_runs(runs))
    (line,) = [container[0] for container in metric_by_evaluations(found).axes[0].containers]
    assert (line.get_color(), line.get_marker()) == style_of(1)


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
    assert "| sampler | steps | baseline | perturbed | ratio | difference |" in text
    assert "| fixed_large | 10 | 6.500 | 5.200 | 0.800 | −1.300 |" in text
    assert "not bold, since no spread is known" in text


def test_markdown_escapes(tmp_path):
    text = markdown_table([make_run(tmp_path / "a|b*<i>")])
    assert r"a\|b\*\<i\>" in text


@pytest.mark.parametrize("field", ["metric", "reference", "sampler", "respace_type", "reference_sha256"])
def test_no_html_gets_into_markdown(runs, field):
    """Raw HTML, an image from elsewhere, a link, a heading, another column, another line."""
    hostile = "<img src=x onerror=alert(1)>![a](http://x.example/)|# b\n\n# c &lt;script&gt; <!-- `"
    write(runs[0], result(1.0, **{field: hostile}))
    text = markdown_table(runs)
    assert not re.search(r"(?<!\\)[<>`]|(?<!\\)&|(?<!\\)!?\[|^#", text, flags=re.MULTILINE)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) <= 2  # two tables
