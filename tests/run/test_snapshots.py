"""Which average of a run is taken: one that it keeps, or one made of its snapshots; on the command line, too."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import empty, one_thread, run, step_folder, tiny, weights

from ddpm_ip import notebook
from ddpm_ip.cli import main
from ddpm_ip.errors import CheckpointError, ConfigError
from ddpm_ip.power import Profile, combination
from ddpm_ip.run.snapshots import file_name, make
from ddpm_ip.run.weights import find_weights, place

KEPT = [0.05, 0.1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 12 steps with two decays, and with snapshots of every third step."""
    folder = tmp_path_factory.mktemp("trained")
    settings = {"ema_decay": [0.9, 0.5], "ema_power": KEPT, "ema_snapshot_freq": 3, "optim": {"lr": 1e-2}}
    with pytest.MonkeyPatch.context() as patch:
        one_thread(patch)
        run(tiny(n_steps=12, save_freq=12, **settings), folder)
    return folder


def snapshot(folder, step, part):
    return load_file(folder / f"snapshots/step{step:08d}/{part}.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def test_a_length_that_was_kept_is_the_part_itself(trained):
    for part, length in zip(("power_1", "power_2"), KEPT, strict=True):
        for made, step in ((make(trained, [length])[0], 12), (make(trained, [length], 6)[0], 6)):
            kept = snapshot(trained, step, part)
            assert made.error < 1e-6
            assert max(float((v - kept[k]).abs().max()) for k, v in made.tensors.items()) < 1e-6


def test_other_lengths_are_the_sum_with_the_factors_of_their_profile(trained):
    profiles = [Profile(length, step) for step in (3, 6, 9, 12) for length in KEPT]
    factors, error = combination(profiles, Profile(0.08, 12))
    made, longer = make(trained, [0.08, 0.12])
    assert made.error == error != longer.error
    for name, value in made.tensors.items():
        parts = [snapshot(trained, p.step, f"power_{KEPT.index(p.sigma_rel) + 1}")[name].double() for p in profiles]
        torch.testing.assert_close(
            value.double(), sum(x * v for x, v in zip(factors, parts, strict=True)), rtol=1e-6, atol=1e-8
        )
    assert made.to_bytes() == make(trained, [0.08])[0].to_bytes(), "the same file each time, by which it is known"


def test_a_damaged_snapshot_is_left_out_and_told(trained, tmp_path, caplog):
    shutil.copytree(trained, tmp_path / "run")
    empty(tmp_path / "run/snapshots/step00000006/power_1.safetensors")
    assert [path.name for path in make(tmp_path / "run", [0.08])[0].used] == [f"step{n:08d}" for n in (3, 9, 12)]
    assert "left out, since it is damaged" in caplog.text
    with pytest.raises(CheckpointError, match="step00000006"):
        make(tmp_path / "run", [0.08], 6)


@pytest.mark.parametrize(
    ("lengths", "step", "said"),
    [
        ([0.08], 5, "no snapshot of step 5, only of 3, 6, 9, 12"),
        ([0.4], None, r"sigma_rel=0\.4: an average has a length of 0\.0001 to 0\.289"),
        ([math.nan], None, "sigma_rel=nan"),
    ],
)
def test_what_cannot_be_made_is_told(trained, lengths, step, said):
    with pytest.raises(ConfigError, match=said):
        make(trained, lengths, step)


def test_a_length_far_from_those_that_were_kept_is_warned_of(trained, caplog):
    assert make(trained, [0.25])[0].error > 0.1
    assert "only a profile that is" in caplog.text


def test_which_average_a_text_means(trained):
    first, second = find_weights(trained), find_weights(trained, "0.5")
    assert same(first.tensors, weights(trained, 12, "ema"))
    assert same(second.tensors, weights(trained, 12, "ema_2"))
    assert same(find_weights(trained, "0.9").tensors, first.tensors)
    assert [w.averaged for w in (first, find_weights(trained, "0.9"), second)] == [True, True, "decay 0.5"]
    made = find_weights(trained, "sigma_rel=0.08")
    assert made.averaged == "sigma_rel=0.08, step 12"
    assert same(made.tensors, make(trained, [0.08])[0].tensors)
    assert made.trained(trained).step == 12
    earlier = find_weights(trained / "snapshots/step00000006", "sigma_rel=0.08")
    assert earlier.averaged == "sigma_rel=0.08, step 6"
    assert place(trained, "sigma_rel=0.08") == trained / "snapshots/step00000012"
    assert place(trained, "0.5") == place(trained) == step_folder(trained, 12)


@pytest.mark.parametrize("ema", ["0.7", "sigma_rel=much", "sigma_rel=0", "long"])
def test_a_text_that_means_none_is_refused(trained, ema):
    with pytest.raises(ConfigError, match=ema.split("=")[0]):
        find_weights(trained, ema)


def test_a_run_without_snapshots_says_how_to_get_them(trained, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(CheckpointError, match=r"holds no snapshots.*--train\.ema_power"):
        find_weights(tmp_path / "run", "sigma_rel=0.08")
    with pytest.raises(CheckpointError, match="absent does not exist"):
        make(tmp_path / "absent", [0.08])
    with pytest.raises(ConfigError, match="is one average"):
        find_weights(step_folder(trained, 12) / "ema.safetensors", "0.9")


def test_a_made_file_is_sampled_as_the_length_is(trained, tmp_path, capsys):
    """The file that `ema` writes, and the length said to `sample`: the same weights, by their hash, and images."""
    assert main(["ema", str(trained), "--length", "0.08", "--step", "9"]) == 0
    (file,) = trained.glob("ema-*.safetensors")
    assert file.name == file_name(make(trained, [0.08], 9)[0]) == "ema-sigma_rel0.08-step00000009.safetensors"
    assert "of 3 snapshots" in capsys.readouterr().out
    checkpoint = step_folder(trained, 12) / "model.safetensors"
    before = checkpoint.read_bytes()
    assert main(["ema", str(trained), "--length", "0.08", "-o", str(checkpoint)]) == 2
    assert checkpoint.read_bytes() == before
    assert "is there already" in capsys.readouterr().err
    rest = ["--n_samples", "2", "--steps", "2", "--save_dir"]
    assert main(["sample", "--weights", str(file), *rest, str(tmp_path / "file")]) == 0
    there = str(trained / "snapshots/step00000009")
    assert main(["sample", "--weights", there, "--ema", "sigma_rel=0.08", *rest, str(tmp_path / "length")]) == 0
    one, two = (json.loads((tmp_path / name / "sampling.json").read_text()) for name in ("file", "length"))
    assert one == two
    assert one["averaged"] == "sigma_rel=0.08, step 9"
    assert (tmp_path / "file/000000.png").read_bytes() == (tmp_path / "length/000000.png").read_bytes()


def test_a_table_of_several_averages(trained, capsys):
    """A table of each with cells of its own, and one that compares them; the newest is that of the first named."""
    options = ["--n_samples", "70", "--extractor", "pixels", "--metrics", "fid", "--variance", "fixed_small"]
    given = ["table", "-e", str(trained), *options, "--steps", "2", "--ema", "0.9", "0.5", "sigma_rel=0.08"]
    assert main(given) == 0
    folder, out = trained / "table", capsys.readouterr().out
    grid = json.loads((folder / "table.json").read_text())
    assert grid["protocol"]["weights"] == find_weights(trained).sha256
    cells = {json.loads(p.read_text())["averaged"]: p.parent for p in folder.glob("*/protocol.json")}
    assert cells.keys() == {True, "decay 0.5", "sigma_rel=0.08, step 12"}
    head, row, *_ = (folder / "averages.txt").read_text().splitlines()
    assert head.split() == ["FD-pixels", "ema", "0.9", "ema", "0.5", "ema", "sigma_rel=0.08"]
    values = []
    for name in (True, "decay 0.5", "sigma_rel=0.08, step 12"):
        block = json.loads((cells[name] / "table.json").read_text())["blocks"][0]
        values.append(f"{block['rows'][0]['cells'][0]['value']:.{block['decimals']}f}")
    assert row.split() == ["fixed_small,", "2", "steps", *values]
    assert row in out
    assert (folder / "averages.csv").read_text().splitlines()[1] == ",".join(
        ["FD-pixels", '"fixed_small, 2 steps"', *values]
    )


def test_from_python(trained):
    one = notebook.load(trained, ema=0.5)
    assert one.sample(1, steps=2).facts["averaged"] == "decay 0.5"
    assert notebook.load(trained, ema="sigma_rel=0.08").step is None
