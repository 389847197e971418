"""The record of where numbers come from stays in proportion to the number of restarts."""

import json
import sys

import pytest

from ddpm_ip.run.provenance import earlier, provenance


@pytest.mark.parametrize("given", [["--train.alert_command", "curl secret"], ["--train.alert_command=curl secret"]])
def test_the_command_for_alerts_is_not_kept(monkeypatch, given):
    monkeypatch.setattr("sys.argv", ["ddpm-ip", "train", *given, "-e", "run"])
    kept = provenance()["command"]
    assert "secret" not in kept
    assert kept.startswith("ddpm-ip train --train.alert_command")
    assert kept.endswith("... -e run")


def test_a_thousand_changes_of_settings_stand_in_the_newest_record_alone():
    record = {"command": "0", "history": []}
    for n in range(1, 1001):
        history = [{"step": i, "changes": [f"train.n_steps: {i} -> {i + 1}"]} for i in range(n)]
        record = {"command": str(n), "history": history, "earlier": earlier(record)}
    assert len(record["history"]) == 1000
    assert [one["command"] for one in record["earlier"]] == [str(n) for n in range(999, -1, -1)]
    assert len(json.dumps(record)) < 200_000


def test_what_version_0_1_nested_is_a_list():
    record = {"command": "c", "earlier": {"command": "b", "earlier": {"command": "a"}}}
    assert earlier(record) == [{"command": "c"}, {"command": "b"}, {"command": "a"}]


def test_what_is_no_record_is_left_out():
    assert earlier({"command": "b", "earlier": [{"command": "a", "history": [1]}, 3, None]}) == [
        {"command": "b"},
        {"command": "a"},
    ]
    assert earlier({"command": "b", "earlier": "x"}) == [{"command": "b"}]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/venv/bin/ddpm-ip", "ddpm-ip train -e x"),
        ("/venv/site-packages/ddpm_ip/__main__.py", "python -m ddpm_ip train -e x"),
        ("/mine/__main__.py", "__main__.py train -e x"),
    ],
)
def test_a_command_is_as_it_can_be_given_again(monkeypatch, program, said):
    monkeypatch.setattr(sys, "argv", [program, "train", "-e", "x"])
    assert provenance()["command"] == said
