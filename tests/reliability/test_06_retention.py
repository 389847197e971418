"""The newest checkpoints stay (``train.keep_last``, at least two), and those at multiples of ``train.keep_every``.

Not promised: that the space of old ones is free again if they cannot be removed; that is only a warning.
"""

import errno
import os
import re

import pytest
from tests.tiny import assert_same_state, run, step_folder, steps_saved, tiny, yaml_file

from ddpm_ip.cli import main
from ddpm_ip.run import checkpoint


@pytest.mark.parametrize(
    ("last", "every", "expected"),
    [(2, 0, [10, 11]), (3, 4, [4, 8, 9, 10, 11]), (2, 5, [5, 10, 11]), (99, 0, list(range(1, 12)))],
)
def test_retention_in_a_run(tmp_path, last, every, expected):
    run(tiny(n_steps=11, save_freq=1, keep_last=last, keep_every=every), tmp_path)
    assert steps_saved(tmp_path) == expected
    assert sorted(p.name for p in (tmp_path / "ckpt").iterdir()) == [f"step{step:08d}" for step in expected]
    assert [checkpoint.read(step_folder(tmp_path, step)).step for step in expected] == expected


@pytest.mark.parametrize("count", [-1, 0, 1])
def test_keeping_fewer_than_two_is_refused(tmp_path, capsys, count):
    command = ["train", "-c", str(yaml_file(tmp_path)), "-e", str(tmp_path / "run"), f"--train.keep_last={count}"]
    assert main(command) == 2
    assert "train.keep_last" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_old_checkpoints_that_cannot_be_removed_are_only_a_warning(tmp_path, monkeypatch):
    """And they go as soon as they can."""
    ordinary = checkpoint.shutil.rmtree

    def fail(path, *given, **more):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", fail)
        run(tiny(n_steps=6), tmp_path / "run")
    assert steps_saved(tmp_path / "run") == [4, 6], "it is no checkpoint any more"
    assert [path.name[:22] for path in (tmp_path / "run" / "ckpt").glob(".tmp-*")] == [".tmp-old-step00000002-"]
    text = (tmp_path / "run" / "log.txt").read_text()
    assert re.search(r"cannot remove \S+/.tmp-old-step00000002-\S+: .*Permission denied", text)
    assert checkpoint.shutil.rmtree is ordinary
    run(tiny(n_steps=8), tmp_path / "run", "latest")
    assert steps_saved(tmp_path / "run") == [6, 8]
    assert not list((tmp_path / "run" / "ckpt").glob(".tmp-*"))
    run(tiny(n_steps=8), tmp_path / "straight")
    assert_same_state(tmp_path / "run", tmp_path / "straight", 8)
