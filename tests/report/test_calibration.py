"""Calibrations on the page: what was chosen, why, what it cannot know, and what was measured with it."""

import json
import re

import pytest

from ddpm_ip.report.calibration import without_auto
from ddpm_ip.report.run import Run

from .laboratory import calibration, put_calibration
from .test_page import HOSTILE, report
from .test_table import record, write

UNMEASURED = "No number with --corrections auto was measured yet"


@pytest.mark.parametrize(
    ("row", "without"),
    [
        ("ddim,eta=0+auto", "ddim,eta=0"),
        ("ddim+guidance,scale=2+auto", "ddim+guidance,scale=2"),
        ("ddim+auto+clip=none", "ddim+clip=none"),
        ("ddim", None),
        ("auto", None),
    ],
)
def test_the_row_without_it(row, without):
    assert without_auto(row) == without


def test_what_was_chosen_is_told(runs, tmp_path):
    assert "Calibration</h2>" not in report(runs, tmp_path)[0]
    put_calibration(runs[0], calibration())
    text, _ = report(runs, tmp_path)
    for piece in (
        "baseline: ddim, 10 steps",
        "Chosen: <code>epsilon_scaling,scale=1.01</code> (constant scale). It leaves the least.",
        "A shorter distance.",
        "What your features see.",
        "perturbation.gamma: 0.05 is enough.",
        "calibration-ddim-10-01234567.json: 1,000 images, 2026-01-02T03:04:05+00:00.",
        UNMEASURED,
    ):
        assert piece in text
    (row,) = re.findall(r'<tr class="chosen">.*?</tr>', text)
    assert re.findall(r"<td>(.*?)</td>", row) == ["0.125", "–"]


def test_shares_of_the_mismatch_come_before_it_and_long_tables_are_counted(runs, tmp_path):
    table = [{"name": "epsilon_scaling", "times": [1.0, 2.0, 3.0, 4.0], "scales": [1.0, 1.0, 1.0, 1.0]}]
    one = {"name": "by t", "corrections": table, "mismatch": 7.0, "share": 0.75, "n": 40, "distance": None}
    put_calibration(runs[0], calibration(candidates=[one], chosen="by t", corrections=table))
    text, _ = report(runs, tmp_path)
    (row,) = re.findall(r'<tr class="chosen">.*?</tr>', text)
    assert re.findall(r"<td>(.*?)</td>", row) == ["0.75"]
    assert "epsilon_scaling,times=(4 numbers),scales=(4 numbers)" in row


def test_the_best_candidate_comes_first(runs, tmp_path):
    tried = [("none", 1.0, 0.3), ("tsr", 0.2, None), ("time_shift", 0.1, None), ("gains", 0.7, 0.1)]
    candidates = [
        {"name": name, "corrections": [], "mismatch": 1.0, "share": share, "distance": distance}
        for name, share, distance in tried
    ]
    put_calibration(runs[0], calibration(candidates=candidates, chosen="gains"))
    text, _ = report(runs, tmp_path)
    folded = text[text.index("4 candidates, what it expects, cannot know and suggests</summary>") :]
    table = folded[folded.index("<tbody") : folded.index("</tbody>")]
    assert re.findall(r'scope="row">(\w+)', table) == ["gains", "none", "time_shift", "tsr"]


def test_measured_pairs_stand_side_by_side(runs, tmp_path):
    auto = [{"name": "auto", "calibration": "sha256:0123456789ab"}]
    ddim = {"sampler": {"name": "ddim", "eta": 0.0}, "evaluations": 10, "steps": 10}
    other = {**ddim, "steps": 20, "evaluations": 20}
    rows = [record(v, **facts) for v, facts in ((2.0, ddim), (1.5, {**ddim, "corrections": auto}), (1.0, other))]
    write(runs[0], *rows)
    text, _ = report(runs[:1], tmp_path)
    section = text[text.index("Calibration</h2>") :]
    assert UNMEASURED not in section
    table = section[: section.index("</table>")]
    assert re.findall(r"<td(?: class=\"\w+\")?>(.*?)</td>", table) == [
        'ddim<span class="spread"> 10 steps</span>',
        "2.00",
        "1.50",
        "−25.0\u00a0%",
    ]
    assert "no spread is known" in section


def test_a_name_of_the_file_serves_where_nothing_says_the_sampling(runs, tmp_path):
    put_calibration(runs[0], calibration(settings={}, candidates=None, corrections=[]))
    text, _ = report(runs, tmp_path)
    assert "baseline: ddim, 10 steps" in text
    assert "Chosen: <code>none</code>" in text


@pytest.mark.parametrize(
    "change",
    [
        {"corrections": [3]},
        {"chosen": None},
        {"candidates": [3]},
        {"candidates": [{"name": "a", "mismatch": "x"}]},
        {"candidates": 7},
    ],
)
def test_a_damaged_one_is_told_and_left_out(runs, tmp_path, change):
    put_calibration(runs[0], calibration(**change))
    (problem,) = Run.load(runs[0]).problems
    assert "calibration-ddim-10-01234567.json" in problem
    assert "Calibration</h2>" not in report(runs, tmp_path)[0]


def test_hostile_ones_are_text(runs, tmp_path):
    odd = {"name": HOSTILE, HOSTILE: HOSTILE}
    changes = {
        "corrections": [odd],
        "candidates": [{**odd, "corrections": [odd], "mismatch": 1e400, "distance": "nan"}],
    }
    said = dict.fromkeys(("chosen", "why", "expects", "measured"), HOSTILE)
    put_calibration(runs[0], calibration(**changes, **said, cannot_know=[HOSTILE, 3], suggestions={HOSTILE: HOSTILE}))
    text, page = report(runs, tmp_path)
    assert not Run.load(runs[0]).problems
    assert not page.all("script")
    assert json.dumps(HOSTILE)[1:5] not in text
