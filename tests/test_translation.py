"""Configurations and options in the words of xyfJASON's repository: what each key means, and what is said of it."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import ROOT

from ddpm_ip import config
from ddpm_ip.config import Config, from_dict, parse_overrides
from ddpm_ip.data import Cifar10, Folder, Mnist
from ddpm_ip.errors import ConfigError
from ddpm_ip.perturbation import InputPerturbation, NoPerturbation
from ddpm_ip.schedule import too_little_noise
from ddpm_ip.sections import Classes
from ddpm_ip.translation import flat, in_our_words, is_published

NETWORK = {"in_channels": 3, "dim": 64, "dim_mults": [1, 2], "use_attn": [False, True], "num_res_blocks": 3}
SCHEDULE = {"total_steps": 500, "beta_schedule": "quad", "beta_start": 0.001, "beta_end": 0.03}
SCHEDULE |= {"objective": "pred_v", "var_type": "fixed_small"}
STEPS = {"n_steps": 70, "batch_size": 12, "clip_grad_norm": 0.5, "print_freq": 7, "save_freq": 8, "sample_freq": 9}


def published(**more: Any) -> dict[str, Any]:
    """A tree of target and params, as since October 2023."""
    return {
        "seed": 7,
        "data": {
            "target": "datasets.cifar10.CIFAR10",
            "params": {"root": "~/c", "img_size": 32},
            "img_channels": 3,
            "num_classes": 10,
        },
        "dataloader": {"num_workers": 4, "pin_memory": True, "prefetch_factor": 2},
        "model": {"target": "models.unet.UNet", "params": {**NETWORK, "out_channels": 3, "n_heads": 1, "dropout": 0.2}},
        "diffusion": {"target": "diffusions.ddpm.DDPM", "params": dict(SCHEDULE)},
        "train": {
            **STEPS,
            "micro_batch": 6,
            "ema_decay": 0.99,
            "ema_gradual": False,
            "n_samples": 10,
            "optim": {"target": "torch.optim.AdamW", "params": {"lr": 0.003, "betas": [0.8, 0.9]}},
        },
        **more,
    }


def flat_tree() -> dict[str, Any]:
    """As in March 2023: no target, micro_batch with the loader, the average with the model."""
    return {
        "data": {"name": "CIFAR-10", "dataroot": "~/c", "img_size": 32, "img_channels": 3, "num_classes": 10},
        "dataloader": {"num_workers": 4, "micro_batch": 6},
        "model": {"type": "unet", **NETWORK, "out_channels": 3, "ema_decay": 0.99, "ema_gradual": False},
        "diffusion": dict(SCHEDULE),
        "train": {
            **STEPS,
            "resume": None,
            "n_samples": 10,
            "optim": {"type": "AdamW", "lr": 0.003, "betas": [0.8, 0.9]},
        },
    }


def first_tree() -> dict[str, Any]:
    """As in January 2023: the diffusion with the model, the programs' options in the file."""
    section = {**NETWORK, "resblock_groups": 16, "attn_groups": 16, "attn_heads": 2, "ema_decay": 0.99, **SCHEDULE}
    train = {"n_steps": 70, "batch_size": 12, "pretrained": None, "optimizer": {"type": "adam", "lr": 0.003}}
    train |= {"print_freq": {"by_step": 7}, "save_freq": {"by_epoch": 50}}
    data = {"dataset": "MNIST", "dataroot": "/m", "img_size": 28, "img_channels": 3}
    return {"data": data, "model": section, "train": train, "sample": {"n_samples": 64}, "evaluate": {"num_real": 9}}


def read(tree: dict[str, Any], *options: str) -> Config:
    return from_dict(tree, "theirs.yaml", parse_overrides(options))


def notes(tree: dict[str, Any], *options: str) -> str:
    return in_our_words(tree, parse_overrides(options)).notes.text()


def refusal(tree: dict[str, Any], *options: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tree, *options)
    return str(caught.value)


# --- whole configurations --------------------------------------------------------------------------------------------


