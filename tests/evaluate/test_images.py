"""Samples on their way to be evaluated: what they say of themselves, and what must not be waited for or believed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_ip.cli import main
from ddpm_ip.data.imageset import from_arrays
from ddpm_ip.errors import ConfigError, DataError
from ddpm_ip.evaluate.evaluate import Evaluator
from ddpm_ip.evaluate.features import Pixels
from ddpm_ip.evaluate.images import from_pixels, gathered, open_samples
from ddpm_ip.images import save_png

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, size=(6, 3, 8, 8), dtype=np.uint8)
FACTS = {
    "sampler": {"name": "ddim", "eta": 0.0},
    "corrections": [],
    "clip": "rederive",
    "steps": 50,
    "weights": "ab" * 32,
    "averaged": True,
}


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "png"
    made.mkdir()
    for i, image in enumerate(IMAGES):
        save_png(image, made / f"{i:06d}.png")
    return made


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **{"images": IMAGES.transpose(0, 2, 3, 1), **arrays})
    return path


def pixels_of(samples: Path) -> list[np.ndarray]:
    return list(open_samples(samples).blocks(4, None))


def evaluated(samples: Path) -> Any:
    reference = from_arrays(IMAGES[::-1].copy(), None, "real", 8)
    return Evaluator(Pixels(CPU), ["fid"], CPU).evaluate(open_samples(samples), reference)


# --- what samples say of themselves ----------------------------------------------------------------------------------


def test_an_npz_says_inside_it_how_its_images_were_made(tmp_path: Path, folder: Path) -> None:
    """As the file beside PNGs does: the same sampling, row and rounding."""
    text = json.dumps({"schema": 1, **FACTS})
    (folder / "sampling.json").write_text(text)
    found = [evaluated(samples).protocol for samples in (npz(tmp_path / "a.npz", sampling=np.array(text)), folder)]
    for protocol in found:
        assert protocol["sampling"] == FACTS
        assert protocol["rounding"] == "to the nearest of 256 levels"
        assert "ddim,eta=0, steps 50, weights abababab…" in protocol["line"]
    assert evaluated(npz(tmp_path / "b.npz")).protocol["rounding"].startswith("unknown")


@pytest.mark.parametrize(
    "text",
    [
        np.array("{"),
        np.array("[1]"),
        np.array('{"schema": 99}'),
        np.array('{"schema": "1"}'),
        np.array('{"schema": [1]}'),
        np.array("[" * 100_000),
        np.array(b"{}"),
        np.array(["{}"]),
        np.array(3),
        np.array({"a": 1}, dtype=object),
        np.array(" " * 2_000_000),
    ],
    ids=lambda text: f"{text.dtype}",
)
def test_a_damaged_sampling_is_told(tmp_path: Path, text: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"a\.npz: its array 'sampling' cannot be read"):
        open_samples(npz(tmp_path / "a.npz", sampling=text))


@pytest.mark.parametrize("text", ["{", "[]", '{"a": ' * 5000, '{"schema": 99}', " " * 1_000_001, "\udcff"])
def test_a_damaged_file_beside_the_samples_is_told(folder: Path, text: str) -> None:
    (folder / "sampling.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Exception, match=r"sampling\.json") as caught:
        open_samples(folder)
    assert caught.type.__module__ == "ddpm_ip.errors"


@pytest.mark.parametrize(
    "mark",
    [
        {"sampler": {"name": 3}, "corrections": 7, "steps": 3},
        {"sampler": {"name": "ddim"}, "corrections": [{"nom": 3}]},
        {"sampler": {"name": "ddim"}, "corrections": [3], "clip": []},
        {"sampler": {"name": ["a"]}, "corrections": None, "channels": "four"},
        {"sampler": [], "clip": {"a": 1}, "diffusion": 3, "steps": 1e999, "seed": None},
    ],
)
def test_nonsense_about_the_sampling_does_not_stop_a_measurement(folder: Path, mark: dict[str, Any]) -> None:
    (folder / "sampling.json").write_text(json.dumps(mark))
    assert evaluated(folder).values["FD-pixels"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("mark", [{"seed": "x" * 10_000}, {"y" * 10_000: 0}, {f"key{i}": i for i in range(1000)}])
def test_what_would_fill_the_screen_is_refused(tmp_path: Path, folder: Path, mark: dict[str, Any]) -> None:
    (folder / "sampling.json").write_text(json.dumps(mark))
    for samples in (folder, npz(tmp_path / "a.npz", sampling=np.array(json.dumps(mark)))):
        with pytest.raises(DataError, match="it says more, or longer things, than ddpm-ip ever writes") as found:
            open_samples(samples)
        assert len(str(found.value)) < 1000


# --- what is no file, and what is no image ---------------------------------------------------------------------------


def test_a_pipe_among_samples_is_not_waited_for(tmp_path: Path, folder: Path) -> None:
    os.mkfifo(folder / "000003b.png")
    with pytest.raises(DataError, match=r"000003b\.png: not a regular file"):
        pixels_of(folder)
    os.remove(folder / "000003b.png")
    os.mkfifo(folder / "0.png")  # the first, whose size is that of all
    with pytest.raises(DataError, match=r"0\.png: not a regular file"):
        pixels_of(folder)
    os.remove(folder / "0.png")
    os.mkfifo(folder / "a.parquet")
    assert len(np.concatenate(pixels_of(folder))) == 6
    os.mkfifo(folder / "sampling.json")
    with pytest.raises(DataError, match="a pipe"):
        open_samples(folder)


@pytest.mark.parametrize("name", ["pipe.npz", "pipe.npy", "pipe.parquet", "pipe", "pipe.png"])
def test_a_pipe_as_samples_or_reference_is_not_waited_for(
    tmp_path: Path, folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="a pipe, a socket or a device"):
        open_samples(tmp_path / name)
    given = ["evaluate", str(folder), "--reference", str(tmp_path / name), "--extractor", "pixels"]
    assert main(given) == 1
    assert "a pipe, a socket or a device" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero", "gone.npz", "a" * 300, "a\0b"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"does not exist|a device|cannot be read"):
        open_samples(tmp_path / name)


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").symlink_to(tmp_path / "b.npz")
    (tmp_path / "b.npz").symlink_to(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"a\.npz cannot be read"):
        open_samples(tmp_path / "a.npz")


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (5, 0, 0, 3), (5, 0, 8, 3), (5, 8, 0, 3), (5, 0, 8), (5, 8, 0)])
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_images_of_no_pixels_are_refused(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    array = np.zeros(shape, np.uint8)
    np.savez(path, images=array) if suffix == "npz" else np.save(path, array)
    with pytest.raises(DataError):
        open_samples(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("0.ppm", b"P6\n0 0\n255\n"),
        ("0.pgm", b"P5\n0 4\n255\n"),
        ("0.gif", b"GIF89a\0\0\0\0\0\0\0;"),
        ("0.bmp", b"BM" + bytes(8) + b"\x36\0\0\0\x28" + bytes(11) + b"\x01\0\x18" + bytes(30)),
        ("0.png", b""),
        ("0.png", b"\x89PNG\r\n\x1a\n"),
    ],
)
def test_files_of_no_pixels_are_refused(folder: Path, name: str, content: bytes) -> None:
    for called in (name, f"9{name}"):  # as the first, and as a later one
        (folder / called).write_bytes(content)
        with pytest.raises(DataError, match=called):
            pixels_of(folder)
        (folder / called).unlink()


@pytest.mark.parametrize("given", [[[1, 2]], [None], ["text"], [torch.zeros(2, 3, 8, 8, dtype=torch.uint8)], IMAGES])
def test_blocks_that_are_none_are_refused(given: Any) -> None:
    reference = from_arrays(IMAGES, None, "real", 8)
    with pytest.raises(DataError, match="images must come as uint8 arrays"):
        Evaluator(Pixels(CPU), ["fid"], CPU).evaluate(open_samples(iter(given)), reference)


def test_large_images_are_decoded_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 blank images of 8000 x 8000 are small files, and 12 GB."""
    monkeypatch.setattr("ddpm_ip.evaluate.images.LARGEST_BLOCK", 2 * 3 * 64)
    folder = tmp_path / "png"
    folder.mkdir()
    for i in range(7):
        Image.new("RGB", (8, 8), (i, i, i)).save(folder / f"{i}.png")
    for source in (open_samples(folder), from_pixels("memory", IMAGES)):
        found = list(source.blocks(100, None))
        assert max(map(len, found)) == 2
        assert len(np.concatenate(found)) == source.count
    assert [len(block) for block in open_samples(folder).blocks(1, 3)] == [1, 1, 1]


