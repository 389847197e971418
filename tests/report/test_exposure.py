"""Curves of exposure bias: as files for a document, and on the page with what they support."""

import csv
import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from ddpm_ip.exposure.curves import KINDS
from ddpm_ip.report.downloads import files
from ddpm_ip.report.exposure import Panel, dealt, finite, labels, panels, styles_of, write_figures
from ddpm_ip.report.run import Run, load_runs

from .laboratory import curve, exposure, put_exposure
from .test_page import HOSTILE, report, saved


def test_panels_are_kinds_and_what_is_compared_shares_one():
    found = exposure(
        **{"x0_error.one_step": curve(1.0), "x0_error.accumulated": curve(2.0), "energy.xt.haar0.ratio": curve(1.0)}
    )
    assert panels([found])[:3] == [
        Panel("eps_norm.sampling", "eps_norm.training"),
        Panel("eps_norm.ratio", None),
        Panel("delta", None),
    ]
    names = {name for panel in panels([found]) for name in (panel.name, panel.dotted)} - {None}
    assert names == set(found.curves)
    assert Panel("x0_error.one_step", "x0_error.accumulated") in panels([found])


def test_the_files(tmp_path):
    found = [exposure(), exposure("ddim, 20 steps", **{"a.new_one": curve(1.0, float("nan"), float("inf"))})]
    paths = write_figures(found, tmp_path / "a.b")
    assert [path.name for path in paths] == ["a.b.svg", "a.b.png", "a.b.csv"]
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_figures(found, tmp_path / "a.b")] == first
    assert b"<svg" in first[0]
    with Image.open(paths[1]) as picture:
        assert picture.format == "PNG"
    rows = list(csv.DictReader(io.StringIO(first[2].decode())))
    assert len(rows) == 3 * (4 + 5)
    assert [row["value"] for row in rows if row["curve"] == "a.new_one"] == ["1.0", "", ""], "not nan, not inf"
    (row,) = [row for row in rows if (row["label"], row["curve"], row["t"]) == ("ddim, 10 steps", "delta", "100.0")]
    assert [float(row[key]) for key in ("value", "se", "low", "high")] == pytest.approx([0.001, 0.0001, 0.0008, 0.0012])
    with pytest.raises(ValueError, match="no curve"):
        write_figures([], tmp_path / "none")


def test_what_cannot_be_drawn_is_left_out():
    odd = curve(1.0, float("nan"), 3.0, float("inf"))
    assert [point[:2] for point in finite(odd)] == [(0.0, 1.0), (200.0, 3.0)]
    assert finite(None) == []


def test_what_could_not_be_measured_is_empty_in_the_table_for_a_terminal():
    text = exposure(delta=curve(0.5, float("nan"), float("inf"))).as_text()
    assert [line.split()[-1] for line in text.splitlines()[2:]] == ["1", "1", "0.5"]
    assert "nan" not in text


def test_a_file_too_large_for_the_page_is_told():
    """What is left out is named, and where else it is; the rest is offered."""
    told = files("a", {"svg": "x", "csv": "y" * 300_001}, "all curves", "it lies elsewhere")
    assert "Save all curves as <a href=" in told
    assert "Too large for this page: all curves as CSV; it lies elsewhere." in told
    assert "Save" not in files("a", {"csv": "y" * 300_001})
    assert "Too large" not in files("a", {"csv": "y" * 300_000})


def test_labels_tell_weights_apart():
    assert labels([exposure(), exposure("other"), exposure(weights="99" * 32)]) == [
        "ddim, 10 steps (abababab, seed 0)", "other", "ddim, 10 steps (99999999, seed 0)",
    ]  # fmt: skip
    names = {"ab" * 32: "decay 0.9", "99" * 32: "decay 0.99"}
    said = labels([exposure(), exposure(weights="99" * 32)], names)
    assert said == ["ddim, 10 steps (decay 0.9)", "ddim, 10 steps (decay 0.99)"]


