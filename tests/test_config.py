"""The configuration: every mistake is named with its key and the nearest cure; what is saved is read back equal."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Literal

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ddpm_ip import config, plain
from ddpm_ip.config import Config, Diffusion, Train, from_dict, load, merge, parse_overrides
from ddpm_ip.data import Cifar10, Digits
from ddpm_ip.errors import ConfigError
from ddpm_ip.nn import UNetConfig
from ddpm_ip.objective import Objective
from ddpm_ip.perturbation import InputPerturbation, NoPerturbation
from ddpm_ip.plain import parse_yaml
from ddpm_ip.schedule import Schedule
from ddpm_ip.sections import Optim
from ddpm_ip.times import LossSecondMoment, Uniform
from ddpm_ip.weighting import Constant

ROOT = Path(__file__).parents[1]
SHIPPED = sorted([*ROOT.glob("configs/*.yaml"), *ROOT.glob("benchmarks/*.yaml")])
DIGITS = "data: {name: digits}\n"


def read(text: str, tmp_path: Path, *overrides: str) -> Config:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, parse_overrides(overrides))


def refusal(text: str, tmp_path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, tmp_path, *overrides)
    return str(caught.value)


# --- what is refused, and how ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "cure"),
    [
        ("trian: {n_steps: 5}", "trian", "did you mean train?"),
        ("train: {batch_sise: 5}", "train.batch_sise", "did you mean batch_size?"),
        ("train: {optim: {learning: 1}}", "train.optim.learning", "the keys of train.optim are name, lr"),
        ("perturbation: {name: input, gama: 0.1}", "perturbation.gama", "did you mean gamma?"),
        ("perturbation: {name: none, gamma: 0.1}", "perturbation.gamma", "the keys of perturbation are name"),
        ("perturbation: {name: inputs}", "perturbation.name", "did you mean input?"),
        ("perturbation: {name: offset-noise}", "perturbation.name", "choose one of none, input"),
        ("diffusion: {objective: pred_epsilon}", "diffusion.objective", "'pred_eps'"),
        ("model: {name: dit}", "model.name", "unknown name 'dit'; choose one of unet"),
        ("seed: five", "seed", "got 'five'"),
        ("seed: 1.5", "seed", "got 1.5"),
        ("seed: -1", "seed", "greater than or equal to 0"),
        ("seed: 18446744073709551616", "seed", "less than"),
        ("seed: null", "seed", "got None"),
        ("train: {batch_size: 0}", "train.batch_size", "greater than or equal to 1"),
        ("train: {lr_warmup: many}", "train.lr_warmup", "got 'many'"),
        ("train: {ema_decay: 1.0}", "train.ema_decay", "less than 1"),
        ("train: {flip: 2}", "train.flip", "got 2"),
        ("train: 5", "train", "must be a section of keys and values, got 5"),
        ("train: {optim: {betas: [0.9]}}", "train.optim.betas", ""),
        ("train: {optim: {betas: [0.9, 0.99, 0.999]}}", "train.optim.betas", ""),
        ("train: {batch_size: true}", "train.batch_size", "a number is needed, not true/false"),
        ("model: {dim_mults: [1, true]}", "model.dim_mults.1", "a number is needed, not true/false"),
        ("model: {dim_mults: []}", "model.dim_mults", "at least 1 item"),
        ("a: 2020-13-45", "a", "unknown key"),
        ("perturbation: {name: input, gamma: true}", "perturbation.gamma", "a number is needed, not true/false"),
        ("perturbation: {name: input, gamma: -0.1}", "perturbation", "gamma must be >= 0, got -0.1"),
        ("perturbation: {name: input, gamma: .nan}", "perturbation", "gamma must be >= 0, got nan"),
        ("diffusion: {total_steps: 1}", "diffusion.total_steps", "greater than or equal to 2"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_a_cure(text: str, key: str, cure: str, tmp_path: Path) -> None:
    message = refusal(DIGITS + text, tmp_path)
    line = next(line for line in message.splitlines()[1:] if line.strip().startswith(key))
    assert line.strip().startswith(f"{key}"), message
    assert cure in line
    assert "c.yaml" in message.splitlines()[0]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    message = refusal("data: {name: digits, size: 3}\nseed: x\ntrain: {n_step: 1}", tmp_path)
    assert all(key in message for key in ("data.size", "seed", "train.n_step: unknown key; did you mean n_steps?"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1", "data: not given, but needed"),
        ("data: {}", "data.name: not given; choose one of digits, cifar10"),
        ("data: {name: cifar}", "data.name: unknown name 'cifar'; did you mean cifar10?"),
        ("data: {name: npz, image_size: 8}", "data.root: not given, but needed"),
        ("data: digits", "data"),
        ("- 1", "must be an object of keys and values"),
        ("", "must be an object of keys and values"),
    ],
)
def test_what_is_missing_is_named(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in refusal(text, tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1\nseed: 2", "'seed' is there twice"),
        ("train: {n_steps: 1, n_steps: 2}", "'n_steps' is there twice"),
        ("seed: !!python/object/apply:os.getpid []", "python/object/apply"),
        ("seed: !!python/name:os.system", "python/name"),
        ("seed: !mine 5", "!mine"),
        ("seed: [1", "line"),
        ("seed: 1\n\ttrain: 2", "line"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("seed: *nowhere", "nowhere"),
        ("? [1]\n: 2", "not valid YAML"),
        ("? {a: 1}\n: 2", "not valid YAML"),
    ],
)
def test_yaml_that_cannot_be_meant_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    message = refusal(DIGITS + text, tmp_path)
    assert expected in message
    assert "c.yaml" in message


def test_a_file_that_cannot_be_read_is_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read: No such file"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="not a text file"):
        load(tmp_path / "binary.yaml")


# --- what the values mean --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1E5", 1e5), ("2e-4", 2e-4), (".5", 0.5), ("-3.25", -3.25), ("1_000", 1000), ("7", 7),
        ("-7", -7),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("true", True), ("False", False),
        ("null", None), ("~", None), ("", None), ("${HOME}", "${HOME}"), ("$HOME/x", "$HOME/x"), ("'1'", "1"),
        ("[1, 2e0]", [1, 2.0]), ("{a: no}", {"a": "no"}),
    ],
)  # fmt: skip
def test_yaml_as_people_mean_it(text: str, value: object) -> None:
    got = parse_yaml(text, "here")
    assert got == value
    assert type(got) is type(value)


def test_values_arrive_as_their_types(tmp_path: Path) -> None:
    c = read(
        "data: {name: cifar10, root: '${HOME}/no'}\n"
        "train: {optim: {lr: 1e-4, betas: [0, 0.5]}, clip_grad_norm: null, mixed_precision: no, n_steps: 5}\n"
        "perturbation: {name: input, gamma: 1}",
        tmp_path,
    )
    assert c.data == Cifar10(root="${HOME}/no")
    optim = Optim(lr=1e-4, betas=(0.0, 0.5))
    assert c.train == Train(n_steps=5, clip_grad_norm=None, mixed_precision="no", optim=optim)
    assert isinstance(c.train.optim.betas, tuple)
    assert c.perturbation == InputPerturbation(gamma=1.0)


def test_defaults_are_those_of_the_classes(tmp_path: Path) -> None:
    assert read(DIGITS, tmp_path) == Config(data=Digits())
    assert Config(data=Digits()).perturbation == NoPerturbation()


def test_a_variant_left_unnamed_is_the_one_that_fits(tmp_path: Path) -> None:
    assert read(DIGITS + "perturbation: {gamma: 0.2}", tmp_path).perturbation == InputPerturbation(gamma=0.2)


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("model: {}", {}),
        ("model: {dim: 64}", {"model": UNetConfig(dim=64)}),
        ("perturbation: {}", {}),
        ("train: {times: {}, weighting: {}}", {}),
        ("train: {times: {name: uniform}, weighting: {name: constant}}", {}),
    ],
)
def test_an_unnamed_section_with_nothing_else_is_the_default(
    text: str, changed: dict[str, object], tmp_path: Path
) -> None:
    assert read(DIGITS + text, tmp_path) == Config(data=Digits(), **changed)


@dataclasses.dataclass(frozen=True)
class Bare:
    name: Literal["bare"] = "bare"


@dataclasses.dataclass(frozen=True)
class Wide:
    name: Literal["wide"] = "wide"
    width: int = 1
    depth: int = 1


@dataclasses.dataclass(frozen=True)
class Deep:
    name: Literal["deep"] = "deep"
    depth: int = 1
    heads: int = 1


@pytest.mark.parametrize(
    ("keys", "default", "meant"),
    [
        (["width"], Deep, Wide),
        (["heads", "typo"], Wide, Deep),
        (["depth"], Deep, Deep),
        (["depth"], None, None),
        (["typo"], Deep, Deep),
        (["typo"], Bare, None),
        ([], Wide, Wide),
        ([], None, None),
    ],
)
def test_which_variant_an_unnamed_section_means(keys: list[str], default: type | None, meant: type | None) -> None:
    """So that a file which was written before there was another variant keeps its meaning."""
    assert config._meant(dict.fromkeys(keys, 1), [Bare, Wide, Deep], default) is meant


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {times: {name: loss_aware}}", "train.times.name: unknown name 'loss_aware'; choose one of uniform"),
        ("train: {weighting: {name: constants}}", "train.weighting.name: unknown name 'constants'; did you mean con"),
        ("train: {weighting: {gamma: 5}}", "train.weighting.name: not given; choose one of constant, min_snr, p2, edm"),
        ("train: {weighting: {name: p2, snr: 5}}", "train.weighting.snr: unknown key; the keys of train.weighting are"),
        ("model: {dim_mult: [1]}", "model.dim_mult: unknown key; did you mean dim_mults?"),
        ("model: {dim: 5}", "model.dim: input should be a multiple of 2, got 5"),
        ("model: {dim: 2}", "model.dim: input should be greater than or equal to 4, got 2"),
        ("model: {dim_mults: [0]}", "model.dim_mults.0: input should be greater than or equal to 1, got 0"),
        ("model: {dropout: 1}", "model.dropout: input should be less than 1, got 1"),
        ("model: {num_groups: 0}", "model.num_groups: input should be greater than or equal to 1, got 0"),
    ],
)
def test_mistakes_in_a_section_with_variants(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in refusal(DIGITS + text, tmp_path)


def test_the_parts_are_made_of_their_sections(tmp_path: Path) -> None:
    c = read(
        DIGITS + "model: {in_channels: 1, dim: 8, dim_mults: [1, 2], use_attn: [false, true], num_groups: 4}\n"
        "diffusion: {total_steps: 50, beta_schedule: cosine, objective: pred_v, var_type: learned_range}\n"
        "perturbation: {name: input}",
        tmp_path,
    )
    network = c.build_network()
    assert network.conv_in.in_channels == 1
    assert network.conv_out.out_channels == 2  # image and variance
    denoiser = c.denoiser(network)
    assert denoiser.network is network
    assert denoiser.schedule == Schedule(50, "cosine")
    assert (denoiser.prediction_type, denoiser.learned_variance) == ("pred_v", True)
    assert c.objective(Uniform()) == Objective(InputPerturbation(), Uniform(), Constant())


# --- overrides -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["--seed", "3"], {"seed": 3}),
        (["--seed=3", "--train.optim.lr", "1e-3"], {"seed": 3, "train.optim.lr": 1e-3}),
        (["--a", "-3", "--b", "-1e-3", "--c=-2"], {"a": -3, "b": -1e-3, "c": -2}),
        (["--train.optim.betas", "[0.9, 0.99]"], {"train.optim.betas": [0.9, 0.99]}),
        (["--a=b=c"], {"a": "b=c"}),
        (["--train.alert_command", "echo 'a: {b}' # c"], {"train.alert_command": "echo 'a: {b}' # c"}),
        (["--a", "null", "--b="], {"a": None, "b": None}),
        ([], {}),
    ],
)
def test_overrides_are_read(tokens: list[str], expected: dict[str, object]) -> None:
    assert parse_overrides(tokens) == expected


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--seed"], "--seed needs a value"),
        (["--train.flip", "--seed", "3"], "--train.flip needs a value"),
        (["--seed", "1", "--seed=2"], "--seed is given twice"),
        (["seed", "1"], "unexpected argument 'seed'"),
        (["-s", "1"], "unexpected argument '-s'"),
        (["--"], "unexpected argument '--'"),
        (["--seed", "[1"], "--seed is not valid YAML"),
        (["--seed", "!!python/name:os.system"], "--seed is not valid YAML"),
    ],
)
def test_overrides_that_cannot_be_meant_are_refused(tokens: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_overrides(tokens)
    assert message in str(caught.value)


def test_overrides_lie_on_top(tmp_path: Path) -> None:
    text = DIGITS + "train: {n_steps: 7, batch_size: 9, optim: {lr: 0.5}}\n"
    c = read(text, tmp_path, "--train.optim.lr", "1e-3", "--train.n_steps=8", "--diffusion.total_steps", "10")
    assert (c.train.optim.lr, c.train.n_steps, c.train.batch_size, c.diffusion.total_steps) == (1e-3, 8, 9, 10)


def test_an_override_that_nothing_uses_is_refused(tmp_path: Path) -> None:
    message = refusal(DIGITS, tmp_path, "--train.btach_size", "3")
    assert "train.btach_size: unknown key; did you mean batch_size?" in message
    assert "seed" in refusal(DIGITS, tmp_path, "--seed.x", "3")


def test_another_name_starts_its_section_anew(tmp_path: Path) -> None:
    """The old variant's keys go, whichever order the overrides have; the same name changes nothing."""
    text = "data: {name: cifar10, root: here, image_size: 16}\nperturbation: {name: input, gamma: 0.2}\n"
    assert read(text, tmp_path, "--data.name", "digits").data == Digits()
    assert read(text, tmp_path, "--data.root", "x", "--data.name", "cifar10").data == Cifar10(root="x", image_size=16)
    assert read(text, tmp_path, "--perturbation.name", "none").perturbation == NoPerturbation()
    c = read(DIGITS, tmp_path, "--perturbation.gamma", "0.3", "--perturbation.name", "input")
    assert c.perturbation == InputPerturbation(gamma=0.3)