def test_every_key_of_a_tree_means_what_it_says() -> None:
    c = read(published())
    assert c.data == Cifar10(root="~/c", download=False)
    assert (c.model.dim, c.model.dim_mults, c.model.use_attn, c.model.num_res_blocks) == (64, (1, 2), (False, True), 3)
    assert (c.model.in_channels, c.model.dropout, c.model.n_heads, c.model.num_groups) == (3, 0.2, 1, 32)
    d, t = c.diffusion, c.train
    assert (d.total_steps, d.beta_schedule, d.beta_start, d.beta_end) == (500, "quad", 0.001, 0.03)
    assert (d.objective, d.var_type) == ("pred_v", "fixed_small")
    assert (t.n_steps, t.batch_size, t.micro_batch, t.clip_grad_norm) == (70, 12, 6, 0.5)
    assert (t.print_freq, t.save_freq, t.sample_freq, t.n_samples) == (7, 8, 9, 10)
    assert (t.ema_decay, t.ema_warmup) == (0.99, False)
    assert (t.optim.name, t.optim.lr, t.optim.betas) == ("adamw", 0.003, (0.8, 0.9))
    assert (c.seed, c.perturbation) == (7, NoPerturbation())


def test_what_holds_there_without_being_said() -> None:
    tree = published()
    del tree["seed"], tree["train"]["ema_gradual"], tree["train"]["ema_decay"], tree["diffusion"]["params"]["var_type"]
    c = read(tree)
    assert (c.seed, c.sampling.seed, c.sampling.spacing, c.sampling.clip) == (2022, 2022, "uniform", "rederive")
    assert (c.train.ema_warmup, c.train.ema_decay, c.train.lr_warmup, c.train.flip) == (True, 0.9999, 0, True)
    assert c.diffusion.var_type == "fixed_large"
    assert c.train.optim.weight_decay == 0.01, "that of torch.optim.AdamW"
    said = notes(tree)
    for text in ("seed 2022", "sampling.spacing uniform", "sampling.seed 2022", "train.ema_warmup true"):
        assert text in said


def test_the_network_is_theirs_but_for_its_first_weights() -> None:
    model = read(published()).model
    assert (model.name, model.padding, model.norm_eps) == ("unet", "both", 1e-5)
    said = notes(published())
    assert "model.padding both, model.norm_eps 1e-05" in said
    assert "initial weights: the paper's, there PyTorch's" in said
    assert "eps of GroupNorm" not in said
    right = read(published(), "--model.padding", "right_below").model
    assert (right.padding, right.norm_eps) == ("right_below", 1e-5)
    assert "padding" not in str(read(published(), "--model.name", "adm").to_dict()["model"])
    assert read(OURS, "--model.target", "models.unet.UNet").model.padding == "right_below", "an option of ours"


def guided(**more: Any) -> dict[str, Any]:
    """Their class-conditional configuration, in which only what differs from the network's own defaults is said."""
    tree = published(**more)
    tree["model"] = {
        "target": "models.unet_categorial_adagn.UNetCategorialAdaGN",
        "params": {"num_classes": 10, "dim": 64, "out_channels": 3},
    }
    tree["diffusion"]["target"] = "diffusions.cfg.ddpm_cfg.DDPMCFG"
    del tree["train"]["n_samples"]
    tree["train"] |= {"p_uncond": 0.3, "n_samples_each_class": 7}
    return tree


def test_a_class_conditional_configuration() -> None:
    c, said = read(guided()), notes(guided())
    assert c.classes == Classes(10, dropout=0.3)
    m = c.model
    assert (m.name, m.dim, m.num_res_blocks, m.head_channels, m.resblock_updown) == ("adm", 64, 2, 64, True)
    assert (m.use_attn, m.dropout, m.scale_shift_norm, m.norm_eps) == ((False, True, True, False), 0.1, True, 1e-5)
    assert (c.train.n_samples, c.train.sample_steps, c.perturbation) == (70, 25, NoPerturbation())
    for text in ("whole micro-batch", "middle has heads", "begins at zero", "data.num_classes (classes.count"):
        assert text in said
    assert "previews take" not in said, "they are made as there"


@pytest.mark.parametrize("target", ["diffusions.ddpm.DDPMCFG", "x.ClassifierFree", "GuidedFree"])
def test_earlier_names_of_guided_diffusion(target: str) -> None:
    tree = guided()
    tree["diffusion"]["target"] = target
    assert read(tree).classes == Classes(10, dropout=0.3)


def test_keys_of_the_class_conditional_network() -> None:
    tree = guided()
    tree["model"]["params"] |= {"attn_head_dims": 32, "resblock_updown": False, "dropout": 0.2, "num_classes": 100}
    c = read(tree, "--train.p_uncond", "0")
    assert (c.model.head_channels, c.model.resblock_updown, c.model.dropout) == (32, False, 0.2)
    assert (c.classes, c.train.n_samples) == (Classes(100, dropout=0), 70)
    tree["model"]["params"]["num_classes"] = None
    assert "train.p_uncond" in refusal(tree)
    del tree["train"]["p_uncond"], tree["train"]["n_samples_each_class"]
    tree["diffusion"]["target"] = "diffusions.ddpm.DDPM"
    c = read(tree)
    assert (c.classes, c.model.name) == (None, "adm")


