"""The package from Python: the same bytes and the same numbers as the commands give."""

import hashlib
import io
import json
import logging
import os
import shutil
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from PIL import Image
from tests.tiny import assert_same_state, contents, steps_saved, tiny, tree, two_processes, yaml_file

import ddpm_ip as ip
from ddpm_ip.cli import main
from ddpm_ip.data import Digits
from ddpm_ip.engine import start_device, start_engine
from ddpm_ip.errors import CheckpointError, ConfigError, DataError, OutOfMemory
from ddpm_ip.evaluate.features import Pixels
from ddpm_ip.images import grid, to_uint8
from ddpm_ip.sample.generator import Generator
from ddpm_ip.sampler.graph import Graph
from ddpm_ip.tracking.metrics import Metrics

SETTINGS = ["--sampler", "dpm_solver,order=2", "--corrections", "epsilon_scaling,scale=1.02", "--steps", "4"]
SETTINGS += ["--seed", "3", "--batch_size", "8", "--spacing", "uniform-trailing"]
SAME = {"sampler": ip.DPMSolver(order=2), "corrections": [ip.EpsilonScaling(1.02)], "steps": 4}
SAME |= {"seed": 3, "block": 8, "spacing": "uniform-trailing"}
FEW = {"steps": 3, "block": 8}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run of 4 steps, with checkpoints at 2 and 4; made by the command."""
    folder = tmp_path_factory.mktemp("notebook")
    patch = pytest.MonkeyPatch()
    patch.setattr("os.sched_getaffinity", lambda pid: {0})
    AcceleratorState._reset_state(True)
    assert main(["train", "-c", str(yaml_file(folder, n_steps=4)), "-e", str(folder / "run")]) == 0
    patch.undo()
    return folder / "run"


@pytest.fixture
def run(trained):
    return ip.load(trained)


def sha256(images):
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()


def from_files(folder):
    return np.stack([np.asarray(Image.open(path))[None] for path in sorted(folder.glob("[0-9]*.png"))])


# Samples


def test_samples_are_the_bytes_of_the_command(trained, run, tmp_path):
    images, own = tmp_path / "command", tmp_path / "own"
    given = ["--weights", str(trained), "--n_samples", "20", "--save_dir", str(images), *SETTINGS]
    assert main(["sample", *given]) == 0
    walk = run.sample(20, **SAME)
    assert walk.images.shape == walk.shape == (20, 1, 8, 8)
    assert walk.images.dtype == np.uint8
    assert sha256(walk.images) == sha256(from_files(images))
    assert len(np.unique(walk.images.reshape(20, -1), axis=0)) == 20
    assert walk.save(own) == own
    assert contents(own) == contents(images)
    mark = json.loads((images / "sampling.json").read_text())
    assert {key: mark[key] for key in walk.facts} == walk.facts
    assert walk.evaluations == mark["evaluations"] == 4


def test_what_is_not_said_is_that_of_the_configuration(trained, tmp_path):
    sampling = {"sampler": {"name": "ddim", "eta": 0.5}, "steps": 5, "seed": 2, "block": 4, "clip": "keep_eps"}
    run = ip.load(trained, sampling=sampling)
    walk = run.sample(4, seed=7)
    assert walk.sampling == ip.Sampling(ip.DDIM(eta=0.5), clip="keep_eps", steps=5, seed=7, block=4)
    assert run.config.sampling.seed == 2
    given = ["--n_samples", "4", "--save_dir", str(tmp_path / "a"), "--sampler", "ddim,eta=0.5", "--steps", "5"]
    assert main(["sample", "--weights", str(trained), *given, "--seed=7", "--batch_size=4", "--clip=keep_eps"]) == 0
    assert sha256(walk.images) == sha256(from_files(tmp_path / "a"))
    assert ip.load(trained).sample(4, steps=2).sampling == ip.Sampling(ip.Ancestral("fixed_large"), steps=2, block=64)


def test_saving_continues_what_was_begun(run, tmp_path, monkeypatch):
    run.sample(8, **FEW).save(tmp_path / "a")
    made = []
    images = Generator.images
    monkeypatch.setattr(Generator, "images", lambda self, block: made.append(block) or images(self, block))
    walk = run.sample(20, **FEW)
    walk.save(tmp_path / "a")
    assert made == [1, 2]
    assert sha256(from_files(tmp_path / "a")) == sha256(walk.images)
    with pytest.raises(ConfigError, match="holds images made otherwise"):
        run.sample(20, **FEW, seed=1).save(tmp_path / "a")
    path = walk.save(str(tmp_path / "b.npz"))
    with np.load(path) as arrays:
        assert np.array_equal(arrays["images"].transpose(0, 3, 1, 2), walk.images)


def test_a_block_is_made_once_and_only_when_it_is_looked_at(run, tmp_path, monkeypatch):
    made = []
    images = Generator.images
    monkeypatch.setattr(Generator, "images", lambda self, block: made.append(block) or images(self, block))
    walk = run.sample(20, **FEW)
    assert "20 images 1 x 8 x 8: fixed_large, 3 network evaluations each" in repr(walk)
    assert (walk.n, walk.n_blocks, walk.facts["block"], made) == (20, 3, 8, [])
    assert walk.grid(5).size == grid(walk.images[:5]).size
    assert made == [0, 1, 2]
    assert np.array_equal(np.asarray(walk.grid(5)), np.asarray(grid(walk.images[:5])))
    assert Image.open(io.BytesIO(walk._repr_png_())).size == grid(walk.images).size
    assert np.array_equal(np.concatenate(list(walk.blocks())), walk.images)
    walk.save(tmp_path / "a")
    assert made == [0, 1, 2]
    many = run.sample(50_000, steps=2, block=64)
    many._repr_png_()
    assert made == [0, 1, 2, 0]
    first = next(many.blocks())
    assert made == [0, 1, 2, 0]
    assert first.shape == (64, 1, 8, 8)


def test_blocks_and_files_keep_nothing(run, tmp_path):
    walk = run.sample(20, **FEW)
    blocks = list(walk.blocks())
    walk.save(tmp_path / "a")
    assert [len(block) for block in blocks] == [8, 8, 4]
    assert walk._generator.kept == {}
    assert np.array_equal(np.concatenate(blocks), walk.images)


def test_images_are_inverted_and_made_of_noise(run):
    settings = {"sampler": ip.DDIM(), **FEW}
    samples = run.sample(10, **settings)
    noise = torch.cat([next(iter(samples.states(block))).xt for block in (0, 1)])
    assert np.array_equal(run.generate(noise, **settings), samples.images), "x_T of the images gives the images"
    found = run.invert(samples.images, **settings)
    assert (found.dtype, found.shape) == (torch.float32, (10, 1, 8, 8))
    assert torch.equal(found, run.invert(torch.from_numpy(samples.images), **FEW)), "whatever the sampler"
    plan, images = ip.DDIMInversion().plan(run.schedule, [999, 500, 0]), torch.from_numpy(samples.images)
    *_, last = ip.walk(plan, run.denoiser, 0, torch.arange(10), images / 127.5 - 1)
    torch.testing.assert_close(found, last.xt, rtol=1e-4, atol=1e-4)
    between = run.generate(ip.slerp(found[:1], found[1:2], 0.5), **settings)
    assert between.shape == (1, 1, 8, 8)
    with pytest.raises(DataError, match=r"uint8 \(N, 1 x 8 x 8\); these are torch.float32 \(10, 1, 8, 8\)"):
        run.invert(noise)
    with pytest.raises(DataError, match=r"float32 \(N, 1 x 8 x 8\); these are torch.float32 \(1, 8, 8\)"):
        run.generate(noise[0])


def test_a_calibration_is_that_of_the_command_and_auto_uses_it(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    folder, same = shutil.copytree(trained, tmp_path / "run"), {"sampler": ip.DDIM(), "steps": 3, "block": 8}
    run, handlers = ip.load(folder), logging.getLogger("ddpm_ip").handlers[:]
    with pytest.raises(ConfigError, match=r"ddpm-ip calibrate --weights .* --sampler ddim --steps 3"):
        run.sample(8, corrections="auto", **same)
    found = run.calibrate(24, **same)
    assert logging.getLogger("ddpm_ip").handlers == handlers, "a log of the command stays"
    assert found.file.parent == folder
    assert repr(found).startswith(f"<calibration {found.file.name}: ")
    assert found.found["why"] in repr(found)
    assert found.found["why"] in " ".join(str(found).split())
    made = json.loads(found.file.read_text())
    assert (made["settings"]["n"], made["settings"]["seed"]) == (24, 1)

    call = ["calibrate", "--weights", str(folder), "--sampler", "ddim", "--steps", "3", "--n", "24"]
    assert main([*call, "--batch_size", "8"]) == 0
    assert str(found.file) in capsys.readouterr().out
    again = json.loads(found.file.read_text())
    assert [again[key] for key in ("candidates", "corrections", "curves")] == [
        made[key] for key in ("candidates", "corrections", "curves")
    ]

    gains = [{"name": "epsilon_scaling", "scale": 1.2}]  # as if they had been chosen
    found.file.write_text(json.dumps({**again, "corrections": gains}))
    images = run.sample(8, corrections="auto", **same).images
    assert np.array_equal(images, run.sample(8, corrections=[ip.EpsilonScaling(1.2)], **same).images)
    with pytest.raises(ConfigError, match="at least 10"):
        run.calibrate(9, **same)
    with pytest.raises(ConfigError, match="train it first"):
        ip.new(tiny()).calibrate(10)


def test_the_states_of_a_walk_that_asks_at_other_levels(run):
    """Each image at its own: the states have the levels of their images."""
    walk = run.sample(3, steps=3, seed=1, block=4, corrections=[ip.TimeShift(100, 0)])
    for state in [*walk.states()][1:]:
        assert state.seen.level[0].shape == (3, 1, 1, 1)
        alpha, sigma = state.seen.level
        assert (alpha**2 + sigma**2).allclose(torch.ones(3, 1, 1, 1))


def test_the_states_of_the_walk(run):
    walk = run.sample(20, steps=5, block=8, sampler=ip.DDIM())
    states = list(walk.states(2))
    assert [state.row for state in states] == [0, 1, 2, 3, 4, 5]
    assert [state.t for state in states] == [999, 749, 500, 250, 0, -1]
    assert all(state.xt.shape == (4, 1, 8, 8) for state in states)
    assert states[0].seen is None
    assert states[3].seen.eps.shape == states[3].x0.shape == (4, 1, 8, 8)
    assert np.array_equal(to_uint8(states[-1].xt).numpy(), walk.images[16:])
    alpha, sigma = walk_level(run.schedule, 999)
    assert torch.allclose(alpha * states[1].x0 + sigma * states[1].seen.eps, states[0].xt, atol=1e-5)
    for block in (-1, 3):
        with pytest.raises(ConfigError, match=r"there are blocks 0\.\.2 of 8 images"):
            walk.states(block)


def walk_level(schedule, t):
    return schedule.level(t).alpha, schedule.level(t).sigma


def test_the_states_of_a_captured_walk_can_be_collected(run):
    """The walk of a graph overwrites its state; what a notebook gets is a copy."""
    walk, plain = (run.sample(8, steps=4, block=8, sampler=ip.DPMSolver()) for _ in range(2))
    generator = walk._generator
    model, corrections = generator.model, generator.sampling.all_corrections()
    graph = Graph(model.denoiser, corrections, generator.plan, 8, model.shape, model.device)
    object.__setattr__(generator, "graph", graph)
    captured, expected = list(walk.states()), list(plain.states())
    assert len(captured) == len(expected) == 5
    for one, other in zip(captured, expected, strict=True):
        torch.testing.assert_close(one.xt, other.xt, rtol=0, atol=1e-4)
        if other.seen is not None:
            torch.testing.assert_close(one.seen.x0, other.seen.x0, rtol=0, atol=1e-4)


@dataclass(frozen=True)
class Mine:
    """DDIM with eta = 0, as somebody would write it in a notebook."""

    name: Literal["mine"] = field(default="mine", kw_only=True)
    twice: bool = False

    def plan(self, schedule, times):
        rows = ip.Rows(schedule)
        for t, s in ip.steps(times):
            alpha, sigma = schedule.level(s)
            rows.add(t, s, x=alpha * rows.x0 + sigma * rows.eps)
        return rows.plan()


@dataclass(frozen=True)
class Louder(ip.Correction):
    name: Literal["louder"] = field(default="louder", kw_only=True)
    factor: float = 2.0

    def numbers(self, plan, schedule):
        return torch.full((plan.visits, 1), self.factor, dtype=torch.float64)

    def wrap(self, denoise):
        def louder(xt, row):
            seen = denoise(xt, row)
            eps = row.numbers[self.name] * seen.eps
            return seen._replace(eps=eps, x0=(xt - row.sigma * eps) / row.alpha)

        return louder


def test_a_sampler_and_a_correction_of_ones_own(run, tmp_path):
    own = run.sample(8, **FEW, sampler=Mine(), corrections=[Louder(1 / 1.25)])
    theirs = run.sample(8, **FEW, sampler=ip.DDIM(eta=0), corrections=[ip.EpsilonScaling(1.25)])
    plain = run.sample(8, **FEW, sampler=ip.DDIM(eta=0))
    assert np.abs(own.images.astype(int) - theirs.images).max() <= 1
    assert (plain.images != theirs.images).any()
    own.save(tmp_path / "a")
    mark = json.loads((tmp_path / "a/sampling.json").read_text())
    assert mark["sampler"] == {"name": "mine", "twice": False}
    assert mark["corrections"] == [{"name": "louder", "factor": 0.8}]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"setps": 3}, "unknown key; did you mean steps"),
        ({"steps": 2.5}, "sampling.steps: must be a whole number"),
        ({"steps": 1001}, r"choose 1\.\.1000"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"clip": False}, "sampling.clip"),
        ({"seed": -1}, "seed must lie"),
        ({"block": 0}, "at least 1"),
        ({"spacing": "even"}, "unknown spacing .*'even'"),
        ({"sampler": "ddim"}, r"sampler must be an object, such as ip.DDIM\(eta=0\)"),
        ({"sampler": ip.DDIM}, "sampler must be an object"),
        ({"sampler": ip.EpsilonScaling()}, "sampler must be an object"),
        ({"sampler": ip.Ancestral("learned_range")}, "needs a network with learned variance"),
        ({"corrections": ip.EpsilonScaling()}, "corrections must be a list"),
        ({"corrections": ["epsilon_scaling"]}, "a correction must be an object"),
        ({"corrections": [ip.EpsilonScaling(), ip.EpsilonScaling()]}, "given twice"),
        ({"precision": "bf16"}, "computes in mixed_precision no .* and bf16 is asked for"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_told_before_anything_is_made(run, settings, message):
    run.sample(1, block=1)
    with pytest.raises(ConfigError, match=message):
        run.sample(4, **settings)


@pytest.mark.parametrize("n", [0, -1, 2.0, "4", None])
def test_a_wrong_number_of_images(run, n):
    with pytest.raises(ConfigError, match="the number of images must be a whole number of at least 1"):
        run.sample(n)


def test_too_little_memory_says_what_to_do(run, monkeypatch):
    def full(self, block):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Generator, "images", full)
    with pytest.raises(OutOfMemory, match=r"to sample 8 images of 8 x 8 px at once: take sample\(\.\.\., block=4\)"):
        _ = run.sample(8, **FEW).images


def test_two_processes_make_and_measure_the_same(trained, run, tmp_path):
    def call():
        run = ip.load(trained)
        walk = run.sample(20, **FEW)
        walk.save(tmp_path / "images")
        distance = ip.measure(walk, "digits", "pixels").values["FD-pixels"]
        streamed = run.evaluate(20, "pixels", **FEW).values["FD-pixels"]
        assert abs(streamed - distance) < 1e-9 * distance
        (tmp_path / f"process{os.environ['RANK']}").write_text(f"{walk.images.tobytes().hex()} {distance:.9f}")

    assert two_processes(call) == [0, 0]
    walk = run.sample(20, **FEW)
    distance = ip.measure(walk, "digits", "pixels").values["FD-pixels"]
    for rank in (0, 1):
        assert (tmp_path / f"process{rank}").read_text() == f"{walk.images.tobytes().hex()} {distance:.9f}"
    assert sha256(from_files(tmp_path / "images")) == sha256(walk.images)


# Runs


def test_training_is_that_of_the_command(trained, tmp_path):
    config = yaml_file(tmp_path)
    run = ip.new(config, tmp_path / "run", train={"n_steps": 4})
    assert (run.step, run.folder) == (0, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]
    assert run.train() is run
    assert run.step == 4
    assert (tmp_path / "run/config.yaml").read_bytes() == (trained / "config.yaml").read_bytes()
    assert_same_state(tmp_path / "run", trained, 4)


def test_a_run_continues_from_where_it_stands(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = ip.new(tree(n_steps=2), "run").train()
    assert (run.step, run.train(3).step, run.config.train.n_steps) == (2, 3, 3)
    assert ip.load("run").train(n_steps=4).step == 4
    assert_same_state(tmp_path / "run", trained, 4)
    assert ip.load("run").train().step == 4, "there is nothing left to do"

    earlier = ip.load("run/ckpt/step00000003")
    assert (earlier.step, earlier.folder.resolve()) == (3, tmp_path / "run")
    assert earlier.train(4).step == 4
    assert steps_saved(tmp_path / "run") == [3, 4]
    assert len(list((tmp_path / "run/ckpt").glob("*step00000004*"))) == 2, "what was later is set aside, not destroyed"
    assert_same_state(tmp_path / "run", trained, 4)
    branch = ip.new(tree(n_steps=5), "branch").train(resume="run")
    assert steps_saved(tmp_path / "branch") == [5] == [branch.step]


def test_a_run_that_others_trained_meanwhile_continues_there(tmp_path):
    run = ip.new(tree(n_steps=2), tmp_path / "run").train()
    seen = ip.load(tmp_path / "run")
    run.train(3)
    assert seen.step == 2
    assert seen.train(4).step == 4
    assert not list((tmp_path / "run/ckpt").glob("*step00000003.*"))


def test_without_a_folder_there_is_one_by_the_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = ip.new(tree(n_steps=1))
    assert run.folder is None
    assert list(tmp_path.iterdir()) == []
    assert run.train().folder.match("runs/exp-2*")
    assert steps_saved(run.folder) == [1]


def test_a_used_folder_is_refused_and_not_touched(trained):
    before = contents(trained)
    with pytest.raises(ConfigError, match=r"holds a run already.*load\('.*run'\)\.train\(\)"):
        ip.new(tree(), trained)
    run = ip.new(tree(), trained.parent / "other")
    run.folder = trained  # as if somebody else had trained there since
    with pytest.raises(ConfigError, match="holds a run already"):
        run.train()
    assert contents(trained) == before


@pytest.mark.parametrize("n_steps", [0, 2.5, "many"])
def test_a_wrong_number_of_steps(tmp_path, n_steps):
    with pytest.raises(ConfigError, match=r"train\.n_steps"):
        ip.new(tree(), tmp_path / "run").train(n_steps)
    assert not (tmp_path / "run").exists()


def test_what_is_loaded(trained, tmp_path):
    run = ip.load(str(trained))
    assert (run.step, run.folder, run.config) == (4, trained, tiny(n_steps=4))
    assert run.schedule == run.denoiser.schedule == ip.Schedule()
    assert not run.denoiser.network.training
    x = torch.randn(2, 1, 8, 8)
    prediction = run.denoiser(x, torch.tensor([0, 999]))
    assert prediction.eps.shape == (2, 1, 8, 8)
    assert not prediction.eps.requires_grad
    assert "step 4" in repr(run)
    file = trained / "ckpt/step00000002/ema.safetensors"
    assert [ip.load(path).step for path in (file.parent, file)] == [2, None]
    assert sha256(ip.load(file).sample(4, **FEW).images) == sha256(ip.load(file.parent).sample(4, **FEW).images)
    assert ip.load(file).sample(4, **FEW).facts["averaged"] is True
    assert sha256(run.sample(4, **FEW).images) != sha256(ip.load(file).sample(4, **FEW).images)
    with pytest.raises(ConfigError, match="weights alone are no state"):
        ip.load(file).train()

    alone = tmp_path / "mine.safetensors"
    alone.write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match=r"belongs to no folder of a run.*config="):
        ip.load(alone)
    again = ip.load(alone, config=trained / "config.yaml", sampling={"steps": 3})
    assert (again.folder, again.config.sampling.steps) == (None, 3)
    assert sha256(again.sample(4, block=8).images) == sha256(ip.load(file).sample(4, **FEW).images)


def test_what_cannot_be_loaded(trained, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        ip.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="neither a checkpoint"):
        ip.load(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.yaml is neither a file of torch\.save nor of safetensors"):
        ip.load(trained / "config.yaml")
    other = ip.load(trained, config=tree({"dim": 16}))
    with pytest.raises(CheckpointError, match=r"step00000004 do not fit the network"):
        other.sample(4)
    with pytest.raises(ConfigError, match="no weights yet: train it first"):
        ip.new(tree()).sample(4)


def test_a_configuration_in_every_form(tmp_path):
    expected = tiny(n_steps=2, optim={"lr": 1e-3})
    expected = replace(expected, perturbation=ip.InputPerturbation(0.2), seed=5)
    changes = {"perturbation": ip.InputPerturbation(0.2), "seed": 5}
    changes["train"] = {"n_steps": 2, "optim": {"lr": 1e-3}}
    dotted = {"train.n_steps": 2, "train.optim.lr": 1e-3, "perturbation.gamma": 0.2, "seed": 5}
    for source in (yaml_file(tmp_path), str(yaml_file(tmp_path)), tree(), tiny()):
        assert ip.new(source, **changes).config == expected
        assert ip.new(source, **dotted).config == expected
    assert ip.new(tree(), perturbation=ip.NoPerturbation()).config.perturbation == ip.NoPerturbation()
    sampling = {"sampler": ip.DDIM(eta=1), "corrections": [ip.EpsilonScaling(1.01)]}
    assert ip.new(tiny(), sampling=sampling).config.sampling == ip.Sampling(ip.DDIM(1), (ip.EpsilonScaling(1.01),))
    given = tiny()
    assert ip.new(given).config is given
    with pytest.raises(ConfigError, match="did you mean batch_size"):
        ip.new(tree(), train={"batchsize": 3})
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        ip.new(tmp_path / "nowhere.yaml")


def test_samples_keep_to_their_weights(tmp_path):
    run = ip.new(tree(n_steps=2), tmp_path / "run").train()
    expected = sha256(run.sample(4, **FEW).images)
    before = run.sample(4, **FEW)
    run.train(4)
    after = run.sample(4, **FEW)
    assert sha256(before.images) == expected != sha256(after.images)
    assert before.facts["weights"] != after.facts["weights"]
    assert sha256(ip.load(tmp_path / "run").sample(4, **FEW).images) == sha256(after.images)


def test_one_model_serves_all_samples(run):
    walks = [run.sample(4, **FEW, seed=seed) for seed in (0, 1)]
    assert walks[0]._generator.model is walks[1]._generator.model
    assert run.denoiser is walks[0]._generator.model.denoiser


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
def on_interrupt(request):
    """What a shell gives: a program that is started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_saves_first_and_is_raised(trained, tmp_path, monkeypatch, on_interrupt):
    write = Metrics.write

    def interrupted(self, step, numbers):
        write(self, step, numbers)
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    run = ip.new(tree(n_steps=4, save_freq=100), tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.train()
    assert steps_saved(tmp_path / "run") == [run.step] == [3], "the step under way is finished"
    assert run.train().step == 4
    assert_same_state(tmp_path / "run", trained, 4)


def test_training_leaves_the_process_as_it_was(tmp_path, capfd):
    log = logging.getLogger("ddpm_ip")
    handler = logging.NullHandler()
    log.addHandler(handler)
    before = log.handlers[:], log.level, log.propagate
    exact, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    try:
        run = ip.new(tree(n_steps=1, deterministic=True), tmp_path / "run").train()
        written = (tmp_path / "run/log.txt").read_bytes()
        assert b"finished: 1 steps" in written
        assert capfd.readouterr().err.count("finished: 1 steps") == 1
        assert (log.handlers, log.level, log.propagate) == before
        assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == (exact, benchmark)
        run.train(2)
        assert capfd.readouterr().err.count("finished: 2 steps") == 1, "no handler is there twice"
        after = (tmp_path / "run/log.txt").read_bytes()
        run.sample(4, **FEW).save(tmp_path / "samples")
        assert after.startswith(written)
        assert (tmp_path / "run/log.txt").read_bytes() == after
    finally:
        log.removeHandler(handler)


def test_a_process_has_one_precision():
    start_device()
    assert start_engine("bf16").mixed_precision == "bf16", "a device alone is no choice"
    assert start_engine("bf16").mixed_precision == "bf16"
    for other in ("no", None):
        with pytest.raises(ConfigError, match=r"computes in mixed_precision bf16 .* and no is asked for"):
            start_engine(other)


# Measuring


def frechet_1(a, b):
    """The Fréchet distance of two sets of images in pixels, straight from its formula."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) / 255 for x in (a, b))
    ca, cb = np.cov(a.T), np.cov(b.T)
    values = np.linalg.eigvals(ca @ cb).real.clip(min=0)
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * np.sqrt(values).sum()


def test_every_form_of_samples_and_reference_gives_the_number_of_the_command(run, tmp_path, capsys):
    walk = run.sample(100, **FEW)
    walk.save(tmp_path / "images")
    walk.save(tmp_path / "images.npz")
    out = tmp_path / "out.json"
    given = ["--reference", "digits", "--extractor", "pixels", "--out", str(out)]
    assert main(["evaluate", str(tmp_path / "images"), *given]) == 0
    capsys.readouterr()
    (command,) = json.loads(out.read_text())
    digits = Digits().open()
    assert command["values"]["FD-pixels"] == pytest.approx(frechet_1(walk.images, digits.pixels), rel=1e-6)
    forms = (walk, walk.images, torch.from_numpy(walk.images), tmp_path / "images", str(tmp_path / "images.npz"))
    for samples in forms:
        assert ip.measure(samples, "digits", "pixels").values == command["values"]
    for reference in (digits, run, yaml_of_digits(tmp_path)):
        assert ip.measure(walk, reference, "pixels", ["fid"]).values == command["values"]
    assert ip.measure(walk, "digits", Pixels(torch.device("cpu")), "fid").values == command["values"]

    found = ip.measure(walk, reference="digits", features="pixels")
    assert found.protocol["sampling"] == walk.facts
    assert str(found) == found.text()
    assert "FD-pixels" in str(found)
    assert found.protocol["line"] in str(found)
    some = ip.measure(walk, "digits", "pixels", n=70)
    assert some.values["FD-pixels"] == pytest.approx(frechet_1(walk.images[:70], digits.pixels), rel=1e-6)
    assert some.protocol["n_images"] == 70


def yaml_of_digits(folder: Path) -> Path:
    path = folder / "digits.yaml"
    path.write_text(yaml.safe_dump({"data": {"name": "digits"}}))
    return path


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"samples": np.zeros((4, 8, 8), np.uint8)},
            DataError,
            r"samples come as uint8 \(N, C, H, W\).*uint8 \(4, 8, 8\)",
        ),
        ({"samples": np.zeros((4, 1, 8, 8))}, DataError, r"these are float64 \(4, 1, 8, 8\)"),
        ({"samples": [1, 2]}, DataError, "these are list"),
        ({"samples": np.zeros((0, 1, 8, 8), np.uint8)}, DataError, "no image"),
        ({"samples": "nowhere"}, DataError, "nowhere does not exist"),
        ({"reference": "nothing"}, ConfigError, "nothing"),
        ({"features": "nothing"}, ConfigError, "there is no extractor 'nothing'"),
        ({"features": Pixels}, ConfigError, "features must be the name of an extractor, or one"),
        ({"features": 3}, ConfigError, "features must be the name of an extractor, or one"),
        ({"metrics": ["fdi"]}, ConfigError, "metrics must be of"),
        ({"n": 5}, DataError, "5 images were asked for, and there are 4"),
    ],
    ids=str,
)
def test_what_cannot_be_measured(changed, error, message):
    given = {"samples": np.zeros((4, 1, 8, 8), np.uint8), "reference": "digits", "features": "pixels", **changed}
    with pytest.raises(error, match=message):
        ip.measure(**given)


def test_no_name_can_be_given_by_its_place() -> None:
    """``InputPerturbation(0.1)`` is one of strength 0.1, and not one called 0.1."""
    assert ip.InputPerturbation(0.15).gamma == 0.15
    assert ip.EpsilonScaling(1.02).scale == 1.02
    assert ip.DDIM(0.5).eta == 0.5
    assert ip.Ancestral("fixed_small").var_type == "fixed_small"
    with pytest.raises(TypeError):
        ip.NoPerturbation("none")
