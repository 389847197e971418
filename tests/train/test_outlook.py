"""Time is told once it was measured, here or by an earlier process on the same hardware, and never else."""

import json
import shutil
from collections import namedtuple
from types import SimpleNamespace

import pytest
from tests.tiny import one_thread, run, tiny

from ddpm_ip import estimate
from ddpm_ip.files import write_json
from ddpm_ip.run.log import clock
from ddpm_ip.settings import Wanted
from ddpm_ip.train import outlook
from ddpm_ip.train.loop import NO_HOOKS, Hooks


@pytest.fixture
def told(monkeypatch, capsys):
    """Trains, and gives the lines that estimate something."""
    one_thread(monkeypatch)

    def train(config, folder, resume=None, hooks=NO_HOOKS):
        run(config, folder, resume, hooks)
        lines = capsys.readouterr().err.splitlines()
        return [line.partition("estimate: ")[2] for line in lines if "estimate: " in line], "\n".join(lines)

    return train


def test_the_first_steps_tell_the_time_and_another_start_knows_it(tmp_path, told, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(outlook, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(outlook, "AFTER", 4)
    settings = {"save_freq": 6, "print_freq": 6, "batch_size": 2}
    hooks = Hooks(on_step=lambda step: now.__setitem__(0, now[0] + 2))
    (first, second), _ = told(tiny(n_steps=6, **settings), tmp_path / "run", hooks=hooks)
    assert first.startswith("time told after the first 4 steps; tensors in memory at least ")
    assert "a batch of 2 in the network" in first
    assert "; disk " in first
    assert second.startswith("time about 0:00:04 for the 2 steps that are left, as the first 4 went (1 images/s)")
    rate = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["images_per_s"]
    (beside,), _ = told(tiny(n_steps=1, **settings), tmp_path / "beside")
    assert f" at the {rate:,.0f} images/s that run had here before" in beside
    shutil.rmtree(tmp_path / "beside")
    (again,), _ = told(Wanted(options={"train.n_steps": 7}), tmp_path / "run", "latest")
    assert again.startswith(f"time about {clock(2 / rate)} at the {rate:,.0f} images/s that it had here before")
    record = json.loads((tmp_path / "run/provenance.json").read_text())
    write_json(tmp_path / "run/provenance.json", {**record, "hardware": "another"})
    (elsewhere,), _ = told(Wanted(options={"train.n_steps": 8}), tmp_path / "run", "latest")
    assert elsewhere.startswith("time told after the first 1 step;")
    other = {"train.n_steps": 9, "train.micro_batch": 1}
    (changed,), _ = told(Wanted(options=other), tmp_path / "run", "latest")
    assert changed.startswith("time told after the first 1 step;")
    assert told(Wanted(), tmp_path / "run", "latest")[0] == [], "there is nothing to do"


def test_where_log_lines_come_sooner_they_tell_the_time(tmp_path, told, monkeypatch):
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(1000))
    (only,), text = told(tiny(n_steps=4, print_freq=2), tmp_path / "run")
    assert only.startswith("time told after the first 2 steps; ")
    assert "has 1 kB free, and this takes up to" in text
    assert "raise train.keep_every" in text
