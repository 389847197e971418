"""If one of several processes dies the launcher ends the others; the run continues from its newest checkpoint, exactly.

Not promised: that the others go on without it, nor that a launcher notices a process that only hangs.
"""

import json

import pytest
from tests.tiny import (
    TORCHRUN,
    assert_same_state,
    finish,
    numbers,
    run,
    start,
    steps_saved,
    tiny,
    two_processes,
    yaml_file,
)

WORKER = """
import os, sys
from pathlib import Path
from ddpm_ip.config import load
from ddpm_ip.train.loop import Hooks, train

def die(step):
    Path(sys.argv[3], os.environ["RANK"]).write_text(str(os.getpid()))
    if step == 13 and os.environ["RANK"] == sys.argv[4]:
        os._exit(9)

train(load(sys.argv[1]), Path(sys.argv[2]), "latest", Hooks(on_step=die))
"""
SETTINGS = {"n_steps": 20, "save_freq": 5}


@pytest.mark.parametrize("victim", [1])
def test_the_launcher_ends_all_and_the_run_goes_on(tmp_path, victim):
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "ids").mkdir()
    config, folder = yaml_file(tmp_path, **SETTINGS), tmp_path / "run"
    code, output = finish(start(*TORCHRUN, tmp_path / "worker.py", config, folder, tmp_path / "ids", victim))
    assert code != 0
    assert "exitcode" in output or "failed" in output
    for rank in (0, 1):
        assert not lives(int((tmp_path / "ids" / str(rank)).read_text()))
    assert steps_saved(folder) == [5, 10]
    assert two_processes(lambda: run(tiny(**SETTINGS), folder, "latest")) == [0, 0]
    assert two_processes(lambda: run(tiny(**SETTINGS), tmp_path / "straight")) == [0, 0]
    assert_same_state(folder, tmp_path / "straight", 20)
    assert numbers(folder) == numbers(tmp_path / "straight")
    assert not (folder / "lock").exists()
    assert json.loads((folder / "provenance.json").read_text())["from_step"] == 10


def lives(process: int) -> bool:
    """Whether it runs: one that has ended and is not yet waited for does not."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
