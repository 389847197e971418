"""What a run tells: early lines, names that steer no terminal, a disk that is full, and damaged files of lines."""

import io
import json
import logging
import os
import sys
from pathlib import Path

import pytest
from tests.tiny import finish, run, start, steps_saved, tiny, yaml_file

from ddpm_ip.run import log as logs
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.log import Spare, drop_after, setup

# Trains while from step 3 to step 7 no byte finds room on the disk, whatever is written.
FULL = """
import resource, sys
from pathlib import Path
from ddpm_ip.config import load
from ddpm_ip.train.loop import Hooks, train
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
def on_step(step):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0 if 3 <= step <= int(sys.argv[3]) else hard, hard))
print(train(load(sys.argv[1]), Path(sys.argv[2]), None, Hooks(on_step=on_step)))
"""
KINDS = ("a line of numbers", "a line of the log", "a grid of samples", "a line of evaluations", "the best weights")


@pytest.fixture(autouse=True)
def as_before():
    with logs.as_before():
        yield


def test_a_full_disk_costs_a_warning_of_each_kind_and_no_step(tmp_path):
    config = yaml_file(tmp_path, n_steps=10, save_freq=10, sample_freq=1, eval={"every": 1, "n_samples": 8, "steps": 1})
    returned, output = finish(start("-c", FULL, config, tmp_path / "run", 7))
    assert returned == 0, output
    assert "Traceback" not in output
    assert "Exception" not in output
    for kind in (*KINDS, "TensorBoard's file"):
        assert output.count(f"{kind} cannot be written: ") == 1, (kind, output)
    assert steps_saved(tmp_path / "run") == [10]
    written = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert written == [1, 2, 8, 9, 10]
    pictures = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert pictures == [f"step{step:08d}.png" for step in written]
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert [n for n in range(1, 11) if any(f"step {n}/10" in line for line in lines)] == written


def test_what_is_logged_before_the_folder_is_known_comes_first(tmp_path, capsys):
    logger = logging.getLogger("ddpm_ip.test")
    setup(None, True)
    logger.info("of another run")
    setup(None, True)
    logger.info("early")
    setup(RunFolder(tmp_path), True)
    logger.info("late")
    assert [line[20:] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["early", "late"]
    assert [line[20:] for line in capsys.readouterr().err.splitlines()] == ["of another run", "early", "late"]


def test_a_folder_in_which_nothing_is_logged_gets_no_log(tmp_path):
    setup(None, True)
    setup(RunFolder(tmp_path), True)
    assert list(tmp_path.iterdir()) == []


def test_names_from_outside_steer_no_terminal_and_begin_no_line(tmp_path, capsys):
    setup(RunFolder(tmp_path), True)
    evil = "a\x1b[31m\r\x07\u202egnp.exe\x9b2J\u2066\nerror: b"
    logging.getLogger("ddpm_ip.test").warning("%s and %s, %s,\n  our own line", Path(evil), evil, ValueError("\x1b[0m"))
    for text in (capsys.readouterr().err, (tmp_path / "log.txt").read_text(encoding="utf-8")):
        assert len(text.splitlines()) == 2
        assert text.replace("\n", "").isprintable()
        assert "a\\u001b[31m\\u000d" in text
        assert text.endswith("\n  our own line\n")


def test_the_log_is_never_written_through_a_link(tmp_path, capsys):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.txt").symlink_to(tmp_path / "theirs")
    setup(RunFolder(tmp_path / "run"), True)
    for _ in range(3):
        logging.getLogger("ddpm_ip.test").info("something")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert capsys.readouterr().err.count("symbolic link") == 1


@pytest.mark.parametrize(
    "name", ["config.yaml", "provenance.json", "log.txt", "metrics.jsonl", "lock", "samples", "ckpt"]
)
@pytest.mark.parametrize("target", ["there", "absent"])
def test_a_planted_link_is_never_written_through(tmp_path, name, target):
    folder, elsewhere = tmp_path / "run", tmp_path / target
    folder.mkdir()
    if target == "there":
        elsewhere.write_text("theirs")
    (folder / name).symlink_to(elsewhere)
    try:
        run(tiny(n_steps=1, sample_freq=1), folder, "latest")
    except Exception as error:
        assert type(error).__module__ == "ddpm_ip.errors"  # noqa: PT017
    assert (folder / name).is_symlink()
    assert elsewhere.read_text() == "theirs" if target == "there" else not os.path.lexists(elsewhere)


def test_folders_may_be_links(tmp_path):
    for name in ("tensorboard", "samples"):
        (tmp_path / f"my-{name}").mkdir()
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).symlink_to(tmp_path / f"my-{name}")
    run(tiny(n_steps=1, sample_freq=1), tmp_path / "run")
    assert len(list((tmp_path / "my-tensorboard").iterdir())) == 1
    assert [path.name for path in (tmp_path / "my-samples").iterdir()] == ["step00000001.png"]


