"""The modes of `ddpm-ip sample`: strips of the way, strips between two images, and images given and made again."""

import json
import math
import re
import shlex
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.sampler.oracle import heun
from tests.tiny import ROOT, options, step_folder, tiny, two_processes

from ddpm_ip.cli import main
from ddpm_ip.config import load
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import ConfigError, DataError
from ddpm_ip.images import to_uint8, to_unit
from ddpm_ip.run.weights import find_weights
from ddpm_ip.sample import program
from ddpm_ip.sample.generator import Generator
from ddpm_ip.sample.modes import (
    Interpolations,
    Pictures,
    Reconstructions,
    Strips,
    images_from,
    inverse,
    noise_behind,
    reconstructions,
)
from ddpm_ip.sample.program import SampleOptions, load_model, sample
from ddpm_ip.sample.store import sample_files
from ddpm_ip.sampler import DDIM, Ancestral, AnySampler
from ddpm_ip.sampler.correction import EpsilonScaling
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.variants import variant_name, variants

SIZE = 8  # of an image


@pytest.fixture
def model(trained):
    engine = start_engine("no", fast=False)
    return load_model(tiny(), find_weights(trained).tensors, engine)


@pytest.fixture
def digits(tmp_path):
    """A folder of five images of another size than the network's, and of three channels."""
    folder = tmp_path / "digits"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 12, 16, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def made(weights, folder, **settings):
    """The pictures, and what the folder says of them."""
    given = {"respace_steps": 3, "batch_size": 4, "sampler": DDIM(), **settings}
    sample(tiny(), weights, folder, options(**given))
    return [np.asarray(Image.open(p)) for p in sample_files(folder)], json.loads((folder / "sampling.json").read_text())


def cells(strip):
    """The images of a strip (H, W) of gray images."""
    return [strip[2:-2, left : left + SIZE] for left in range(2, strip.shape[1] - 2, SIZE + 2)]


# --- strips of the way ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["denoise", "progressive"])
@pytest.mark.parametrize("frames", [1, 2, 3, 20])
def test_a_strip_shows_finished_states_alone(model, of, frames):
    """Of five steps with two evaluations, but one for the last."""
    base = model.generator(Sampling(DDIM(), steps=5, block=4))
    generator = replace(base, plan=heun(model.denoiser.schedule, base.plan.t.tolist()))
    finished = [state.row for state in generator.states(0) if state.finished]
    assert finished == [0, 2, 4, 6, 8, 9]
    wanted = {1: [9], 2: [0, 9], 3: [0, 6, 9], 20: finished} if of == "denoise" else {
        1: [9], 2: [2, 9], 3: [2, 6, 9], 20: finished[1:],
    }  # fmt: skip
    strips = Strips(generator, of, frames)
    assert strips.rows() == wanted[frames]
    pictures = strips.block(0)
    assert [p.shape for p in pictures] == [strips.shape] * 4
    found = {state.row: state.xt if of == "denoise" else state.x0 for state in generator.states(0)}
    for i, picture in enumerate(pictures):
        expected = [to_uint8(found[row][i, 0]).numpy() for row in wanted[frames]]
        assert np.array_equal(cells(picture[0]), expected)


def test_with_one_evaluation_a_step_the_states_are_those_of_before(model):
    """The rule of version 0.1, whose strips a folder may hold already."""
    for steps in (1, 2, 7, 30):
        generator = model.generator(Sampling(DDIM(), steps=steps, block=4))
        for frames in (1, 2, 5, 20, 40):
            for of, first in (("denoise", 0), ("progressive", 1)):
                before = {steps - round(i * (steps - first) / max(frames - 1, 1)) for i in range(frames)}
                assert Strips(generator, of, frames).rows() == sorted(before)


# --- interpolation ----------------------------------------------------------------------------------------------------


