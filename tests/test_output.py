"""What reaches a person: a sentence for every error of the system's, nothing that steers a terminal, nothing twice."""

import errno
import os
import subprocess
import sys

import pytest
from tests.tiny import GUARD, yaml_file

from ddpm_ip.cli import main
from ddpm_ip.errors import UserError
from ddpm_ip.output import LAUNCHED, LONGEST, complain, say, told

EVIL = "a\x1b[31m\x07\u202egnp\x9b\u2069"
CLI = [sys.executable, "-c", "import sys; from ddpm_ip.cli import main; sys.exit(main())"]
INSPECT = ["data", "inspect", "--data.name", "digits"]


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "may write to"),
        (errno.EACCES, "may write to"),
        (errno.EIO, "try again"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.ENOTDIR, "a part of the path is a file"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ESTALE, "try again"),
    ],
)
def test_an_error_of_the_system_says_what_where_and_what_to_do(number, what):
    found = told(OSError(number, os.strerror(number), f"folder/{EVIL}"))
    assert isinstance(found, UserError)
    assert found.exit_code == 1
    for text in ("folder/a\\u001b", os.strerror(number), what):
        assert text in str(found)


def test_every_command_ends_with_it(tmp_path, monkeypatch, capsys):
    from ddpm_ip import cli

    failures = {
        OSError(errno.ENOSPC, "No space left on device", str(tmp_path)): 1,
        PermissionError(errno.EACCES, "Permission denied", b"bytes"): 1,
        OSError("without a number"): 1,
        RuntimeError("Symlink loop from '/a'"): 1,
        MemoryError(): 3,
        RuntimeError("DefaultCPUAllocator: can't allocate memory"): 3,
        UserError("x" * 10_000_000): 1,
        UserError(EVIL): 1,
    }
    for name, (text, arguments, _) in cli._COMMANDS.items():
        needed = {
            "train": ["-c", "x"], "sample": ["--weights", "x"],
            "evaluate": ["x", "--reference", "x"], "table": ["-e", "x"], "data": ["inspect"], "report": ["x"],
            "compare-samplers": ["x"], "times": ["--weights", "x", "--steps", "5"],
            "exposure": ["--weights", "x"], "calibrate": ["--weights", "x"], "sweep": ["-e", "x"],
            "import": ["x", "-e", "x"], "export": ["x", "-o", "x"], "ema": ["x", "--length", "0.1"],
            "reproduce": ["paper_table"],
        }.get(name, [])  # fmt: skip
        for failure, code in failures.items():

            def fail(*given, failure=failure):
                raise failure

            monkeypatch.setitem(cli._COMMANDS, name, (text, arguments, fail))
            assert main([name, *needed]) == code
            shown = capsys.readouterr().err
            assert shown.startswith("error: ")
            assert len(shown) < LONGEST + 100
            assert shown[:-1].isprintable()
    monkeypatch.setitem(cli._COMMANDS, "doctor", (text, arguments, lambda *given: [][0]))
    with pytest.raises(IndexError):
        main(["doctor"])


def test_what_is_said_is_visible_and_can_be_encoded(capsys, monkeypatch):
    say(f"{EVIL}\nsecond line \udcff Größe")
    complain(EVIL)
    shown = capsys.readouterr()
    assert shown.out == "a\\u001b[31m\\u0007\\u202egnp\\u009b\\u2069\nsecond line \\udcff Größe\n"
    assert shown.err == "error: a\\u001b[31m\\u0007\\u202egnp\\u009b\\u2069\n"
    script = "from ddpm_ip.output import say; say('Gr\\u00f6\\u00dfe \\udcff')"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"Gr\\xf6\\xdfe \\udcff\n", b"")


@pytest.mark.parametrize("variable", LAUNCHED)
def test_under_a_launcher_it_is_said_whose_the_traceback_is(monkeypatch, capsys, variable):
    monkeypatch.setenv(variable, "no")
    assert main(["train", "-c", "none.yaml"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: none.yaml cannot be read")
    assert "a traceback below is the launcher's own" in second


def test_a_reader_that_leaves_is_no_error(tmp_path):
    process = subprocess.Popen(
        [*CLI, *INSPECT, "-o", "a.png"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert (process.stderr.read(), process.wait(GUARD)) == (b"", 0)
    assert (tmp_path / "a.png").exists()


def test_a_full_disk_under_the_output_is_one_sentence(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*CLI, *INSPECT], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=GUARD
        )
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written: No space left on device. Free some space there\n"


@pytest.mark.parametrize(
    "place", ["pipe", "loop", "file", "file/x", "gone", "x" * 300, "a\0b", "/proc/x", "/dev/full/x"]
)
def test_a_place_that_cannot_be_used_is_a_sentence_and_makes_nothing(tmp_path, monkeypatch, capsys, place):
    config = yaml_file(tmp_path, n_steps=1)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    os.symlink("nowhere", "gone")
    (home / "file").touch()
    before = sorted(os.listdir())
    for command in (
        ["train", "-c", str(config), "-e", place],
        ["train", "-c", place, "-e", "run"],
        ["train", "-c", str(config), "-e", place, "-r", "latest"],
        [*INSPECT, "-o", f"{place}/sheet.png"],
        ["report", place],
        ["table", "-e", place],
    ):
        assert main(command) in (1, 2)
        shown = capsys.readouterr().err
        assert shown.startswith("error: "), (command, shown)
        assert len(shown) < 2000
        assert sorted(os.listdir()) == before