def test_merge_leaves_its_input_alone() -> None:
    tree = {"data": {"name": "a", "root": "x"}, "train": {"optim": {"lr": 1}}}
    merged = merge(tree, {"data.name": "b", "train.optim.lr": 2, "train.n": 3})
    assert merged == {"data": {"name": "b"}, "train": {"optim": {"lr": 2}, "n": 3}}
    assert tree == {"data": {"name": "a", "root": "x"}, "train": {"optim": {"lr": 1}}}


def test_another_optimizer_keeps_what_both_have(tmp_path: Path) -> None:
    text = f"{DIGITS}\ntrain: {{optim: {{lr: 0.003, weight_decay: 0.02}}}}\n"
    optim = read(text, tmp_path, "--train.optim.name", "adamw").train.optim
    assert (optim.name, optim.lr, optim.weight_decay) == ("adamw", 0.003, 0.02)


# --- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_every_shipped_file_loads_and_comes_back(path: Path, tmp_path: Path) -> None:
    """Its network can be built, too, and its saved form reads back equal."""
    c = load(path)
    assert read(c.to_yaml(), tmp_path) == c
    assert from_dict(c.to_dict()) == c
    import torch

    with torch.device("meta"):
        c.build_network()


def test_there_are_shipped_files() -> None:
    assert {p.parent.name for p in SHIPPED} == {"configs", "benchmarks"}


