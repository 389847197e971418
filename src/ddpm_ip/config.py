"""The configuration: a tree of frozen dataclasses <- a YAML file + ``--key value``.

The classes are usable without any loader. Where a tree of plain values comes in from outside, pydantic checks it once,
and what it finds becomes a message for a person: the key, what is wrong, and the nearest name that exists.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import nn

from ddpm_ip.data import DataConfig
from ddpm_ip.data.decode import height_width
from ddpm_ip.denoiser import Denoiser
from ddpm_ip.errors import ConfigError
from ddpm_ip.files import read_yaml
from ddpm_ip.mistakes import MOST, Mistake, by_origin, explain
from ddpm_ip.nn import ModelConfig, UNetConfig
from ddpm_ip.nn.network import Network
from ddpm_ip.objective import Objective
from ddpm_ip.perturbation import InputPerturbation, NoPerturbation, Perturbation
from ddpm_ip.plain import DEPTH, parse_yaml, quoted, shown, yaml_text
from ddpm_ip.presets import find
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.sampler.spacing import listed
from ddpm_ip.sections import Classes, Diffusion, Train
from ddpm_ip.times import TimeSampler
from ddpm_ip.translation import in_our_words, is_published
from ddpm_ip.variants import ByName, has_name, sections, variant_name
from ddpm_ip.weighting import Constant

log = logging.getLogger("ddpm_ip.config")


@dataclass(frozen=True)
class Config:
    """Everything that a run is made of.

    Args:
        data: the images.
        model: the network.
        diffusion: the noise schedule, and what the network predicts.
        classes: for a class-conditional network; null for an unconditional one.
        perturbation: what is added to the network's input in training.
        sampling: how images are made.
        train: the training run.
        seed: of the initial weights, the order of the images, their times and their noise.
    """

    data: Annotated[DataConfig, ByName()]
    model: Annotated[ModelConfig, ByName()] = field(default_factory=UNetConfig)
    diffusion: Diffusion = field(default_factory=Diffusion)
    classes: Classes | None = None
    perturbation: Annotated[Perturbation, ByName()] = field(default_factory=NoPerturbation)
    sampling: Sampling = field(default_factory=Sampling)
    train: Train = field(default_factory=Train)
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that the model is trained on and makes.

        Raises:
            DataError: ``data.image_size`` is below 1.
        """
        return self.model.in_channels, *height_width(self.data.image_size)

    def build_network(self) -> nn.Module:
        """A fresh network with the configured sizes (initialised from torch's global generator)."""
        channels = self.model.in_channels
        classes = None if self.classes is None else self.classes.count
        return self.model.build(channels, channels * (2 if self.diffusion.learned_variance else 1), classes)

    def denoiser(self, network: Network) -> Denoiser:
        """The network with its meaning."""
        d = self.diffusion
        return Denoiser(network, d.schedule, d.objective, d.learned_variance, getattr(self.model, "whole_times", False))

    def objective(self, times: TimeSampler) -> Objective:
        """The training loss at the times of a run's sampler, which ``train.times.start`` makes.

        Raises:
            ConfigError: settings of the loss do not go together (:func:`clashes`).
        """
        if found := clashes(self):
            raise ConfigError(by_origin(found, "the configuration", {}))
        train, variance = self.train, self.diffusion.var_type
        fixed = "fixed_large" if variance == "learned_range" else variance
        return Objective(self.perturbation, times, train.weighting, train.loss, train.vb_input, fixed)

    def sampling_in_training(self, steps: int) -> Sampling:
        """How preview grids and evaluations during training are made.

        Sampler, corrections, clipping and spacing are those of the section ``sampling``; the number of steps is the
        caller's (``train.sample_steps``, ``train.eval.steps``), unless ``sampling.spacing`` lists the times; the seed
        is that of the run, so that pictures compare. A variance that ``sampling.sampler`` leaves open is the small one
        (the learned one where there is one), since the large one leaves visible noise at few steps.
        """
        count = None if listed(self.sampling.spacing) else min(steps, self.diffusion.total_steps)
        wanted = dataclasses.replace(self.sampling, steps=count, seed=self.seed)
        return wanted.filled("learned_range" if self.diffusion.learned_variance else "fixed_small")

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ``from_dict`` of them gives an equal configuration."""
        dumped: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return dumped

    def to_yaml(self) -> str:
        """The configuration as a file that :func:`load` reads back."""
        return yaml_text(self.to_dict())


def load(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Config:
    """Reads a YAML file, or a preset by its name, and puts overrides by dotted path (``train.batch_size``) on top.

    Raises:
        ConfigError: the file cannot be read, or something in it cannot be used; the message names every such key.
    """
    return from_dict(read_tree(path), str(path), overrides)


def read_tree(path: Path | str) -> dict[str, Any]:
    """The plain values of a YAML file, or of a preset by its name, as they are written.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
    """
    return read_yaml(find(path))


def from_dict(
    tree: Mapping[str, Any], origin: str = "the configuration", overrides: Mapping[str, Any] | None = None
) -> Config:
    """Checks a tree of plain values with overrides by dotted path; ``origin`` says in messages where it came from.

    Raises:
        ConfigError: naming every key that is wrong.
    """
    words, whole = in_our_words(tree, overrides or {}), is_published(tree)
    words.notes.refuse(origin if whole else "the command line")
    if text := words.notes.text():
        theirs = "xyfJASON's repository (see docs/DDPM.md)"
        _say(f"{f'{origin} is a configuration of' if whole else 'options in the words of'} {theirs}, read so:\n{text}")
    given = _with_default_names(merge(_with_default_names(words.tree), words.overrides))
    try:
        config = _adapter().validate_python(given)
    except ValidationError as error:
        found = error.errors()
        told = [explain(e, Config) for e in found[:MOST]]
        raise ConfigError(by_origin(told, origin, words.written, len(found) - MOST)) from None
    checked = config.to_dict()
    mistakes = [Mistake(key, "a number is needed, not true/false") for key in _booleans_as_numbers(given, checked)]
    mistakes += [Mistake(key, NO_PART) for key, value in words.overrides.items() if _is_idle(key, value, checked)]
    if mistakes := mistakes or clashes(config):
        raise ConfigError(by_origin(mistakes, origin, words.written))
    return config


def clashes(config: Config) -> list[Mistake]:
    """Settings of the training loss that do not go together, by the key that is to change."""
    train, found = config.train, {}
    bound_alone, perturbation = train.loss == "vlb", config.perturbation
    if isinstance(perturbation, InputPerturbation) and perturbation.target == "consistent":
        if config.diffusion.objective == "pred_eps":
            found["perturbation.target"] = (
                "consistent is for diffusion.objective pred_x0 and pred_v; the target of pred_eps is the clean eps, "
                "which is consistent: leave it out"
            )
        elif bound_alone:
            found["perturbation.target"] = "consistent is of the squared error, which train.loss vlb does not have"
    if train.vb_input == "clean":
        if bound_alone:
            found["train.vb_input"] = (
                "clean is for the bound next to the simple loss; with train.loss vlb nothing would be perturbed: to "
                "train so choose --perturbation.name none"
            )
        elif not config.diffusion.learned_variance:
            found["train.vb_input"] = "clean is for a learned variance (diffusion.var_type learned_range) alone"
    if bound_alone and train.weighting != Constant():
        found["train.weighting"] = (
            f"{train.weighting.name} weighs the squared error, which train.loss vlb does not have: leave one of them "
            "out"
        )
    return [Mistake(key, text) for key, text in found.items()]


@cache
def _say(text: str) -> None:
    """Once, on the main process, and also where nobody has set up a log yet."""
    if os.environ.get("RANK", "0") == "0":
        for line in text.split("\n"):
            log.warning("%s", line)


def merge(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Puts overrides by dotted path on a tree of plain values.

    An override of a section's ``name`` that changes it makes that section start from the new variant's own defaults;
    not where both names have the same keys, as Adam and AdamW.

    Raises:
        ConfigError: one override is of something within what another sets to a plain value.
    """
    merged: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in tree.items()}
    for inner in overrides:
        outer = next((path for path in overrides if inner.startswith(f"{path}.")), None)
        if outer is not None and not isinstance(overrides[outer], Mapping):
            raise ConfigError(
                f"--{shown(inner)}: {shown(outer)} is given, too, as {quoted(overrides[outer])}, which has no parts: "
                "give one of them"
            )
    for path in sorted(overrides, key=lambda p: (p.count("."), not p.endswith(".name"))):
        *section, key = path.split(".")
        node = merged
        for name in section:
            child = node.get(name)
            node[name] = dict(child) if isinstance(child, dict) else {}
            node = node[name]
        if key == "name" and node.get("name") not in (None, overrides[path]) and not _is_one_class(section):
            node.clear()
        node[key] = overrides[path]
    return merged