def test_a_seed_of_the_file_is_kept_and_sampling_has_theirs() -> None:
    assert (read(published()).seed, read(published()).sampling.seed) == (7, 2022)


@pytest.mark.parametrize("earlier", [flat_tree, first_tree])
def test_earlier_layouts(earlier: Any) -> None:
    c = read(earlier())
    assert (c.model.dim, c.diffusion.beta_schedule, c.diffusion.var_type) == (64, "quad", "fixed_small")
    assert (c.train.n_steps, c.train.batch_size, c.train.print_freq, c.train.ema_decay) == (70, 12, 7, 0.99)
    assert (c.train.optim.lr, c.seed) == (0.003, 2022)
    if earlier is flat_tree:
        assert c.data == Cifar10(root="~/c", download=False)
        assert (c.train.micro_batch, c.train.ema_warmup, c.train.optim.name) == (6, False, "adamw")
    else:
        assert c.data == Mnist(root="/m")
        assert (c.model.num_groups, c.model.n_heads, c.train.save_freq) == (16, 2, 5000)
        assert (c.train.ema_warmup, c.train.optim.name) == (True, "adam")


@pytest.mark.parametrize(
    ("data", "expected", "flip"),
    [
        (
            {"target": "datasets.mnist.MNIST", "params": {"root": "m", "img_size": 32}},
            Mnist(root="m", image_size=32),
            False,
        ),
        (
            {"target": "datasets.cifar10.CIFAR10", "params": {"root": "c", "img_size": 32, "split": "test"}},
            Cifar10(root="c", split="test", download=False),
            False,
        ),
        (
            {"target": "datasets.celebahq.CelebAHQ", "params": {"root": "h/", "img_size": 64, "split": "all"}},
            Folder(root="h/CelebA-HQ-img", image_size=64),
            True,
        ),
        (
            {"target": "datasets.ImageDir", "params": {"root": "i"}, "img_size": 8},
            Folder(root="i", image_size=8),
            False,
        ),
    ],
)
def test_data_sets(data: dict[str, Any], expected: object, flip: bool) -> None:
    c = read(published(data=data))
    assert (c.data, c.train.flip) == (expected, flip)


def test_gray_images_of_a_folder() -> None:
    data = {"target": "datasets.ImageDir", "params": {"root": "i", "img_size": 8}, "img_channels": 1}
    tree = published(data=data)
    tree["model"]["params"] |= {"in_channels": 1, "out_channels": 1}
    assert read(tree).data == Folder(root="i", image_size=8, mode="gray")


def test_input_perturbation_in_both_ways() -> None:
    tree = published(diffusion={"target": "diffusions.ddpm_ip.DDPM_IP", "params": {**SCHEDULE, "gamma": 0.15}})
    assert read(tree).perturbation == InputPerturbation(gamma=0.15)
    tree = published(diffusion={"target": "diffusions.ddpm_ip.DDPM_IP", "params": dict(SCHEDULE)})
    assert read(tree).perturbation == InputPerturbation(gamma=0.1)
    tree = published()
    tree["train"]["ip_gamma"] = 0.2
    assert read(tree).perturbation == InputPerturbation(gamma=0.2)


def test_sampling_in_the_arguments_of_the_diffusion() -> None:
    tree = published()
    tree["diffusion"]["params"] |= {"respace_type": "quad", "respace_steps": 20, "clip_denoised": False}
    s = read(tree).sampling
    assert (s.spacing, s.steps, s.clip) == ("quad", 20, "none")
    tree["diffusion"]["params"] |= {"respace_type": None, "clip_denoised": True}
    s = read(tree).sampling
    assert (s.spacing, s.steps, s.clip) == ("uniform", None, "rederive"), "without a type all steps are visited there"


