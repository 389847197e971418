"""Everything with everything: 500 configurations train two steps and make an image; what does not combine is refused.

What is drawn is in :mod:`tests.train.drawn`; new variants and settings are covered by themselves.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import numbers, one_thread, run, step_folder
from tests.tiny import tree as tiny_tree
from tests.train.drawn import NOT_DRAWN, VALUES, configuration, leaves

from ddpm_ip import files
from ddpm_ip.config import Config, from_dict, merge
from ddpm_ip.data.arrays import Digits
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import ConfigError, DataError, UserError
from ddpm_ip.learning_rate import RateConfig
from ddpm_ip.nn import ModelConfig
from ddpm_ip.notebook import load
from ddpm_ip.perturbation import Perturbation
from ddpm_ip.run.record import flatten
from ddpm_ip.run.weights import find_weights
from ddpm_ip.sample.calibrated import keep
from ddpm_ip.sampler import AnySampler
from ddpm_ip.sampler.correction import AnyCorrection, Auto
from ddpm_ip.settings import keys
from ddpm_ip.times import TimesConfig
from ddpm_ip.train import loop, start
from ddpm_ip.variants import variant_name, variants
from ddpm_ip.weighting import WeightingConfig

BATCHES, VALID = 100, 5  # so many valid ones in each; what is refused on the way comes on top
RESUMED, CAPTURED = 5, 7  # one in so many
CURES = ("choose", "set ", "leave", "give ", "ask for", "take ", "train with", "needs")


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for that has tests of its own: disks, Git, tensorboard."""
    monkeypatch.setattr(files.os, "fsync", lambda handle: None)
    monkeypatch.setattr(start, "provenance", lambda: {"versions": {}})


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of one and of three channels and their labels: so few that any size is made at once."""
    digits, folder = Digits().open(progress=False), tmp_path_factory.mktemp("data")
    for channels in (1, 3):
        images = np.concatenate([digits.pixels[40 * i : 40 * i + 40] for i in range(channels)], axis=1)
        np.savez(folder / f"{channels}.npz", images=images, labels=digits.labels[:40])
    return folder


def configured(number: int | str, few: Path) -> dict[str, Any]:
    tree = configuration(number)
    if tree["data"]["name"] == "npz":
        tree["data"]["root"] = str(few / f"{tree['model']['in_channels']}.npz")
    return tree


def told(tree: dict[str, Any]) -> set[str]:
    """What a refusal can name: keys, and words that were given for them."""
    given = flatten(tree)
    correct = {c["name"] for c in tree["sampling"]["corrections"]}
    return {key.rpartition(".")[2] for key in given} | {v for v in given.values() if isinstance(v, str)} | correct


def is_said_well(error: Exception, tree: dict[str, Any]) -> bool:
    """Whether a refusal names two of the settings, or one and what to do."""
    text = str(error)
    named = {word for word in told(tree) - {"name"} if word in text}
    return len(named) >= 2 or (len(named) == 1 and any(cure in text for cure in CURES))


class Refused(Exception):
    """A configuration that is refused before the first step, or, for its images, when they are asked for."""


def trained(tree: dict[str, Any], folder: Path) -> Config:
    """Trains two steps as the program does.

    Raises:
        Refused: in words that say what does not go together.
    """
    done: list[int] = []
    try:
        config = from_dict(tree)
        outcome = run(config, folder, hooks=loop.Hooks(on_step=done.append))
    except (ConfigError, DataError) as error:
        assert not done, "after a step"
        raise told_well(error, tree) from error
    assert outcome.step == 2
    assert numbers(folder)[-1][0] == 2
    assert all(math.isfinite(value) for line in numbers(folder) for value in line)
    return config


def makes_an_image(config: Config, tree: dict[str, Any], folder: Path) -> None:
    try:
        if Auto() in config.sampling.corrections:
            weights = find_weights(folder)
            nothing = {"corrections": [], "chosen": "none", "why": "Two steps say nothing."}
            keep(config.sampling, config, weights.sha256, Path(weights.origin), nothing)
        (image,) = load(folder).sample(1).images
    except ConfigError as error:
        raise told_well(error, tree) from error
    assert image.dtype == np.uint8
    assert image.shape == config.shape


def told_well(error: UserError, tree: dict[str, Any]) -> Refused:
    assert is_said_well(error, tree), error
    return Refused(str(error))


def state(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the checkpoint of the second step."""
    found = step_folder(folder, 2).glob("*.safetensors")
    return {f"{path.stem} {name}": v for path in found for name, v in load_file(path).items()}


