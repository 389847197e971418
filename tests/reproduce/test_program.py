"""The whole way in a small form: by the command, by the commands that it shows, and both after each other."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.tiny import one_thread, run

from ddpm_ip import cli
from ddpm_ip.errors import UserError
from ddpm_ip.reproduce import program
from ddpm_ip.settings import Wanted
from ddpm_ip.sweep import jobs
from ddpm_ip.sweep import program as sweeping

SMOKE = ["reproduce", "paper_table", "--smoke", "--steps", "2", "1", "-e"]


@pytest.fixture
def world(monkeypatch):
    """Commands run in this process; the list of those that a reproduction starts."""
    one_thread(monkeypatch)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0)
    monkeypatch.setattr(sweeping, "write_report", lambda runs, out, title: out)  # tests/report has the page
    ran = []

    def start(words, place, log):
        ran.append((words[0], Path(words[2]).name))
        if words[0] == "train":
            run(Wanted(), Path(words[2]), words[4])
            code = 0
        else:
            code = cli.main(words)
        return SimpleNamespace(poll=lambda: code)

    setup = sweeping.Setup
    monkeypatch.setattr(sweeping, "Setup", lambda places, check: setup(places, check, start))
    return ran


def test_a_rehearsal_makes_the_table_and_continues_what_its_script_began(tmp_path, world, capsys):
    folder = tmp_path / "all of it"
    assert cli.main([*SMOKE, str(folder), "--show"]) == 0
    script = capsys.readouterr().out
    assert not folder.exists()
    lines = [shlex.split(line) for line in script.splitlines() if line.startswith("ddpm-ip ")]
    assert [words[1] for words in lines] == ["train", "table", "train", "table", "reproduce"]
    assert cli.main(lines[2][1:]) == 0  # the second run alone, as somebody else would
    assert cli.main(lines[4][1:]) == 0
    first, second = "gamma=0,seed=0", "gamma=0.1,seed=0"
    assert world == [("train", first), ("table", first), ("table", second)]
    text = capsys.readouterr().out
    rows = (
        "DDPM, fixed_large",
        "DDPM, fixed_small",
        "DDPM-IP, gamma 0.1, fixed_large",
        "DDPM-IP, gamma 0.1, fixed_small",
    )
    for form in (".txt", ".md", ".csv"):
        table = (folder / f"paper_table{form}").read_text()
        assert all(row in table for row in rows)
    assert "Not trained as published" not in table
    assert text.index("estimate: time told after the first run") < text.index(f"{first}: training")
    assert (folder / "paper_table.txt").read_text().splitlines()[0] in text
    world.clear()
    assert cli.main([*SMOKE, str(folder)]) == 0
    assert world == []


def test_without_the_weights_nothing_begins_and_it_is_said_how_to_get_them(tmp_path, world, monkeypatch, capsys):
    weights = tmp_path / "my weights"
    monkeypatch.setenv("DDPM_IP_WEIGHTS", str(weights))
    monkeypatch.setattr(program, "sweep", lambda *given: pytest.fail("it began"))
    pytest.importorskip("torch_fidelity")
    assert cli.main(["reproduce", "paper_table", "-e", str(tmp_path / "runs")]) == 1
    said = capsys.readouterr().err
    name = "weights-inception-2015-12-05-6726825d.pth"
    assert f"curl -fL --create-dirs -o '{weights / name}' https://github.com/toshas/torch-fidelity/" in said
    assert "--smoke" in said
    assert not (tmp_path / "runs").exists()
    assert cli.main(["reproduce", "paper_table", "-e", "R", "--show", "--train.micro_batch", "64", "--jobs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"[ -e '{weights / name}' ] || curl -fL --create-dirs -o '{weights / name}' https://" in "\n".join(lines)
    trained = [line for line in lines if line.startswith("ddpm-ip train -c ddpm_ip_cifar10 -e R/gamma=0")]
    assert [line.endswith("--train.micro_batch 64 --perturbation.gamma 0 --seed 0") for line in trained] == [
        True,
        False,
    ]
    assert lines[-1] == "ddpm-ip reproduce paper_table -e R --train.micro_batch 64"


def test_no_job_is_refused(world):
    with pytest.raises(UserError, match="--jobs 0"):
        cli._COMMANDS["reproduce"][2](SimpleNamespace(jobs=0), [])
