"""The configuration: a tree of frozen dataclasses <- a YAML file + ``--key value``.

The classes are usable without any loader. Where a tree of plain values comes in from outside, pydantic checks it once,
and what it finds is told to a person: the key, what is wrong, and the nearest name that exists.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema

from ddpm_ip.data import DataConfig
from ddpm_ip.data.decode import height_width
from ddpm_ip.denoiser import Denoiser, Network, PredictionType
from ddpm_ip.errors import ConfigError
from ddpm_ip.nn.unet import UNet
from ddpm_ip.objective import Objective
from ddpm_ip.perturbation import NoPerturbation, Perturbation
from ddpm_ip.sampler import VarType
from ddpm_ip.schedule import BetaSchedule, Schedule


@dataclass(frozen=True)
class ByName:
    """Marks a field whose value is one of several dataclasses, told apart by their ``name``.

    pydantic's own discriminator refuses a union of one; a place for variants may begin with a single one.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        variants = _variants(source)
        return core_schema.tagged_union_schema(
            {_variant_name(v): handler.generate_schema(v) for v in variants}, discriminator="name"
        )


PositiveInt = Annotated[int, Field(ge=1)]
NaturalInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Model:
    """The DDPM U-Net (:class:`ddpm_ip.nn.unet.UNet`); the defaults are the CIFAR-10 network of the paper."""

    name: Literal["unet"] = "unet"
    in_channels: PositiveInt = 3
    dim: Annotated[int, Field(ge=4, multiple_of=2)] = 128
    dim_mults: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 2, 2)
    use_attn: tuple[bool, ...] = (False, True, False, False)
    num_res_blocks: PositiveInt = 2
    n_heads: PositiveInt = 1
    dropout: Fraction = 0.1
    num_groups: PositiveInt = 32


@dataclass(frozen=True)
class Diffusion:
    """The noise schedule, what the network predicts, and the variance of the reverse process.

    With ``var_type: learned_range`` the network also learns the variance (twice the output channels, hybrid loss).
    """

    total_steps: Annotated[int, Field(ge=2)] = 1000
    beta_schedule: BetaSchedule = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    objective: PredictionType = "pred_eps"
    var_type: VarType = "fixed_large"

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.total_steps, self.beta_schedule, self.beta_start, self.beta_end)

    @property
    def learned_variance(self) -> bool:
        return self.var_type == "learned_range"


@dataclass(frozen=True)
class Optim:
    """The optimizer, as in ``torch.optim``."""

    name: Literal["adam", "adamw"] = "adam"
    lr: PositiveFloat = 2e-4
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True)
class Eval:
    """Evaluation during training, of the averaged network.

    Args:
        every: steps between two evaluations; 0 for none.
        n_samples, steps: samples of each, and the sampling steps spent on one.
        metrics: as for ``ddpm-ip evaluate``; the first decides which weights are the best.
        extractor: whose features; ``pixels`` needs no weights.
    """

    every: NaturalInt = 0
    n_samples: Annotated[int, Field(ge=2)] = 2048
    steps: PositiveInt = 50
    metrics: Annotated[tuple[Literal["fid", "isc", "kid", "prc", "sfid"], ...], Field(min_length=1)] = ("fid",)
    extractor: str = "pixels"


@dataclass(frozen=True)
class Train:
    """The training run.

    Args:
        n_steps: optimizer steps.
        batch_size: images a step, over all processes.
        micro_batch: images that a process puts through the network at once; 0 for its whole share.
        flip: mirror images at random.
        clip_grad_norm: largest gradient norm; null for no limit.
        lr_warmup: steps over which the learning rate rises linearly.
        ema_decay: of the averaged network.
        print_freq, save_freq, sample_freq: steps between log lines, checkpoints and sample grids (0: no grids).
        n_samples, sample_steps: images of a grid, and the sampling steps spent on it.
        keep_last: newest checkpoints that are kept (at least 2, since the newest may turn out damaged).
        keep_every: besides, every checkpoint at a multiple of this many steps is kept; 0 for none.
        mixed_precision: "no", fp16 or bf16; null takes what `accelerate-launch` says, else bf16 under ``fast: auto`` on
            a GPU that has it, else "no".
        fast: auto runs fused kernels and replays each step as one CUDA graph where that is possible; off never does.
        eval: a distance measured every so often.
        deterministic: bit-exact GPU kernels, slower. (The CPU is always exact.)
    """

    n_steps: PositiveInt = 800_000
    batch_size: PositiveInt = 128
    micro_batch: NaturalInt = 0
    flip: bool = True
    clip_grad_norm: PositiveFloat | None = 1.0
    lr_warmup: NaturalInt = 0
    ema_decay: Fraction = 0.9999
    print_freq: PositiveInt = 400
    save_freq: PositiveInt = 5000
    sample_freq: NaturalInt = 5000
    n_samples: PositiveInt = 64
    sample_steps: PositiveInt = 100
    keep_last: Annotated[int, Field(ge=2)] = 2
    keep_every: NaturalInt = 0
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    fast: Literal["auto", "off"] = "auto"
    deterministic: bool = False
    eval: Eval = field(default_factory=Eval)
    optim: Optim = field(default_factory=Optim)


