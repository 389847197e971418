"""Numbers in groups; alerts once, until what they are about has passed."""

import json

import pytest
from tests.tracking.parts import StandIn

from ddpm_ip.run.folder import RunFolder
from ddpm_ip.tracking.metrics import Metrics


@pytest.fixture
def told():
    return StandIn("one")


def test_numbers_have_a_group_in_trackers_and_none_in_the_file(tmp_path, told):
    metrics = Metrics(RunFolder(tmp_path), 0, told)
    metrics.write(5, {"loss": 0.5, "images_per_s": 9.0, "tflops": 1.0, "mine": 2.0})
    metrics.evaluation(3, {"FD-pixels": 7.0})
    assert told.told == [
        ("scalars", 5, {"train/loss": 0.5, "system/images_per_s": 9.0, "system/tflops": 1.0, "train/mine": 2.0}),
        ("scalars", 3, {"eval/FD-pixels": 7.0}),
    ]
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"step": 5, "loss": 0.5, "images_per_s": 9.0, "tflops": 1.0, "mine": 2.0}


def test_an_alert_is_logged_each_time_and_sent_once_until_it_is_over(tmp_path, told, warnings_of):
    sent = []
    metrics = Metrics(RunFolder(tmp_path), 0, told, command=lambda alert: sent.append((alert.kind, alert.step)))
    for step in (1, 2):
        metrics.alert("disk", step, "50% full")
    metrics.alert("distance", 3, "worse")
    metrics.over("disk")
    metrics.alert("disk", 4, "full")
    assert warnings_of() == ["50% full", "50% full", "worse", "full"]
    assert sent == [(kind, step) for _, step, kind in told.told] == [("disk", 1), ("distance", 3), ("disk", 4)]
