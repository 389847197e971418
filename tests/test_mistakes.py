"""The nearest name, where it is, and whose the mistake was: the file's or an option's."""

from __future__ import annotations

from typing import Any

import pytest

from ddpm_ip.config import Config, from_dict
from ddpm_ip.errors import ConfigError
from ddpm_ip.mistakes import Mistake, by_origin, nearest, unknown_option

TRAIN = ["-h", "--help", "-c", "--config", "-e", "--exp_dir", "-r", "--resume"]
SAMPLE = ["-c", "--config", "--weights", "--n_samples", "--save_dir", "--seed", "--steps", "--batch_size", "--ddim_eta"]


def lines(tree: dict[str, Any], **overrides: Any) -> list[str]:
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    with pytest.raises(ConfigError) as caught:
        from_dict({"data": {"name": "digits"}, **tree}, "my.yaml", named)
    return str(caught.value).splitlines()


def line(path: str, value: Any = 1) -> str:
    """What is said of a key in the file."""
    tree: dict[str, Any] = {"data": {"name": "folder", "root": "r", "image_size": 8}}
    node = tree
    *sections, key = path.split(".")
    for name in sections:
        node = node.setdefault(name, {})
    node[key] = value
    return next(text.strip() for text in lines(tree)[1:] if text.strip().startswith(f"{path}: "))


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("train.bach_size", "did you mean batch_size?"),
        ("train.steps", "did you mean n_steps?"),
        ("train.grad_norm_clip", "the keys of train are n_steps"),
        ("batch_size", "did you mean train.batch_size?"),
        ("bach_size", "did you mean train.batch_size?"),
        ("gamma", "did you mean perturbation.gamma or train.weighting.gamma?"),
        ("lr", "did you mean train.optim.lr?"),
        ("n_steps", "did you mean train.n_steps?"),
        ("dim", "did you mean model.dim?"),
        ("eta", "did you mean sampling.sampler.eta?"),
        ("n_samples", "did you mean train.n_samples or train.eval.n_samples?"),
        ("train.lr", "did you mean train.optim.lr?"),
        ("train.weight_decay", "did you mean train.optim.weight_decay?"),
        ("train.gamma", "did you mean perturbation.gamma or train.weighting.gamma?"),
        ("train.optim.lr_warmup", "did you mean train.lr_warmup?"),
        ("model.num_classes", "did you mean classes.count?"),
        ("model.beta_schedule", "did you mean diffusion.beta_schedule?"),
        ("train.ip_gamma", "did you mean perturbation.gamma?"),
        ("train.ema_gradual", "did you mean train.ema_warmup?"),
        ("data.img_size", "did you mean image_size?"),
        ("diffusion.steps", "did you mean total_steps?"),
        ("train.ema", "did you mean ema_decay, ema_warmup, ema_power or ema_snapshot_freq?"),
        ("train.batch", "did you mean batch_size or micro_batch?"),
        ("optim", "did you mean train.optim?"),
        ("train.optim.amsgrad", "the keys of train.optim are name, lr"),
    ],
)
def test_the_nearest_key(path: str, advice: str) -> None:
    text = line(path)
    assert f"unknown key; {advice}" in text or (path.count(".") == 2 and advice in text)
    assert advice.startswith("did") or "did you mean" not in text


def test_a_key_of_another_variant() -> None:
    (_, text) = lines({"perturbation": {"name": "none", "gamma": 0.1}})
    assert text.strip().startswith(
        "perturbation.gamma: unknown key; the keys of perturbation are name; gamma is one of"
    )
    assert "perturbation.name input" in text
    (_, text) = lines({"sampling": {"sampler": {"name": "ancestral", "eta": 0.1}}})
    assert "eta is one of sampling.sampler.name ddim" in text


def test_mistakes_of_the_file_and_of_the_options_are_told_apart() -> None:
    wrong = {"train__bach_size": 4, "trian__n_steps": 3, "perturbation__name": "input", "perturbation__gamma": "x"}
    found = lines({"seed": "x", "model": {"dimm": 3}}, **wrong)
    assert [text.split(": ")[0].strip() for text in found] == [
        "my.yaml cannot be used:",
        "model.dimm",
        "seed",
        "the options given cannot be used:",
        "--perturbation.gamma",
        "--train.bach_size",
        "--trian.n_steps",
    ]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"train__bach_size": 4}, "--train.bach_size: unknown key; did you mean batch_size?"),
        ({"trian__batch_size": 4}, "--trian.batch_size: unknown key; did you mean train?"),
        ({"train__batch_size": "many"}, "--train.batch_size: input should be a valid integer"),
        ({"train__batch_size": True}, "--train.batch_size: a number is needed, not true/false"),
        ({"train__optim": {"lr": -1}}, "--train.optim: train.optim.lr: input should be greater than 0"),
        ({"perturbation__gamma": -1, "perturbation__name": "input"}, "gamma must be >= 0, got -1.0"),
        ({"data__name": "folder"}, "--data.name: data.root: not given, but needed"),
        ({"train__optim__betas": [0.5]}, "--train.optim.betas"),
    ],
)
def test_an_option_is_named_as_it_was_given(overrides: dict[str, Any], expected: str) -> None:
    found = lines({}, **overrides)
    assert found[0] == "the options given cannot be used:"
    assert any(expected in text for text in found[1:]), found
    assert not any("my.yaml" in text for text in found)


