"""Images of a class-conditional model: which class each is of, what is written down of it, and how it is asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import two_processes, with_classes

import ddpm_ip as ip
from ddpm_ip.cli import main
from ddpm_ip.data import Npz
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import ConfigError
from ddpm_ip.images import grid
from ddpm_ip.nn.network import Cond
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.weights import find_weights
from ddpm_ip.sample import analytic, filled
from ddpm_ip.sample.generator import Model
from ddpm_ip.sample.modes import of_given, reconstructions
from ddpm_ip.sample.optimised import cost_of
from ddpm_ip.sample.program import SampleOptions, load_model, sample
from ddpm_ip.sampler import walk
from ddpm_ip.sampler.sampling import Sampling

WAY = Sampling(ip.DDIM(), steps=2, block=8)


@pytest.fixture
def trained(trained_with_classes: Path) -> Path:
    return trained_with_classes


@pytest.fixture
def model(trained: Path) -> Model:
    return load_model(with_classes(), find_weights(trained).tensors, start_engine("no", fast=False))


def pixels(folder: Path) -> Any:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("[0-9]*.png"))])


def made(trained: Path, folder: Path, sampling: Sampling, n: int = 20, **rest: Any) -> dict[str, Any]:
    sample(with_classes(), trained, folder, SampleOptions(n, sampling, **rest))
    facts: dict[str, Any] = json.loads((folder / "sampling.json").read_text())
    return facts


def test_a_run_with_classes_shows_a_row_of_each_and_is_judged_by_all(trained: Path) -> None:
    """25 previews of 10 classes are two of each: the images i and i + 10, which are those of the plain walk."""
    model = load_model(with_classes(), find_weights(trained).tensors, start_engine("no", fast=False))
    sampling = replace(with_classes().sampling_in_training(2), block=25)
    images = model.generator(sampling).images(0)
    rows = np.stack([images[:10], images[10:20]], axis=1).reshape(20, 1, 8, 8)
    there = np.asarray(Image.open(trained / "samples/step00000008.png"))
    assert np.array_equal(there, np.asarray(grid(rows, columns=2)))
    (line,) = (trained / "evaluations.jsonl").read_text().splitlines()
    assert json.loads(line)["protocol"]["sampling"]["classes"] == "balanced"


def test_the_class_of_an_image_is_a_function_of_its_index(trained: Path, tmp_path: Path) -> None:
    """Whatever else is made: an image of class 3 is the same among balanced ones, alone, and in a choice of two."""
    facts = {name: made(trained, tmp_path / name, replace(WAY, classes=classes), n) for name, classes, n in (
        ("all", None, 20), ("three", (3,), 14), ("two", (0, 3), 14), ("none", (-1,), 4),
    )}  # fmt: skip
    told = {name: one["classes"] for name, one in facts.items()}
    assert told == {"all": "balanced", "three": [3], "two": [0, 3], "none": [-1]}
    balanced, three, two, none = (pixels(tmp_path / name) for name in told)
    assert np.array_equal(balanced[3], three[3])
    assert np.array_equal(balanced[13], three[13])
    assert np.array_equal(two[1::2], three[1::2])
    assert np.array_equal(two[0], balanced[0])
    assert not np.array_equal(two[2], balanced[2])
    assert not np.array_equal(none[0], balanced[0])


def test_neither_processes_nor_the_number_of_images_change_a_class(trained: Path, tmp_path: Path) -> None:
    guided = replace(WAY, corrections=(ip.Guidance(3.0),))
    made(trained, tmp_path / "a", guided, 20)
    assert two_processes(lambda: made(trained, tmp_path / "b", guided, 17)) == [0, 0]
    assert np.array_equal(pixels(tmp_path / "b"), pixels(tmp_path / "a")[:17])
    lines = (tmp_path / "b" / "labels.csv").read_text().splitlines()
    assert lines == ["file,label", *(f"{i:06d}.png,{i % 10}" for i in range(17))]


def test_labels_are_written_beside_the_images(trained: Path, tmp_path: Path) -> None:
    """Of all that are there, also after a smaller call; in an npz they are read as labels; without a class, none."""
    made(trained, tmp_path / "a", replace(WAY, classes=(7, -1)), 12)
    made(trained, tmp_path / "a", replace(WAY, classes=(7, -1)), 3)
    lines = (tmp_path / "a" / "labels.csv").read_text().splitlines()[1:]
    assert lines == [f"{i:06d}.png,{(7, -1)[i % 2]}" for i in range(12)]
    sample(with_classes(), trained, tmp_path / "b.npz", SampleOptions(12, WAY))
    found = Npz(root=str(tmp_path / "b.npz"), image_size=8).open(progress=False).labels
    assert found is not None
    assert found.tolist() == [i % 10 for i in range(12)]
    made(trained, tmp_path / "c", replace(WAY, classes=(-1,)), 3)
    assert not (tmp_path / "c" / "labels.csv").exists()


def test_guidance_is_two_evaluations_a_visit_in_all_that_is_said(
    trained: Path, tmp_path: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    guided = replace(WAY, corrections=(ip.Guidance(3.0),))
    assert made(trained, tmp_path / "a", guided, 4)["evaluations"] == 4
    assert "4 network evaluations each" in capsys.readouterr().err
    asked: list[int] = []
    network = model.denoiser.network

    def counting(*given: Any) -> Any:
        asked.append(1)
        return network(*given)

    model.denoiser = replace(model.denoiser, network=counting)
    generator = model.generator(guided)
    generator.images(0)
    assert len(asked) == generator.evaluations == 4


def test_the_options_of_the_command(trained: Path, tmp_path: Path) -> None:
    common = ["sample", "--weights", str(trained), "--n_samples", "4", "--sampler", "ddim", "--steps", "2"]
    common += ["--batch_size", "8", "--save_dir"]
    assert main([*common, str(tmp_path / "a"), "--class", "3", "none", "--guidance", "2", "--corrections", "tsr"]) == 0
    facts = json.loads((tmp_path / "a" / "sampling.json").read_text())
    assert facts["classes"] == [3, -1]
    assert [c["name"] for c in facts["corrections"]] == ["guidance", "tsr"]
    assert facts["corrections"][0]["scale"] == 2
    assert main([*common, str(tmp_path / "b"), "--class", "balanced"]) == 0
    assert json.loads((tmp_path / "b" / "sampling.json").read_text())["classes"] == "balanced"
    for wrong in (["--class", "10"], ["--class", "-2"], ["--class", "cat"], ["--guidance", "-1"]):
        assert main([*common, str(tmp_path / "c"), *wrong]) == 2, wrong
    assert not (tmp_path / "c").exists()


def test_images_that_are_given_are_of_no_class_unless_it_is_said(trained: Path, model: Model, tmp_path: Path) -> None:
    """Inversion and the way back ask the same; the facts say which class."""
    made(trained, tmp_path / "a", WAY, 2)
    for chosen, told in ((None, [-1]), ((5,), [5])):
        pictures = reconstructions(model.generator(replace(WAY, classes=chosen)), tmp_path / "a")
        assert pictures.generator.facts()["classes"] == pictures.inversion.facts()["classes"] == told
    assert of_given(WAY, None) is WAY
    loaded = ip.load(trained)
    noise = loaded.invert(pixels(tmp_path / "a")[:, None], steps=50)
    with torch.no_grad():
        up = model.generator(replace(WAY, classes=(-1,), steps=50))
    assert np.array_equal(loaded.generate(noise, sampler=ip.DDIM(), steps=50, block=8), _from(up, noise))


def _from(generator: Any, noise: torch.Tensor) -> Any:
    filled_up = torch.cat([noise, noise[-1:].expand(generator.block - len(noise), -1, -1, -1)])
    *_, last = generator.walk(torch.arange(len(filled_up)).clamp(max=len(noise) - 1), filled_up)
    return generator.pixels(last, last.xt)[: len(noise)]


def test_a_strip_between_two_images_is_of_the_class_of_the_first(trained: Path, tmp_path: Path) -> None:
    made(trained, tmp_path / "a", WAY, 6)
    made(trained, tmp_path / "b", WAY, 3, mode="interpolate", n_interpolate=2)
    strips, images = pixels(tmp_path / "b"), pixels(tmp_path / "a")
    assert np.array_equal(strips[:, 2:10, 2:10], images[::2])
    assert not (tmp_path / "b" / "labels.csv").exists()


def test_in_a_notebook(trained: Path) -> None:
    loaded = ip.load(trained)
    walk = loaded.sample(24, sampler=ip.DDIM(), steps=2, corrections=[ip.Guidance(2)], block=8)
    assert walk.evaluations == 4
    assert walk.labels is not None
    assert walk.labels.tolist() == [i % 10 for i in range(24)]
    rows = np.stack([walk.images[:10], walk.images[10:20]], axis=1).reshape(20, 1, 8, 8)
    assert np.array_equal(np.asarray(walk.grid()), np.asarray(grid(rows, columns=2)))
    three = loaded.sample(4, sampler=ip.DDIM(), steps=2, classes=3, block=8)
    assert three.labels is not None
    assert three.labels.tolist() == [3] * 4
    assert three.facts["classes"] == [3]
    with pytest.raises(ConfigError, match="classes"):
        loaded.sample(4, classes="cat")


def test_variances_are_measured_with_the_classes_of_the_images(
    model: Model, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And again, under another name, for images without a class."""
    monkeypatch.setattr(filled, "IMAGES_ON_A_CPU", 6)
    monkeypatch.setattr(analytic, "TIMES", 2)
    seen: list[Cond | None] = []
    network = model.denoiser.network

    def spy(x: Any, t: Any, cond: Cond | None = None) -> Any:
        seen.append(cond)
        return network(x, t, cond)

    model.denoiser = replace(model.denoiser, network=spy)
    store = Measured.of("0" * 64, tmp_path / "weights.safetensors")
    images = with_classes().data.open(progress=False)
    assert images.labels is not None
    wanted = analytic.chosen(images.labels, 6, filled.SEED).tolist()
    for classes, told, name in ((None, wanted, "analytic"), ((-1,), None, "analytic-without-class")):
        seen.clear()
        sampling = replace(WAY, sampler=ip.Ancestral("analytic"), classes=classes, block=4)
        filled.filled(sampling, with_classes(), store, model)
        assert store.file(name).exists()
        if told is None:
            assert seen == [None] * 4
        else:
            labels = [c.labels.tolist() for c in seen if c is not None and c.labels is not None]
            assert labels == [told[:4], told[4:], told[:4], told[4:]]


def test_a_teacher_of_times_walks_to_balanced_classes_and_counts_guidance(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    times, labels = [900.0, 500.0, 100.0], []
    network = model.denoiser.network

    def spy(x: Any, t: Any, cond: Cond) -> Any:
        assert cond.labels is not None
        labels.append(cond.labels.tolist())
        return network(x, t, cond)

    model.denoiser = replace(model.denoiser, network=spy)
    teacher = Sampling(ip.IPNDM(), corrections=(ip.Guidance(2.0),), classes=(4, 2))
    with caplog.at_level("INFO", "ddpm_ip"):
        cost_of(model, teacher, times, n=3, block=2)
    assert labels == [[4, 2], [-1, -1]] * 3 + [[4], [-1]] * 3
    assert "in 6 network evaluations" in caplog.text


def test_the_public_walk_takes_labels_from_the_denoiser(model: Model) -> None:
    plan = WAY.plan(model.denoiser.schedule)
    denoiser = replace(model.denoiser, cond=Cond(torch.arange(8)))
    *_, mine = walk(plan, denoiser, 0, torch.arange(8), model.shape, WAY.all_corrections())
    assert np.array_equal(model.generator(WAY).pixels(mine, mine.xt), model.generator(WAY).images(0))