@dataclass(frozen=True)
class Config:
    """Everything that a run is made of."""

    data: Annotated[DataConfig, ByName()]
    model: Model = field(default_factory=Model)
    diffusion: Diffusion = field(default_factory=Diffusion)
    perturbation: Annotated[Perturbation, ByName()] = field(default_factory=NoPerturbation)
    train: Train = field(default_factory=Train)
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that the model is trained on and makes.

        Raises:
            DataError: ``data.image_size`` is below 1.
        """
        return self.model.in_channels, *height_width(self.data.image_size)

    def build_network(self) -> UNet:
        """A fresh network with the configured sizes (initialised from torch's global generator)."""
        sizes = {f.name: getattr(self.model, f.name) for f in dataclasses.fields(self.model) if f.name != "name"}
        outputs = self.model.in_channels * (2 if self.diffusion.learned_variance else 1)
        return UNet(out_channels=outputs, **sizes)

    def denoiser(self, network: Network) -> Denoiser:
        """The network with its meaning."""
        d = self.diffusion
        return Denoiser(network, d.schedule, d.objective, d.learned_variance)

    def objective(self) -> Objective:
        """The training loss."""
        return Objective(self.perturbation)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ``from_dict`` of them gives an equal configuration."""
        dumped: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return dumped

    def to_yaml(self) -> str:
        """The configuration as a file that :func:`load` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=110)


def load(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Config:
    """Reads a YAML file and puts overrides by dotted path (``train.batch_size``) on top.

    Raises:
        ConfigError: the file cannot be read, or something in it cannot be used; the message names every such key.
    """
    try:
        tree = parse_yaml(Path(path).read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the config {path} is not a text file") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"the config {path} must be a mapping of keys to values")
    return from_dict(merge(_with_default_names(tree), overrides or {}), str(path))


def from_dict(tree: Mapping[str, Any], origin: str = "the configuration") -> Config:
    """Checks a tree of plain values; ``origin`` says in messages where it came from.

    Raises:
        ConfigError: naming every key that is wrong.
    """
    tree = _with_default_names(tree)
    try:
        config = _adapter().validate_python(tree)
    except ValidationError as error:
        lines = [_explain(e) for e in error.errors()]
        raise ConfigError(
            f"{origin} cannot be used:\n" + "\n".join(f"  {line}" for line in dict.fromkeys(lines))
        ) from None
    if lost := _booleans_as_numbers(tree, config.to_dict()):
        raise ConfigError(
            f"{origin} cannot be used:\n" + "\n".join(f"  {key}: a number is needed, not true/false" for key in lost)
        )
    return config


def merge(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Puts overrides by dotted path on a tree of plain values.

    An override of a section's ``name`` that changes it makes that section start from the new variant's own defaults.
    """
    merged: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in tree.items()}
    for path in sorted(overrides, key=lambda p: not p.endswith(".name")):
        *sections, key = path.split(".")
        node = merged
        for name in sections:
            child = node.get(name)
            node[name] = dict(child) if isinstance(child, dict) else {}
            node = node[name]
        if key == "name" and node.get("name") not in (None, overrides[path]):
            node.clear()
        node[key] = overrides[path]
    return merged


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
                f"unexpected argument {token!r}: overrides are written --key value, as in --train.batch_size 256"
            )
        key, equals, text = token[2:].partition("=")
        if not key:
            raise ConfigError(f"{token!r} names no key")
        if not equals:
            if not rest or re.match(r"--[A-Za-z]", rest[0]):
                raise ConfigError(f"--{key} needs a value, as in --{key} VALUE")
            text = rest.pop(0)
        if key in overrides:
            raise ConfigError(f"--{key} is given twice")
        overrides[key] = parse_yaml(text, f"--{key}")
    return overrides


def parse_yaml(text: str, origin: str) -> Any:
    """YAML with numbers and truth values as people mean them; no tags, no key twice.

    Raises:
        ConfigError: with ``origin`` and the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, TypeError, ValueError) as error:  # a list as a key is a TypeError, month 13 a ValueError
        raise ConfigError(f"{origin} is not valid YAML: {' '.join(str(error).split())}") from None


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of numbers (1e-4 is one) and truth values (``no`` is a word); a key twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is there twice", key_node.start_mark
                )
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_REPLACED = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, rx) for tag, rx in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def _adapter() -> TypeAdapter[Config]:
    global _ADAPTER
    if _ADAPTER is None:
        _ADAPTER = TypeAdapter(Config)
    return _ADAPTER