def _is_one_class(path: Sequence[str]) -> bool:
    """Whether a section is one dataclass with several names, each with the same keys."""
    found: list[type] = [Config]
    for name in path:
        found = [inner for cls in found for inner in sections(cls).get(name, [])]
    return len(found) == 1 and has_name(found) and len(get_args(get_type_hints(found[0])["name"])) > 1


AS_TYPED = ("train.alert_command",)  # a shell's colons, quotes and braces are no YAML


def parse_overrides(tokens: Sequence[str]) -> dict[str, Any]:
    """``["--train.batch_size", "256", "--seed=3"]`` to ``{"train.batch_size": 256, "seed": 3}``.

    Raises:
        ConfigError: a token that is no ``--key``, or a key without its value.
    """
    overrides: dict[str, Any] = {}
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--") or len(token) < 3:
            raise ConfigError(
                f"unexpected argument {quoted(token)}: overrides are written --key value, as in --train.batch_size 256"
            )
        key, equals, text = token[2:].partition("=")
        if not key:
            raise ConfigError(f"{quoted(token)} names no key")
        if key.count(".") > DEPTH:
            raise ConfigError(f"--{shown(key)}: unknown key; no section is nested so deeply")
        if not equals:
            if not rest or re.match(r"--[A-Za-z]", rest[0]):
                raise ConfigError(f"--{shown(key)} needs a value, as in --{shown(key)} VALUE")
            text = rest.pop(0)
        if key in overrides:
            raise ConfigError(f"--{shown(key)} is given twice")
        overrides[key] = text if key in AS_TYPED else parse_yaml(text, f"--{key}")
    return overrides


