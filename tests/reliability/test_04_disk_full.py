"""A disk that is full costs a save, never what was saved: training continues, and only the last save must succeed.

There is no option for it: a save in the middle that fails is told, with the path, what it needs and what is free, and
tried again at the next; the last one, without which the work would be lost, ends the run with exit code 1. Nothing old
is removed before something new is there. What a full disk does to logs, pictures and samples is in
tests/run/test_log.py, tests/test_files.py and tests/test_output.py.
"""

import errno
import os
import re
import resource
import signal

import pytest
from safetensors.torch import save_file
from tests.tiny import alone, assert_same_state, contents, run, step_folder, steps_saved, tiny, yaml_file

from ddpm_ip.cli import main
from ddpm_ip.errors import CheckpointError
from ddpm_ip.run import checkpoint
from ddpm_ip.train.loop import Hooks

TOLD = r"cannot write the checkpoint \S+/ckpt/step00000006: .*{reason}.*\. It needs \d+ MB, \d+ MB are free there\. "
TOLD += "Older checkpoints are untouched"


def limited(step: int) -> None:
    """From now on a file has 100 kB at most, which is less than the weights have."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000 if step == 6 else resource.RLIM_INFINITY, -1))


class Watched:
    """Makes the disk full at the save of step 6, and looks at what is there before and after it."""

    def __init__(self, folder, fill) -> None:
        self.folder, self.fill, self.seen = folder, fill, {}

    def on_step(self, step: int) -> None:
        self.seen[step] = contents(self.folder / "ckpt")
        self.fill(step)

    def check(self) -> None:
        assert {name.split("/")[0] for name in self.seen[6]} == {"step00000002", "step00000004"}
        assert self.seen[7] == self.seen[6], "nothing is removed before something new is there, and nothing is left"
        assert {name.split("/")[0] for name in self.seen[9]} == {"step00000004", "step00000008"}
        assert steps_saved(self.folder) == [8, 10]
        text = (self.folder / "log.txt").read_text()
        assert len(re.findall("cannot write the checkpoint", text)) == 1
        assert "Training continues; the next attempt is in 2 steps" in text


def test_a_limit_of_the_system_costs_one_save(tmp_path):
    def begin():
        watched = Watched(tmp_path, limited)
        run(tiny(n_steps=10), tmp_path, None, Hooks(watched.on_step))
        watched.check()

    assert alone(begin) == 0
    assert re.search(TOLD.format(reason="File too large"), (tmp_path / "log.txt").read_text())
    run(tiny(n_steps=10), tmp_path / "straight")
    assert_same_state(tmp_path, tmp_path / "straight", 10)


def to_a_full_device(tensors, path) -> None:
    """What a full disk does to ``save_file``: a part of it is there when the system says no."""
    save_file(tensors, path)
    with open(path, "r+b") as file:
        file.truncate(1000)
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_device_costs_one_save(tmp_path, monkeypatch):
    def fill(step):
        monkeypatch.setattr(checkpoint, "save_file", to_a_full_device if step == 6 else save_file)

    watched = Watched(tmp_path, fill)
    run(tiny(n_steps=10), tmp_path, None, Hooks(watched.on_step))
    watched.check()
    assert re.search(TOLD.format(reason="No space left on device"), (tmp_path / "log.txt").read_text())


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "meta.json"])
def test_the_last_checkpoint_must_be_written(tmp_path, name):
    now = [0]

    def on_write(written):
        if (now[0], written) == (6, name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointError, match=TOLD.format(reason="No space left on device")):
        run(tiny(), tmp_path, None, Hooks(lambda step: now.__setitem__(0, step), on_write))
    assert sorted(p.name for p in (tmp_path / "ckpt").iterdir()) == ["step00000002", "step00000004"]
    assert checkpoint.newest(tmp_path / "ckpt").step == 4


def test_a_last_checkpoint_that_fails_is_exit_code_1_and_can_be_made_up_for(tmp_path, monkeypatch, capsys):
    config, folder = yaml_file(tmp_path, n_steps=3), tmp_path / "run"
    main(["train", "-c", str(config), "-e", str(folder), "--train.n_steps", "2"])
    before = contents(step_folder(folder, 2))
    monkeypatch.setattr(checkpoint, "save_file", to_a_full_device)
    capsys.readouterr()
    assert main(["train", "-e", str(folder), "-r", "latest", "--train.n_steps", "3"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(TOLD.format(reason="No space").replace("06", "03"), line)
    assert contents(folder / "ckpt") == {f"step00000002/{name}": content for name, content in before.items()}
    monkeypatch.undo()
    assert main(["train", "-e", str(folder), "-r", "latest", "--train.n_steps", "3"]) == 0
    assert steps_saved(folder) == [2, 3]