FRACTION = st.floats(0, 1, exclude_max=True)
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")  # which is refused: no name of a file can have it
CONFIGS = st.builds(
    Config,
    data=st.one_of(st.builds(Digits), st.builds(Cifar10, root=st.text(CHARACTERS, min_size=1))),
    model=st.builds(
        UNetConfig, dim_mults=st.lists(st.integers(1, 8), min_size=1, max_size=4).map(tuple), dropout=FRACTION
    ),
    diffusion=st.builds(
        Diffusion,
        total_steps=st.integers(2, 5000),
        beta_schedule=st.sampled_from(["linear", "quad", "const", "cosine"]),
        beta_start=st.floats(0, 1, exclude_min=True, exclude_max=True),
        objective=st.sampled_from(["pred_eps", "pred_x0", "pred_v"]),
        var_type=st.sampled_from(["fixed_large", "fixed_small", "learned_range"]),
    ),
    perturbation=st.one_of(st.just(NoPerturbation()), st.floats(0, 10).map(lambda g: InputPerturbation(gamma=g))),
    train=st.builds(
        Train,
        clip_grad_norm=st.none() | st.floats(0, 1e3, exclude_min=True),
        mixed_precision=st.sampled_from([None, "no", "fp16", "bf16"]),
        optim=st.builds(Optim, lr=st.floats(0, 10, exclude_min=True), betas=st.tuples(FRACTION, FRACTION)),
    ),
    seed=st.integers(0, 2**64 - 1),
)