def _adapter() -> TypeAdapter[Config]:
    global _ADAPTER
    if _ADAPTER is None:
        _ADAPTER = TypeAdapter(Config)
    return _ADAPTER


_ADAPTER: TypeAdapter[Config] | None = None


def _forbid_unknown_keys(cls: type) -> None:
    cls.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
    for found in sections(cls).values():
        for variant in found:
            _forbid_unknown_keys(variant)


_forbid_unknown_keys(Config)


def _with_default_names(tree: Mapping[str, Any], cls: type | None = None) -> dict[str, Any]:
    """Names the variant of a section that leaves it out where its other keys fit only one variant; at any depth."""
    named = dict(tree)
    for section, known in sections(cls or Config).items():
        value = named.get(section)
        if not isinstance(value, dict):
            continue
        if not has_name(known):
            named[section] = _with_default_names(value, known[0])
        elif "name" not in value and (meant := _meant(value, known, _default_of(cls or Config, section))):
            named[section] = {"name": variant_name(meant), **value}
    return named


def _meant(value: Mapping[str, Any], variants: Sequence[type], default: type | None) -> type | None:
    """The variant that an unnamed section means: the one that knows most of its keys, and among equals the default."""
    known = [len(value.keys() & {f.name for f in dataclasses.fields(v)}) for v in variants]
    best = [v for v, n in zip(variants, known, strict=True) if n == max(known)]
    if len(best) == 1:
        return best[0]
    has_keys = default is not None and len(dataclasses.fields(default)) > 1  # which may be misspelt
    return default if default in best and (has_keys or not value) else None


def _default_of(cls: type, section: str) -> type | None:
    """The variant of a section that is left out; None if it must be given."""
    factory = next(f.default_factory for f in dataclasses.fields(cls) if f.name == section)
    return None if factory is dataclasses.MISSING else type(factory())


NO_PART = "plays no part with the other settings: leave it out"


def _booleans_as_numbers(given: Any, checked: Any, key: str = "") -> list[str]:
    """Where true or false was taken for a number (Python's bool is an int)."""
    if isinstance(given, Mapping) and isinstance(checked, Mapping):
        return [
            k for n in given for k in _booleans_as_numbers(given[n], checked.get(n), f"{key}.{n}" if key else str(n))
        ]
    if isinstance(given, (list, tuple)) and isinstance(checked, list):
        return [
            k
            for i, (g, c) in enumerate(zip(given, checked, strict=False))
            for k in _booleans_as_numbers(g, c, f"{key}.{i}")
        ]
    return [key] if isinstance(given, bool) and checked is not None and not isinstance(checked, bool) else []


def _is_idle(path: str, given: Any, checked: Mapping[str, Any]) -> bool:
    """Whether a setting that was given became None, since with the others it plays no part."""
    value: Any = checked
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else value
    return given is not None and value is None
