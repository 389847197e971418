"""The notebooks in examples/: they run, say what they showed, leave pictures, and are notebooks to what reads cells."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.tiny import ROOT, one_thread

from ddpm_ip.images import grid

NOTEBOOKS = sorted(path for path in (ROOT / "examples").glob("*.py") if path.read_text().startswith("# %%"))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a notebook in its small form; what it made, and what it told."""
    one_thread(monkeypatch)
    monkeypatch.setenv("EXAMPLE_STEPS", "4")
    monkeypatch.setenv("EXAMPLE_RUNS", str(tmp_path))
    monkeypatch.setenv("EXPOSURE_SMALL", "1")
    monkeypatch.setenv("EXPOSURE_RUNS", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["notebook"])
    monkeypatch.setattr("ddpm_ip.notebook.default_block", lambda *_: 16)  # a few images are padded to a block
    return lambda name: (runpy.run_path(str(ROOT / "examples" / name)), capsys.readouterr().out)


def shown(path: Path, n: int, columns: int) -> np.ndarray:
    """A picture that should be a grid of n digits."""
    picture = np.asarray(Image.open(path))
    assert picture.shape == np.asarray(grid(np.zeros((n, 1, 8, 8), np.uint8), columns)).shape
    return picture


def test_a_run_is_trained_and_sampled(run, tmp_path):
    made, told = run("train_and_sample.py")
    assert re.findall(r"step +(\d) of 4: loss 0\.", told) == ["1", "2", "3", "4"]
    assert np.array_equal(np.asarray(made["walk"].grid()), shown(tmp_path / "digits/grid.png", 64, 8))
    assert f"the mean pixel is {made['walk'].images.mean() / 255:.3f}" in told
    assert np.array_equal(np.asarray(made["picture"]), np.asarray(Image.open(tmp_path / "digits/strips.png")))
    assert len(re.findall(r"^t +-?\d+  standard deviation \d\.\d{3}$", told, re.MULTILINE)) == 6


def test_gammas_are_compared(run, tmp_path):
    made, told = run("compare_gammas.py")
    assert all(found.config.perturbation.gamma == gamma for gamma, found in made["runs"].items())
    for name in made["SAMPLINGS"]:
        found = [made["distances"][gamma, name] for gamma in made["GAMMAS"]]
        (line,) = re.findall(rf"^{re.escape(name)} +(.*)$", told, re.MULTILINE)
        assert [float(cell.strip("*")) for cell in line.split()] == pytest.approx(found, abs=6e-4)
        assert [cell.endswith("*") for cell in line.split()] == [i == np.argmin(found) for i in range(3)]
    shown(tmp_path / "gammas/gammas.png", 36, 12)


def test_a_checkpoint_of_diffusers_is_sampled(run, tmp_path):
    made, told = run("diffusers_checkpoint.py")
    assert made["run"].folder is None
    assert "unet/diffusion_pytorch_model.safetensors" in told
    assert "the largest difference to the run's own images: 0 of 255" in told
    shown(tmp_path / "diffusers/samplers.png", 48, 12)


def test_exposure_bias_is_measured_and_corrected(run, tmp_path):
    made, told = run("exposure_bias.py")
    figures = {f"{stem}.{kind}" for stem in ("exposure", "calibrated") for kind in ("svg", "png", "csv")}
    assert {path.name for path in tmp_path.glob("*.*")} == {*figures, "digits.png"}
    shown(tmp_path / "digits.png", 48, 12)
    for name in ("ddpm", "ddpm-ip"):
        assert len(list((tmp_path / name).glob("calibration-*.json"))) == 2
        assert len(list((tmp_path / name / "exposure").glob("*.json"))) == 4
        for sampler in ("ddim", "fixed_small"):
            without, corrected = made["distances"][name, sampler]
            assert re.search(rf"^{name} +{sampler} .* {without:.3f} -> {corrected:.3f}$", told, re.MULTILINE)
    lower = sum(corrected < without for without, corrected in made["distances"].values())
    assert f"the distance is lower in {lower}." in told


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_cell_is_whole(notebook):
    head, *cells = re.split(r"^# %%", notebook.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert head == ""
    texts = [cell for cell in cells if cell.startswith(" [markdown]\n")]
    assert len(texts) >= 4
    assert all(line in ("", "#") or line.startswith("# ") for text in texts for line in text.splitlines()[1:])
    assert all(ast.parse(cell.split("\n", 1)[1]).body for cell in cells if cell not in texts)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_uses_what_is_public(notebook):
    """So that what people copy keeps working."""
    imported = [node for node in ast.walk(ast.parse(notebook.read_text(encoding="utf-8")))
                if isinstance(node, ast.Import | ast.ImportFrom) and "ddpm_ip" in ast.unparse(node)]  # fmt: skip
    assert [ast.unparse(node) for node in imported] == ["import ddpm_ip as ip"]


def test_there_are_four() -> None:
    names = {path.stem for path in NOTEBOOKS}
    assert names == {"train_and_sample", "compare_gammas", "exposure_bias", "diffusers_checkpoint"}


SHELL = sorted(str(p.relative_to(ROOT)) for part in ("examples", "benchmarks") for p in (ROOT / part).glob("*.sh"))


@pytest.mark.parametrize("script", SHELL)
def test_scripts_of_a_shell_are_no_nonsense(script):
    """They are for clusters and GPUs, which are not here; that the shell can read them is known at least."""
    assert subprocess.run(["bash", "-n", ROOT / script]).returncode == 0
