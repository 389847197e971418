"""The demo, as a person starts it, with tiny numbers: it finishes, reuses what is there, and continues when stopped."""

import signal
import time
from pathlib import Path

import pytest
from PIL import Image
from tests.tiny import contents, finish, start, steps_saved

from ddpm_ip.cli import main
from ddpm_ip.demo import program
from ddpm_ip.demo.program import STOPPED

RUNS = ("ddpm", "ddpm-ip")
CELLS = 3 * 4 + 2  # numbers of steps, rows; and those with a calibration
STUDIED = ("ancestral-10", "ddim-10")  # samplings that are calibrated and whose exposure bias is measured


def demo(out: Path, n_steps: int):
    return start("-m", "ddpm_ip", "demo", out, "--n_steps", n_steps, "--n_samples", 80, "--n_walks", 20)


def test_the_demo_makes_pictures_and_a_page_once(tmp_path):
    code, output = finish(demo(tmp_path, 2))
    assert code == 0, output
    page = tmp_path / "report.html"
    assert output.rstrip().endswith(str(page))
    assert str(tmp_path / "ddpm") in output.split("the first picture", 1)[1].splitlines()[0]
    made = contents(tmp_path)
    for run in RUNS:
        picture = Image.open(tmp_path / run / "samples/step00000002.png")
        assert picture.width == picture.height > 8 * 64
        assert len([name for name in made if name.startswith(f"{run}/table/") and "/cell-" in name]) == 2 * CELLS
        for sampling in STUDIED:
            assert len([name for name in made if name.startswith(f"{run}/calibration-{sampling}-")]) == 1
            assert len([name for name in made if name.startswith(f"{run}/exposure/{sampling}-")]) == 2
    assert all(row in output for row in ("fixed_small+epsilon_scaling", "fixed_small+auto", "ddim+auto"))
    told = page.read_text(encoding="utf-8")
    assert all(text in told for text in ("DDPM and DDPM-IP", "Exposure bias", "FD-pixels with and without it"))

    code, output = finish(demo(tmp_path, 2))
    assert code == 0, output
    assert output.count("nothing to do") == len(RUNS)
    assert "the first picture" not in output
    again = contents(tmp_path)
    parts = ("/cell-", "/ckpt/", "/samples/", "/calibration-", "/exposure/")
    kept = [name for name in made if any(part in name for part in parts)]
    assert [name for name in kept if made[name] != again[name]] == []
    assert {name for name in again if "/cell-" in name or "/samples/" in name} <= made.keys()


def test_a_demo_that_is_stopped_continues(tmp_path):
    process = demo(tmp_path, 100_000)
    for _ in range(30_000):
        if all((tmp_path / run / "provenance.json").exists() for run in RUNS):  # written after the first step
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, output = finish(process)
    assert code == 130, output
    assert "give the same command again" in output
    assert not (tmp_path / "report.html").exists()
    saved = {run: steps_saved(tmp_path / run)[-1] for run in RUNS}

    process = demo(tmp_path, max(saved.values()) + 1)
    awaited = {f"{run}/ckpt/step{step:08d} at step {step}" for run, step in saved.items()}
    for line in process.stdout:
        awaited = {text for text in awaited if text not in line}
        if not awaited:
            break
    process.send_signal(signal.SIGINT)
    finish(process)
    assert awaited == set()


@pytest.mark.parametrize(
    ("code", "said"),
    [(0, "pictures: "), (STOPPED, "stopped; give the same command again"), (3, "not finished, for the error above")],
)
def test_the_demo_needs_no_matplotlib_and_says_how_it_ended(tmp_path, monkeypatch, capsys, code, said):
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(program, "side_by_side", lambda out, options: code)
    monkeypatch.setattr(program, "markdown_table", lambda runs: "the table")
    assert main(["demo", str(tmp_path), "--n_steps", "5"]) == code
    found = capsys.readouterr().out
    assert said in found
    assert ("the table" in found) == (code == 0)
    assert "[plot]" in found


@pytest.mark.parametrize("option", ["--n_steps", "--n_samples", "--n_walks"])
def test_no_demo_of_nothing(tmp_path, capsys, option):
    assert main(["demo", str(tmp_path / "a"), option, "0"]) == 2
    assert f"{option} must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
