"""Images that are no squares and have other channels than gray or RGB, from the data to the report."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.tiny import one_thread, tree

from ddpm_ip.cli import main
from ddpm_ip.data.arrays import read_arrays
from ddpm_ip.evaluate.metrics import frechet_distance, moments

SHAPES = [(4, 8, 12), (5, 6, 10)]
SAMPLING = ["--n_samples", "20", "--respace_steps", "2", "--batch_size", "8"]


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    one_thread(monkeypatch)
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))


def configuration(folder, shape):
    """A file of channels-last images, and the configuration of a tiny run on them."""
    channels, height, width = shape
    images = np.random.default_rng(0).integers(0, 256, (24, height, width, channels), dtype=np.uint8)
    np.savez(folder / "real.npz", images=images)
    data = {"name": "npz", "root": str(folder / "real.npz"), "image_size": [height, width], "layout": "channels_last"}
    evaluation = {"every": 2, "n_samples": 8, "steps": 2}
    plain = tree({"in_channels": channels}, n_steps=2, sample_freq=2, eval=evaluation, flip=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**plain, "data": data}))
    return path, images.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_from_the_data_to_the_report(tmp_path, capsys, shape):
    config, real = configuration(tmp_path, shape)
    run, samples = tmp_path / "run", tmp_path / "samples.npz"
    assert main(["train", "-c", str(config), "-e", str(run)]) == 0
    record = json.loads((run / "provenance.json").read_text())["data"]
    assert tuple(record[key] for key in ("channels", "height", "width")) == shape
    with Image.open(run / "samples" / "step00000002.png") as grid:
        assert grid.mode == ("RGB" if shape[0] == 4 else "L")
    assert list(run.glob("**/events.out.tfevents*"))
    (line,) = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert line["protocol"]["image_shape"] == list(shape)

    assert main(["sample", "--weights", str(run), "--save_dir", str(samples), *SAMPLING]) == 0
    made, _ = read_arrays(samples)
    assert made.shape == (20, *shape), "the file says its layout itself"
    assert len(np.unique(made.reshape(20, -1), axis=0)) == 20
    assert not (tmp_path / "samples.parts").exists()

    given = ["--reference", str(config), "--extractor", "pixels"]
    assert main(["evaluate", str(samples), *given]) == 0
    (evaluation,) = json.loads((tmp_path / "samples.evaluation.json").read_text())
    assert evaluation["protocol"]["image_shape"] == evaluation["protocol"]["reference_shape"] == list(shape)
    flat = [moments([x.reshape(len(x), -1) / 255]) for x in (real, made)]
    assert evaluation["values"]["FD-pixels"] == pytest.approx(frechet_distance(*flat), rel=1e-6)

    assert main(["table", "-e", str(run), "--steps", "2", "--n_samples", "20", "--batch_size", "8", *given]) == 0
    assert json.loads((run / "table" / "table.json").read_text())["steps"] == [2]
    kept = main(
        [
            "table",
            "-e",
            str(run),
            "--steps",
            "3",
            "--n_samples",
            "20",
            "--variance",
            "fixed_small",
            "--keep_images",
            *given,
        ]
    )
    if shape[0] == 4:  # RGBA files are measured as they are, not on white
        assert kept == 0
        (cell,) = [json.loads(p.read_text()) for p in (run / "table").glob("*/cell-fixed_small-3-*.json")]
        assert cell["protocol"]["image_shape"] == list(shape)
    else:
        assert kept == 2
        assert "cannot hold 5 channels" in capsys.readouterr().err
        assert not list((run / "table").glob("*/*-3-seed0*"))
    assert main(["report", str(run), "-o", str(tmp_path / "report.html")]) == 0
    assert "data:image/png;base64" in (tmp_path / "report.html").read_text()
    capsys.readouterr()
    assert main(["data", "inspect", "-c", str(config), "-o", str(tmp_path / "sheet.png")]) == 0
    assert f"24 images, {' x '.join(map(str, shape))}, uint8" in capsys.readouterr().out


def test_a_folder_of_png_files_holds_four_channels_and_no_five(tmp_path, capsys):
    for shape in SHAPES:
        home = tmp_path / str(shape[0])
        home.mkdir()
        config, _ = configuration(home, shape)
        assert main(["train", "-c", str(config), "-e", str(home / "run")]) == 0
        code = main(["sample", "--weights", str(home / "run"), "--save_dir", str(home / "png"), *SAMPLING])
        if shape[0] == 5:
            assert code == 2
            assert "use a file that ends in .npz" in capsys.readouterr().err
            assert not (home / "png").exists()
            continue
        assert code == 0
        assert main(["sample", "--weights", str(home / "run"), "--save_dir", str(home / "a.npz"), *SAMPLING]) == 0
        made, _ = read_arrays(home / "a.npz")
        files = sorted((home / "png").glob("[0-9]*.png"))
        found = np.stack([np.asarray(Image.open(file)) for file in files]).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(found, made)
        values = []
        for samples in ("png", "a.npz"):
            out = home / f"{samples}.json"
            given = ["--reference", str(config), "--extractor", "pixels", "--out", str(out)]
            assert main(["evaluate", str(home / samples), *given]) == 0
            values.append(json.loads(out.read_text())[0]["values"])
        assert values[0] == values[1]


def test_an_interrupted_npz_of_five_channels_continues(tmp_path, monkeypatch):
    from ddpm_ip.config import load
    from ddpm_ip.sample.program import SampleOptions, sample
    from ddpm_ip.sampler.sampling import Sampling

    config, _ = configuration(tmp_path, (5, 6, 10))
    run = tmp_path / "run"
    assert main(["train", "-c", str(config), "-e", str(run)]) == 0
    options = SampleOptions(20, Sampling(block=8, steps=2))

    def stop(block):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(load(config), run, tmp_path / "a.npz", options, stop)
    parts = tmp_path / "a.parts"
    assert sorted(p.name for p in parts.iterdir()) == [*(f"{i:06d}.npy" for i in range(8)), "sampling.json"]
    made = []
    sample(load(config), run, tmp_path / "a.npz", options, made.append)
    assert made == [1, 2]
    sample(load(config), run, tmp_path / "b.npz", options)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("mode", ["denoise", "progressive"])
def test_strips_of_five_channels_are_pictures(tmp_path, mode):
    config, _ = configuration(tmp_path, (5, 6, 10))
    assert main(["train", "-c", str(config), "-e", str(tmp_path / "run")]) == 0
    given = ["--n_samples", "2", "--respace_steps", "3", "--mode", mode, "--n_denoise", "3", "--n_progressive", "3"]
    assert main(["sample", "--weights", str(tmp_path / "run"), "--save_dir", str(tmp_path / "strips"), *given]) == 0
    with Image.open(tmp_path / "strips" / "000001.png") as strip:
        assert (strip.mode, strip.size) == ("L", (3 * (5 * 11 - 1 + 2) + 2, 6 + 4))


def test_the_memory_of_an_image_counts_height_and_width(tmp_path):
    from ddpm_ip.config import load
    from ddpm_ip.sample.program import image_bytes

    config, _ = configuration(tmp_path, (4, 8, 12))
    wide, square = load(config), load(config, {"data.image_size": 8})
    assert image_bytes(wide, "no") * 2 == image_bytes(square, "no") * 3
    assert torch.Size(wide.shape) == (4, 8, 12)
