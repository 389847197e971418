"""The top of the page: each run against the baseline, with what is known of the spread; runs of several seeds."""

import math
import re

import pytest
import yaml

from ddpm_ip.report.effect import draw_effects, effects, sentences
from ddpm_ip.report.groups import group_name
from ddpm_ip.report.numbers import figures, fixed, minus, percent, signed
from ddpm_ip.report.page import markdown_table
from ddpm_ip.report.run import load_runs
from ddpm_ip.report.table import tables

from .laboratory import calibration, exposure, put_calibration, put_exposure
from .synthetic import config, make_run, result
from .test_page import report, saved
from .test_table import only_table, write


def of_seed(folder, seed, gamma, *values):
    """A run of a training seed, with a number at 10, 20, ... steps."""
    run = make_run(folder, gamma)
    (run / "config.yaml").write_text(yaml.safe_dump(config(gamma) | {"seed": seed}))
    weights = f"{seed}{int(10 * gamma)}" * 32
    write(run, *(result(v, steps=10 * (i + 1), weights=weights, metric="KID") for i, v in enumerate(values)))
    return run


@pytest.fixture
def swept(tmp_path):
    """Seed by seed -1.05, -1 and -0.95 at 10 steps, and 0.3, 0.1 and -0.1, a tie, at 20 steps."""
    plain = [of_seed(tmp_path / f"g0-seed{s}", s, 0.0, 4.0 + d, 2.0 + d) for s, d in enumerate((-0.1, 0.0, 0.1))]
    return plain + [
        of_seed(tmp_path / f"g1-seed{s}", s, 0.1, 3.0 + 1.5 * d, 2.1 - d) for s, d in enumerate((-0.1, 0.0, 0.1))
    ]


def test_runs_that_differ_in_their_seed_alone_are_one_column(swept, tmp_path):
    loaded = load_runs(swept)
    assert [(run.series, run.group) for run in loaded] == [(0, "g0 (3 seeds)")] * 3 + [(1, "g1 (3 seeds)")] * 3
    (table,) = tables(loaded)
    assert [column.label for column in table.columns] == ["g0 (3 seeds)", "g1 (3 seeds)"]
    cell = table.cells[table.settings[0], table.columns[0]]
    assert (cell.value, cell.spread, cell.seeds, cell.over) == (
        pytest.approx(4.0),
        pytest.approx(0.1),
        3,
        "training seeds",
    )
    assert table.wins() == {table.columns[0]: 0, table.columns[1]: 1}
    text, page = report(swept, tmp_path)
    assert text.count("<strong><data") == text.count('class="best"') == 1
    assert text.count("≈ </span>") == 2, "both of the tie"
    assert "−1.00 ± 0.05</td>" in text
    assert "+0.10 ± 0.20</td>" in text
    assert "Differences are taken seed by seed (3 seeds)" in text
    markdown = markdown_table(swept)
    assert "| ≈ 2.00 ± 0.10 | ≈ 2.10 ± 0.10 |" in markdown
    assert "| 4.00 ± 0.10 | **3.00** ± 0.15 | 0.750 | −1.00 ± 0.05 |" in markdown
    assert "Six runs are compared, two settings with several seeds: g0 (3 seeds) (plain DDPM) and g1 (3 seeds)" in text
    numbers = saved(page, "kid.csv").splitlines()
    assert len(numbers) == 1 + 12, "each measurement, so that other spreads can be computed"


def test_effects_and_their_margins(swept):
    (table,) = tables(load_runs(swept))
    found = effects(table, load_runs(swept))
    first, second = found.every
    assert (first.size, first.margin, first.tie) == (pytest.approx(-0.25), pytest.approx(0.0125), False)
    assert (second.size, second.margin, second.tie) == (pytest.approx(0.05), pytest.approx(0.1), True)
    assert (first.seeds, second.seeds) == (3, 3)
    said, sure = sentences(found)
    assert said == (
        "g1 (3 seeds) against g0 (3 seeds): KID (lower is better) is lower in 1 and tied in 1 of 2 settings "
        "(median −10.0\u00a0%, from −25.0\u00a0% to +5.0\u00a0%)."
    )
    assert sure == (
        "Compared seed by seed: the spread is the standard deviation of the differences over 3 training seeds; "
        "what is within it is a tie. With so few seeds, what is beyond it may still be chance."
    )
    axes = draw_effects(found).axes[0]
    zero, *lines = [line for line in axes.lines if len(line.get_xdata()) == 2]
    assert list(zero.get_ydata()) == [0, 0]
    assert [list(line.get_ydata()) for line in lines if len(line.get_xdata()) == 2][-1] == pytest.approx([-25, 5])
    low, high = (axes.collections[0].get_paths()[0].vertices[:, 1].__getattribute__(end)() for end in ("min", "max"))
    assert (low, high) == pytest.approx((-26.25, 15)), "the band"


def test_seeds_that_are_not_the_same_are_no_pairs(swept, tmp_path):
    """Then both spreads count: 0.1 and 0.15 of 4."""
    other = of_seed(tmp_path / "g1-seed7", 7, 0.1, 3.15, 2.0)
    runs = [*swept[:5], other]
    (table,) = tables(load_runs(runs))
    first, _ = effects(table, load_runs(runs)).every
    assert (first.seeds, first.margin) == (0, pytest.approx(0.25 / 4))
    assert table.pairs == 0
    assert sentences(effects(table, load_runs(runs)))[-1].startswith("Spread: the standard deviation over 3 training")


