"""Whoever reads images beside the training cannot make it hang: there is a thread, and no process that could die alone.

This project has no DataLoader and so none of its workers. An error of the thread that gathers the next batch, or of
those that decode, ends the run with that error at the step that needed it; a process that dies takes its threads with
it, and the run continues from its newest checkpoint (theme 2); one of several processes is theme 26.
"""

import os
import threading

import pytest
from tests.tiny import alone, assert_same_state, ended, forked, run, steps_saved, tiny

from ddpm_ip.train import feed as module
from ddpm_ip.train.feed import _Streamed

CONFIG = tiny(n_steps=6, save_freq=2)


@pytest.fixture
def beside(monkeypatch):
    """A set that is read beside the training, as if it were a large one."""
    monkeypatch.setattr(module, "RESIDENT_BYTES", 0)


def when(monkeypatch, step, do):
    ordinary = _Streamed._gather

    def gather(self, at, into):
        if at == step:
            do()
        return ordinary(self, at, into)

    monkeypatch.setattr(_Streamed, "_gather", gather)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError("no room"), SystemExit(7)], ids=str)
def test_an_error_of_the_thread_ends_the_run_with_its_cause(tmp_path, monkeypatch, beside, error):
    def fail():
        raise error

    with monkeypatch.context() as patch:
        when(patch, 4, fail)
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            run(CONFIG, tmp_path / "run")
    assert error in (caught.value, caught.value.__cause__)
    assert steps_saved(tmp_path / "run") == [2, 4]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]
    assert not (tmp_path / "run" / "lock").exists()
    run(CONFIG, tmp_path / "run", "latest")
    run(CONFIG, tmp_path / "straight")
    assert_same_state(tmp_path / "run", tmp_path / "straight", 6)


def test_the_end_of_the_process_in_the_thread_is_that_of_the_run(tmp_path, monkeypatch, beside):
    """As a segmentation fault in a reader would be; no part of it is left waiting."""
    with monkeypatch.context() as patch:
        when(patch, 4, lambda: os._exit(9))
        assert ended(forked(lambda: run(CONFIG, tmp_path / "run"))) == 9
    assert steps_saved(tmp_path / "run")[0] == 2
    assert alone(lambda: run(CONFIG, tmp_path / "run", "latest")) == 0
    assert alone(lambda: run(CONFIG, tmp_path / "straight")) == 0
    assert_same_state(tmp_path / "run", tmp_path / "straight", 6)
