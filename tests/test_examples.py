"""The notebook in examples/: it runs, says what it showed, and is a notebook to what reads cells."""

import ast
import re
import runpy

from tests.tiny import ROOT, one_thread

NOTEBOOK = ROOT / "examples/exposure_bias.py"


def test_the_notebook_of_exposure_bias_runs(tmp_path, monkeypatch, capsys):
    one_thread(monkeypatch)
    monkeypatch.setenv("EXPOSURE_SMALL", "1")
    monkeypatch.setenv("EXPOSURE_RUNS", str(tmp_path))
    made = runpy.run_path(str(NOTEBOOK))
    told = capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("*.*")} == {
        f"{stem}.{kind}" for stem in ("exposure", "calibrated") for kind in ("svg", "png", "csv")
    }
    for run in ("ddpm", "ddpm-ip"):
        assert len(list((tmp_path / run).glob("calibration-*.json"))) == 2
        assert len(list((tmp_path / run / "exposure").glob("*.json"))) == 4
        for sampler in ("ddim", "fixed_small"):
            without, corrected = made["distances"][run, sampler]
            assert re.search(rf"^{run} +{sampler} .* {without:.3f} -> {corrected:.3f}$", told, re.MULTILINE)
    lower = sum(corrected < without for without, corrected in made["distances"].values())
    assert f"the distance is lower in {lower}." in told


def test_each_cell_is_whole():
    head, *cells = re.split(r"^# %%", NOTEBOOK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert head == ""
    texts = [cell for cell in cells if cell.startswith(" [markdown]\n")]
    assert len(texts) > 4
    assert all(line in ("", "#") or line.startswith("# ") for text in texts for line in text.splitlines()[1:])
    assert all(ast.parse(cell.split("\n", 1)[1]).body for cell in cells if cell not in texts)
