"""What `evaluate` and `table --keep_images` left, and what `train.eval` measured, are on the page."""

import json
import os
import re

import numpy as np
import pytest

from ddpm_ip.images import save_png
from ddpm_ip.report.page import write_report
from ddpm_ip.report.run import Run, load_runs
from ddpm_ip.report.table import UNKNOWN, tables

from .synthetic import make_run

OURS, THEIRS = "ab" * 32, "99" * 32  # the weights of the rows of synthetic runs, and others


def evaluation(value=1.25, weights=OURS, metric="FD-pixels", steps=50, **protocol):
    """What `ddpm-ip evaluate` adds to its file."""
    sampling = {"weights": weights, "averaged": True, "sampler": {"name": "ddim", "eta": 0.0}, "corrections": []}
    sampling |= {"clip": "rederive", "steps": steps, "spacing": "uniform-linspace", "evaluations": steps, "seed": 0}
    known = {"n_images": 1797, "reference": "digits", "reference_sha256": "cd" * 32, "n_reference": 1797}
    known |= {"line": "the protocol", "sampling": sampling if weights else None}
    return {"values": {metric: value}, "protocol": {**known, **protocol}, "warnings": []}


def put(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def samples(folder, n=5):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        save_png(np.full((1, 8, 8), 40 * i, np.uint8), folder / f"{i:06d}.png")
    (folder / "sampling.json").write_text("{}")
    return folder


def page(runs, tmp_path):
    return write_report(runs, tmp_path / "page.html").read_text(encoding="utf-8")


def measured(run):
    return [(record.metric, record.value, record.grid) for record in Run.load(run).results if record.steps == 50]


@pytest.mark.parametrize(
    "place",
    [
        "baseline/ddim/evaluation.json",  # samples in the run
        "baseline/eval/deep/ddim/evaluation.json",
        "baseline/ddim.evaluation.json",  # of an npz
        "baseline/judged.json",  # --out
        "ddim-50/evaluation.json",  # samples next to the run
        "baseline-samples/ddim-50/evaluation.json",
        "baseline.json",  # --out next to the run
        "numbers.evaluation.json",
    ],
)
def test_evaluations_in_and_next_to_a_run_are_found(runs, tmp_path, place):
    put(tmp_path / place, evaluation())
    assert measured(runs[0]) == [("FD-pixels", 1.25, None)]
    text = page(runs[:1], tmp_path)
    assert 'value="1.25"' in text
    assert "ddim" in text
    assert place.rpartition("/")[2] in text  # among the files that the numbers are from


def test_next_to_a_run_only_what_is_of_its_weights(runs, tmp_path):
    put(tmp_path / "samples/a/evaluation.json", evaluation(weights=THEIRS))
    put(tmp_path / "samples/b/evaluation.json", evaluation(weights=None))
    put(tmp_path / "unrelated.json", {"values": {"a": 1}, "protocol": {}})
    put(tmp_path / "broken.evaluation.json").write_text("[{")
    assert measured(runs[0]) == []
    assert not Run.load(runs[0]).problems
    manifest = runs[0] / "ckpt/step00000100/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"ema.safetensors": {"bytes": 1, "sha256": THEIRS}}))
    assert measured(runs[0]) == [("FD-pixels", 1.25, None)]


def test_they_stand_beside_other_runs_in_one_table(runs):
    for run, weights in zip(runs, (OURS, THEIRS), strict=True):
        put(run / "ddim/evaluation.json", evaluation(value=2.0 if weights == OURS else 1.0, weights=weights))
        (run / "results.json").unlink()
        (run / "ckpt/step1").mkdir(parents=True)
        (run / "ckpt/step1/manifest.json").write_text(json.dumps({"ema.safetensors": {"sha256": weights}}))
    (table,) = tables(load_runs(runs))
    assert [cell.value for cell in table.cells.values()] == [2.0, 1.0]
    assert table.best(table.settings[0]) == table.columns[1]


def test_images_of_unknown_sampling_have_a_row_of_their_own(runs, tmp_path):
    """An npz of version 0.1 says nothing of its sampling: two are not one number measured twice."""
    for name, value in (("one", 1.5), ("two", 2.5)):
        lies = {"samples_path": f"/somewhere/{name}.npz"}
        put(runs[0] / f"{name}.evaluation.json", evaluation(value, weights=None, **lies))
    (runs[0] / "results.json").unlink()
    (table,) = tables(load_runs(runs[:1]))
    assert [(s.row, s.steps) for s in table.settings] == [
        ("images in one.npz", UNKNOWN),
        ("images in two.npz", UNKNOWN),
    ]
    text = page(runs[:1], tmp_path)
    assert 'value="1.5"' in text
    assert 'value="2.5"' in text


def test_evaluated_samples_are_pictured(runs, tmp_path):
    folder = samples(tmp_path / "of-baseline/ddim")
    put(folder / "evaluation.json", evaluation())
    before = page(runs, tmp_path).count("<img")
    (run,) = load_runs(runs[:1])
    assert run.folders == {"../of-baseline/ddim": folder}
    assert 'alt="Samples of baseline, ddim, 50 steps"' in page(runs[:1], tmp_path)
    (folder / "sampling.json").unlink()  # no folder of samples: somebody's pictures are not shown
    assert page(runs, tmp_path).count("<img") == before - 2  # both runs have these weights


def test_kept_images_of_a_table_are_told(runs, tmp_path):
    for name in ("images-ddim-50-seed0", "images-ddim-10-seed0"):
        samples(runs[0] / "table/0123456789ab" / name)
    text = page(runs, tmp_path)
    assert "baseline: images that the table kept: 10 in table/0123456789ab/images-… (2 cells)." in text


def lines(*values, metric="FD-pixels", start=100):
    rows = [evaluation(value, weights=None, metric=metric) for value in values]
    return "".join(json.dumps({"step": start * (i + 1), **row}) + "\n" for i, row in enumerate(rows))


@pytest.mark.parametrize(("metric", "best"), [("FD-pixels", "2 (step 200)"), ("IS", "7 (step 300)"), ("novel", "–")])
def test_what_train_eval_measured_is_told(tmp_path, metric, best):
    run = make_run(tmp_path / "run")
    (run / "results.json").unlink()
    (run / "evaluations.jsonl").write_text(lines(3.0, 2.0, 7.0, 5.0, metric=metric))
    text = page([run], tmp_path)
    assert "nothing has been evaluated yet" not in text
    assert "it was evaluated during training alone" in text
    assert "No run has been measured after its training yet." in text
    cells = re.findall(r"<td>(.*?)</td>", re.search(r'<table class="during">.*?</table>', text, flags=re.DOTALL)[0])
    assert cells == [metric, "4", "5 (step 400)", best]


def test_a_run_that_was_never_evaluated_is_still_told(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "results.json").unlink()
    text = page([run], tmp_path)
    assert "nothing has been evaluated yet" in text
    assert "train.eval" not in text


def test_a_search_ends(runs, tmp_path):
    """Links in a circle, pipes, and folders that cannot be read are passed over."""
    os.symlink(tmp_path, runs[0] / "again")
    os.mkfifo(runs[0] / "evaluation.json")
    os.mkfifo(tmp_path / "beside.json")
    run = Run.load(runs[0])
    assert [problem.partition(" ")[0] for problem in run.problems] == ["evaluation.json"]
    assert len(run.results) == 4
