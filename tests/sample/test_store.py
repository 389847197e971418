"""What lies in a folder of samples is what it says, and one call at a time fills it."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.tiny import GUARD, command, contents, empty, finish, flip, one_thread, options, step_folder, tiny

from ddpm_ip.cli import main
from ddpm_ip.errors import ConfigError, Diverged, UserError
from ddpm_ip.run.lock import Lock
from ddpm_ip.sample.program import sample
from ddpm_ip.sample.store import LOCK, Store

OPTIONS = {"n_samples": 12, "batch_size": 4, "respace_steps": 2, "seed": 3}


@pytest.fixture(scope="module")
def expected(trained, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        one_thread(patch)
        return make(trained, tmp_path_factory.mktemp("expected") / "a")


def make(weights, folder, on_block=lambda block: None, **changes):
    sample(tiny(), weights, folder, options(**{**OPTIONS, **changes}), on_block)
    return contents(folder) if folder.is_dir() else folder.read_bytes()


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def garbage(path):
    path.write_bytes(b"garbage" * 50)


def long(path):
    path.write_bytes(path.read_bytes() + b"\0" * 10**6)


def of_another_size(path):
    Image.new("L", (16, 16)).save(path)


def of_another_mode(path):
    Image.new("RGB", (8, 8)).save(path)


@pytest.mark.parametrize("damage", [cut, flip, empty, garbage, long, of_another_size, of_another_mode])
def test_a_damaged_image_is_made_again_and_said(trained, tmp_path, capsys, expected, damage):
    make(trained, tmp_path / "a")
    for i in (1, 2, 9):
        damage(tmp_path / "a" / f"{i:06d}.png")
    made = []
    capsys.readouterr()
    assert make(trained, tmp_path / "a", made.append) == expected
    assert made == [0, 2]
    assert "3 damaged images in" in (said := capsys.readouterr().err)
    assert "000001.png" in said
    assert make(trained, tmp_path / "a") == expected
    assert "damaged images" not in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["denoise", "progressive"])
def test_whole_strips_stay_and_damaged_ones_are_made_again(trained, tmp_path, mode):
    how = {"mode": mode, "n_denoise": 5, "n_progressive": 5}
    before = make(trained, tmp_path / "a", **how)
    made = []
    assert make(trained, tmp_path / "a", made.append, **how) == before
    assert made == []
    cut(tmp_path / "a" / "000005.png")
    assert make(trained, tmp_path / "a", made.append, **how) == before
    assert made == [1]


def test_what_is_no_file_is_told_and_not_waited_for(trained, tmp_path):
    make(trained, tmp_path / "a")
    (tmp_path / "a" / "000002.png").unlink()
    os.mkfifo(tmp_path / "a" / "000002.png")
    with pytest.raises(UserError, match=r"000002\.png cannot be written: a pipe"):
        make(trained, tmp_path / "a")


def test_a_link_is_not_written_through(trained, tmp_path):
    make(trained, tmp_path / "a")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "a" / "000002.png").unlink()
    (tmp_path / "a" / "000002.png").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=r"000002\.png is a symbolic link"):
        make(trained, tmp_path / "a")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_damaged_part_of_an_npz_is_made_again(trained, tmp_path):
    whole = make(trained, tmp_path / "a.npz")

    def stop(block):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(trained, tmp_path / "b.npz", stop)
    cut(tmp_path / "b.parts" / "000001.png")
    assert make(trained, tmp_path / "b.npz") == whole


def test_an_npz_says_what_its_images_are_made_of(trained, tmp_path):
    make(trained, tmp_path / "a")
    make(trained, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        said = file["sampling"]
    assert (said.shape, said.dtype.kind) == ((), "U")
    assert json.loads(str(said)) == json.loads((tmp_path / "a" / "sampling.json").read_text())


# --- one at a time ---------------------------------------------------------------------------------------------------


def home_of(place):
    return place.with_name(f"{place.stem}.parts") if place.suffix else place


@pytest.mark.parametrize("name", ["a", "a.npz"])
def test_a_folder_that_another_call_fills_is_refused(trained, tmp_path, name):
    with pytest.raises(KeyboardInterrupt):
        make(trained, tmp_path / name, stop_after_the_first)
    home = home_of(tmp_path / name)
    with Lock(home / LOCK):
        before = contents(home)
        code, output = finish(command(*words(trained, tmp_path / name)))
        assert code == 2, output
        (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
        assert f"process {os.getpid()} on" in line
        assert "Traceback" not in output
        assert contents(home) == before
    assert make(trained, tmp_path / name)
    assert not (home / LOCK).exists()


def stop_after_the_first(block):
    raise KeyboardInterrupt


def words(weights, place):
    given = [f"--{key}={value}" for key, value in OPTIONS.items()]
    return ["sample", "--weights", str(weights), "--save_dir", str(place), *given]


@pytest.mark.parametrize("name", ["a", "a.npz"])
def test_three_calls_that_start_together_make_the_images_once(trained, tmp_path, name):
    """Each makes them or says why not; nothing is lost, nothing is left but the images."""
    started = [command(*words(trained, tmp_path / name)) for _ in range(3)]
    ended = [finish(process) for process in started]
    assert {code for code, _ in ended} <= {0, 2}, ended
    assert any(code == 0 for code, _ in ended), ended
    assert not any("Traceback" in output for _, output in ended), ended
    assert all("error: " in output for code, output in ended if code), ended
    assert {p.name for p in tmp_path.iterdir()} - {"a.grid.png"} == {name}
    assert make(trained, tmp_path / "alone" / name) == (
        contents(tmp_path / name) if name == "a" else (tmp_path / name).read_bytes()
    )


# --- nothing is left where nothing was made --------------------------------------------------------------------------


@pytest.fixture
def ruined(trained, tmp_path):
    """Weights that are finite, but so large that no image comes out."""
    weights = load_file(step_folder(trained, 6) / "ema.safetensors")
    save_file({k: v * 1e30 for k, v in weights.items()}, tmp_path / "large.safetensors")
    return tmp_path / "large.safetensors"


@pytest.mark.parametrize("name", ["a", "a.npz", "deep/er/a"])
@pytest.mark.parametrize("mode", ["sample", "denoise"])
def test_images_that_are_not_finite_are_refused_and_nothing_is_left(ruined, tmp_path, name, mode):
    if (name, mode) == ("a.npz", "denoise"):
        return
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(Diverged, match=r"large\.safetensors does not make images"):
        make(ruined, tmp_path / name, mode=mode)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_weights_that_are_not_finite_are_refused(trained, tmp_path, capsys):
    weights = load_file(step_folder(trained, 6) / "ema.safetensors")
    weights["conv_in.weight"][0] = float("nan")
    save_file(weights, tmp_path / "ema.safetensors")
    given = words(tmp_path / "ema.safetensors", tmp_path / "a")
    assert main([*given, "-c", str(trained / "config.yaml")]) == 1
    assert "ema.safetensors holds numbers that are not finite (in conv_in.weight)" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_folder_with_other_files_gets_none(trained, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        make(trained, tmp_path / "a")
    assert contents(tmp_path / "a") == {"mine.txt": b"mine"}


def test_an_interruption_before_the_first_image_leaves_nothing(trained, tmp_path, monkeypatch):
    from ddpm_ip.sample.generator import Generator

    def interrupted(self, block):
        raise KeyboardInterrupt

    monkeypatch.setattr(Generator, "images", interrupted)
    (tmp_path / "mine").mkdir()
    for name in ("new/a", "mine"):
        with pytest.raises(KeyboardInterrupt):
            make(trained, tmp_path / name)
    assert [p.name for p in tmp_path.rglob("*")] == ["mine"]


def test_what_a_killed_call_left_is_in_nobodys_way(trained, tmp_path, expected):
    """A lock of a process that is gone, and a file that it was writing, which is swept away."""
    (tmp_path / "a").mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(GUARD)
    (tmp_path / "a" / LOCK).write_text(json.dumps({"pid": gone.pid, "host": socket.gethostname()}))
    (tmp_path / "a" / ".000003.png.77.partial").write_text("half")
    assert make(trained, tmp_path / "a") == expected
    assert not (tmp_path / "a" / ".000003.png.77.partial").exists()


@pytest.mark.parametrize("name", ["nothing", "nothing.safetensors", "ckpt/step00000009"])
def test_weights_that_are_not_there_are_what_is_wrong(tmp_path, capsys, name):
    """And not that a configuration is missing for them."""
    assert main(words(tmp_path / name, tmp_path / "a")) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path / name} does not exist" in said
    assert "-c" not in said.replace("-checkpoint", "")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_weights_is_what_is_wrong(tmp_path, capsys):
    (tmp_path / "x").mkdir()
    assert main(words(tmp_path / "x", tmp_path / "a")) == 1
    assert "neither a checkpoint" in capsys.readouterr().err


def test_a_link_in_the_place_of_an_image_is_not_the_image(trained, tmp_path):
    """Whatever it points to is another image, whole or not."""
    make(trained, tmp_path / "a")
    (tmp_path / "a" / "000003.png").unlink()
    (tmp_path / "a" / "000003.png").symlink_to("000002.png")
    with pytest.raises(UserError, match=r"000003\.png is a symbolic link to 000002\.png.* remove the link"):
        make(trained, tmp_path / "a")


def test_a_message_about_a_mark_is_short_whatever_is_in_it(trained, tmp_path):
    make(trained, tmp_path / "a")
    mark = {"\x1b[31mred": "x" * 100_000, **{f"key{i}": i for i in range(10_000)}}
    (tmp_path / "a" / "sampling.json").write_text(json.dumps(mark))
    with pytest.raises(ConfigError, match=r"holds images made otherwise .* and [0-9]+ more") as found:
        make(trained, tmp_path / "a")
    assert len(str(found.value)) < 5000
    assert "\x1b" not in str(found.value)


def test_images_that_another_node_kept_on_its_own_disk_are_missed(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    store = Store.at(folder, "sample", 1)
    for index in (0, 1, 3):
        store.put(index, np.zeros((1, 4, 4), np.uint8))
    with pytest.raises(ConfigError, match=r"1 of 4 images are not in .*a, 000002\.png among .*--save_dir must be on a"):
        store.check_all_there(4)
    store.put(2, np.zeros((1, 4, 4), np.uint8))
    store.check_all_there(4)
