"""A damaged checkpoint is not used: the newest whole one is, with a warning that says which file is damaged and how.

If none is whole the run stops with exit code 1, and never starts over by itself. A file that does not belong to a
checkpoint is no damage: it is not read, and stays. Each damage by itself, and forged files whose hashes fit, are in
tests/run/test_checkpoint.py, tests/run/test_tensors.py and tests/train/test_state.py.
"""

import re
import shutil

import pytest
from tests.tiny import (
    FILES,
    alone,
    assert_same_state,
    contents,
    crash_at,
    empty,
    flip,
    numbers,
    run,
    step_folder,
    steps_saved,
    tiny,
    yaml_file,
)

from ddpm_ip.cli import main
from ddpm_ip.run import checkpoint
from ddpm_ip.train.loop import Hooks

CONFIG = {"n_steps": 8, "save_freq": 2}


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def delete(path):
    path.unlink()


DAMAGES = {
    truncate: r"has \d+ bytes, not what manifest\.json says",
    flip: r"is damaged \(its SHA-256",
    empty: r"has 0 bytes",
    delete: "is missing",
}
KINDS = pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One that nobody disturbed, and one that stopped after step 7 with the checkpoints of steps 4 and 6."""
    home = tmp_path_factory.mktemp("runs")
    assert alone(lambda: run(tiny(**CONFIG), home / "straight")) == 0
    assert alone(lambda: run(tiny(**CONFIG), home / "stopped", None, crash_at(7))) == 1
    assert steps_saved(home / "stopped") == [4, 6]
    return home


@pytest.mark.parametrize("name", FILES)
@KINDS
def test_a_damaged_file_costs_only_the_steps_since_the_checkpoint_before(tmp_path, runs, name, damage):
    """Its log names the file and the reason, and the run ends with the bytes of one that nobody disturbed."""
    shutil.copytree(runs / "stopped", tmp_path / "run")
    file = step_folder(tmp_path / "run", 6) / name
    damage(file)
    kept = contents(step_folder(tmp_path / "run", 4))
    seen = []
    look = Hooks(on_step=lambda step: seen.append((step, contents(step_folder(tmp_path / "run", 4)) == kept)))
    run(tiny(**CONFIG), tmp_path / "run", "latest", look)
    assert seen[0] == (5, True)
    assert_same_state(tmp_path / "run", runs / "straight", 8)
    assert numbers(tmp_path / "run") == numbers(runs / "straight")
    (line,) = re.findall(r"skipping a damaged checkpoint: .*", (tmp_path / "run" / "log.txt").read_text())
    assert "step00000006" in line
    if name != "manifest.json":
        assert re.search(rf"{re.escape(name)} {DAMAGES[damage]}", line)
    elif damage is not flip:  # a bit of the manifest may make any of the files look wrong
        assert "manifest.json" in line


@pytest.mark.parametrize("name", ["notes.txt", "extra.safetensors", ".hidden", "model.safetensors.partial"])
def test_a_file_that_does_not_belong_to_it_is_no_damage(tmp_path, runs, name):
    shutil.copytree(runs / "stopped", tmp_path / "run")
    (step_folder(tmp_path / "run", 6) / name).write_bytes(b"anything")
    found = checkpoint.newest(tmp_path / "run" / "ckpt")
    assert (found.step, found.parts) == (6, ["model", "ema", "optimizer"])
    if name == "extra.safetensors":
        run(tiny(**CONFIG), tmp_path / "run", "latest")
        assert_same_state(tmp_path / "run", runs / "straight", 8)
        assert (step_folder(tmp_path / "run", 6) / name).read_bytes() == b"anything"


@KINDS
def test_when_all_are_damaged_nothing_starts_anew(tmp_path, runs, capsys, damage):
    folder = tmp_path / "run"
    shutil.copytree(runs / "stopped", folder)
    damage(step_folder(folder, 4) / "ema.safetensors")
    damage(step_folder(folder, 6) / "meta.json")
    before = contents(folder / "ckpt"), numbers(folder), (folder / "config.yaml").read_bytes()
    for given in ([], ["-c", str(yaml_file(tmp_path, **CONFIG))]):
        assert main(["train", "-e", str(folder), "-r", "latest", *given]) == 1
        said = capsys.readouterr().err.split("error: ")[-1]
        assert re.search(rf"step00000006: meta\.json {DAMAGES[damage]}", said)
        assert re.search(rf"step00000004: ema\.safetensors {DAMAGES[damage]}", said)
        assert "Restore one from a backup, or start again in another folder (-e)" in said
    assert (contents(folder / "ckpt"), numbers(folder), (folder / "config.yaml").read_bytes()) == before


def test_two_damaged_checkpoints_do_not_push_out_the_new_ones(tmp_path):
    """Retention counts by step: what is damaged and later must not take the place of what is whole and new."""
    assert alone(lambda: run(tiny(**CONFIG, keep_every=2), tmp_path, None, crash_at(7))) == 1
    for step in (4, 6):
        empty(step_folder(tmp_path, step) / "model.safetensors")
    assert alone(lambda: run(tiny(n_steps=8, save_freq=1), tmp_path, "latest", crash_at(4))) == 1
    assert checkpoint.newest(tmp_path / "ckpt").step == 3