def test_a_strip_goes_from_image_2i_to_image_2i_plus_1(trained, tmp_path):
    strips, facts = made(trained, tmp_path / "a", n_samples=3, mode="interpolate", n_interpolate=5)
    images, _ = made(trained, tmp_path / "b", n_samples=6)
    assert [s.shape for s in strips] == [(SIZE + 4, 5 * (SIZE + 2) + 2)] * 3
    for i, strip in enumerate(strips):
        first, *between, last = cells(strip)
        assert np.array_equal(first, images[2 * i])
        assert np.array_equal(last, images[2 * i + 1])
        assert len({image.tobytes() for image in (first, *between, last)}) == 5
    assert (facts["mode"], facts["frames"]) == ("interpolate", 5)


@pytest.mark.parametrize("frames", [1, 3, 4, 9])
def test_strips_smaller_and_larger_than_a_block(model, frames):
    """Each image is the one that its noise gives, by itself; strips fill a block, or take several walks."""
    generator = model.generator(Sampling(DDIM(), steps=2, block=8))
    pictures = Interpolations(generator, frames)
    assert pictures.size == {1: 8, 3: 2, 4: 2, 9: 1}[frames]
    assert pictures.evaluations == 2 * frames
    strips = pictures.block(1)
    assert [s.shape for s in strips] == [pictures.shape] * pictures.size
    for strip, number in zip(strips, range(pictures.size, 2 * pictures.size), strict=True):
        a, b = generator.noise(torch.tensor([2 * number, 2 * number + 1])).flatten(1)
        angle = float(torch.acos(a @ b / a.norm() / b.norm()))
        for j, image in enumerate(cells(strip[0])):
            share = j / max(frames - 1, 1)
            between = (math.sin((1 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(angle)
            alone = images_from(generator, between.reshape(1, 1, SIZE, SIZE), torch.tensor([0]))
            assert np.abs(alone[0, 0].astype(int) - image).max() <= 1


def test_the_noise_of_a_stochastic_sampler_is_the_same_along_a_strip(model, monkeypatch):
    generator = model.generator(Sampling(Ancestral("fixed_large"), steps=3, block=8))
    first = Interpolations(generator, 4).block(0)
    images = generator.images(0)
    assert [np.array_equal(cells(strip[0])[0], images[2 * i, 0]) for i, strip in enumerate(first)] == [True, True]
    monkeypatch.setattr(Generator, "noise", lambda self, indices: torch.ones(len(indices), 1, SIZE, SIZE))
    for number, strip in enumerate(Interpolations(generator, 4).block(1), start=2):
        one, *others = cells(strip[0])
        assert all(np.array_equal(one, other) for other in others), "only the noise on the way could differ"
        alone = images_from(generator, torch.ones(1, 1, SIZE, SIZE), torch.tensor([2 * number]))
        assert np.array_equal(alone[0, 0], one)


def test_noise_is_scaled_as_the_plan_says(model, digits):
    """Without the first evaluation a plan begins with a multiple of x_T; the way up is whole all the same."""
    generator = model.generator(Sampling(DDIM(), steps=3, block=8, afs=True, denoise_to_zero=False))
    assert generator.plan.start != 1
    images, indices = generator.images(0), torch.arange(8)
    assert np.array_equal(images_from(generator, generator.noise(indices), indices), images)
    ends = [cells(strip[0])[i] for strip in Interpolations(generator, 2).block(0) for i in (0, 1)]
    assert np.array_equal(ends, images[:, 0])
    assert reconstructions(generator, digits).inversion.plan.visits == 3


def test_an_interrupted_call_continues_and_processes_share_the_strips(trained, tmp_path):
    settings = {"respace_steps": 2, "batch_size": 4, "sampler": DDIM(), "mode": "interpolate", "n_interpolate": 3}
    whole, _ = made(trained, tmp_path / "a", n_samples=5, **settings)

    def stop(block):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(tiny(), trained, tmp_path / "b", options(5, **settings), stop)
    assert len(sample_files(tmp_path / "b")) == 1
    blocks = []
    sample(tiny(), trained, tmp_path / "b", options(5, **settings), blocks.append)
    assert blocks == [1, 2, 3, 4]
    assert two_processes(lambda: sample(tiny(), trained, tmp_path / "c", options(5, **settings))) == [0, 0]
    for other in ("b", "c"):
        found = [np.asarray(Image.open(p)) for p in sample_files(tmp_path / other)]
        assert np.array_equal(found, whole)
    with pytest.raises(ConfigError, match=r"made otherwise.*frames"):
        made(trained, tmp_path / "b", n_samples=5, **{**settings, "n_interpolate": 4})


# --- reconstruction ---------------------------------------------------------------------------------------------------


def test_an_image_stands_beside_what_its_noise_gives(trained, tmp_path, digits, model, caplog, monkeypatch):
    ordinary = program.setup

    def setup(*arguments):
        ordinary(*arguments)
        program.log.parent.propagate = True

    monkeypatch.setattr(program, "setup", setup)
    settings = {"respace_steps": 4, "mode": "reconstruction", "input_dir": digits}
    with caplog.at_level("INFO"):
        pairs, facts = made(trained, tmp_path / "a", n_samples=100, **settings)
    assert [p.shape for p in pairs] == [(SIZE + 4, 2 * (SIZE + 2) + 2)] * 5, "as many as there are"
    given = np.stack([cells(pair)[0] for pair in pairs])[:, None]
    for path, image in zip(sorted(digits.iterdir()), given, strict=True):
        middle = Image.open(path).convert("L").resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(2, 0, 14, 12))
        assert np.abs(np.asarray(middle).astype(int) - image[0]).max() <= 2
    sampling = Sampling(DDIM(), steps=4, block=4)
    up, down = model.generator(inverse(sampling)), model.generator(sampling)
    noise = noise_behind(up, to_unit(torch.from_numpy(given)), torch.arange(5))
    again = images_from(down, noise, torch.arange(5))
    assert np.array_equal(np.stack([cells(pair)[1] for pair in pairs])[:, None], again)
    squares = ((given.astype(float) - again) ** 2).mean(axis=(1, 2, 3))
    ratio, distance = np.mean(10 * np.log10(255**2 / squares)), np.mean(np.sqrt(squares))
    said = f"reconstruction of 5 images: mean PSNR {ratio:.2f} dB, root mean square error {distance:.2f} of 255"
    assert said in caplog.text
    assert "ddim,eta=0@uniform-linspace, 8 network evaluations each" in caplog.text
    assert facts["inversion"] == {"name": "ddim_inversion", "evaluations": 4}
    assert re.fullmatch("[0-9a-f]{64}", facts["input"])
    assert (facts["mode"], facts["evaluations"]) == ("reconstruction", 4)


def test_more_steps_give_an_image_back_more_exactly(model):
    """Without clipping, which an untrained network would need."""
    images = to_unit(torch.from_numpy(np.random.default_rng(1).integers(0, 256, (4, 1, SIZE, SIZE), dtype=np.uint8)))
    errors = []
    for steps in (10, 40):
        sampling = Sampling(DDIM(), clip="none", steps=steps, block=4, spacing="uniform-trailing")
        noise = noise_behind(model.generator(inverse(sampling)), images, torch.arange(4))
        *_, last = model.generator(sampling).walk(torch.arange(4), noise)
        errors.append(float((last.xt - images).abs().mean()))
    assert errors[1] < 0.5 * errors[0]


def test_corrections_and_clipping_are_of_the_way_down_alone(model, digits):
    sampling = Sampling(Ancestral("fixed_small"), (EpsilonScaling(1.1),), steps=5, spacing="quad", seed=4, block=4)
    up = inverse(sampling)
    assert (up.corrections, up.clip, up.sampler.name) == ((), "none", "ddim_inversion")
    assert (up.steps, up.spacing, up.block, up.seed) == (5, "quad", 4, 4)
    pictures = reconstructions(model.generator(sampling), digits)
    assert isinstance(pictures, Reconstructions)
    assert pictures.inversion.plan.t.tolist() == pictures.generator.plan.t.tolist()[::-1]
    assert pictures.evaluations == 10


def test_other_images_are_not_mixed_in_and_more_of_the_same_are(trained, tmp_path, digits):
    settings = {"mode": "reconstruction", "input_dir": digits}
    made(trained, tmp_path / "a", n_samples=2, **settings)
    more, _ = made(trained, tmp_path / "a", n_samples=5, **settings)
    whole, _ = made(trained, tmp_path / "b", n_samples=5, **settings)
    assert np.array_equal(more, whole)
    Image.new("L", (SIZE, SIZE), 9).save(digits / "3.png")
    with pytest.raises(ConfigError, match=r"made otherwise.*input"):
        made(trained, tmp_path / "a", n_samples=5, **settings)


def test_a_folder_that_is_of_no_use_is_told_in_words_of_the_option(trained, tmp_path, digits):
    def attempt(**settings):
        made(trained, tmp_path / "a", n_samples=2, **{"mode": "reconstruction", **settings})

    with pytest.raises(ConfigError, match=r"--mode reconstruction and --input_dir.*give both"):
        attempt()
    with pytest.raises(ConfigError, match="give both"):
        attempt(mode="sample", input_dir=digits)
    with pytest.raises(DataError, match=r"--input_dir: .*nowhere does not exist"):
        attempt(input_dir=tmp_path / "nowhere")
    (digits / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2\.png(.|\n)*Repair or remove them$"):
        attempt(input_dir=digits)
    with pytest.raises(ConfigError, match="an npz takes finished images only"):
        sample(tiny(), trained, tmp_path / "a.npz", options(2, mode="reconstruction", input_dir=digits))
    with pytest.raises(ConfigError, match="--n_interpolate must be at least 1"):
        SampleOptions(2, mode="interpolate", n_interpolate=0)
    assert not (tmp_path / "a").exists()


# --- all modes --------------------------------------------------------------------------------------------------------


def test_what_the_modes_of_before_say_of_their_pictures_is_unchanged(trained, tmp_path):
    known = ["weights", "averaged", "sampler", "corrections", "clip", "steps", "spacing", "evaluations", "seed"]
    known += ["block", "diffusion", "precision", "fast", "device", "mode", "frames"]
    for mode, frames in (("sample", None), ("denoise", 4), ("progressive", 5)):
        _, facts = made(trained, tmp_path / mode, n_samples=1, mode=mode, n_denoise=4, n_progressive=5)
        facts.pop("schema")
        assert list(facts) == known
        assert (facts["mode"], facts["frames"]) == (mode, frames)


@pytest.mark.parametrize("sampler", [*variants(AnySampler)], ids=variant_name)
def test_every_mode_works_for_every_sampler(model, digits, sampler):
    sampling = Sampling(sampler(), steps=3, block=4).filled("fixed_large")
    generator = model.generator(sampling)
    images = generator.images(0)
    assert np.array_equal(Pictures(generator).block(0), images)
    for i, strip in enumerate(Strips(generator, "denoise", 3).block(0)):
        assert np.array_equal(cells(strip[0])[-1], images[i, 0])
    assert len(Strips(generator, "progressive", 3).block(0)) == 4
    (strip,) = Interpolations(generator, 3).block(0)
    assert np.array_equal(cells(strip[0])[0], images[0, 0])
    if not generator.plan.update[:, :, -1].any():
        assert np.array_equal(cells(strip[0])[2], images[1, 0])
    pictures = reconstructions(generator, digits)
    assert [p.shape for p in pictures.block(1)] == [pictures.shape], "the fifth image"


# --- the published commands -------------------------------------------------------------------------------------------

THEIRS = {  # which modes their script says are designed for a sampler
    "ddpm": ("sample", "denoise", "progressive"),
    "ddim": ("sample", "denoise", "progressive", "interpolate", "reconstruction"),
    "euler": ("sample", "denoise", "progressive", "interpolate"),
    "heun": ("sample", "denoise", "progressive", "interpolate"),
}
HERE = {"ddpm", *map(variant_name, variants(AnySampler))}


@pytest.fixture
def theirs(tmp_path, trained):
    """For words of their documents files: a configuration of that repository, and weights that fit it."""
    network = {"in_channels": 1, "out_channels": 1, "dim": 8, "dim_mults": [1, 2], "use_attn": [False, True]}
    plain = {
        "data": {"target": "datasets.ImageDir", "params": {"root": "r", "img_size": SIZE}, "img_channels": 1},
        "model": {"target": "models.unet.UNet", "params": {**network, "num_res_blocks": 1, "num_groups": 4}},
        "diffusion": {"target": "diffusions.ddpm.DDPM", "params": {"total_steps": 12}},
    }
    config = tmp_path / "theirs.yaml"
    config.write_text(yaml.safe_dump(plain))
    weights = shutil.copy(step_folder(trained, 6) / "ema.safetensors", tmp_path / "weights.safetensors")
    return {"CONFIG": config, "WEIGHTS": weights, "SAVE_DIR": tmp_path / "samples"}


def typed(command, words):
    """The command as it stands there, with files for its words and as many images as a test can afford."""
    values = [str(words.get(word, word)) for word in shlex.split(command.replace("\\\n", " "))]
    assert values[:2] == ["accelerate-launch", "scripts/sample_uncond.py"]
    return ["sample", *values[2:]]


@pytest.mark.parametrize(
    ("sampler", "mode"), [(name, mode) for name, modes in THEIRS.items() if name in HERE for mode in modes]
)
def test_the_published_commands_with_every_sampler_and_mode(theirs, digits, sampler, mode):
    """The usage of their documents (DDPM.md, DDIM.md), every option given."""
    command = f"accelerate-launch scripts/sample_uncond.py -c CONFIG --weights WEIGHTS --sampler {sampler}"
    command += " --ddim_eta DDIM_ETA" if sampler == "ddim" else ""
    command += " --var_type VAR_TYPE" if sampler == "ddpm" else ""
    command += """ \\
        --n_samples N_SAMPLES --save_dir SAVE_DIR --seed SEED --batch_size BATCH_SIZE --respace_type RESPACE_TYPE \\
        --respace_steps RESPACE_STEPS --mode MODE --n_denoise 2 --n_progressive 2 --n_interpolate N_INTERPOLATE"""
    command += " --input_dir INPUT_DIR" if mode == "reconstruction" else ""
    words = {**theirs, "DDIM_ETA": 0.0, "VAR_TYPE": "fixed_small", "N_SAMPLES": 3, "SEED": 2022, "BATCH_SIZE": 4}
    words |= {"RESPACE_TYPE": "uniform", "RESPACE_STEPS": 4, "MODE": mode, "N_INTERPOLATE": 3, "INPUT_DIR": digits}
    assert main(typed(command, words)) == 0
    folder = theirs["SAVE_DIR"]
    assert [p.name for p in sample_files(folder)] == ["000000.png", "000001.png", "000002.png"]
    facts = json.loads((folder / "sampling.json").read_text())
    assert (facts["sampler"]["name"], facts["mode"]) == ("ancestral" if sampler == "ddpm" else sampler, mode)
    assert (facts["steps"], facts["spacing"], facts["seed"]) == (4, "uniform", 2022)


def test_the_published_example_of_ddim(theirs, monkeypatch):
    """As it stands in their docs/DDIM.md: their defaults hold, and the configuration is the one that is shipped."""
    command = (
        "accelerate-launch scripts/sample_uncond.py -c ./configs/ddpm_cifar10.yaml --weights /path/to/model/weights "
        "--sampler ddim --n_samples 50000 --save_dir ./samples/ddim-cifar10 --respace_steps 100"
    )
    given = {}

    def noted(config, weights, save_dir, wanted):
        given.update(config=config, save_dir=save_dir, wanted=wanted)

    monkeypatch.setattr(program, "sample", noted)
    monkeypatch.chdir(ROOT)
    assert main(typed(command, {"/path/to/model/weights": theirs["WEIGHTS"]})) == 0
    assert given["save_dir"] == Path("samples/ddim-cifar10")
    wanted = given["wanted"]
    assert (wanted.n_samples, wanted.mode, wanted.n_interpolate) == (50000, "sample", 16)
    assert (asdict(wanted.sampling.sampler), wanted.sampling.steps) == ({"name": "ddim", "eta": 0.0}, 100)
    assert given["config"].model.dim == load(Path("configs/ddpm_cifar10.yaml")).model.dim
