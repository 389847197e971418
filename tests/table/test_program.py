"""The results table: every cell, however often the call is ended, and nothing side by side that does not compare."""

import csv
import json
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
from tests.tiny import (
    ROOT,
    Forked,
    briefly_trained,
    contents,
    one_thread,
    run,
    tiny,
    tree,
    two_processes,
    wait_for,
)

from ddpm_ip import estimate
from ddpm_ip.cli import main
from ddpm_ip.commands.compare_samplers import every_sampler
from ddpm_ip.config import from_dict, load, merge
from ddpm_ip.data import Digits, Npz
from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.evaluate.features import Pixels
from ddpm_ip.files import read_json
from ddpm_ip.report.run import load_runs
from ddpm_ip.report.table import tables
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.record import records
from ddpm_ip.run.row import row_label
from ddpm_ip.sample.generator import Generator
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver
from ddpm_ip.sampler.correction import EpsilonScaling
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.table import program
from ddpm_ip.table.layout import as_csv, as_markdown, as_text, lay_out
from ddpm_ip.table.program import table
from ddpm_ip.table.rows import TableOptions, brief

OPTIONS = {"steps": (4, 2), "n_samples": 20, "extractor": "pixels"}
CELLS = [f"{variance}, {k} steps, seed 0" for k in (2, 4) for variance in ("fixed_large", "fixed_small")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return briefly_trained(tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def expected(trained, tmp_path_factory):
    """The files of one uninterrupted call."""
    with pytest.MonkeyPatch.context() as patch:
        one_thread(patch)
        folder = shutil.copytree(trained, tmp_path_factory.mktemp("expected") / "run")
        make(folder)
    return contents(folder / "table")


def make(folder, on_cell=lambda name: None, reference=None, block=8, variances=None, samplers=None, **changes):
    changes = {"sampling": Sampling(block=block), **changes}
    if variances is not None:
        samplers = [Ancestral(v) for v in variances]
    if samplers is not None:
        changes["rows"] = [replace(changes["sampling"], sampler=sampler) for sampler in samplers]
    options = TableOptions(**{**OPTIONS, **changes})
    return table(load(folder / "config.yaml"), folder, options, reference, on_cell)


def values(grid, metric="FD-pixels"):
    """(variance, steps) -> cell, of what was measured here."""
    (block,) = [block for block in grid["blocks"] if block["metric"] == metric]
    ours = [row for row in block["rows"] if row["source"] is None]
    return {(r["label"], k): c for r in ours for k, c in zip(grid["steps"], r["cells"], strict=True)}


def test_every_cell_is_measured_cheap_ones_first_and_no_image_is_written(folder, expected):
    made = []
    grid = make(folder, made.append)
    assert made == CELLS
    found = values(grid)
    assert list(found) == [(v, k) for v in ("fixed_large", "fixed_small") for k in (4, 2)]
    assert len({cell["value"] for cell in found.values()}) == 4
    assert grid == read_json(folder / "table" / "table.json")
    assert contents(folder / "table") == expected
    assert {name.rpartition(".")[2] for name in expected} == {"json", "txt", "md", "csv", "png"}
    assert "FID" not in str(expected["table.md"]).replace("it is not FID", "")
    make(folder, lambda name: pytest.fail("nothing is left to be made"))


@pytest.mark.parametrize("cell", [0, 2])
def test_an_interrupted_call_continues(folder, expected, cell):
    def stop(name):
        if name == CELLS[cell]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(folder, stop)
    early = json.loads((folder / "table" / "table.json").read_text())
    assert sum(c is not None for c in values(early).values()) == cell + 1
    assert f"{3 - cell} of 4 cells are missing" in (folder / "table" / "table.txt").read_text()
    made = []
    make(folder, made.append)
    assert made == CELLS[cell + 1 :]
    assert contents(folder / "table") == expected


def test_kill_9_between_cells_changes_nothing(folder, expected):
    def stay(name):
        print("a cell is there", flush=True)
        signal.pause()

    process = Forked(lambda: make(folder, stay))
    wait_for(process, "a cell is there")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    made = []
    make(folder, made.append)
    assert made == CELLS[1:]
    assert contents(folder / "table") == expected


def test_without_batch_size_the_block_of_the_cells_that_are_there_is_taken(folder, expected):
    make(folder)
    make(folder, lambda name: pytest.fail("made anew"), block=None)
    assert contents(folder / "table") == expected


def test_two_processes_measure_the_same(folder, expected, capfd):
    given = ["--steps", "4", "2", "--n_samples", "20", "--batch_size", "8", "--extractor", "pixels"]

    def call():
        assert main(["table", "-e", str(folder), *given]) == 0

    assert two_processes(call) == [0, 0]
    assert capfd.readouterr().out.count("FD-pixels  ") == 1, "printed once"
    two, one = json.loads((folder / "table" / "table.json").read_text()), json.loads(expected["table.json"])
    assert two["protocol"] == one["protocol"]
    for place, cell in values(one).items():
        assert values(two)[place]["value"] == pytest.approx(cell["value"], rel=1e-6)


def test_kept_images_give_the_same_numbers_and_the_disk_is_looked_at(folder, expected, monkeypatch, capsys):
    make(folder, steps=[2])
    told = capsys.readouterr().err
    assert "estimate: time told with the first images (2 cells, 80 times an image goes through the network)" in told
    assert "(a picture of each cell)" in told
    assert "make room" not in told
    made = []
    monkeypatch.setattr(estimate, "free", lambda path: 1)
    grid = make(folder, made.append, steps=[2], keep_images=True)
    told = capsys.readouterr().err
    assert "(all images) of 1 kB that are free" in told
    assert "make room, leave out --keep_images" in told
    assert made == CELLS[:2], "measured, but the images were not there"
    for place, cell in values(grid).items():
        assert cell["value"] == pytest.approx(values(json.loads(expected["table.json"]))[place]["value"], rel=1e-6)
    assert len(list((folder / "table").glob("*/images-fixed_large-2-seed0/0*.png"))) == 20
    make(folder, lambda name: pytest.fail("made anew"), steps=[2], keep_images=True)
    assert "estimate: " not in capsys.readouterr().err


@pytest.mark.parametrize("change", ["weights", "n_samples", "batch_size", "reference"])
def test_another_protocol_begins_anew_and_the_old_cells_stay(folder, expected, change):
    make(folder)
    if change == "weights":
        run(tiny(n_steps=8, save_freq=8, optim={"lr": 1e-2}), folder, "latest")
        changes = {}
    else:
        changes = {"n_samples": {"n_samples": 16}, "batch_size": {"block": 4}}.get(change, {})
    made = []
    grid = make(folder, made.append, few_digits(folder) if change == "reference" else None, **changes)
    assert made == CELLS
    assert len(list((folder / "table").glob("*/protocol.json"))) == 2
    cells = {name: text for name, text in expected.items() if "cell-" in name}
    assert len(cells) == 8, "numbers and pictures"
    assert contents(folder / "table").items() >= cells.items()
    assert not any(name.startswith(grid["protocol_id"]) for name in cells)


def test_another_identity_of_the_extractor_begins_anew(folder, monkeypatch):
    """Under the same name its numbers would otherwise be taken for those of the old one."""
    first = make(folder)
    identity = Pixels.identity
    monkeypatch.setattr(Pixels, "identity", lambda self: {**identity(self), "weights_sha256": "a" * 64})
    made = []
    grid = make(folder, made.append)
    assert made == CELLS
    assert "weights_sha256 aaaaaaaa…" in grid["line"]
    assert grid["results"][0]["extractor_identity"] != first["results"][0]["extractor_identity"]
    alone = [len(table.columns) for table in tables(load_runs([folder]))]
    assert alone == [1, 1], "a table of each in the report"


def test_the_table_beside_the_cells_has_all_of_them(folder):
    """So the report keeps its numbers when a call asks for less."""
    make(folder)
    make(folder, lambda name: pytest.fail("made anew"), steps=[2])
    assert len(values(json.loads((folder / "table" / "table.json").read_text()))) == 2
    (run,) = load_runs([folder])
    assert len(run.results) == 4
    assert any(name.startswith("table/") and name.count("/") == 2 for name in run.hashes)


def test_a_new_table_takes_the_place_of_the_old_with_its_first_cell(folder, expected, monkeypatch):
    make(folder)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(program.Evaluator, "evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        make(folder, n_samples=16)
    assert contents(folder / "table").items() >= expected.items()


def test_a_call_that_is_refused_leaves_the_table_as_it_is(folder, expected):
    make(folder)
    with pytest.raises(ConfigError):
        make(folder, metrics=["foo"])
    assert contents(folder / "table") == expected


def test_what_a_deviation_is_over_is_said_of_each_metric(folder):
    grid = make(folder, steps=[2], metrics=["kid"])
    assert "KD-pixels over 100 subsets" in as_text(grid)


def few_digits(folder):
    """Sixteen of the digits, as a data set of its own."""
    np.savez(folder / "few.npz", images=Digits().open().pixels[:16])
    return Npz(root=str(folder / "few.npz"), image_size=8)


def test_several_seeds_give_mean_and_deviation(folder):
    cost = {"steps": 2, "evaluations": 2}
    both = values(make(folder, seeds=[0, 1], steps=[2]))["fixed_small", 2]
    alone = [values(make(folder, seeds=[s], steps=[2]))["fixed_small", 2] for s in (0, 1)]
    a, b = (cell["value"] for cell in alone)
    assert a != b
    assert both == {
        "value": pytest.approx((a + b) / 2),
        "spread": pytest.approx(abs(a - b) / 2**0.5),
        "seeds": 2,
        "mark": "",
        **cost,
    }
    assert [cell["seeds"] for cell in alone] == [1, 1]
    assert [cell["spread"] for cell in alone] == [None, None]


def test_a_learned_variance_is_the_default_where_there_is_one(tmp_path):
    learned = {"diffusion.total_steps": 50, "diffusion.var_type": "learned_range"}
    run(from_dict(merge(tree(n_steps=1, save_freq=1), learned)), tmp_path / "run")
    grid = make(tmp_path / "run", steps=None, n_samples=4)
    assert list(values(grid)) == [("learned_range", 50), ("learned_range", 10)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"variances": ["fixed_huge"]},
            "fixed_huge: this model has analytic, .*, fixed_large, fixed_small$",
        ),
        ({"variances": ["learned_range"]}, "learned_range: this model has analytic, .*, fixed_large, fixed_small$"),
        ({"steps": [1001]}, r"--steps 1001: choose from 1\.\.1000"),
        ({"steps": [0]}, r"--steps 0: choose from 1\.\.1000"),
        ({"steps": [2, 2]}, "--steps .* none twice"),
        ({"seeds": []}, "--seeds must name at least one"),
        ({"n_samples": 0}, "--n_samples must be at least 1"),
        ({"seeds": [-1]}, "seed must lie in"),
        ({"metrics": ["foo"]}, "metrics must be of"),
        ({"metrics": []}, "got none"),
        ({"metrics": ["isc"]}, "needs logits"),
        ({"n_samples": 1}, "fid needs at least 2 images"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_made(folder, changes, words):
    with pytest.raises(ConfigError, match=words):
        make(folder, **changes)
    assert not (folder / "table").exists()


def test_too_few_images_are_no_cell(folder, monkeypatch):
    ordinary = Generator.images
    monkeypatch.setattr(Generator, "images", lambda self, block: ordinary(self, block)[: 8 - block])
    with pytest.raises(UserError, match="were asked for"):
        make(folder)
    assert list((folder / "table").glob("*/cell-*")) == []


def test_cells_that_were_measured_otherwise_are_refused_by_name(folder):
    make(folder)
    (file,) = (folder / "table").glob("*/cell-fixed_small-2-seed0.json")
    cell = json.loads(file.read_text())
    cell["protocol"]["extractor"] = "other"
    file.write_text(json.dumps(cell))
    with pytest.raises(ConfigError, match=r"cell-fixed_small-2-seed0\.json: measured otherwise"):
        make(folder)
    file.write_text("{")
    with pytest.raises(UserError, match="Remove it"):
        make(folder)
    file.unlink()
    made = []
    make(folder, made.append)
    assert made == ["fixed_small, 2 steps, seed 0"]


def test_the_command_and_its_files(folder, expected, capsys):
    given = ["--steps", "4", "2", "--n_samples", "20", "--batch_size", "8", "--extractor", "pixels"]
    assert main(["table", "-e", str(folder), *given, "--data.name", "digits"]) == 0
    shown = capsys.readouterr().out
    assert (folder / "table" / "table.txt").read_text() in shown
    assert contents(folder / "table") == expected
    assert main(["table", "-e", str(folder / "none"), *given]) == 2
    assert "no folder of a run" in capsys.readouterr().err


def test_progress_tells_rate_and_time_left(folder, capsys, monkeypatch):
    monkeypatch.setattr(program, "LOG_SECONDS", 0.0)
    make(folder)
    lines = [line for line in capsys.readouterr().err.splitlines() if "images/s" in line]
    assert len(lines) == 4 * 3
    assert "20/20 images" in lines[-1]
    assert lines[-1].endswith("ETA of the table 0:00:00")


def test_a_table_of_version_0_1_continues(tmp_path):
    """Its cells are found and stand beside new ones; how they were computed is known in today's words."""
    folder = shutil.copytree(ROOT / "tests/legacy/v0.1/run", tmp_path / "run")
    old = read_json(folder / "table" / "table.json")
    given = {"steps": (10, 5), "n_samples": 12, "block": 4}
    grid = make(folder, lambda name: pytest.fail(f"{name} is there"), **given)
    assert grid["protocol_id"] == old["protocol_id"]
    numbers = values(old)
    assert {place: {key: cell[key] for key in numbers[place]} for place, cell in values(grid).items()} == numbers
    made = []
    rows = [Ancestral("fixed_small"), DDIM(eta=0.5)]
    grid = make(folder, made.append, **{**given, "steps": (5,), "samplers": rows})
    assert made == ["ddim,eta=0.5, 5 steps, seed 0"]
    assert [r["sampling"]["precision"] for r in grid["results"]] == ["no", "no"]
    (table,) = [t for t in tables(load_runs([folder])) if len(t.settings) > 1]
    assert [(s.row, s.steps) for s in table.settings] == [
        ("ddim,eta=0.5", 5), ("fixed_large", 5), ("fixed_large", 10), ("fixed_small", 5), ("fixed_small", 10),
    ]  # fmt: skip


def test_rows_are_samplers_with_their_corrections_down_to_the_report(folder):
    sampling = Sampling(block=8, corrections=(EpsilonScaling(1.01),), clip="keep_eps")
    grid = make(folder, steps=(3, "2,1"), sampling=sampling, samplers=[DDIM(), DPMSolver(), Ancestral("fixed_small")])
    short = [f"{name}+epsilon_scaling,scale=1.01+clip=keep_eps" for name in ("ddim", "dpm_solver", "fixed_small")]
    assert list(values(grid)) == [(row, steps) for row in short for steps in (3, "2,1")]
    rows = ["ddim,eta=0", "dpm_solver,order=2,solver_type=midpoint", "fixed_small"]
    rows = [f"{row}+epsilon_scaling,scale=1.01+clip=keep_eps" for row in rows]
    names = dict(zip(rows, short, strict=True))
    for result in grid["results"]:
        (record,) = records(result, "a result")
        assert record.value == values(grid)[names[record.row], record.steps]["value"]
        assert (record.evaluations, record.seed, record.n_images) == (3, 0, 20)
        assert record.weights == grid["protocol"]["weights"]
        assert record.line == f"FD-pixels: {grid['line']} [{grid['protocol_id']}]"
        assert (folder / record.grid).exists()
    (table,) = tables(load_runs([folder]))
    assert [(s.row, s.steps, s.other_evaluations) for s in table.settings] == [
        (row, steps, other) for row in short for steps, other in ((3, None), ("2,1", "3 evaluations"))
    ]


def test_spacings_are_rows_and_share_their_cells_with_tables_of_one_spacing(folder):
    base = Sampling(DDIM(), block=8)
    rows = [replace(base, spacing=spacing) for spacing in ("uniform-linspace", "quad")]
    made = []
    first = make(folder, made.append, rows=rows[:1], steps=[3])
    grid = make(folder, made.append, rows=rows, steps=None, evaluations=[3, 40])
    assert made == [
        "ddim, 3 steps, seed 0",
        "ddim@quad, 3 steps, seed 0",
        "ddim@quad, 29 steps, seed 0",
        "ddim@uniform-linspace, 40 steps, seed 0",
    ]
    found = values(grid)
    assert list(found) == [(f"ddim@{spacing}", n) for spacing in ("uniform-linspace", "quad") for n in (3, 40)]
    assert found["ddim@uniform-linspace", 3] == values(first)["ddim", 3]
    assert (found["ddim@quad", 40]["steps"], found["ddim@quad", 40]["evaluations"]) == (29, 29)
    assert "where they are not the number above: ddim@quad 29 at 40." in as_text(grid)
    assert grid["protocol"]["spacing"] == ["uniform-linspace", "quad"]
    assert grid["protocol_id"].split(", ")[0] == first["protocol_id"]
    assert "uniform-linspace or quad times" in grid["line"]
    for result in grid["results"]:
        assert result["line"].endswith(f"[{result['grid'].split('/')[1]}]")
        assert (folder / result["grid"]).exists()
    again = make(folder, lambda name: pytest.fail("made anew"), rows=rows[1:], steps=[3, 29])
    assert values(again)["ddim", 29]["value"] == found["ddim@quad", 40]["value"]
    (table,) = tables(load_runs([folder]))
    assert {(table.family_label(s), s.steps) for s in table.settings} == {
        ("ddim@quad", 3), ("ddim@quad", 29), ("ddim@uniform-linspace", 3),
        ("ddim@uniform-linspace", 40),
    }  # fmt: skip


def test_a_cell_that_cannot_be_is_a_hole_with_its_reason(folder):
    rows = [Sampling(DDIM(), block=8, spacing=spacing) for spacing in ("uniform-trailing", "quad")]
    grid = make(folder, rows=rows, steps=[2, 50])
    assert [(place, cell is None) for place, cell in values(grid).items()] == [
        (("ddim@uniform-trailing", 2), False), (("ddim@uniform-trailing", 50), False),
        (("ddim@quad", 2), False), (("ddim@quad", 50), True),
    ]  # fmt: skip
    text = " ".join(as_text(grid).split())
    assert "Not possible: ddim@quad at 50: the spacing (respace_type) quad has only 49 different times" in text
    assert "Not finished" not in text


def test_cells_from_before_a_sampler_had_a_setting_are_found(folder):
    """They stand under another name, since the hash in it is of all settings, and do not say the new one."""
    made = []
    rows = [Sampling(DPMSolver(), block=8)]
    first = make(folder, made.append, rows=rows, steps=[2])
    (file,) = (folder / "table").glob("*/cell-dpm_solver-*.json")
    cell = json.loads(file.read_text())
    del cell["sampler"]["solver_type"]
    file.with_name("cell-dpm_solver-order-2-abcdef-2-seed0.json").write_text(json.dumps(cell))
    file.unlink()
    assert values(make(folder, made.append, rows=rows, steps=[2])) == values(first)
    assert len(made) == 1


def test_spacings_and_variances_that_need_the_weights(folder):
    """Optimised times are looked up, and the protocol says how they were found; what was not found is a hole."""
    digest = make(folder, steps=[2], variances=["fixed_small"])["protocol"]["weights"]
    store = Measured.of(digest, folder / "ckpt" / "step000006")
    store.write("times-3", {"times": [900.5, 400, 10]}, {"teacher": "ddim"})
    rows = [Sampling(DDIM(), block=8, spacing="optimised"), Sampling(DDIM(), block=8)]
    grid = make(folder, rows=rows, steps=[3, 4])
    found = values(grid)
    assert [place for place, cell in found.items() if cell is None] == [("ddim@optimised", 4)]
    assert "no times for 4 steps" in as_text(grid).replace("\n", " ")
    assert grid["protocol"]["spacing"][0].startswith("optimised, sha256:")
    assert {r["sampling"]["spacing"] for r in grid["results"]} == set(grid["protocol"]["spacing"])
    made = []
    times = replace(rows[0], spacing=(900.5, 400, 10))
    other = make(folder, made.append, rows=[times], steps=[3])
    assert (len(made), values(other)["ddim", 3]["value"]) == (1, found["ddim@optimised", 3]["value"])
    assert list(values(make(folder, rows=[times, rows[1]], steps=[3]))) == [
        ("ddim@[900.5,400,10]", 3), ("ddim@uniform-linspace", 3),
    ]  # fmt: skip


def test_every_sampler_is_compared_by_evaluations(folder, capsys):
    given = ["--n_samples", "8", "--batch_size", "8", "--extractor", "pixels", "--evaluations", "3"]
    assert main(["compare-samplers", str(folder), *given]) == 0
    assert "grid.csv, .png, .svg" in capsys.readouterr().out
    grid = json.loads((folder / "table" / "table.json").read_text())
    names = every_sampler()
    assert {"fixed_small", "ddim", "dpm_solver"} <= set(names)
    names = [f"{name}@{spacing}" for name in names for spacing in ("uniform-linspace", "logsnr")]
    assert [row["label"] for row in grid["blocks"][0]["rows"]] == names
    rows = list(csv.DictReader((folder / "table" / "grid.csv").read_text().splitlines()))
    holes = [row["label"] for row in grid["blocks"][0]["rows"] if not any(row["cells"])]
    assert {row["row"] for row in rows} == set(names) - set(holes)
    assert all(any(name in note for note in grid["notes"] if note.startswith("Not possible")) for name in holes)
    assert all(int(row["evaluations"]) <= 3 for row in rows)
    assert (folder / "table" / "grid.png").stat().st_size > 1000
    assert (folder / "table" / "grid.svg").exists()


# The layout, on numbers as the Inception would give them.

PROTOCOL = {
    "extractor": "inception", "extractor_identity": {"weights_sha256": "6" * 64}, "metrics": ["fid", "isc"],
    "data": "cifar10-train", "image_size": 32, "n_samples": 50000,
    "weights": "ab" * 32, "reference": "cifar10-train", "reference_sha256": "cd" * 32, "n_reference": 50000,
    "spacing": "uniform-linspace", "precision": "bf16", "fast": True, "device": "cuda",
    "block": 1024, "diffusion": {"total_steps": 1000},
}  # fmt: skip


def inception_grid(variances=("fixed_large", "fixed_small"), steps=(1000, 100), seeds=(0,), **changes):
    rows = [{"sampler": {"name": "ancestral", "var_type": v}, "corrections": [], "clip": "rederive"} for v in variances]
    places = [{**row, "steps": k, "seed": s} for row in rows for k in steps for s in seeds]
    cells = [
        {**p, "values": {"FID": 3.0 + i, "IS": 9.0 + i, "IS_std": 0.1}, "protocol": {}, "warnings": []}
        for i, p in enumerate(places)
    ]
    return lay_out("DDPM-IP, gamma 0.1", "0123456789ab", {**PROTOCOL, **changes}, places, cells)


def published(grid, metric="FID"):
    (block,) = [block for block in grid["blocks"] if block["metric"] == metric]
    return {r["label"]: [c and c["value"] for c in r["cells"]] for r in block["rows"] if r["source"]}


def test_published_numbers_stand_beside_the_same_rows():
    found = published(inception_grid())
    assert found["published: DDPM-IP, fixed_large [1]"] == [3.2497, 46.80]
    assert found["published: DDPM, fixed_small [1]"] == [5.3727, 11.2191]
    assert published(inception_grid(), "IS")["published: DDPM-IP, fixed_small [1]"] == [9.1092, 8.7068]
    learned = published(inception_grid(["learned_range"], (1000, 100, 50)))
    assert learned == {
        "published: ADM, learned_range [1]": [2.99, 3.37, None],
        "published: ADM-IP, learned_range [1]": [2.76, 2.70, None],
    }


def test_published_numbers_of_other_times_are_marked():
    text = as_text(inception_grid())
    assert max(map(len, text.splitlines())) <= 120
    (line,) = [line for line in text.splitlines() if "DDPM-IP, fixed_large" in line and "46.80" in line]
    assert line.split()[-2:] == ["3.25", "46.80†"], "with all steps the times are the same"
    assert text.count("Not measured here") == 1
    assert "† Its times are uniform-leading, so this does not compare." in " ".join(text.split())
    for same in ("uniform", "uniform-leading"):
        assert "†" not in as_text(inception_grid(spacing=same))
    assert "†" not in as_text(inception_grid(["learned_range"]))


@pytest.mark.parametrize(
    "change", [{"extractor": "pixels"}, {"data": "cifar10-test"}, {"n_samples": 10000}, {"image_size": 64}]
)
def test_published_numbers_of_another_protocol_are_left_out(change):
    grid = inception_grid(**change)
    assert published(grid) == {}
    assert len(grid["blocks"]) == 2
    assert ("are of 50,000 images a cell" in as_text(grid)) == ("n_samples" in change)


def test_deviations_are_of_splits_or_of_seeds():
    one, two = inception_grid(), inception_grid(seeds=(0, 1))
    cost = {"steps": None, "evaluations": None}  # these cells do not say
    assert values(one, "IS")["fixed_large", 1000] == {"value": 9.0, "spread": 0.1, "seeds": 1, "mark": "", **cost}
    assert values(two, "IS")["fixed_large", 1000] == {
        "value": 9.5, "spread": pytest.approx(0.5**0.5), "seeds": 2, "mark": "", **cost,
    }  # fmt: skip
    assert "10 splits" in as_text(one)
    assert "over the sampling seeds 0, 1" in as_text(two)


def test_markdown_and_csv_hold_the_same_numbers():
    grid = inception_grid()
    rows = list(csv.DictReader(as_csv(grid).splitlines()))
    ours = {(r["metric"], r["row"], int(r["steps"])): float(r["value"]) for r in rows if not r["source"]}
    assert len(ours) == 8
    assert ours["FID", "fixed_small", 100] == 6.0
    assert {r["protocol"] for r in rows if r["source"]} == {""}
    lines = [line for line in as_markdown(grid).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {4}
    assert "| fixed_small | 5.00 | 6.00 |" in lines
    assert "| IS | 1000 steps | 100 |" in lines
    assert "| fixed_large | 9.00 ± 0.10 | 10.00 ± 0.10 |" in lines


def test_a_table_of_a_class_conditional_run(trained_with_classes, tmp_path):
    """Balanced classes unless a row says otherwise, and a column of evaluations that counts both of guidance."""
    folder = shutil.copytree(trained_with_classes, tmp_path / "run")
    rows = ["ddim", "ddim+guidance,scale=2", "ddim+classes=3"]
    words = ["--rows", *rows, "--evaluations", "4", "--n_samples", "20", "--extractor", "pixels", "--batch_size", "8"]
    assert main(["table", "-e", str(folder), *words]) == 0
    grid = read_json(folder / "table" / "table.json")
    cells = {row["label"]: row["cells"] for row in grid["blocks"][0]["rows"] if row["source"] is None}
    assert list(cells) == rows
    assert len({found[0]["value"] for found in cells.values()}) == 3
    said = [record["sampling"] for record in grid["results"]]
    assert [one["evaluations"] for one in said] == [4, 4, 4]
    wanted = dict(zip(rows, ("balanced", "balanced", [3]), strict=True))
    assert {row_label(brief(one)): one["classes"] for one in said} == wanted