@given(CONFIGS)
def test_what_is_saved_is_read_back_equal(c: Config) -> None:
    """Floats to the last bit, any text, None and 'no' told apart."""
    again = from_dict(parse_yaml(c.to_yaml(), "saved"))
    assert again == c
    assert dataclasses.asdict(again) == dataclasses.asdict(c)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "root", "gamma", "optim", "lr", "x", "dim_mults"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["data", "train", "perturbation", "model", "seed", "y"]), PLAIN, max_size=4))
def test_any_tree_is_a_config_or_a_config_error(tree: dict[str, object]) -> None:
    """Nothing that a file can hold ends in a traceback."""
    with contextlib.suppress(ConfigError):
        assert isinstance(from_dict(tree), Config)


@given(st.text(st.sampled_from("ab:,{}[]?-&*! '\"\n\t#|>%@`~<1.e"), max_size=25))
def test_any_text_is_yaml_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse_yaml(text, "here")


def test_the_module_reads_yaml_safely() -> None:
    """The one loader in use is a SafeLoader that knows no tag of Python."""
    import yaml

    assert issubclass(plain._Loader, yaml.SafeLoader)
    assert not any("python" in str(tag) for tag in plain._Loader.yaml_constructors)


def test_height_and_width(tmp_path):
    config = read("data: {name: digits, image_size: [8, 12]}\nmodel: {in_channels: 5}", tmp_path)
    assert config.data.image_size == (8, 12)
    assert config.shape == (5, 8, 12)
    assert from_dict(yaml.safe_load(config.to_yaml())) == config
    assert read("data: {name: digits}", tmp_path, "--data.image_size", "[16, 8]").shape == (3, 16, 8)
    assert read("data: {name: digits, image_size: 16}", tmp_path).shape == (3, 16, 16)


