"""Reading run folders: what is tolerated, what is refused, and in which words."""

import json
import re

import pytest

from ddpm_ip.errors import UserError
from ddpm_ip.report.run import Run, load_runs

from .synthetic import make_run, result


def test_reads_everything(runs):
    run = Run.load(runs[1])
    assert run.name == "perturbed"
    assert run.settings["perturbation.gamma"] == 0.1
    assert [row["step"] for row in run.metrics] == list(range(100, 1001, 100))
    assert [step for step, _ in run.grids] == list(range(100, 1001, 100))
    assert (run.results[0].metric, run.results[0].steps, run.results[0].spread) == ("FD-pixels", 10, None)
    assert run.provenance["parameters"] == 12345
    assert not run.missing()
    assert not run.problems


@pytest.mark.parametrize(("kind", "words"), [("empty", "has no config.yaml"), ("absent", "does not exist")])
def test_says_what_was_looked_for(tmp_path, kind, words):
    folder = tmp_path / kind
    if kind == "empty":
        folder.mkdir()
    with pytest.raises(UserError, match=words) as error:
        Run.load(folder)
    assert all(name in str(error.value) for name in ("config.yaml", "metrics.jsonl", "results.json", "samples/"))


def test_cut_last_line_is_normal_but_damage_is_named(runs):
    log = runs[0] / "metrics.jsonl"
    whole = log.read_text()
    log.write_text(whole + '{"step": 1100, "lo')
    assert len(Run.load(runs[0]).metrics) == 10
    assert not Run.load(runs[0]).problems
    log.write_text('{"step": NaN}\nnoise\n' + whole)
    assert len(Run.load(runs[0]).metrics) == 10
    assert Run.load(runs[0]).problems == ("unreadable lines in metrics.jsonl, left out: 1, 2",)


def test_after_a_resume_the_newer_line_counts(runs):
    with (runs[0] / "metrics.jsonl").open("a") as log:
        log.write('{"step": 500, "loss": 7.0}\n')
    losses = {row["step"]: row["loss"] for row in Run.load(runs[0]).metrics}
    assert losses[500] == 7.0
    assert list(losses) == sorted(losses)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"metric": "FD-pixels"}, "row 1: value, sampler, steps missing"),
        (result("much"), "value must be a number"),
        (result(1.0, steps=0), "at least 1"),
        (result(1.0, steps=10**12), "at most"),
        (result(1.0, respace_type={"a": 1}), "spacing must be a text"),
        (result(1.0, computed=f"blocks of {'9' * 5000}, bf16, on cpu"), "row 1"),
        ("text", "must be an object"),
    ],
)
def test_bad_rows_are_told_with_their_place(runs, row, words):
    (runs[0] / "results.json").write_text(json.dumps([row]))
    run = Run.load(runs[0])
    assert not run.results
    assert [re.search(words, problem) is not None for problem in run.problems] == [True]
    assert run.problems[0].startswith("results.json")


@pytest.mark.parametrize("name", ["results.json", "provenance.json"])
def test_damaged_json_is_told_by_name(runs, name):
    (runs[0] / name).write_text('{"half": ')
    (problem,) = Run.load(runs[0]).problems
    assert problem.startswith(f"{name} cannot be read: it is not valid JSON")
    assert problem.endswith("It is left out of this report")


def test_names_are_unique(tmp_path):
    paths = [make_run(tmp_path / "a" / "exp"), make_run(tmp_path / "b" / "exp"), make_run(tmp_path / "other")]
    assert [run.name for run in load_runs(paths)] == ["a/exp", "b/exp", "other"]
    with pytest.raises(UserError, match="twice"):
        load_runs([paths[0], paths[0]])
    with pytest.raises(UserError, match="at least one"):
        load_runs([])


def test_files_outside_the_run_are_not_read(runs):
    run = Run.load(runs[0])
    assert run.file("eval/fixed_large-10.png")
    assert run.file("../perturbed/config.yaml") is None
    assert run.file(str(runs[1] / "config.yaml")) is None