def test_a_mistake_of_the_file_stays_one_beside_good_options() -> None:
    assert lines({"train": {"bach_size": 3}}, seed=3, train__n_steps=4) == [
        "my.yaml cannot be used:",
        "  train.bach_size: unknown key; did you mean batch_size?",
    ]


@pytest.mark.parametrize(
    "tree",
    [
        {"x" * 100_000: 1},
        {"seed": "y" * 100_000},
        {"seed": list(range(50_000))},
        {"train": {f"k{i}" * 50: i for i in range(5000)}},
        {"model": {"name": "z" * 100_000}},
        {"perturbation": {"name": "input", "gamma": list(range(50_000))}},
        {"train": list(range(50_000))},
        {"model": {"dim_mults": ["a"] * 5000}},
    ],
    ids=lambda tree: str(tree)[:20],
)
def test_a_message_is_bounded(tree: dict[str, Any]) -> None:
    assert sum(map(len, lines(tree))) < 60_000
    assert max(map(len, lines(tree))) < 1100


@pytest.mark.parametrize(
    ("word", "options", "root", "advice"),
    [
        ("--exp-dir", TRAIN, Config, "did you mean --exp_dir?"),
        ("--Exp_dir", TRAIN, Config, "did you mean --exp_dir?"),
        ("--expdir", TRAIN, Config, "did you mean --exp_dir?"),
        ("--batch_size", TRAIN, Config, "did you mean --train.batch_size?"),
        ("--bach_size", TRAIN, Config, "did you mean --train.batch_size?"),
        ("--lr", TRAIN, Config, "did you mean --train.optim.lr?"),
        ("--gamma", TRAIN, Config, "did you mean --perturbation.gamma or --train.weighting.gamma?"),
        ("--n_steps", TRAIN, Config, "did you mean --train.n_steps?"),
        ("--n_sample", SAMPLE, Config, "did you mean --n_samples?"),
        ("--sampels", SAMPLE, Config, "did you mean --n_samples?"),
        ("--save-dir", SAMPLE, Config, "did you mean --save_dir?"),
        ("--step", SAMPLE, Config, "did you mean --steps?"),
        ("--bacth_size", SAMPLE, None, "did you mean --batch_size?"),
        ("--lr", SAMPLE, None, "there are --config, --weights"),
        ("--zzz", TRAIN, Config, "there are --help, --config"),
        ("--ema", TRAIN, Config, "did you mean --train.ema_decay, --train.ema_warmup, --train.ema_power or"),
        ("--precision", TRAIN, Config, "did you mean --sampling.precision or --train.mixed_precision?"),
        ("--sampler", TRAIN, Config, "did you mean --sampling.sampler.name?"),
        (
            "--steps",
            TRAIN,
            Config,
            "did you mean --sampling.steps, --train.eval.steps, --diffusion.total_steps or --train.n_steps?",
        ),
    ],
)
def test_an_unknown_option(word: str, options: list[str], root: type | None, advice: str) -> None:
    assert unknown_option(word, options, root).startswith(f"{word}: unknown option; {advice}")


def test_what_is_hardly_alike_is_not_near() -> None:
    assert nearest("num_classes", ["in_channels", "num_groups"]) is None
    assert nearest("ip_gamma", ["clip_grad_norm", "ema_decay"]) is None
    assert nearest("x" * 1_000_000, ["x"]) is None


def test_a_mistyped_option_of_a_section_that_nothing_begins_is_not_the_files_mistake() -> None:
    said = lines({}, **{"sampling.sampler.nam": "ddim"})
    assert said[0] == "the options given cannot be used:"
    assert said[1].startswith("  --sampling.sampler.nam: unknown key; did you mean name?")


def test_the_name_of_a_variant_in_place_of_its_section() -> None:
    (_, text) = lines({"perturbation": "none"})
    assert text.endswith("got 'none'; to choose one by its name write perturbation.name")


def test_a_word_in_place_of_a_list() -> None:
    (_, text) = lines({"train": {"eval": {"metrics": "fid"}}})
    assert text.endswith("must be a list, as in [a, b], got 'fid'")


def test_upper_case_is_no_other_name() -> None:
    (_, text) = lines({"data": {"name": "CIFAR10"}})
    assert text.endswith("unknown name 'CIFAR10'; did you mean cifar10?")


def test_an_item_of_a_list_is_told_by_its_value() -> None:
    (said,) = lines({}, train__ema_power=[0.05, 0.5])[1:]
    assert said.startswith("  --train.ema_power: input should be less than or equal to 0.288")
    assert said.endswith("got 0.5")


def test_a_section_that_gets_another_name_begins_anew_and_it_is_told() -> None:
    tree = {"data": {"name": "folder", "root": "images", "image_size": 8}}
    (said,) = lines(tree, data__name="parquet", data__root="a.parquet")[1:]
    assert said.startswith(
        "  --data.name: data.image_size: not given, but needed; another name begins its section again"
    )


def test_a_mistake_of_a_whole_section_is_that_of_the_option_it_names() -> None:
    written = {"sampling.sampler.name": "sampling.sampler.name", "sampling.steps": "sampling.steps"}
    told = by_origin([Mistake("sampling", "steps must be at least 1, got 0")], "the file", written)
    assert told == "the options given cannot be used:\n  --sampling.steps: steps must be at least 1, got 0"