def resumes_exactly(config: Config, folder: Path) -> None:
    """The second step once more, from the checkpoint of the first: the same bits, of every part."""
    run(config, folder / "again", str(step_folder(folder, 1)))
    one, two = state(folder), state(folder / "again")
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert numbers(folder)[-1] == numbers(folder / "again")[-1]


def is_captured_exactly(tree: dict[str, Any], captured: Any) -> None:
    """Two steps by the code that a GPU records, against the plain ones; no dropout, whose masks differ."""
    calm = {"model.dropout": 0.0, "train.optim.eps": 1e-3, "train.mixed_precision": None}
    config = from_dict(merge(tree, calm))
    images = config.data.open(progress=False)
    (one, step), (two, same) = loop.build(config, images, start_engine(None)), captured(config, images)
    for _ in range(2):
        torch.testing.assert_close(torch.stack(same()), torch.stack(step()), rtol=1e-3, atol=1e-4)
    plain = one.tensors()
    for part, named in two.tensors().items():
        found, wanted = (torch.cat([v.double().flatten() for v in each.values()]) for each in (named, plain[part]))
        torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-4, msg=lambda m, part=part: f"{part}: {m}")


@pytest.mark.large
@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_configuration_trains_and_samples_or_is_refused_by_name(batch, few, captured, tmp_path, monkeypatch):
    """500 valid ones; a tenth in `make test`."""
    found = number = 0
    while found < VALID:
        name, folder = f"{batch} {number}", tmp_path / str(number)
        tree = configured(name, few)
        again = number % RESUMED == 0
        if again:
            tree["train"] |= {"save_freq": 1, "print_freq": 2}
        one_thread(monkeypatch)
        try:
            config = trained(tree, folder)
            makes_an_image(config, tree, folder)
            if again:
                resumes_exactly(config, folder)
            if number % CAPTURED == 1:
                one_thread(monkeypatch)
                is_captured_exactly(tree, captured)
            found += 1
        except Refused:
            pass
        except BaseException as error:
            error.add_note(f"configuration {name}: {json.dumps(tree)}")
            raise
        number += 1
    assert number <= 3 * VALID, "refusals are no way out"


def test_every_setting_has_values() -> None:
    """One that is added must be drawn: give it values in tests/train/drawn.py, or say there why it is left alone."""
    assert [path for path, known in leaves() if not known] == []
    there = {path for path, _ in leaves()}
    assert [path for path in VALUES if path not in there] == [], "of settings that are gone"
    assert [path for path in NOT_DRAWN if not any(key == path or key.startswith(f"{path}.") for key in keys())] == []


def test_every_variant_is_drawn() -> None:
    """Of each place that can hold one of several, each."""
    drawn: dict[str, set[str]] = {}
    for number in range(300):
        tree = configuration(f"variants {number}")
        places = {"model": tree["model"], "perturbation": tree["perturbation"], "sampler": tree["sampling"]["sampler"]}
        places |= {key: tree["train"][key] for key in ("times", "weighting", "lr_schedule", "optim")}
        for correction in tree["sampling"]["corrections"]:
            drawn.setdefault("corrections", set()).add(correction["name"])
        for place, section in places.items():
            drawn.setdefault(place, set()).add(section["name"])
    unions = {"model": ModelConfig, "perturbation": Perturbation, "sampler": AnySampler, "corrections": AnyCorrection}
    unions |= {"times": TimesConfig, "weighting": WeightingConfig, "lr_schedule": RateConfig}
    expected = {place: {variant_name(v) for v in variants(union)} for place, union in unions.items()}
    assert drawn == {**expected, "optim": {"adam", "adamw"}}


