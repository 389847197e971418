"""Two settings from the same noise, without a browser: what is seen is what sampling makes, and is limited."""

import numpy as np
import pytest
import torch
from tests.tiny import run, tiny

from ddpm_ip.config import from_dict
from ddpm_ip.denoiser import Denoiser
from ddpm_ip.errors import ConfigError, Diverged
from ddpm_ip.notebook import Run, load
from ddpm_ip.sampler import DDIM
from ddpm_ip.sampler.correction import EpsilonScaling
from ddpm_ip.schedule import Schedule
from ddpm_ip.ui import scene
from ddpm_ip.ui.choices import CORRECTION_EXAMPLES, SAMPLER_EXAMPLES
from ddpm_ip.ui.scene import Scene, Setting, difference, whole

A, B = Setting("ddim", 5), Setting("ddim", 5, "epsilon_scaling,scale=1.05")


@pytest.fixture(scope="module")
def model(trained):
    return load(trained)


def played(model, n=3, seed=7, settings=(A, B)):
    *_, sides = Scene(model, n, seed, settings).play()
    return sides


def test_the_images_are_those_of_sampling(model):
    first, second = played(model)
    for side, corrections in ((first, []), (second, [EpsilonScaling(1.05)])):
        same = model.sample(3, sampler=DDIM(), steps=5, seed=7, block=3, corrections=corrections)
        assert np.array_equal(side.frames[-1].xt, same.images)
        assert side.finished
    assert np.array_equal(first.frames[0].xt, second.frames[0].xt), "the same noise"
    assert not np.array_equal(first.frames[-1].xt, second.frames[-1].xt)
    assert (first.label, second.label) == ("ddim,eta=0, 5 steps", "ddim,eta=0+epsilon_scaling,scale=1.05, 5 steps")


def test_every_state_is_a_frame_where_they_are_few(model):
    (side,) = played(model, settings=[A])
    states = list(model.sample(3, sampler=DDIM(), steps=5, seed=7, block=3).states())
    assert [frame.t for frame in side.frames] == [state.t for state in states]
    assert [frame.x0 is None for frame in side.frames] == [True] + [False] * 5
    assert side.times == [state.t for state in states[:-1]]
    assert side.evaluations == 5


def test_of_many_states_some_are_frames(model, monkeypatch):
    monkeypatch.setattr(scene, "FILM_PIXELS", 0)
    (side,) = played(model, settings=[Setting("heun", 20)])
    assert len(side.frames) == scene.FRAMES[0]
    assert (side.frames[0].t, side.frames[-1].t) == (999, -1)
    assert len(side.norms) == len(side.times) == side.evaluations == 39


@pytest.mark.parametrize("corrections", ["none", "epsilon_scaling,scale=1.05", "clip=none"])
def test_the_norm_is_of_what_the_network_itself_says(model, corrections):
    """Neither scaled nor clipped: the network is asked once more, about each state."""
    setting = Setting("ddim", 4, corrections)
    (side,) = played(model, settings=[setting])
    states = list(Scene(model, 3, 7, [setting]).samples[0].states())
    for state, t, norm in zip(states, side.times, side.norms, strict=False):
        eps = model.denoiser(state.xt, torch.full((3,), int(t))).output
        assert norm == pytest.approx(float(eps.flatten(1).norm(dim=1).mean()), rel=1e-5)


@pytest.mark.parametrize("predicts", ["pred_eps", "pred_x0", "pred_v"])
def test_the_noise_that_any_network_says(predicts):
    denoiser = Denoiser(lambda x, t: torch.sin(3 * x), Schedule(), predicts)
    xt, t = torch.randn(2, 1, 4, 4), torch.full((2,), 300)
    level = denoiser.schedule.alpha(t, xt), denoiser.schedule.sigma(t, xt)
    seen = denoiser(xt, t)
    assert torch.equal(scene._noise(predicts, seen, xt, level), seen.eps)
    elsewhere = seen._replace(level=level, x0=xt, eps=xt)  # as corrections leave it
    assert torch.equal(scene._noise(predicts, elsewhere, xt, (1.0, 1.0)), seen.eps)


