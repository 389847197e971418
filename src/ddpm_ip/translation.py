"""Configurations and overrides of xyfJASON's diffusion-models-pytorch, in this program's words.

There a configuration is a tree of ``target`` (a class) and ``params`` (its arguments); before May 2023 it was flat, and
until February 2023 the keys of the diffusion stood in the section ``model``. What a key means and what holds when it is
left out are taken from that repository's documents, configurations and scripts (commit 3351aab, branch dev at b61baa5,
and those before them). Every function here is pure: plain values in, plain values and notes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NamedTuple

from ddpm_ip.errors import ConfigError

DEFAULTS = {  # what holds there, in our words, where a configuration says nothing else
    "seed": 2022,
    "diffusion.var_type": "fixed_large",
    "train.lr_warmup": 0,
    "train.ema_decay": 0.9999,
    "train.ema_warmup": True,
    "sampling.spacing": "uniform",
    "sampling.seed": 2022,
    "sampling.clip": "rederive",
}
NETWORK = (
    "the network: strided convolutions are padded on the right and below, there on all sides; the eps of GroupNorm is "
    "1e-6, there 1e-5; initial weights are the paper's, there PyTorch's. Weights of one are none of the other"
)
PRECISION = "without a word about precision, bf16 on a GPU that has it, there float32 (--train.mixed_precision no)"
PREVIEWS = "previews take train.sample_steps steps with the small variance, there all steps with diffusion.var_type"
CELEBA = (
    "all images of the folder are trained on, there those of CelebA's training split (24,183 of 30,000, file numbers 1 "
    "to 162770): move the others away"
)

_DIFFUSION = ("total_steps", "beta_schedule", "beta_start", "beta_end", "objective", "var_type")
_SAME = (
    "seed", "data.root", "data.split", "data.download", "model.n_heads", "model.num_groups",
    *(f"model.{key}" for key in ("in_channels", "dim", "dim_mults", "use_attn", "num_res_blocks", "dropout")),
    *(f"diffusion.{key}" for key in _DIFFUSION),
    *(f"train.{key}" for key in ("n_steps", "batch_size", "micro_batch", "clip_grad_norm", "ema_decay", "n_samples")),
    *(f"train.{often}_freq" for often in ("print", "save", "sample")),
    *(f"train.optim.{key}" for key in ("lr", "betas", "eps", "weight_decay")),
)  # fmt: skip
_EARLIER = {  # names of earlier versions of that repository, by those of the last
    "data.dataroot": "data.root",
    "data.dataset": "data.target",
    "dataloader.micro_batch": "train.micro_batch",
    "model.type": "model.target",
    "model.attn_heads": "model.n_heads",
    "model.attn_groups": "model.num_groups",
    "model.resblock_groups": "model.num_groups",
    "model.ema_decay": "train.ema_decay",
    "model.ema_gradual": "train.ema_gradual",
    **{f"model.{key}": f"diffusion.{key}" for key in _DIFFUSION},
    **{f"train.optimizer.{key}": f"train.optim.{key}" for key in ("lr", "betas", "eps", "weight_decay")},
    "train.optimizer.type": "train.optim.target",
    "train.optim.type": "train.optim.target",
    **{f"train.{key}.by_step": f"train.{key}" for key in ("print_freq", "save_freq", "sample_freq")},
}
_PROGRAMS = ("sample", "sample_denoise", "sample_progressive", "sample_skip", "sample_interpolate", "evaluate")
_LEFT_OUT = {  # nothing here needs them
    "dataloader": "images are staged without worker processes",
    "data.num_classes": "the network is unconditional",
    "data.transform_type": "images are resized to data.image_size",
    "data.img_channels": "as model.in_channels",
    "model.out_channels": "the network has as many as it needs",
    "diffusion.device": "the launcher says it",
    "train.resume": "an option: -r latest|best|PATH",
    "train.pretrained": "an option: -r PATH",
    **{f"train.{key}.by_epoch": "counted in steps" for key in ("print_freq", "save_freq", "sample_freq")},
    **{f"train.optim.{key}": "a matter of speed" for key in ("fused", "foreach", "capturable", "differentiable")},
    **dict.fromkeys(_PROGRAMS, "options of the programs"),
}
_IMPOSSIBLE = {
    "train.p_uncond": "classifier-free guidance is not there yet",
    "train.n_samples_each_class": "classifier-free guidance is not there yet",
    "train.epochs": "a run is as long as train.n_steps says: give that",
    "diffusion.betas": "a schedule is chosen by diffusion.beta_schedule",
    "diffusion.respaced_seq": "times are chosen by sampling.steps and sampling.spacing",
}
_DATA = {"cifar10": "cifar10", "mnist": "mnist", "celebahq": "folder", "imagedir": "folder"}
_METHODS = {"DDPM": "none", "DDPM_IP": "input"}
_UNETS = ("models.unet.UNet", "models.UNet", "UNet", "unet")
_RENAMED = {"data.img_size": "data.image_size", "train.ema_gradual": "train.ema_warmup"}
_OFF = ("train.optim.amsgrad", "train.optim.maximize")  # what cannot be on here
_SPECIAL = (
    "data.target", "model.target", "diffusion.target", "diffusion.gamma", "diffusion.clip_denoised",
    "diffusion.respace_type", "diffusion.respace_steps", "train.ip_gamma", "train.optim.target",
)  # fmt: skip
_NAMES = {"data.target": "data.name", "model.target": "model.name", "diffusion.target": "perturbation.name"}
_ALL = {*_SAME, *_RENAMED, *_OFF, *_SPECIAL, *_IMPOSSIBLE}


@dataclass
class Notes:
    """What became of the keys, each list in words of both programs.

    Attributes:
        same: keys that are called the same here, without ``.params``.
        read: ``theirs value -> ours value``.
        applied: what holds there where nothing is said, and is said here.
        left_out: keys that change nothing here, by the reason.
        different: what is another thing here, whatever the configuration says.
        impossible: keys that change the method and cannot be done here, with the reason.
    """

    same: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    different: list[str] = field(default_factory=list)
    impossible: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Indented lines, one list after the other; bounded, since a file may have any number of keys."""
        left_out = [f"{', '.join(keys[:60])} ({why})" for why, keys in self.left_out.items()]
        named = {"the same here": self.same, "applied, as there": self.applied, "left out": left_out}
        lines = [*self.read[:60], *(f"{name}: {', '.join(each[:60])}" for name, each in named.items() if each)]
        lines += [f"different here: {text}" for text in self.different]
        return "\n".join("  " + line.replace("\n", "\\n") for line in lines)

    def refuse(self, origin: str) -> None:
        """Stops where something cannot be done here.

        Raises:
            ConfigError: naming every such key.
        """
        if self.impossible:
            raise ConfigError(
                f"{origin} asks for what cannot be done here:\n" + "\n".join(f"  {key}" for key in self.impossible[:40])
            )


