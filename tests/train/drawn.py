"""Configurations drawn at random, as plain trees: every variant of every section, and every setting of it.

What a setting can be is read from its type where that says it (true or false, one of a list of words), and stands in
``VALUES`` where it does not; a test fails for one that has no values. A setting or a variant that is added later is so
drawn by itself, or asked for. What cannot be together is mostly put right (``RULES``), and sometimes left, since it is
to be refused by name.
"""

from __future__ import annotations

import dataclasses
import random
import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ddpm_ip.config import Config
from ddpm_ip.variants import has_name, sections, variant_name

LEFT = 0.02  # how often a rule is not followed
USUAL = 0.5  # how often a setting whose values are read from its type keeps its default
NOT_DRAWN = {  # why the tests of training as a whole leave them alone
    "data": "sources have tests of their own; whatever they are, a run sees arrays",
    "sampling.precision": "a process computes in one precision: train.mixed_precision",
    "train.n_steps": "two",
    "train.eval.extractor": "needs weights that are downloaded; pixels need none",
    "train.trackers": "packages that are not installed, and tests of their own",
    "train.alert_command": "no part of a run; tests/tracking/test_command.py",
    "train.deterministic": "the CPU always is; PyTorch would be told for all tests after it",
}
VALUES: dict[str, tuple[Any, ...]] = {
    "model.in_channels": (1, 1, 1, 3),
    "model.dim": (8, 8, 16),
    "model.dim_mults": ([1], [1], [1], [1, 1], [1, 2], [2, 1], [2, 2]),
    "model.use_attn": ([False], [True], [False, True], [True, True], [False, False]),
    "model.num_res_blocks": (*(1,) * 7, 2),
    "model.n_heads": (1, 1, 2, 4),
    "model.head_channels": (None, None, 2, 4, 8),
    "model.dropout": (0.0, 0.1, 0.5),
    "model.num_groups": (1, 2, 4, 8),
    "model.norm_eps": (1e-6, 1e-5),
    "model.time_scale": (1.0, 0.25, 20.0),
    "diffusion.total_steps": (2, 3, 10, 50, 1000, 1000, 4000),
    "diffusion.beta_start": (1e-4, 1e-4, 1e-3, 1e-6),
    "diffusion.beta_end": (0.02, 0.02, 0.05, 0.3),
    "classes.count": (10, 10, 12),
    "classes.dropout": (0.0, 0.1, 0.1, 0.5),
    "perturbation.gamma": (0.0, 0.1, 0.15, 1.0, [0.2, 0.05], [0.0, 0.1, 0.3]),
    "perturbation.until": (None, None, 1, 2, 1000),
    "perturbation.probability": (1.0, 1.0, 0.8, 0.0, 0.3),
    "train.batch_size": (2, 3, 4),
    "train.micro_batch": (0, 0, 1, 2, 3, 64),
    "train.times.history": (1, 2, 10),
    "train.times.uniform_prob": (0.001, 0.5, 1.0),
    "train.times.mean": (-1.2, 0.0, -3),
    "train.times.std": (1.2, 0.4, 3.0),
    "train.times.a": (1.0, 0.5, 3.0),
    "train.times.b": (2.0, 1.0, 0.5),
    "train.weighting.gamma": (5.0, 1.0, 0.5),
    "train.weighting.k": (1.0, 0.3),
    "train.weighting.sigma_data": (0.5, 1.0),
    "train.clip_grad_norm": (1.0, None, 0.1),
    "train.lr_warmup": (0, 0, 1, 5),
    "train.lr_schedule.end": (0.0, 0.1, 1.0),
    "train.lr_schedule.reference": (1, 70_000),
    "train.ema_decay": (0.9999, 0.9, 0.5, 0.0, [0.9], [0.9, 0.5], [0.5, 0.0, 0.999]),
    "train.ema_power": (None, None, None, 0.1, [0.05], [0.05, 0.1], [0.288, 0.01]),
    "train.ema_snapshot_freq": (1, 2, 5000),
    "train.print_freq": (1, 1, 2, 400),
    "train.save_freq": (1, 2, 5000),
    "train.sample_freq": (0, 0, 1, 2),
    "train.n_samples": (1, 3),
    "train.sample_steps": (1, 2, 3),
    "train.keep_last": (2, 3),
    "train.keep_every": (0, 1, 2),
    "train.mixed_precision": (None, None, "no", "bf16"),
    "train.eval.every": (*(0,) * 9, 2),
    "train.eval.n_samples": (2, 5),
    "train.eval.steps": (1, 2),
    "train.eval.metrics": (["fid"], ["kid", "fid"]),
    "train.optim.lr": (2e-4, 1e-3, 1e-2),
    "train.optim.betas": ([0.9, 0.999], [0.0, 0.9]),
    "train.optim.eps": (1e-8, 1e-3),
    "train.optim.weight_decay": (0.0, 0.01),
    "sampling.steps": (1, 2, 2, 3, 3, 5, "2", "1,1", "ddim2"),
    "sampling.spacing": (
        *("uniform-linspace",) * 4, "uniform-leading", "uniform-trailing", "quad", "logsnr", "karras,rho=5", "beta",
        "exponential,whole=true", [1, 0], [1.5, 0.25],
    ),
    "sampling.seed": (0, 7),
    "sampling.block": (1, 1, 1, 2, None),
    "sampling.classes": (None, None, 3, [0, 9], "none", [2, -1]),
    "seed": (0, 1, 2**64 - 1),
}  # fmt: skip
SIZES: tuple[Any, ...] = (8, 8, 8, 4, [4, 8], [8, 6], 5, [7, 4])