def test_it_can_be_watched(model):
    """One frame more each time, first of A, then of B."""
    seen = [[len(side.frames) for side in sides] for sides in Scene(model, 2, 0, [A, B]).play()]
    assert seen == [[i, 0] for i in range(1, 7)] + [[6, i] for i in range(1, 7)]


def test_how_far_images_are_apart(model):
    assert difference(played(model, settings=(A, A))) == 0
    first, second = played(model)
    last = [side.frames[-1].xt.astype(float) for side in (first, second)]
    assert difference([first, second]) == pytest.approx(((last[0] - last[1]) ** 2).mean() ** 0.5)


@pytest.mark.parametrize("text", SAMPLER_EXAMPLES)
def test_examples_of_samplers_can_be_sampled(model, text):
    assert played(model, 1, settings=[Setting(text, 4)])[0].finished


@pytest.mark.parametrize("text", [text for text in CORRECTION_EXAMPLES if "guidance" not in text])
def test_examples_of_corrections_can_be_sampled(model, text):
    assert played(model, 1, settings=[Setting("ddim", 2, text)])[0].finished


def test_guidance_needs_classes(model, trained_with_classes):
    guided = Setting("ddim", 2, "guidance,scale=1.5")
    assert played(load(trained_with_classes), settings=[guided])[0].evaluations == 4
    with pytest.raises(ConfigError, match="guidance"):
        Scene(model, 1, 0, [guided])


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        (Setting("ddmi"), "did you mean"),
        (Setting("ddim", 10, "epsilon_scaling,scale"), "KEY=VALUE"),
        (Setting("ddim", 10, "epsilon_scaling,scale=-1"), "scale"),
        (Setting("ddim", 0), "steps must be a whole number from 1 to 1000"),
        (Setting("ddim", 10**9), "steps must be a whole number from 1 to 1000"),
        (Setting("heun", 900), "1799 network evaluations for an image are too many"),
        (Setting("restart,restarts=1000000000,restart_steps=1000000000"), "too long a walk"),
        (Setting("restart,restarts=1000000000.0"), "too long a walk"),
        (Setting("d" * 301), "at most 300 letters"),
        (Setting("ddim", 10, "tsr+" * 100), "at most 300 letters"),
        (Setting(None), "at most 300 letters"),
        (Setting("ancestral,var_type=analytic"), "training images, which this page does not read"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(model, setting, wrong):
    with pytest.raises(ConfigError, match=f"(?s)^B: .*{wrong}"):
        Scene(model, 1, 0, [A, setting])


@pytest.mark.parametrize(
    ("size", "n", "wrong"), [(8, 17, "16 are the most"), (256, 5, "4 are the most"), (1024, 1, "too large")]
)
def test_images_are_few(size, n, wrong):
    config = from_dict({**tiny().to_dict(), "data": {"name": "digits", "image_size": size}})
    with pytest.raises(ConfigError, match=wrong):
        Scene(Run(config, None, None), n, 0, [A])


@pytest.mark.parametrize("value", [None, "3", True, 0, 17, 2.5, float("nan"), float("inf")])
def test_numbers_from_outside(value):
    assert whole(3.0, "images", 16) == 3
    assert whole(0, "seed", 16) == 0
    with pytest.raises(ConfigError, match="images must be a whole number from 1 to 16"):
        whole(value, "images", 16)


def test_a_run_with_times_of_its_own_can_be_sampled(tmp_path):
    """Of other numbers of steps, too: its own times are left."""
    config = from_dict({**tiny(n_steps=1).to_dict(), "sampling": {"spacing": [900, 500, 0]}})
    run(config, tmp_path / "run")
    assert len(played(load(tmp_path / "run"), settings=[A])[0].times) == 5


def test_what_is_not_finite_is_said(trained):
    model = load(trained)
    with torch.no_grad():
        next(iter(model.denoiser.network.parameters())).fill_(float("nan"))
    with pytest.raises(Diverged, match="ddim,eta=0, 5 steps: what comes out is not finite"):
        played(model)