class Translated(NamedTuple):
    """A configuration in our words."""

    tree: Mapping[str, Any]
    overrides: dict[str, Any]  # by dotted path, to be put on top of the tree
    written: dict[str, str]  # for a dotted path of ours, what was written in the overrides
    notes: Notes


def is_published(tree: Mapping[str, Any]) -> bool:
    """Whether a tree of plain values is a configuration of that repository."""
    marks = {"data.target", "model.target", "diffusion.target", "train.optim.target", "model.type", "data.img_channels"}
    nested = any(isinstance(part, dict) and isinstance(part.get("params"), dict) for part in tree.values())
    return nested or not marks.isdisjoint(flat(tree))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Plain values by dotted path, ``params`` taken out of it; a list is a value."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        path = prefix if key == "params" and isinstance(value, dict) and prefix else f"{prefix}{key}"
        if isinstance(value, dict) and value:
            found |= flat(value, path if path == prefix else f"{path}.")
        else:
            found[path] = value
    return found


def in_our_words(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> Translated:
    """A configuration, theirs or ours, and overrides of it, of which any may be in their words.

    Args:
        tree: plain values, as read from a file. If it :func:`is_published`, what holds there where it says nothing is
            added.
        overrides: by dotted path, with or without ``params``.

    Raises:
        ConfigError: one thing is said twice, with two values.
    """
    said: dict[str, Any] = {}
    written: dict[str, str] = {}
    for path, value in overrides.items():
        for name, one in _spread(path, value).items():
            if name in said and said[name] != one:
                raise ConfigError(f"--{written[name]} and --{path} say the same thing, with two values: give it once")
            said[name], written[name] = one, path
    theirs = {name: one for name, one in said.items() if _is_known(name)}
    ours = {name: one for name, one in said.items() if name in _SAME or name not in theirs}
    whole = is_published(tree)
    reader = _Reader(flat(tree) if whole else {}, theirs, ours, whole)
    found = reader.read()
    written |= {
        name: written[path] for name in found for path in theirs if _EARLIER.get(path, path) == reader.source.get(name)
    }
    if whole:  # what is called the same is read with the rest, unless its section begins again under another name
        ours = {n: v for n, v in ours.items() if n not in theirs or f"{n.rpartition('.')[0]}.name" in ours}
        return Translated(_nested(found), ours, written, reader.notes)
    for name, value in found.items():
        if name in ours and ours[name] != value:
            raise ConfigError(f"{name} is said twice, as {_word(ours[name])} and as {_word(value)}: give it once")
        ours[name] = value
    return Translated(tree, ours, written, reader.notes)


def _spread(path: str, value: Any) -> dict[str, Any]:
    """``train.optim.params.lr`` as ``train.optim.lr``; ``--model.params '{dim: 64}'`` as one override a key."""
    first, *rest = path.split(".")
    name = ".".join([first, *(part for part in rest if part != "params")])
    return flat(value, f"{name}.") if rest[-1:] == ["params"] and isinstance(value, dict) else {name: value}


def _is_known(path: str) -> bool:
    """Whether a dotted path, without ``params``, is a word of that repository's, which may be one of ours, too."""
    return _EARLIER.get(path, path) in _ALL or _why_left_out(path) is not None


class _Reader:
    """Reads their keys, by dotted path without ``params``.

    Args:
        given: the keys.
        over: others that win over them.
        beside: what else is said, in our words.
        whole: whether the keys are all that a configuration of theirs says.
    """

    def __init__(
        self, given: Mapping[str, Any], over: Mapping[str, Any], beside: Mapping[str, Any], whole: bool
    ) -> None:
        self.given: dict[str, Any] = {}
        self.beside, self.whole, self.notes = beside, whole, Notes()
        self.source: dict[str, str] = {}  # for a path of ours the one of theirs that it comes from, as last named
        for path, value in given.items():
            name = "data.target" if path == "data.name" else _EARLIER.get(path, path)
            if name in self.given and self.given[name] != value:
                self._refuse(path, value, f"{name} is {_word(self.given[name])}")
            self.given[name] = value
        self.given |= {_EARLIER.get(path, path): value for path, value in over.items()}

    def read(self) -> dict[str, Any]:
        """Everything that is given, in our words by dotted path."""
        ours: dict[str, Any] = {}
        for path, value in self.given.items():
            if path in _SAME:
                ours[path] = value
                if self.whole:
                    self.notes.same.append(path)
                continue
            found = self._one(path, value)
            if found:
                read = ", ".join(f"{name} {_word(one)}" for name, one in found.items())
                self.notes.read.append(f"{path} {_word(value)} -> {read}")
            self.source |= dict.fromkeys(found, path)
            ours |= found
        if self.whole:
            self._complete(ours)
        return ours

    def _one(self, path: str, value: Any) -> dict[str, Any]:
        """What one key means: values of ours by dotted path; none if it is left out, or was refused."""
        if _NAMES.get(path) in self.beside:
            return self._leave(path, f"{_NAMES[path]} says it")
        if path in _RENAMED:
            return {_RENAMED[path]: value}
        if path in _SPECIAL:
            found: dict[str, Any] | None = getattr(self, "_" + path.replace(".", "_"))(value)
            return found if found is not None else self._leave(path, "as it is here")
        if path in _OFF and value is False:
            return self._leave(path, "as it is here")
        if path == "train.epochs" and "train.n_steps" in {**self.given, **self.beside}:
            return self._leave(path, "train.n_steps says it")
        if (why := _why_left_out(path)) is None:
            return self._refuse(path, value, _IMPOSSIBLE.get(path, "there is nothing like it"))
        if path in ("train.resume", "train.pretrained") and value is not None:
            return self._refuse(path, value, why)
        return self._leave(path, why)

    def _complete(self, ours: dict[str, Any]) -> None:
        """Adds what holds there without being said, and looks at what no single key can see."""
        defaults = {**DEFAULTS, **self._of_data(ours)}
        for path, value in defaults.items():
            if path not in ours:
                ours[path] = value
                self.notes.applied.append(f"{path} {_word(value)}")
        ours.setdefault("model.name", "unet")
        ours.setdefault("perturbation.name", "none")
        inner, learned = ours.get("model.in_channels", 3), ours["diffusion.var_type"] == "learned_range"
        out, seen = self.given.get("model.out_channels"), self.given.get("data.img_channels", inner)
        if isinstance(inner, int) and out is not None and out != inner * (2 if learned else 1):
            self._refuse("model.out_channels", out, "as model.in_channels, or twice as many with a learned variance")
        if seen != inner:
            self._refuse("data.img_channels", seen, f"model.in_channels is {_word(inner)}")
        self.notes.different += [NETWORK, PRECISION, PREVIEWS]
        if ours.get("model.n_heads", 1) != 1:
            self.notes.different.append("the middle of the network has model.n_heads attention heads, too, there one")

    def _of_data(self, ours: dict[str, Any]) -> dict[str, Any]:
        """What holds for the data without being said."""
        if "data.name" in self.beside:
            if self.beside["data.name"] != _DATA.get(_plainest(str(self.given.get("data.target")))):  # other data
                for path in [path for path in ours if path.startswith("data.")]:
                    del ours[path]
                    self._leave(path, "data.name says that the data are others")
                self.notes.same = [path for path in self.notes.same if path in ours]
            return {}
        if "data.target" not in self.given:
            self._refuse("data.target", None, "not given, but needed")
        if self.given.get("data.transform_type") == "none":
            self._refuse("data.transform_type", "none", "images are always resized to data.image_size")
        kind, split = _plainest(str(self.given.get("data.target"))), ours.get("data.split", "train")
        if ours.get("data.image_size") != {"cifar10": 32, "mnist": 28}.get(kind):
            self.notes.different.append("images of another size are resized bicubically, there bilinearly")
        if kind == "celebahq":
            ours.pop("data.split", None)
            if split in ("valid", "test"):
                self._refuse("data.split", split, "the splits of CelebA-HQ are not told apart: use data.name folder")
            elif split != "all":
                self.notes.different.append(CELEBA)
            if isinstance(root := ours.get("data.root"), str):
                ours["data.root"] = f"{root.rstrip('/')}/CelebA-HQ-img"
                self.notes.read.append(f"data.root {_word(root)} -> data.root {_word(ours['data.root'])}")
                self.notes.same.remove("data.root")
        found: dict[str, Any] = {"train.flip": kind in ("cifar10", "celebahq") and split in ("train", "all")}
        if _DATA.get(kind) == "folder":
            found["data.mode"] = "gray" if self.given.get("data.img_channels") == 1 else "rgb"
        return {**found, "data.download": False} if kind == "cifar10" else found

    # What each key of _SPECIAL means: values of ours by dotted path; {} if it was refused, None if it is left out.

    def _data_target(self, value: Any) -> dict[str, Any]:
        if found := _DATA.get(_plainest(str(value))):
            return {"data.name": found}
        why = "training images are cropped at random there" if _plainest(str(value)) == "imagenet" else "no such data"
        return self._refuse("data.target", value, f"{why}: use data.name folder")

    def _model_target(self, value: Any) -> dict[str, Any]:
        return (
            {"model.name": "unet"} if value in _UNETS else self._refuse("model.target", value, "not models.unet.UNet")
        )

    def _diffusion_target(self, value: Any) -> dict[str, Any] | None:
        if found := _METHODS.get(str(value).rpartition(".")[2]):  # train_ddpm_ip.py has DDPM and train.ip_gamma
            return {"perturbation.name": found} if "train.ip_gamma" not in self.given else None
        return self._refuse("diffusion.target", value, "not diffusions.ddpm.DDPM or diffusions.ddpm_ip.DDPM_IP")

    def _diffusion_gamma(self, value: Any) -> dict[str, Any]:
        target = self.given.get("diffusion.target", "" if self.whole else "DDPM_IP")
        if _METHODS.get(str(target).rpartition(".")[2]) != "input":
            return self._refuse("diffusion.gamma", value, "of diffusion.target diffusions.ddpm_ip.DDPM_IP alone")
        return {"perturbation.gamma": value}

    def _train_ip_gamma(self, value: Any) -> dict[str, Any]:
        if self.given.get("diffusion.gamma", value) != value:
            return self._refuse("train.ip_gamma", value, f"diffusion.gamma is {_word(self.given['diffusion.gamma'])}")
        return {"perturbation.name": "input", "perturbation.gamma": value}

    def _diffusion_clip_denoised(self, value: Any) -> dict[str, Any]:
        return {"sampling.clip": "rederive" if value else "none"}

    def _diffusion_respace_type(self, value: Any) -> dict[str, Any] | None:
        return None if value in (None, "none") else {"sampling.spacing": value}

    def _diffusion_respace_steps(self, value: Any) -> dict[str, Any] | None:
        return None if self.given.get("diffusion.respace_type") in (None, "none") else {"sampling.steps": value}

    def _train_optim_target(self, value: Any) -> dict[str, Any]:
        name, decay = str(value).rpartition(".")[2].lower(), "train.optim.weight_decay"
        if name not in ("adam", "adamw"):
            return self._refuse("train.optim.target", value, "not torch.optim.Adam or torch.optim.AdamW")
        is_default = name == "adamw" and decay not in {**self.given, **self.beside}
        return {"train.optim.name": name, **({decay: 0.01} if is_default else {})}  # PyTorch's default

    def _refuse(self, path: str, value: Any, why: str) -> dict[str, Any]:
        self.notes.impossible.append(f"{path} {_word(value)}: {why}")
        return {}

    def _leave(self, path: str, why: str) -> dict[str, Any]:
        self.notes.left_out.setdefault(why, []).append(path)
        return {}


def _why_left_out(path: str) -> str | None:
    parts = path.split(".")
    return next((why for n in range(len(parts), 0, -1) if (why := _LEFT_OUT.get(".".join(parts[:n])))), None)


def _plainest(name: str) -> str:
    """``datasets.celebahq.CelebAHQ``, ``CelebA-HQ`` and ``celeba_hq`` as ``celebahq``."""
    return name.rpartition(".")[2].lower().replace("-", "").replace("_", "")


def _word(value: Any) -> str:
    """A value as it is written in YAML, short."""
    text = {True: "true", False: "false", None: "null"}.get(value) if isinstance(value, (bool, type(None))) else None
    return text or (value if isinstance(value, str) else repr(value))[:80]


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *sections, key = path.split(".")
        reduce(lambda node, name: node.setdefault(name, {}), sections, tree)[key] = value
    return tree