def test_a_learned_variance_has_twice_the_channels() -> None:
    tree = published()
    tree["model"]["params"]["out_channels"] = 6
    assert "model.out_channels 6" in refusal(tree)
    tree["diffusion"]["params"]["var_type"] = "learned_range"
    assert read(tree).diffusion.learned_variance


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("data.target", "datasets.imagenet.ImageNet", "cropped at random"),
        ("data.target", "datasets.ffhq.FFHQ", "no such data"),
        ("data.target", 5, "no such data"),
        ("data.img_channels", 1, "model.in_channels is 3"),
        ("data.params.transform_type", "none", "always resized"),
        ("model.target", "models.adm.unet.UNetModel", "not models.unet.UNet"),
        ("model.params.resblock_updown", True, "of the network UNetCategorialAdaGN alone"),
        ("model.params.num_classes", 10, "of the network UNetCategorialAdaGN alone"),
        ("model.params.attn_head_dims", 64, "of the network UNetCategorialAdaGN alone"),
        ("diffusion.target", "diffusions.ddpm.DDPMCFG", "needs a class-conditional network"),
        ("diffusion.target", "diffusions.ddim.DDIM", "not diffusions.ddpm.DDPM"),
        ("diffusion.params.gamma", 0.1, "DDPM_IP alone"),
        ("diffusion.params.guidance_scale", 2, "sampling.corrections [{name: guidance, scale: 2}]"),
        ("train.p_uncond", 0.2, "needs a class-conditional network"),
        ("train.n_samples_each_class", 10, "needs a class-conditional network"),
        ("train.resume", "runs/x", "-r"),
        ("train.optim.target", "torch.optim.SGD", "not torch.optim.Adam"),
        ("train.optim.params.amsgrad", True, "nothing like it"),
        ("anything", 1, "nothing like it"),
    ],
)
def test_what_changes_the_method_and_cannot_be_done_is_refused_by_its_name(path: str, value: Any, why: str) -> None:
    tree = copy.deepcopy(published())
    *sections, key = path.split(".")
    node = tree
    for name in sections:
        node = node[name]
    node[key] = value
    (line,) = refusal(tree).splitlines()[1:]
    assert line.strip().startswith(path.replace(".params", ""))
    assert why in line


def test_a_length_in_epochs_needs_the_steps() -> None:
    tree = published()
    del tree["train"]["n_steps"]
    tree["train"]["epochs"] = 2050
    assert "give that" in refusal(tree)
    assert read(tree, "--train.n_steps", "90").train.n_steps == 90


def test_a_split_of_celebahq() -> None:
    params = {"root": "h", "img_size": 64}
    tree = published(data={"target": "datasets.celebahq.CelebAHQ", "params": params})
    assert "24,183" in notes(tree)
    params["split"] = "test"
    assert "data.split test" in refusal(tree)


def test_every_key_is_told_of() -> None:
    said = notes(published())
    for section, inner in published().items():
        for key in inner if isinstance(inner, dict) else ():
            for name in inner[key] if key == "params" else [key]:
                assert f"{section}.{name}" in said or name == "optim", name
    for text in ("train.optim.target torch.optim.AdamW -> train.optim.name adamw", "initial weights", "bf16"):
        assert text in said


def test_the_note_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("ddpm_ip"), "propagate", True)
    config._say.cache_clear()
    with caplog.at_level(logging.WARNING, "ddpm_ip"):
        for _ in range(2):
            read(published())
    texts = [record.getMessage() for record in caplog.records]
    assert [text for text in texts if "is a configuration of" in text] == texts[:1], "each line by itself, and once"
    assert not any("\n" in text or "\\n" in text for text in texts)
    assert texts[0].startswith("theirs.yaml is a configuration of xyfJASON's repository")


def test_the_note_and_a_refusal_are_bounded() -> None:
    tree = published(**{f"key{i}": "x" * 10_000 for i in range(2000)})
    assert len(refusal(tree)) < 20_000
    tree = published(dataloader={f"key{i}" * 20: 1 for i in range(2000)})
    assert len(notes(tree)) < 20_000


def test_ours_is_not_taken_for_theirs() -> None:
    tree = read(published()).to_dict()
    assert not is_published(tree)
    assert from_dict(tree) == read(published())
    assert in_our_words(tree, {"train.batch_size": 3}).notes.text() == ""
    assert is_published(published())
    assert is_published(flat_tree())
    assert is_published(first_tree())