def test_of_a_run_alone_no_spread_is_known(swept, tmp_path):
    """Beside groups of seeds: it has no row in a matrix of samples that it has none of, and nothing of it is bold."""
    alone = make_run(tmp_path / "alone", 0.2)
    write(alone, result(1.0, metric="KID"), result(1.0, metric="KID", var_type="fixed_small"))
    runs = [*swept, alone]
    loaded = load_runs(runs)
    (table,) = tables(loaded)
    assert sentences(effects(table, loaded))[-1].endswith("may still be chance. Of some numbers no spread is known.")
    assert [table.sure(s, c) for s, c in table.cells if s.steps == 10 and s.row == "fixed_large"] == [False] * 3
    text, _ = report(runs, tmp_path)
    assert "Seven runs are compared, three settings, two of them with several seeds:" in text
    assert "no samples at this setting" not in text[text.index("<h3>fixed_small") : text.index("During training")]


def test_one_seed_has_no_spread_and_nothing_is_bold(runs, tmp_path):
    found = effects(only_table(runs), load_runs(runs))
    assert {effect.margin for effect in found.every} == {None}
    said, sure = sentences(found)
    assert "FD-pixels (lower is better) is lower in all of 4 settings (median −20.0\u00a0%" in said
    assert sure.startswith("One training seed and one sampling seed: no spread is known")
    text, _ = report(runs, tmp_path)
    assert text.index("against baseline, the zero line; below it is better") < text.index("<h2>")
    assert "<strong><data" not in text


def test_the_baseline_is_plain_and_a_tie_is_called_one(tmp_path):
    runs = [make_run(tmp_path / "ip", 0.1), make_run(tmp_path / "plain")]
    loaded = load_runs(runs)
    found = effects(only_table(runs), loaded)
    assert found.baseline.label == "plain"
    assert "is tied in all of 4 settings (median 0.0\u00a0%" in sentences(found)[0]


def test_values_at_or_below_zero_are_compared_by_difference(runs):
    write(runs[0], result(0.01, metric="KID"))
    write(runs[1], result(-0.02, metric="KID"))
    found = effects(only_table(runs), load_runs(runs))
    assert not found.relative
    assert found.every[0].size == pytest.approx(-0.03)
    assert "(−0.03)" in sentences(found)[0]


def test_one_run_alone_has_its_best_on_top(runs, tmp_path):
    text, _ = report(runs[:1], tmp_path)
    top = text[: text.index("<h2>")]
    assert "The lowest FD-pixels is 0.750 (fixed_small, 100 evaluations)." in top
    assert "With 10 network evaluations the lowest is 4.250" in top


def test_runs_of_the_same_seed_are_no_group(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b")]
    assert [run.group for run in load_runs(runs)] == ["a", "b"]


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (["x"], "x"),
        (["gamma-0.1-seed0", "gamma-0.1-seed1"], "gamma-0.1 (2 seeds)"),
        (["gamma-0.1/seed-10", "gamma-0.1/seed-11"], "gamma-0.1 (2 seeds)"),
        (["gamma=0.1,seed=0", "gamma=0.1,seed=1"], "gamma=0.1 (2 seeds)"),
        (["a_s1", "a_s2", "a_s3"], "a (3 seeds)"),
        (["one", "two"], "one and others (2 seeds)"),
        (["0", "1"], "0 and others (2 seeds)"),
    ],
)
def test_a_group_is_called_by_what_its_names_begin_with(names, called):
    assert group_name(names) == called


@pytest.mark.parametrize("value", [-0.0, -0.0001, -1e-12])
def test_there_is_no_minus_before_a_zero(value):
    assert fixed(value, 3) == "0.000"
    assert signed(fixed(value, 3)) == "0.000"
    assert figures(-0.0) == "0"
    assert fixed(value, 3, signs=True) == "0.000"
    assert percent(value / 10) == "0.0\u00a0%"


def test_signs():
    assert (signed("-1.5"), signed("1.5"), signed("inf")) == ("−1.5", "+1.5", "+inf")
    assert math.isnan(float(signed("nan").lstrip("+")))
    assert (fixed(1.5, 2, signs=True), fixed(-1.5, 2, signs=True)) == ("+1.50", "-1.50")
    assert minus("a-b, [-0.5, 2e-05] -.5") == "a-b, [−0.5, 2e−05] −.5"
    assert percent(12.0) == "+1200\u00a0%"


def test_what_is_not_of_the_newest_weights_is_flagged(runs, tmp_path):
    old, new = "ab" * 32, "99" * 32
    for step, digest in ((100, old), (200, new)):
        folder = runs[0] / f"ckpt/step{step:08d}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(f'{{"ema.safetensors": {{"sha256": "{digest}"}}, "meta.json": {{}}}}')
    put_exposure(runs[0], exposure(weights="77" * 32))
    put_calibration(runs[0], calibration(weights=new))
    (loaded,) = load_runs(runs[:1])
    assert list(loaded.checkpoints.values()) == [f"ckpt/step00000{n}00/ema.safetensors" for n in (1, 2)]
    text, _ = report(runs[:1], tmp_path)
    assert "exposure curves of weights 777777777777, which are in none of its checkpoints" in text
    assert "results of step 100, while the newest checkpoint is of step 200" in text
    assert "calibrations of" not in text


def test_the_loss_of_input_perturbation_is_explained(runs, tmp_path):
    text, _ = report(runs, tmp_path)
    assert re.search(r"<i>γ</i>²/\(1 \+ <i>γ</i>²\)</span>: 0.0099 for γ = 0.1\.", text)
    assert "least possible loss" not in report(runs[:1], tmp_path)[0]