LEARNED, EDM = {"diffusion.var_type": "learned_range"}, {"train.weighting": {"name": "edm"}}
STEEP = {"diffusion.beta_end": 0.3, "diffusion.objective": "pred_eps"}
SAMPLED = {"train.sample_freq": 1, "train.sample_steps": 2}
CLASSES = {"classes": {"count": 10, "dropout": 0.0}}
CONSISTENT = {"perturbation": {"name": "input", "target": "consistent"}}
GUIDED = SAMPLED | {"sampling.corrections": [{"name": "guidance"}]}
IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    (CONSISTENT, "perturbation.target: consistent is for diffusion.objective pred_x0 and pred_v"),
    (CONSISTENT | {"diffusion.objective": "pred_v", "train.loss": "vlb"}, "perturbation.target.*train.loss vlb"),
    ({"train.vb_input": "clean"}, "train.vb_input: clean is for a learned variance .diffusion.var_type learned_range"),
    (LEARNED | {"train.vb_input": "clean", "train.loss": "vlb"}, "train.vb_input.*train.loss vlb.*perturbation.name"),
    (EDM | {"train.loss": "vlb"}, "train.weighting: edm weighs the squared error, which train.loss vlb does not have"),
    (EDM | STEEP, "train.weighting edm weighs an error of pred_eps by .*diffusion.objective pred_v"),
    (STEEP | {"train.loss": "vlb"}, "train.loss vlb divides by .*pred_eps.*choose diffusion.objective pred_v"),
    (STEEP | LEARNED, "diffusion.var_type learned_range trains divides by .*diffusion.beta_end"),
    (STEEP | SAMPLED | {"sampling.clip": "none"}, "train.sample_steps: 2.*pred_eps.*set sampling.clip to rederive"),
    (STEEP | SAMPLED | {"sampling.corrections": [{"name": "tsr"}]}, "train.sample_steps: 2.*Leave the corrections out"),
    (
        SAMPLED | {"diffusion": {"beta_end": 0.8, "objective": "pred_x0"}, "sampling.sampler": {"name": "heun"}},
        "a state of this sampler.*take ancestral or ddim for a sampler",
    ),
    ({"perturbation": {"name": "input", "anneal": "linear"}}, "perturbation: anneal linear needs until"),
    ({"train.times": {"name": "lognormal", "mean": 90}}, "train.times lognormal with mean 90 and std 1.2"),
    ({"model.dim_mults": [1, 2], "model.use_attn": [True]}, "model.use_attn has 1 entries, model.dim_mults 2"),
    ({"model.n_heads": 2, "model.head_channels": 4}, "model.n_heads 2 and model.head_channels 4 both say"),
    ({"model.num_groups": 3}, "model width 8 is not divisible by num_groups 3"),
    ({"data.image_size": 7}, "images of 7x7 cannot be halved 1 times .model.dim_mults.*data.image_size"),
    ({"model.in_channels": 3}, "1 channels, model.in_channels is 3: .*--model.in_channels 1"),
    ({"classes.count": 3}, "labels up to 9.*--classes.count 10"),
    (SAMPLED | {"sampling.classes": 3}, "train.sample_steps: 2.*sampling.classes.*unconditional.*leave it out"),
    (GUIDED, "guidance compares .* this model is unconditional; leave it out"),
    (GUIDED | CLASSES, "guidance asks the network without a class.*classes.dropout 0"),
    (CLASSES | SAMPLED | {"sampling.classes": [10]}, "sampling.classes.*has 10 classes, 0..9"),
    (SAMPLED | {"sampling.sampler": {"name": "ancestral", "var_type": "learned_range"}}, "learned variance"),
    (SAMPLED | {"sampling.afs": True, "train.sample_steps": 1}, "afs saves the first of at least two"),
    ({"sampling.steps": 3, "sampling.spacing": [2, 0]}, "the spacing names 2 times, and the steps are 3"),
    ({"sampling.steps": 2000}, "the steps .* are 2000; choose 1..1000 .diffusion.total_steps"),
    ({"train.ema_decay": [0.9, 0.9]}, "ema_decay must name 1 to 16, and none twice"),
]


@pytest.mark.parametrize(("change", "words"), IMPOSSIBLE, ids=[", ".join(change) for change, _ in IMPOSSIBLE])
def test_what_does_not_combine_is_refused_by_name_before_the_first_step(change, words) -> None:
    """Each way, in the words that it is refused in."""

    def begin() -> None:
        config = from_dict(merge(tiny_tree(), change))
        loop.build(config, config.data.open(progress=False), start_engine(None))

    with pytest.raises((ConfigError, DataError), match=f"(?s){words}"):
        begin()


def test_what_is_nearly_refused_trains() -> None:
    """The same schedules and losses where they do go together, so that no more is refused than must be."""
    for change in (STEEP | SAMPLED, EDM | STEEP | {"diffusion.objective": "pred_v"}, EDM | {"train.loss": "simple"}):
        config = from_dict(merge(tiny_tree(), change))
        _, step = loop.build(config, config.data.open(progress=False), start_engine(None))
        loss, norm = step()
        assert loss.isfinite()
        assert norm.isfinite()