def configuration(number: int | str) -> dict[str, Any]:
    """One of all configurations, always the same one; without ``data.root``, where images are not the digits."""
    draw = random.Random(f"configuration {number}")
    tree = _section(Config, "", draw)
    size = draw.choice(SIZES)
    source = "digits" if tree["model"]["in_channels"] == 1 and size == 8 else "npz"
    tree["data"] = {"name": source, "image_size": size}
    tree["train"]["n_steps"] = 2
    for rule in RULES:
        if draw.random() >= LEFT:
            rule(tree, draw)
    return tree


def _section(cls: type, prefix: str, draw: random.Random) -> dict[str, Any]:
    """The keys of a dataclass."""
    found: dict[str, Any] = {}
    hints, inner = get_type_hints(cls, include_extras=True), sections(cls)
    for field in dataclasses.fields(cls):
        path = f"{prefix}{field.name}"
        if field.name == "name" and has_name([cls]) and len(_words(hints["name"])) == 1:
            found["name"] = variant_name(cls)
        elif path in NOT_DRAWN:
            continue
        elif path == "sampling.corrections":
            chosen = draw.sample(inner[field.name], draw.choice((0, 0, 1, 1, 2)))
            found[field.name] = [_method(variant, draw) for variant in chosen]
        elif path == "sampling.sampler":
            found[field.name] = _method(draw.choice(inner[field.name]), draw)
        elif field.name in inner:
            optional = types.NoneType in get_args(hints[field.name])
            one = None if optional and draw.random() < 0.5 else draw.choice(inner[field.name])
            found[field.name] = None if one is None else _section(one, f"{path}.", draw)
        else:
            found[field.name] = _value(path, hints[field.name], field, draw)
    return found


def _value(path: str, hint: Any, field: dataclasses.Field[Any], draw: random.Random) -> Any:
    if path in VALUES:
        return draw.choice(VALUES[path])
    has_default = field.default is not dataclasses.MISSING
    return field.default if has_default and draw.random() < USUAL else draw.choice(_words(hint))


def _method(cls: type, draw: random.Random) -> dict[str, Any]:
    """A sampler or a correction with some of its settings; tests/sampler tries them all, and what they refuse."""
    hints = get_type_hints(cls, include_extras=True)
    words = {f.name: _words(hints[f.name]) for f in dataclasses.fields(cls) if f.name != "name"}
    chosen = {name: draw.choice(known) for name, known in words.items() if known and draw.random() < 0.1}
    return {"name": variant_name(cls), **chosen}