# --- advice that can be followed -------------------------------------------------------------------------------------


def test_a_bad_file_of_a_reference_is_told_without_an_option_that_does_not_exist(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = tmp_path / "real"
    real.mkdir()
    for i, image in enumerate(IMAGES):
        save_png(image, real / f"{i}.png")
    (real / "bad.png").write_bytes(b"no image")
    given = ["evaluate", str(folder), "--extractor", "pixels", "--reference"]
    assert main([*given, str(real)]) == 1
    shown = capsys.readouterr().err
    assert "bad.png" in shown
    assert "--reference takes a .yaml file" in shown
    data = f"{{name: folder, root: {real}, image_size: 8, on_bad: skip}}"
    assert f"{{name: folder, root: {real}, image_size: PIXELS, KEY: VALUE}}" in shown
    (tmp_path / "reference.yaml").write_text(f"data: {data}\n")  # what it says works
    assert main([*given, str(tmp_path / "reference.yaml")]) == 0
    row = json.loads((folder / "evaluation.json").read_text())[-1]
    assert row["protocol"]["n_reference"] == 6


def test_an_array_that_could_be_two_things_is_told_to_those_who_have_no_configuration(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((5, 4, 8, 8), np.uint8).transpose(0, 1, 3, 2)[:, :, :, :4])
    with pytest.raises(DataError, match="Samples have no configuration: save them alone"):
        open_samples(tmp_path / "a.npz")
    given = ["--extractor", "pixels", "--reference", str(tmp_path / "a.npz")]
    assert main(["evaluate", str(folder), *given]) == 1
    assert "--reference takes a .yaml file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.pt", "stats.pth", "a.pkl"])
def test_statistics_that_are_a_pickle_are_not_read(
    tmp_path: Path, folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    assert main(["evaluate", str(folder), "--extractor", "pixels", "--reference", str(tmp_path / name)]) == 2
    assert "np.savez(path, mu=mu, sigma=sigma)" in capsys.readouterr().err


def test_references_that_are_nowhere_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("~nobody-at-all/x", "a" * 300, "gone.npz", ""):
        assert main(["evaluate", str(folder), "--extractor", "pixels", "--reference", text]) in (1, 2)
        assert capsys.readouterr().err.startswith("error: ")


def test_features_of_several_lengths_are_refused() -> None:
    blocks = iter([{"pool": torch.zeros(2, 5)}, {"pool": torch.zeros(2, 6)}, None])
    with pytest.raises(ConfigError, match=r"5 and 6 features \(pool\)"):
        list(gathered(blocks, ["pool"]))