@pytest.mark.parametrize("value", ["large", "[8]", "[8, 8, 8]", "[8, x]", "{a: 1}", "null", "8.5"])
def test_what_is_no_image_size(tmp_path, value):
    with pytest.raises(ConfigError) as caught:
        read(f"data: {{name: digits, image_size: {value}}}", tmp_path)
    (line,) = str(caught.value).splitlines()[1:]
    assert line == "  data.image_size: must be a whole number of pixels, or [height, width]"


def test_true_is_no_height(tmp_path):
    with pytest.raises(ConfigError, match=r"data.image_size.0: a number is needed"):
        read("data: {name: digits, image_size: [true, 8]}", tmp_path)


# --- the training loss -----------------------------------------------------------------------------------------------

OFFICIAL = """
diffusion: {beta_schedule: cosine, var_type: learned_range}
perturbation: {name: input, gamma: 0.15}
train: {times: {name: loss_second_moment}}
"""


def test_the_objective_of_ddpm_ip_s_authors_is_one_configuration(tmp_path: Path) -> None:
    """Learned variance, cosine schedule, times by importance, the bound at the perturbed input; saved and read back."""
    c = read(DIGITS + OFFICIAL, tmp_path)
    assert c.train.times == LossSecondMoment(history=10, uniform_prob=0.001)
    objective = c.objective(c.train.times.start(c.diffusion.schedule, torch.device("cpu")))
    assert objective.perturbation == InputPerturbation(0.15)
    assert (objective.loss, objective.vb_input) == ("simple", "perturbed")
    assert c.denoiser(c.build_network()).learned_variance
    assert from_dict(c.to_dict()) == c


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "perturbation: {name: input, target: consistent}",
            "perturbation.target: consistent is for diffusion.objective",
        ),
        (
            "perturbation: {name: input, target: consistent}\ndiffusion: {objective: pred_v}\ntrain: {loss: vlb}",
            "perturbation.target: consistent is of the squared error",
        ),
        ("train: {vb_input: clean}", "train.vb_input: clean is for a learned variance"),
        (
            "train: {vb_input: clean, loss: vlb}\ndiffusion: {var_type: learned_range}",
            "train.vb_input: clean is for the bound next to the simple loss",
        ),
        ("train: {loss: vlb, weighting: {name: p2}}", "train.weighting: p2 weighs the squared error"),
        ("perturbation: {name: input, gamma: [0.1, x]}", "perturbation.gamma: must be a number, or a list of numbers"),
        ("perturbation: {name: input, anneal: linear}", "perturbation: anneal linear needs until"),
        ("train: {times: {name: skewed, a: -1}}", "train.times: a must be above 0"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in refusal(DIGITS + text, tmp_path)


def test_a_configuration_made_in_python_is_refused_too() -> None:
    c = dataclasses.replace(
        from_dict({"data": {"name": "digits"}}), perturbation=InputPerturbation(target="consistent")
    )
    with pytest.raises(ConfigError, match=r"perturbation\.target: consistent is for"):
        c.objective(Uniform())


def test_a_strength_by_time_is_an_option(tmp_path: Path) -> None:
    c = read(DIGITS, tmp_path, "--perturbation.name", "input", "--perturbation.gamma", "[0.05, 0.2]")
    assert c.perturbation == InputPerturbation((0.05, 0.2))