def _words(hint: Any) -> list[Any]:
    """The values that a type lists; none where it lists none."""
    if get_origin(hint) is Annotated:
        return _words(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if hint is bool:
        return [False, True]
    if get_origin(hint) in (Union, types.UnionType):
        arms = [_words(arm) if arm is not types.NoneType else [None] for arm in get_args(hint)]
        return [value for arm in arms for value in arm] if all(arms) else []
    return []


def leaves(cls: type = Config, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Every key that is no section, by dotted path, and whether the drawing above has values for it."""
    inner, hints = sections(cls), get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        path = f"{prefix}{field.name}"
        if path in NOT_DRAWN or path in ("sampling.corrections", "sampling.sampler"):
            continue
        for variant in inner.get(field.name, []):
            yield from leaves(variant, f"{path}.")
        if field.name not in inner:
            yield path, path in VALUES or bool(_words(hints[field.name]))


def _attention_of_each_resolution(tree: dict[str, Any], draw: random.Random) -> None:
    model = tree["model"]
    model["use_attn"] = [draw.random() < 0.5 for _ in model["dim_mults"]]


def _one_number_of_heads(tree: dict[str, Any], draw: random.Random) -> None:
    if tree["model"]["head_channels"] is not None:
        tree["model"]["n_heads"] = 1


def _images_that_can_be_halved(tree: dict[str, Any], draw: random.Random) -> None:
    size, halved = tree["data"]["image_size"], len(tree["model"]["dim_mults"]) > 1
    if halved and any(side % 2 for side in (size if isinstance(size, list) else [size])):
        tree["data"]["image_size"] = 8


def _terms_of_one_loss(tree: dict[str, Any], draw: random.Random) -> None:
    train, diffusion, perturbation = tree["train"], tree["diffusion"], tree["perturbation"]
    if train["loss"] == "vlb":
        train["weighting"] = {"name": "constant"}
    if train["loss"] == "vlb" or diffusion["var_type"] != "learned_range":
        train["vb_input"] = "perturbed"
    if "target" in perturbation and (train["loss"] == "vlb" or diffusion["objective"] == "pred_eps"):
        perturbation["target"] = "clean"


def _an_end_of_what_falls(tree: dict[str, Any], draw: random.Random) -> None:
    if tree["perturbation"].get("until", 0) is None:
        tree["perturbation"]["anneal"] = "none"


def _classes_of_a_model_that_has_them(tree: dict[str, Any], draw: random.Random) -> None:
    sampling, classes = tree["sampling"], tree["classes"]
    if classes is None:
        sampling["classes"] = None
    if classes is not None and classes["dropout"] == 0 and sampling["classes"] in ("none", [2, -1]):
        sampling["classes"] = 3
    if classes is None or classes["dropout"] == 0:
        sampling["corrections"] = [c for c in sampling["corrections"] if c["name"] != "guidance"]


def _guidance_first(tree: dict[str, Any], draw: random.Random) -> None:
    tree["sampling"]["corrections"].sort(key=lambda c: c["name"] != "guidance")


def _settings_that_corrections_need(tree: dict[str, Any], draw: random.Random) -> None:
    for correction in tree["sampling"]["corrections"]:
        if correction["name"] == "epsilon_scaling":
            correction.clear()
            correction |= {"name": "epsilon_scaling", "scale": 1.01}


def _calibrated_after_training(tree: dict[str, Any], draw: random.Random) -> None:
    if any(c["name"] == "auto" for c in tree["sampling"]["corrections"]):
        tree["train"] |= {"sample_freq": 0}
        tree["train"]["eval"]["every"] = 0


def _variances_that_there_are(tree: dict[str, Any], draw: random.Random) -> None:
    sampler, diffusion = tree["sampling"]["sampler"], tree["diffusion"]
    wanted = sampler.get("var_type")
    if wanted == "learned_range" and diffusion["var_type"] != "learned_range":
        sampler["var_type"] = "fixed_small"
    if wanted in ("analytic", "analytic_residual"):
        sampler["gammas"] = [0.5] * diffusion["total_steps"]


def _times_that_there_are(tree: dict[str, Any], draw: random.Random) -> None:
    sampling, total = tree["sampling"], tree["diffusion"]["total_steps"]
    if total <= 10:
        sampling |= {"steps": min(2, total), "spacing": draw.choice(("uniform-linspace", "uniform-trailing"))}
        tree["train"] |= {"sample_steps": min(2, total)}
        tree["train"]["eval"]["steps"] = min(2, total)
    elif isinstance(sampling["spacing"], list):
        sampling["steps"] = None
    elif isinstance(sampling["steps"], str):
        sampling["spacing"] = "uniform-linspace"


def _evaluations_that_can_be_left_out(tree: dict[str, Any], draw: random.Random) -> None:
    sampling = tree["sampling"]
    few = sampling["steps"] in (None, 1, 2) or tree["train"]["sample_steps"] == 1
    if few or sampling["sampler"]["name"] not in ("ddim", "deis", "dpm_solver", "ipndm", "unipc", "euler"):
        sampling |= {"denoise_to_zero": True, "afs": False}


def _parts_of_a_width(tree: dict[str, Any], draw: random.Random) -> None:
    if tree["model"]["name"] == "adm" and draw.random() < 0.2:
        tree["model"] |= {"dim": 16, "dim_mults": [0.5, 1.5], "use_attn": [False, True]}


def _levels_that_float32_holds(tree: dict[str, Any], draw: random.Random) -> None:
    diffusion = tree["diffusion"]
    if diffusion["objective"] == "pred_eps" or tree["sampling"]["corrections"]:
        diffusion["beta_end"] = min(diffusion["beta_end"], 10 / diffusion["total_steps"] + 0.01)


def _images_of_each_noise_level(tree: dict[str, Any], draw: random.Random) -> None:
    if tree["train"]["times"]["name"] == "lognormal" and tree["diffusion"]["total_steps"] <= 10:
        tree["train"]["times"] = {"name": "skewed"}


RULES: tuple[Callable[[dict[str, Any], random.Random], None], ...] = (
    _parts_of_a_width,
    _attention_of_each_resolution,
    _one_number_of_heads,
    _images_that_can_be_halved,
    _terms_of_one_loss,
    _an_end_of_what_falls,
    _classes_of_a_model_that_has_them,
    _guidance_first,
    _settings_that_corrections_need,
    _calibrated_after_training,
    _variances_that_there_are,
    _times_that_there_are,
    _evaluations_that_can_be_left_out,
    _levels_that_float32_holds,
    _images_of_each_noise_level,
)
