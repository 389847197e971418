"""What was measured for weights is next to them, and is of these weights or refused."""

import json
import os

import pytest

from ddpm_ip.errors import ConfigError, NewerVersion
from ddpm_ip.run.folder import config_near
from ddpm_ip.run.measured import Measured

HASH = "0123456789abcdef" * 4
NUMBERS = {"gammas": [0.1, 0.2]}


def run_of(folder):
    """The folder of a run with one checkpoint."""
    checkpoint = folder / "ckpt" / "step00000006"
    checkpoint.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    (checkpoint / "manifest.json").write_text("{}")
    (checkpoint / "ema.safetensors").write_bytes(b"")
    return checkpoint


def test_the_store_of_a_run_is_in_its_folder(tmp_path, monkeypatch):
    """Whatever of the run was named, also from inside it."""
    checkpoint = run_of(tmp_path / "run")
    wanted = tmp_path / "run" / "measured" / HASH[:16]
    for path in (tmp_path / "run", checkpoint, checkpoint / "ema.safetensors", tmp_path / "run" / "ckpt"):
        assert Measured.of(HASH, path).folder == wanted
    monkeypatch.chdir(checkpoint)
    assert Measured.of(HASH, type(tmp_path)("ema.safetensors")).folder == wanted


def test_a_run_further_up_has_nothing_to_do_with_a_file(tmp_path):
    run_of(tmp_path)
    file = tmp_path / "other" / "weights" / "a.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    assert Measured.of(HASH, file).folder.parent.parent == file.parent
    assert config_near(file) is None


def test_the_store_of_a_file_or_a_checkpoint_alone_is_beside_it(tmp_path):
    file, checkpoint = tmp_path / "a.safetensors", tmp_path / "copied"
    file.write_bytes(b"")
    checkpoint.mkdir()
    (checkpoint / "manifest.json").write_text("{}")
    for path in (file, checkpoint):
        assert Measured.of(HASH, path).folder == tmp_path / "measured" / HASH[:16]


def test_what_is_beside_the_weights_is_in_the_folder_itself(tmp_path):
    checkpoint = run_of(tmp_path / "run")
    (tmp_path / "a.safetensors").write_bytes(b"")
    for path, home in ((checkpoint, tmp_path / "run"), (tmp_path / "a.safetensors", tmp_path)):
        store = Measured.beside(HASH, path)
        assert store == Measured.of(HASH, path).at_home() == store.at_home()
        assert store.write("calibration-dpm_solver-10", NUMBERS, {}) == home / "calibration-dpm_solver-10.json"
        assert store.read("calibration-dpm_solver-10")["gammas"] == NUMBERS["gammas"]
        with pytest.raises(ConfigError, match="for other weights"):
            Measured.beside("1" * 64, path).read("calibration-dpm_solver-10")
    with pytest.raises(ConfigError, match="SHA-256"):
        Measured.beside("", tmp_path)


def test_what_was_written_is_read(tmp_path):
    store = Measured.of(HASH, tmp_path)
    assert store.read("analytic") is None
    assert not store.folder.exists()
    file = store.write("analytic", NUMBERS, {"seed": 3})
    assert file == tmp_path / "measured" / HASH[:16] / "analytic.json"
    found = store.read("analytic", {"gammas": list})
    assert (found["gammas"], found["weights"], found["settings"]) == ([0.1, 0.2], HASH, {"seed": 3})
    assert set(found) == {"weights", "measured", "versions", "settings", "gammas"}
    assert found["versions"].keys() == {"ddpm-ip", "torch"}
    assert json.loads(file.read_text())["schema"] == 1
    store.write("analytic", {"gammas": []}, {})
    assert store.read("analytic")["gammas"] == []


def test_numbers_of_other_weights_are_refused(tmp_path):
    """The name has a part of the hash only, and files can be moved."""
    Measured.of(HASH, tmp_path).write("analytic", NUMBERS, {})
    other = Measured.of(HASH[:16] + 48 * "0", tmp_path)
    with pytest.raises(ConfigError, match=r"analytic\.json was measured for other weights .* Measure it again"):
        other.read("analytic", advice="Measure it again")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", ConfigError, "cannot be read: .* Run it again"),
        ("[]", ConfigError, "must be an object"),
        (json.dumps({"weights": HASH, "settings": {}}), ConfigError, "lacks gammas"),
        (json.dumps({"weights": HASH, "settings": {}, "gammas": 1}), ConfigError, "a gammas that is"),
        (json.dumps({"schema": 2, "weights": HASH}), NewerVersion, "newer version"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, text, error, message):
    store = Measured.of(HASH, tmp_path)
    store.folder.mkdir(parents=True)
    store.file("analytic").write_text(text)
    with pytest.raises(error, match=message):
        store.read("analytic", {"gammas": list}, advice="Run it again")


def test_a_place_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    """Before the work and after it; a file stands where the folder would be, which not even root can write through."""
    (tmp_path / "measured").write_text("")
    store = Measured.of(HASH, tmp_path)
    for write in (lambda: store.refuse_unwritable("analytic"), lambda: store.write("analytic", NUMBERS, {})):
        with pytest.raises(ConfigError, match=f"{tmp_path}/measured"):
            write()
    (tmp_path / "measured").unlink()
    store.refuse_unwritable("analytic")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ConfigError, match="is read-only: copy the weights"):
        store.refuse_unwritable("analytic")
    monkeypatch.undo()
    os.mkfifo(store.file("analytic"))
    for write in (lambda: store.refuse_unwritable("analytic"), lambda: store.read("analytic")):
        with pytest.raises(ConfigError, match=r"analytic\.json"):
            write()


@pytest.mark.parametrize("name", ["", "../analytic", "a/b", "Analytic", ".hidden", "a-", "_a", "a__b", "a_-b"])
def test_a_name_is_one_plain_word(tmp_path, name):
    with pytest.raises(ConfigError, match="small letters"):
        Measured.of(HASH, tmp_path).file(name)


@pytest.mark.parametrize("weights", ["", HASH[:16], HASH.upper(), HASH + "\n"])
def test_weights_are_known_by_their_whole_hash(tmp_path, weights):
    with pytest.raises(ConfigError, match="SHA-256"):
        Measured.of(weights, tmp_path)
