"""Everything with everything: 500 configurations train two steps and make an image; what does not combine is refused.

What is drawn is in :mod:`tests.train.drawn`; new variants and settings are covered by themselves.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import numbers, one_thread, run, step_folder
from tests.train.drawn import NOT_DRAWN, VALUES, configuration, leaves

from ddpm_ip import files
from ddpm_ip.config import Config, from_dict, merge
from ddpm_ip.data.arrays import Digits
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import ConfigError, DataError, UserError
from ddpm_ip.notebook import load
from ddpm_ip.run.record import flatten
from ddpm_ip.train import loop, start

BATCHES, VALID = 100, 5  # so many valid ones in each; what is refused on the way comes on top
RESUMED, CAPTURED = 5, 4  # one in so many
CURES = ("choose", "set ", "leave", "give ", "ask for", "take ", "train with", "needs")


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for that has tests of its own: disks, Git, tensorboard."""
    monkeypatch.setattr(files.os, "fsync", lambda handle: None)
    monkeypatch.setattr(start, "provenance", lambda: {"versions": {}})


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three channels with labels."""
    digits, path = Digits().open(progress=False), tmp_path_factory.mktemp("data") / "coloured.npz"
    images = np.concatenate([digits.pixels[i : i + 40] for i in (0, 40, 80)], axis=1)
    np.savez(path, images=images, labels=digits.labels[:40])
    return path


def configured(number: int | str, coloured: Path) -> dict[str, Any]:
    tree = configuration(number)
    if tree["data"]["name"] == "npz":
        tree["data"]["root"] = str(coloured)
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
    for part, named in two.tensors().items():
        found, wanted = (torch.cat([v.double().flatten() for v in each.values()]) for each in (named, one.tensors()[part]))
        torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-4, msg=lambda m, part=part: f"{part}: {m}")


@pytest.mark.large
@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_configuration_trains_and_samples_or_is_refused_by_name(batch, coloured, captured, tmp_path, monkeypatch):
    """500 valid ones; a tenth in `make test`."""
    found = number = 0
    while found < VALID:
        name, folder = f"{batch} {number}", tmp_path / str(number)
        tree = configured(name, coloured)
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
    assert number < 2 * VALID, "refusals are no way out"
