"""Which class an image is of, in numbers and words, and what a model does not have."""

from __future__ import annotations

import argparse

import pytest
import torch

from ddpm_ip import options
from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler import DDIM
from ddpm_ip.sampler.classes import class_of, in_numbers
from ddpm_ip.sampler.correction import TSR, Guidance
from ddpm_ip.sampler.sampling import Computed, Sampling
from ddpm_ip.schedule import Schedule
from ddpm_ip.sections import Classes


def test_classes_in_turn_and_in_words() -> None:
    assert class_of(torch.tensor([0, 1, 5, 7]), [4, -1, 2]).tolist() == [4, -1, 2, -1]
    words = {3: (3,), "none": (-1,)}
    assert {word: in_numbers(word) for word in words} == words
    assert in_numbers([0, "none"]) == [0, -1]
    assert in_numbers("other") == "other"
    assert in_numbers(True) is True


@pytest.mark.parametrize(
    ("sampling", "classes", "told"),
    [
        (Sampling(DDIM(), classes=(3,)), None, "this model is unconditional"),
        (Sampling(DDIM(), (Guidance(),)), None, "guidance compares .* unconditional"),
        (Sampling(DDIM(), classes=(3, 12)), Classes(10), "--class 12.* has 10 classes, 0..9"),
        (Sampling(DDIM(), classes=(-1,)), Classes(10, 0.0), "--class none .* classes.dropout 0"),
        (Sampling(DDIM(), (Guidance(),)), Classes(10, 0.0), "guidance asks .* classes.dropout 0"),
    ],
)
def test_what_a_model_cannot_do_is_refused(sampling: Sampling, classes: Classes | None, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sampling.check(Schedule(), False, classes)


def test_facts_of_an_unconditional_model_say_nothing_of_classes() -> None:
    diffusion = {"total_steps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
    computed, one = Computed("no", False, "cpu"), Sampling(DDIM(), steps=4, block=2)
    plain = one.facts(diffusion, computed)
    assert "classes" not in plain
    assert one.facts(diffusion, computed, Classes(10)) == {**plain, "classes": "balanced"}
    chosen = Sampling(DDIM(), steps=4, block=2, classes=(3, -1)).facts(diffusion, computed, Classes(10))
    assert chosen == {**plain, "classes": [3, -1]}
    with pytest.raises(ValueError, match="classes are numbers"):
        Sampling(classes=(-2,))


def test_guidance_in_short_is_the_first_correction_and_keeps_its_interval() -> None:
    plain = Sampling(DDIM(), (TSR(),))
    assert plain.guided(2.0).corrections == (Guidance(2.0), TSR())
    within = Sampling(DDIM(), (Guidance(1.2, start=800), TSR()))
    assert within.guided(2.0).corrections == (Guidance(2.0, start=800), TSR())
    with pytest.raises(ConfigError, match="--guidance: scale"):
        plain.guided(-1.0)


@pytest.mark.parametrize(
    ("words", "found"), [(["3", "none"], [3, "none"]), (["balanced"], None), (["none"], ["none"]), (["-1"], [-1])]
)
def test_the_words_of_an_option(words: list[str], found: list[int | str] | None) -> None:
    parser = argparse.ArgumentParser()
    options.add_single(parser)
    options.add_common(parser)
    assert options.common_overrides(parser.parse_args(["--class", *words]), {})["sampling.classes"] == found


@pytest.mark.parametrize("words", [["three"], ["3", "balanced"], ["3.5"]])
def test_a_word_that_is_no_class_is_told(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    options.add_single(parser)
    options.add_common(parser)
    with pytest.raises(ConfigError, match=f"--class '{words[-1]}': a class is its number"):
        options.common_overrides(parser.parse_args(["--class", *words]), {})
