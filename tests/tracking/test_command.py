"""``train.alert_command`` is told of alerts, and can harm no run."""

import json
import os
import sys
import time

import pytest

from ddpm_ip.run.folder import RunFolder
from ddpm_ip.tracking import command
from ddpm_ip.tracking.base import Alert
from ddpm_ip.tracking.command import AlertCommand

EVIL = "a metric called $(touch hit) `touch hit`; touch hit\x1b[31m"


def run(text, folder, *alerts):
    one = AlertCommand(text, RunFolder(folder))
    for alert in alerts:
        one(alert)
    one.close()


def test_it_finds_the_alert_in_its_environment_and_on_its_input(tmp_path, monkeypatch, warnings_of):
    monkeypatch.chdir(tmp_path)
    tell = "import json, os, sys; json.dump([sys.stdin.read(), dict(os.environ)], open('told', 'w'))"
    run(f'{sys.executable} -c "{tell}"', tmp_path, Alert("distance", 7, EVIL))
    said, environment = json.loads((tmp_path / "told").read_text())
    shown = EVIL.replace("\x1b", "\\u001b")
    assert said == f"{shown}\n"
    own = {key: value for key, value in environment.items() if key.startswith("DDPM_IP_") and "CACHE" not in key}
    assert own == {
        "DDPM_IP_ALERT": "distance",
        "DDPM_IP_ALERT_STEP": "7",
        "DDPM_IP_ALERT_TEXT": shown,
        "DDPM_IP_RUN": str(tmp_path),
    }
    assert not (tmp_path / "hit").exists()
    assert warnings_of() == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("echo first >&2; echo no such place >&2; exit 3", "exit status 3, no such place"),
        ("exec 0<&-; exit 1", "exit status 1"),
        ("a\0b", "embedded null byte"),
    ],
)
def test_its_failure_costs_a_warning(tmp_path, warnings_of, text, told):
    run(text, tmp_path, Alert("disk", 0, "x" * 100_000))
    assert warnings_of() == [f"train.alert_command failed: {told}. Training continues"]


def test_one_that_never_ends_is_ended_with_what_it_started(tmp_path, monkeypatch, warnings_of):
    monkeypatch.setattr(command, "LIMIT_SECONDS", 0.5)
    os.mkfifo(tmp_path / "held")  # open for writing as long as what it started runs
    reader = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    run(f"echo begun > {tmp_path}/held; sleep 600 > {tmp_path}/held & wait", tmp_path, Alert("disk", 0, "full"))
    assert "it was ended after" in warnings_of()[0]
    assert os.read(reader, 100) == b"begun\n"
    for _ in range(1000):
        try:
            assert os.read(reader, 100) == b"", "nobody writes"
            return
        except BlockingIOError:  # the system has not ended it yet
            time.sleep(0.01)
    raise AssertionError("what it started still runs")
