"""Every key of the configuration in words."""

import json
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt, MultipleOf

from ddpm_ip import keys, settings
from ddpm_ip.config import from_dict
from ddpm_ip.errors import ConfigError
from ddpm_ip.plain import parse_yaml
from ddpm_ip.times import LossSecondMoment

ALL = keys.all_sections()
EVERY = [key for section in ALL for key in section.keys]


def test_every_field_of_every_dataclass_has_a_meaning_of_its_own():
    for section in ALL:
        where = (section.path, section.name)
        assert section.meaning, where
        assert section.purpose or not section.path, where
        meanings = [key.meaning for key in section.keys]
        assert all(meanings), where
        assert len(meanings) == len(set(meanings)), f"{where}: explain each field by itself"


def test_they_are_those_that_a_configuration_can_have():
    """But for what the program alone fills in, and ``name``, which the sections tell."""
    auto = {"sampling.corrections.chain", "sampling.corrections.calibration"}
    named = {f"{section.path}.name" for section in ALL if section.name is not None}
    lists = {section.path for section in ALL if section.path == "sampling.corrections"}
    assert {key.path for key in EVERY} | named == set(settings.keys()) - auto | lists
    assert all(key.change == settings.kind(key.path) for key in EVERY)


def test_the_defaults_are_those_of_the_dataclasses():
    """Read as a file, what is said to be the default of a section makes the configuration that leaves it out."""
    for path in ("diffusion", "sampling", "train", "train.optim", "train.eval"):
        (section,) = [s for s in ALL if s.path == path]
        given = {key.path: parse_yaml(key.default, key.path) for key in section.keys}
        assert from_dict({"data": {"name": "digits"}}, "", given) == from_dict({"data": {"name": "digits"}})
    (network,) = [s for s in ALL if s.name == "unet"]
    assert network.is_default
    assert {k.path: k.default for k in network.keys}["model.use_attn"] == json.dumps([False, True, False, False])
    (folder,) = [s for s in ALL if s.name == "folder"]
    assert {k.path: k.default for k in folder.keys}["data.root"] == keys.NEEDED
    assert [s.name for s in ALL if s.path == "data" and s.is_default] == []


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (int, "whole number"),
        (Annotated[int, Ge(1), Lt(2**31)], "whole number >= 1"),
        (Annotated[int, Ge(4), MultipleOf(2)], "whole number >= 4, a multiple of 2"),
        (Annotated[float, Gt(0), Le(1)], "number in (0, 1]"),
        (Annotated[float, Ge(0), Lt(1)] | None, "number in [0, 1) or null"),
        (Literal["a", "b", "c"] | None, "a, b, c or null"),
        (int | tuple[int, int], "whole number or list of 2 whole numbers"),
        (tuple[Annotated[int, Ge(1)], ...], "list of whole numbers >= 1"),
        (int | float, "number"),
        (bool, "true or false"),
        (tuple[LossSecondMoment, ...], "list of sections, each with its name"),
    ],
)
def test_types_in_words(hint, expected):
    assert keys.in_words(hint) == expected


def test_what_a_field_inherits_is_explained_too():
    (heun,) = [s for s in ALL if s.name == "heun"]
    meaning = next(key.meaning for key in heun.keys if key.path.endswith("s_noise"))
    assert meaning.startswith("the deviation of the noise")


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("perturbation.gamma", ["perturbation.gamma"]),
        ("reweigh", ["train.times.reweigh", "train.times.reweigh"]),
        ("ddim", ["sampling.sampler.eta"]),
        ("classes", ["classes.count", "classes.dropout"]),
    ],
)
def test_a_part_is_a_section_a_key_or_a_name(part, expected):
    assert [key.path for section in keys.find(part) for key in section.keys] == expected


def test_a_part_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(ConfigError, match=r"--keys train\.optimm: .* did you mean train\.optim\?"):
        keys.find("train.optimm")
    with pytest.raises(ConfigError, match="--keys` lists all"):
        keys.find("zzzzzz")


def test_as_text_a_name_stands_before_its_keys():
    lines = keys.as_text(keys.find("perturbation")).splitlines()
    assert lines[:2] == ["## perturbation: what is added to the network's input in training.", "    one of none, input"]
    name = lines.index("# perturbation.name: input")
    assert lines[name + 2] == "perturbation.gamma: 0.1  (number or list of numbers; method)"
