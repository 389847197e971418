"""Alerts of a training: what raises them, where they go, and whose command is run."""

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
import yaml
from tests.tiny import run, tiny, tree, yaml_file

from ddpm_ip.config import load, parse_overrides
from ddpm_ip.errors import Diverged
from ddpm_ip.extras import how_to_install
from ddpm_ip.objective import Objective
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.settings import Wanted
from ddpm_ip.tracking import trackers
from ddpm_ip.tracking.trackers import Trackers
from ddpm_ip.train import followed
from ddpm_ip.train.followed import Pace, check_disk
from ddpm_ip.train.start import settle

Usage = namedtuple("Usage", "free")


@pytest.fixture
def sent(monkeypatch):
    """The alerts that trackers get."""
    found = []
    monkeypatch.setattr(Trackers, "alert", lambda self, alert: found.append((alert.kind, alert.step)))
    return found


@pytest.mark.parametrize(("there", "wanted"), [(False, None), (True, None), (True, ())])
def test_without_tensorboard_a_line_says_how_to_have_it(tmp_path, monkeypatch, caplog, there, wanted):
    for module in (followed, trackers):
        monkeypatch.setattr(module, "is_installed", lambda name: there)
    of = SimpleNamespace(config=tiny(trackers=wanted), folder=RunFolder(tmp_path), start=0)
    with caplog.at_level("INFO"):
        followed.follow(of, None).close()
    assert (how_to_install("log") in caplog.text) == (not there)
    assert (tmp_path / "tensorboard").exists() == (there and wanted is None)


def test_a_command_that_is_given_is_run_and_kept_nowhere(tmp_path, sent):
    """Its text has what YAML would take for more than a text, and the average is longer than the run."""
    command = f"""printf '%s %s: {{}}' $DDPM_IP_ALERT "$DDPM_IP_ALERT_STEP" > {tmp_path}/told # secret"""
    options = parse_overrides(["--train.alert_command", command])
    run(Wanted(yaml_file(tmp_path, n_steps=1), options), tmp_path / "run")
    assert (tmp_path / "told").read_text() == "average 0: {}"
    assert sent == [("average", 0)]
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes(), path
    more, folder = {"train.n_steps": 3}, RunFolder(tmp_path / "run")
    assert settle(Wanted(options=more), folder, "latest").alert_command is None, "who continues has not given it"
    given = settle(Wanted(options={**more, **options}), folder, "latest")
    assert given.alert_command == command
    assert [str(change) for change in given.changes] == ["train.n_steps: 1 -> 3"]


@pytest.mark.parametrize("whole", [False, True], ids=["a file", "a configuration as a whole"])
def test_the_command_of_a_configuration_is_not_run(tmp_path, warnings_of, whole):
    path = yaml_file(tmp_path, alert_command="curl secret")
    settled = settle(Wanted(config=load(path)) if whole else Wanted(path), RunFolder(tmp_path / "run"), None)
    assert settled.alert_command is None
    assert settled.config.train.alert_command is None
    (said,) = warnings_of()
    assert "--train.alert_command COMMAND" in said
    assert "secret" not in said


def test_the_command_of_a_run_from_elsewhere_is_not_run(tmp_path, warnings_of):
    folder = RunFolder(tmp_path)
    folder.config.write_text(yaml.safe_dump(tree(alert_command="curl secret")))
    assert settle(Wanted(), folder, "latest").alert_command is None
    assert "not run" in warnings_of()[0]


def test_numbers_that_are_not_finite(tmp_path, sent, monkeypatch):
    ordinary = Objective.__call__

    def call(self, *given):
        losses = ordinary(self, *given)
        return losses._replace(per_sample=losses.per_sample * float("nan"))

    monkeypatch.setattr(Objective, "__call__", call)
    with pytest.raises(Diverged) as caught:
        run(tiny(n_steps=9, ema_decay=0.0), tmp_path)
    assert [kind for kind, _ in sent] == ["not_finite"]
    assert str(caught.value) in (tmp_path / "log.txt").read_text()


def test_a_disk_that_is_nearly_full(tmp_path, monkeypatch):
    told = []
    metrics = SimpleNamespace(
        alert=lambda kind, step, text: told.append((kind, step, text)),
        over=lambda kind: told.append(f"{kind} is over"),
        spare=followed.Spare(),
    )
    tensors = {"model": {"a": torch.zeros(10**6)}, "ema": {"a": torch.zeros(10**6)}}  # 8 MB
    state = SimpleNamespace(step=7, tensors=lambda: tensors)
    followed_run = SimpleNamespace(folder=RunFolder(tmp_path), state=state)
    for free in (115_900_000, 116_000_000):
        monkeypatch.setattr(followed.shutil, "disk_usage", lambda path, free=free: Usage(free))
        check_disk(followed_run, metrics)
    ((kind, step, text), over) = told
    assert (kind, step, over) == ("disk", 7, "disk is over")
    assert "0.12 GB are free, and a checkpoint takes 0.01 GB" in text


def test_the_pace_is_of_gpus_and_of_networks_that_can_be_counted(monkeypatch):
    def of(device, is_main=True):
        engine = SimpleNamespace(device=torch.device(device), num_processes=4)
        return Pace.of(SimpleNamespace(engine=engine, is_main=is_main, config=None))

    monkeypatch.setattr(followed, "gflop_per_image", lambda config: (10.0, 30.0))
    monkeypatch.setattr(followed, "peak_tflops", lambda device: 700.0)
    assert of("cuda") == Pace(30.0, 2800.0)
    assert of("cuda", is_main=False) is None
    assert of("cpu") is None
    monkeypatch.setattr(followed, "gflop_per_image", lambda config: 1 / 0)
    assert of("cuda") is None


def test_a_log_line_says_only_what_was_measured():
    known, unknown = Pace(gflop=37.3, peak=750.0), Pace(gflop=37.3, peak=None)
    assert known.numbers(10_000) == {"tflops": 373.0, "share_of_peak": 0.4973}
    assert known.text(10_000) == "  373 TFLOP/s (50 % of the peak)"
    assert unknown.numbers(10_000) == {"tflops": 373.0}
    assert unknown.text(10_000) == "  373 TFLOP/s"