_ADAPTER: TypeAdapter[Config] | None = None


def _variants(annotation: Any) -> list[type]:
    """The dataclasses that a field can hold; none for a plain value."""
    if get_origin(annotation) is Annotated:
        return _variants(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType, tuple):  # a tuple: any number of them
        return [v for arm in get_args(annotation) for v in _variants(arm)]
    return [annotation] if dataclasses.is_dataclass(annotation) and isinstance(annotation, type) else []


def _sections(cls: type) -> dict[str, list[type]]:
    """The fields of a dataclass that are sections themselves, and what each can be."""
    return {
        name: found for name, hint in get_type_hints(cls, include_extras=True).items() if (found := _variants(hint))
    }


def _forbid_unknown_keys(cls: type) -> None:
    cls.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
    for variants in _sections(cls).values():
        for variant in variants:
            _forbid_unknown_keys(variant)


_forbid_unknown_keys(Config)


def _with_default_names(tree: Mapping[str, Any], cls: type | None = None) -> dict[str, Any]:
    """Names the variant of a section that leaves it out where its other keys fit only one variant; at any depth."""
    named = dict(tree)
    for section, variants in _sections(cls or Config).items():
        value = named.get(section)
        if not isinstance(value, dict):
            continue
        if not _is_by_name(variants):
            named[section] = _with_default_names(value, variants[0])
        elif "name" not in value and value:
            fitting = [v for v in variants if set(value) <= {f.name for f in dataclasses.fields(v)}]
            if len(fitting) == 1:
                named[section] = {"name": _variant_name(fitting[0]), **value}
    return named


def _is_by_name(variants: Sequence[type]) -> bool:
    """Whether a section is one of several dataclasses (:class:`ByName`), though there may be a single one so far."""
    return any(f.name == "name" for f in dataclasses.fields(variants[0]))


def _variant_name(cls: type) -> str:
    return str(next(f.default for f in dataclasses.fields(cls) if f.name == "name"))


def _explain(error: Mapping[str, Any]) -> str:
    """One pydantic error as a sentence, with the nearest name that exists."""
    path, variants = _place(error["loc"])
    key, kind, given = ".".join(path), error["type"], error["input"]
    for n, part in enumerate(path, 1):
        if part in _SEVERAL and n < len(path):  # pydantic tells of each kind in turn; a person wants to know them all
            return f"{'.'.join(path[:n])}: {_SEVERAL[part]}"
    if kind == "unexpected_keyword_argument":
        section, parents = _place(error["loc"][:-1])
        known = [f.name for parent in parents for f in dataclasses.fields(parent)]
        return f"{key}: unknown key" + _suggest(path[-1], known, f"the keys of {'.'.join(section) or 'a config'} are")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag, known = error["ctx"].get("tag"), [_variant_name(v) for v in variants]
        wrong = "not given" if tag is None else f"unknown name {tag!r}"
        return f"{key}.name: {wrong}" + _suggest(tag or "", known, "choose one of")
    if kind == "missing":
        return f"{key}: not given, but needed"
    if kind in ("dataclass_type", "model_attributes_type", "dict_type"):
        return f"{key}: must be a section of keys and values, got {given!r}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}" + ("" if kind == "value_error" else f", got {given!r}")


_SEVERAL = {"image_size": "must be a whole number of pixels, or [height, width]"}  # values of several plain kinds


def _place(loc: Sequence[Any]) -> tuple[list[str], list[type]]:
    """Where a pydantic error is: the path as a person writes it, and the dataclasses that can stand there.

    (pydantic puts the name of the chosen variant into its path; nobody writes it there.)
    """
    path: list[str] = []
    variants: list[type] = [Config]
    for part in loc:
        by_name = {_variant_name(v): v for v in variants} if variants and _is_by_name(variants) else {}
        if part in by_name:
            variants = [by_name[part]]
            continue
        path.append(str(part))
        if isinstance(part, int):  # a place in a list of variants
            continue
        variants = _sections(variants[0]).get(str(part), []) if len(variants) == 1 else []
    return path, variants


def _suggest(word: str, known: Sequence[str], otherwise: str) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; {otherwise} {', '.join(known)}"


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
    return [key] if isinstance(given, bool) and not isinstance(checked, bool) else []