@pytest.mark.parametrize(
    ("name", "parameters", "recipe"),  # of their networks, counted; and what their files and scripts say
    [
        ("ddpm_mnist", 8_949_761, (50_000, 128, 2e-4, "fixed_small", 200, (1, 32, 32))),
        ("ddpm_celebahq256", 113_673_219, (500_000, 64, 2e-5, "fixed_small", 1000, (3, 256, 256))),
        ("ddpm_cfg_cifar10", 44_178_947, (800_000, 128, 2e-4, "fixed_large", 1000, (3, 32, 32))),
    ],
)
def test_their_recipes(name: str, parameters: int, recipe: tuple[Any, ...]) -> None:
    c = config.load(ROOT / f"configs/{name}.yaml")
    t, d = c.train, c.diffusion
    assert (t.n_steps, t.batch_size, t.optim.lr, d.var_type, d.total_steps, c.shape) == recipe
    with torch.device("meta"):
        assert sum(p.numel() for p in c.build_network().parameters()) == parameters
    assert (c.seed, c.sampling.seed, c.sampling.spacing, t.ema_warmup) == (2022, 2022, "uniform", True)
    assert ("alpha_bar is 0.13" in too_little_noise(d.schedule)) == (name == "ddpm_mnist")
    assert c.classes == (Classes(10, 0.2) if name == "ddpm_cfg_cifar10" else None)
    assert getattr(c.model, "padding", "both") == "both"
    assert c.model.norm_eps == 1e-5


# --- options ---------------------------------------------------------------------------------------------------------

OURS = {"data": {"name": "cifar10", "root": "r"}, "perturbation": {"name": "input", "gamma": 0.1}}
PLAIN = {"data": {"name": "cifar10", "root": "r"}}


INPUT = {"perturbation.name": "input"}


@pytest.mark.parametrize("tree", [OURS, PLAIN, published()], ids=["ours", "plain", "theirs"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--diffusion.params.beta_schedule cosine", {"diffusion.beta_schedule": "cosine"}),
        ("--diffusion.beta_schedule=cosine", {"diffusion.beta_schedule": "cosine"}),
        ("--data.params.root /d", {"data.root": "/d"}),
        ("--model.params.dim 32", {"model.dim": 32}),
        ("--model.params.dim_mults [1,4] --model.params.use_attn [true,false]", {"model.dim_mults": [1, 4]}),
        ("--train.optim.params.lr 1e-5", {"train.optim.lr": 1e-5}),
        ("--train.ip_gamma 0.15", {**INPUT, "perturbation.gamma": 0.15}),
        (
            "--diffusion.target diffusions.ddpm_ip.DDPM_IP --diffusion.params.gamma 0.15",
            {**INPUT, "perturbation.gamma": 0.15},
        ),
        (
            "--diffusion.params.gamma 0.2 --diffusion.target diffusions.ddpm_ip.DDPM_IP",
            {**INPUT, "perturbation.gamma": 0.2},
        ),
        ("--diffusion.target diffusions.ddpm_ip.DDPM_IP", {**INPUT, "perturbation.gamma": 0.1}),
        ("--diffusion.target diffusions.ddpm.DDPM", {"perturbation.name": "none"}),
        ("--train.ema_decay 0.5 --train.ema_gradual true", {"train.ema_decay": 0.5, "train.ema_warmup": True}),
        ("--train.ema_gradual false", {"train.ema_warmup": False}),
        ("--data.params.img_size 16", {"data.image_size": 16}),
        ("--data.target datasets.mnist.MNIST --data.params.root m", {"data.name": "mnist", "data.root": "m"}),
        (
            "--train.optim.target torch.optim.AdamW",
            {"train.optim.name": "adamw", "train.optim.weight_decay": 0.01},
        ),
        ("--train.optim.target torch.optim.Adam", {"train.optim.name": "adam", "train.optim.weight_decay": 0}),
        (
            "--train.optim.target torch.optim.AdamW --train.optim.params.weight_decay 0.3",
            {"train.optim.name": "adamw", "train.optim.weight_decay": 0.3},
        ),
        ("--dataloader.num_workers 8 --data.num_classes 10", {}),
        ("--perturbation.name none", {"perturbation.name": "none"}),
        (
            "--sampling.spacing quad --seed 5 --sampling.seed 6",
            {"sampling.spacing": "quad", "seed": 5, "sampling.seed": 6},
        ),
        (
            "--data.name folder --data.params.root f --data.image_size 8",
            {"data.name": "folder", "data.root": "f", "data.image_size": 8},
        ),
    ],
)
def test_published_options(tree: dict[str, Any], options: str, expected: dict[str, Any]) -> None:
    """With a configuration of either program, in any order, with or without params."""
    found = flat(read(tree, *options.split()).to_dict())
    assert {path: found[path] for path in expected} == expected