@pytest.mark.parametrize("plant", [lambda p: p.write_text("a file"), lambda p: p.symlink_to("tensorboard"), os.mkfifo])
def test_a_place_where_tensorboard_cannot_write_costs_only_a_warning(tmp_path, plant, capfd):
    (tmp_path / "run").mkdir()
    plant(tmp_path / "run" / "tensorboard")
    run(tiny(n_steps=2), tmp_path / "run")
    shown = capfd.readouterr().err
    assert shown.count("TensorBoard's file cannot be written") == 1
    assert "Traceback" not in shown
    assert steps_saved(tmp_path / "run") == [2]


def test_a_closed_or_full_terminal_ends_nothing(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def write(self, text):
            raise self.error

    setup(RunFolder(tmp_path), True)
    for error in (OSError(28, "full"), OSError(5, "gone"), BrokenPipeError(), ValueError("closed")):
        terminal = Terminal()
        terminal.error = error
        monkeypatch.setattr(sys, "stderr", terminal)
        logging.getLogger("ddpm_ip.test").info("for nobody")
    assert (tmp_path / "log.txt").read_text().count("for nobody") == 4


def test_each_kind_is_told_once(warnings_of):
    spare = Spare()
    for kind in ("this", "that", "this"):
        with spare(kind):
            raise OSError(28, "No space left on device")
    assert [text.split(" cannot")[0] for text in warnings_of()] == ["this", "that"]
    with pytest.raises(ValueError, match="a fault"), spare("this"):
        raise ValueError("a fault")


# --- damaged files of lines ------------------------------------------------------------------------------------------

WHOLE = b'{"step": 1, "loss": 1}\n'
DAMAGES = {
    "no text": b"\xff\xfe\x00\n",
    "deep": b"[" * 100_000 + b"]" * 100_000 + b"\n",
    "deep objects": b'{"a":' * 100_000 + b"\n",
    "wrong types": b'{"step": "two"}\n',
    "missing keys": b"{}\n",
    "not finite": b'{"step": NaN}\n',
    "a list": b"[1, 2]\n",
    "cut and continued": b'{"step": 2, "lo{"step": 2}\n',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside_and_its_whole_lines_stay(tmp_path, damage, warnings_of):
    path = tmp_path / "metrics.jsonl"
    for turn in (1, 2):
        path.write_bytes(WHOLE + DAMAGES[damage] + b'{"step": 9}\n')
        drop_after(path, 5)
        assert path.read_bytes() == WHOLE
        aside = tmp_path / f"metrics.jsonl.damaged-{turn}"
        assert aside.read_bytes() == WHOLE + DAMAGES[damage] + b'{"step": 9}\n'
        assert aside.name in warnings_of()[-1]
        assert "1 of 3 lines, the first of them line 2" in warnings_of()[-1]


def test_a_file_that_cannot_be_read_at_all_is_set_aside(tmp_path, warnings_of):
    path = tmp_path / "metrics.jsonl"
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # with holes: it takes no room
    drop_after(path, 5)
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl.damaged-1"]
    assert "it has more than 256 MB" in warnings_of()[-1]


@pytest.mark.parametrize("content", [b"", b"\n", WHOLE, WHOLE + b'{"step": 2, "lo', WHOLE[:-1]])
def test_an_empty_file_and_a_cut_last_line_are_no_damage(tmp_path, content, warnings_of):
    (tmp_path / "a.jsonl").write_bytes(content)
    drop_after(tmp_path / "a.jsonl", 5)
    assert (tmp_path / "a.jsonl").read_bytes() == (WHOLE if b"loss" in content else b"")
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
    assert warnings_of() == []


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluations.jsonl"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"\xff" * 9 + b"\n",
        b"[" * 100_000,
        b'{"step": 2, "values": 1, "protocol": []}\n',
        b'{"step": 1}\n',
    ],
)
def test_no_damage_of_its_lines_keeps_a_run_from_continuing(tmp_path, name, content):
    settings = {"eval": {"every": 2, "n_samples": 8, "steps": 1}}
    run(tiny(n_steps=2, **settings), tmp_path)
    (tmp_path / name).write_bytes(content)
    assert run(tiny(n_steps=4, **settings), tmp_path, "latest").step == 4
    steps = [json.loads(line)["step"] for line in (tmp_path / name).read_text().splitlines()]
    assert steps[-1] == 4