def test_the_section_says_what_the_curves_support(runs, tmp_path):
    assert "Exposure bias</h2>" not in report(runs, tmp_path)[0]
    put_exposure(runs[0], exposure())
    assert "<li>baseline: ddim, 10 steps: in sampling" in report(runs, tmp_path)[0], "one of two runs was measured"
    put_exposure(runs[1], exposure(**{"eps_norm.ratio": curve(1.005, 1.0, 1.0, se=0.004)}))
    text, page = report(runs, tmp_path)
    assert "baseline: ddim, 10 steps: in sampling the predicted noise is up to 5.00\u00a0% longer" in text
    assert "95 % interval +4.20\u00a0% to +5.80\u00a0%, at t = 0" in text
    assert "perturbed: ddim, 10 steps: in sampling the predicted noise is as long as on real states, within" in text
    assert KINDS["delta"].meaning in text
    assert "1.05<span" in text
    assert "exposure/ddim-10-01234567.json" in text  # among the files that the page was made from
    assert "baseline" not in saved(page, "exposure-bias.csv")
    assert saved(page, "exposure-delta.svg").startswith("<svg xmlns=")
    assert len(page.ids) == len(set(page.ids))


def test_many_measurements_are_one_sentence_and_a_sampling_comes_before_its_corrections(runs, tmp_path):
    values = {"ddim+auto, 10 steps": 1.02, "ddim, 10 steps": 1.08, "heun, 5 steps": 0.9, "unipc, 5 steps": 1.0}
    for i, (label, value) in enumerate(values.items()):
        put_exposure(runs[0], exposure(label, **{"eps_norm.ratio": curve(value, 1.0, 1.0, se=0.004)}), f"a-5-{i:08x}")
    assert "up to 8.00\u00a0% longer" in report(runs[:1], tmp_path)[0]
    put_exposure(runs[0], exposure("deis, 5 steps", **{"eps_norm.ratio": curve(1.3, 1.0, 1.0, se=0.004)}))
    text, _ = report(runs[:1], tmp_path)
    assert "longer in sampling in 3 of 5 measurements and shorter in 1, beyond 95 % intervals" in text
    assert "It is 2.0\u00a0% (ddim+auto, 10 steps) to 30.0\u00a0% (deis, 5 steps) longer." in text
    assert "up to 8.00" not in text
    section = text[text.index("Exposure bias</h2>") :]
    assert section.index(">ddim, 10 steps<") < section.index(">ddim+auto, 10 steps<") < section.index(">heun, 5 steps<")


def test_no_run_is_crowded_out_by_one_with_many_measurements():
    many, few = SimpleNamespace(path=Path("many")), SimpleNamespace(path=Path("few"))
    found = [(many, exposure(f"ddim, {i} steps")) for i in range(2, 40)] + [(few, exposure()), (few, exposure())]
    shown = dealt(found, 16)
    assert [run.path for run, _ in shown] == [many.path] * 14 + [few.path] * 2
    assert [e.label for _, e in shown[:3]] == ["ddim, 2 steps", "ddim, 3 steps", "ddim, 4 steps"]
    assert dealt(found, 100) == found


def test_a_run_keeps_its_colour(runs):
    for run in runs:
        put_exposure(run, exposure())
        put_exposure(run, exposure("heun, 5 steps"), "heun-5-01234567")
    loaded = load_runs(runs)
    shown = [(run, found) for run in loaded for found in run.exposures]
    assert styles_of(shown) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert styles_of(shown[:2]) == [(0, 0), (1, 1)]


@pytest.mark.parametrize(
    "content", ["[]", '{"curves": {}}', '{"curves": {"delta": {"t": [1]}}}', '{"curves": {"delta": 3}}']
)
def test_a_damaged_file_is_told_and_left_out(runs, tmp_path, content):
    put_exposure(runs[0], exposure())
    put_exposure(runs[0], exposure(), "bad").write_text(content)
    (problem,) = Run.load(runs[0]).problems
    assert "exposure/bad.json" in problem
    assert "5.00\u00a0%" in report(runs, tmp_path)[0]


def test_hostile_names_are_text(runs, tmp_path):
    put_exposure(runs[0], exposure(HOSTILE, **{HOSTILE: curve(1.0, 1e300, 2.0)}))
    text, page = report(runs, tmp_path)
    assert not page.all("script")
    assert "&lt;script&gt;" in text