def test_options_of_the_class_conditional_network() -> None:
    c = read(OURS, "--model.num_classes", "7", "--train.p_uncond", "0.2")
    assert (c.classes, c.model.name) == (Classes(7, 0.2), "unet")
    c = read(
        OURS, "--model.name", "adm", "--model.params.attn_head_dims", "8", "--model.params.resblock_updown", "false"
    )
    assert (c.model.head_channels, c.model.resblock_updown) == (8, False)


def test_arguments_may_be_given_together() -> None:
    assert read(OURS, "--model.params", "{dim: 32, dropout: 0.3}").model.dropout == 0.3
    assert read(OURS, "--model.params", "{dim: 32}", "--model.params.dim_mults", "[1]", "--model.use_attn", "[true]")


def test_the_root_of_celebahq_follows_its_option() -> None:
    tree = published(data={"target": "datasets.celebahq.CelebAHQ", "params": {"root": "h", "img_size": 64}})
    assert read(tree, "--data.params.root", "/else").data.root == "/else/CelebA-HQ-img"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--train.ip_gamma abc", "--train.ip_gamma: must be a number, or a list of numbers by time"),
        ("--train.ip_gamma -1", "--train.ip_gamma: gamma must be >= 0, got -1.0"),
        (
            "--diffusion.target diffusions.ddpm_ip.DDPM_IP --diffusion.params.gamma x",
            "--diffusion.params.gamma: must be a number",
        ),
        ("--train.optim.params.lr 0", "--train.optim.params.lr: input should be greater than 0"),
        ("--data.params.img_size big", "--data.params.img_size: must be a whole number"),
        ("--train.p_uncond 1 --model.num_classes 3", "--train.p_uncond: input should be less than 1"),
        ("--train.p_uncond 0.1", "classes.count: not given, but needed"),
        ("--train.n_samples_each_class 3", "train.n_samples_each_class 3: give train.n_samples"),
        ("--train.ema_gradual 5", "--train.ema_gradual: input should be a valid boolean"),
        ("--model.target models.dit.model.DiT", "model.target models.dit.model.DiT: not models.unet.UNet"),
        ("--model.params.dim 8 --model.dim 16", "--model.params.dim and --model.dim say the same thing"),
        ("--train.ip_gamma 0.1 --perturbation.gamma 0.2", "perturbation.gamma is said twice, as 0.2 and as 0.1"),
        ("--model.params.dimm 8", "--model.params.dimm: unknown key; did you mean dim"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_of_the_option_as_it_was_written(options: str, message: str) -> None:
    assert message in refusal(OURS, *options.split())


def test_saying_the_same_twice_is_no_contradiction() -> None:
    twice = ["--train.ip_gamma", "0.2", "--perturbation.gamma", "0.2"]
    c = read(OURS, *twice, "--model.dim", "32", "--model.params.dim", "32")
    assert (c.perturbation, c.model.dim) == (InputPerturbation(gamma=0.2), 32)


PARTS = st.sampled_from(
    [
        "data",
        "model",
        "diffusion",
        "train",
        "optim",
        "params",
        "target",
        "name",
        "root",
        "gamma",
        "ip_gamma",
        "dim",
        "type",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["DDPM", "x.UNet", "CIFAR10", "a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(PARTS, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(PARTS, VALUES, max_size=4),
    st.dictionaries(st.lists(PARTS, min_size=1, max_size=4).map(".".join), VALUES, max_size=3),
)
def test_anything_is_a_configuration_or_a_refusal(tree: dict[str, Any], overrides: dict[str, Any]) -> None:
    before, message = copy.deepcopy((tree, overrides)), ""
    try:
        assert isinstance(from_dict(tree, "theirs.yaml", overrides), Config)
    except ConfigError as error:
        message = str(error)
    assert len(message) < 50_000
    assert repr((tree, overrides)) == repr(before)


def test_other_data_take_nothing_from_those_of_the_configuration() -> None:
    gray = ("--model.in_channels", "1", "--model.out_channels", "1", "--data.img_channels", "1")
    c = read(published(), "--data.name", "digits", "--data.image_size", "16", *gray)
    assert c.to_dict()["data"] == {"name": "digits", "image_size": 16}
    said = notes(published(), "--data.name", "digits")
    assert "data.root" in said.split("left out: ")[1]
    assert "data.root" not in said.split("the same here: ")[1].splitlines()[0]
    same = read(published(), "--data.name", "cifar10").data
    assert same.root == read(published()).data.root, "the same data keep their place"
