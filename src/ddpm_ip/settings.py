"""Continuing is continuing the same run: which settings come from the run, which may change, and which may not.

A run continues with the settings that its checkpoint was made with. Every key of the configuration is of one kind:

======  ==================================================================  ========================================
kind    what a change of it does                                            when a run is continued
======  ==================================================================  ========================================
free    no step computes anything else                                      an option changes it
noted   steps compute something else, but the same thing is being learned   an option changes it, which is logged
method  something else is learned                                           refused, unless ``--change`` names it
======  ==================================================================  ========================================

Every change is kept in the history of the run (:func:`ddpm_ip.train.start.note_changes`).

A configuration file given with ``-r`` is compared, with its options, with the run: a file that differs is refused,
since nobody knows which of the two is meant.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ddpm_ip.config import Config, from_dict, load, read_tree
from ddpm_ip.errors import CheckpointError, ConfigError
from ddpm_ip.run.record import flatten
from ddpm_ip.translation import in_our_words
from ddpm_ip.variants import sections

Kind = Literal["free", "noted", "method"]

# Sections stand for all that is in them; of two entries that fit a key, the longer counts.
KINDS: dict[Kind, tuple[str, ...]] = {
    "free": (
        "train.n_steps",  # but the learning rate of `linear` and `cosine` depends on it: a change is warned of
        "train.print_freq",
        "train.save_freq",
        "train.sample_freq",
        "train.ema_snapshot_freq",
        "train.keep_last",
        "train.keep_every",
        "train.n_samples",
        "train.sample_steps",
        "train.eval",
        "train.trackers",
        "train.alert_command",  # which is no part of a run: ddpm_ip.train.start.settle takes it out
        "train.gradient_checkpointing",
        "sampling",
        "data.root",  # where the images are; what they are is checked
        "data.labels",  # where their labels are; what they are is checked, too
        "data.cache",
        "data.download",
        "data.on_bad",
    ),
    "noted": (
        "seed",
        "train.batch_size",
        "train.micro_batch",
        "train.flip",
        "train.clip_grad_norm",
        "train.lr_warmup",
        "train.lr_schedule",
        "train.optim",
        "train.mixed_precision",
        "train.fast",
        "train.deterministic",
        "model.dropout",
        "diffusion.var_type",  # how to sample; whether the variance is learned shows in the network's shape
    ),
    "method": (
        "data",
        "model",
        "diffusion",
        "classes",
        "perturbation",
        "train.ema_decay",
        "train.ema_warmup",
        "train.loss",
        "train.vb_input",
        "train.ema_power",
        "train.times",
        "train.weighting",
    ),
}
MAKES_IMAGES = ("model", "diffusion", "classes")
_MISSING = object()


@dataclass(frozen=True)
class Wanted:
    """What is asked of a run: a configuration, or what a command line says about one.

    Attributes:
        file: a YAML file or a preset; None for the settings of the run that is continued.
        options: overrides by dotted path.
        change: keys, or whole sections, of the method that may change in a run that is continued.
        config: a configuration as a whole, in place of file and options; all that it says is meant.
        init_from: weights that a new run begins with: a run, a checkpoint or a file.
    """

    file: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    change: tuple[str, ...] = ()
    config: Config | None = None
    init_from: Path | None = None

    def begun(self) -> Config:
        """The settings of a new run.

        Raises:
            ConfigError: there is no configuration, or it cannot be used.
        """
        if self.config is not None:
            return self.config
        if self.file is None:
            raise ConfigError(
                "there is no run to take the settings from: give a configuration with -c, such as "
                "-c ddpm_ip_cifar10; or to continue a run, its folder with -e and -r latest"
            )
        return load(self.file, self.options)

    def gives(self, key: str) -> bool:
        """Whether an option gives a key: by its name, in other words, with its section, or by the section's name."""
        return any(_within(key, told.removesuffix(".name")) for told in self._told)

    @cached_property
    def _told(self) -> Collection[str]:
        """The keys that the options give, in this program's words."""
        return in_our_words({} if self.file is None else read_tree(self.file), self.options).written

    def allows(self, key: str) -> bool:
        """Whether a change of the method is meant: ``--change`` names the key, its section, or the section's name."""
        return any(_within(key, meant) for named in self.change for meant in _meant(named))

    def check_change(self) -> None:
        """Whether ``--change`` names keys or sections of the configuration that an option gives.

        Images may have changed without any option (``--change data``).

        Raises:
            ConfigError: it names something else.
        """
        known = keys()
        for named in self.change:
            meant = _meant(named)
            if not any(_within(key, name) for key in known for name in meant):
                near = difflib.get_close_matches(named, known, n=1, cutoff=0.65)
                hint = f"did you mean {near[0]}?" if near else "it takes keys such as perturbation.gamma"
                raise ConfigError(f"--change {named:.100}: there is no such key; {hint}")
            given = any(self.gives(key) for key in known if any(_within(key, name) for name in meant))
            if self.config is None and not given and not _within(meant[0], "data"):
                raise ConfigError(
                    f"--change {named} allows a change, and no option makes one: add its new value, as in "
                    f"--{next(key for key in known if _within(key, meant[-1]))} VALUE, or leave --change out"
                )


@dataclass(frozen=True)
class Change:
    """A setting that is not what it was; in its text absent values are those of no such key."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"

    @property
    def kind(self) -> Kind:
        """What it does; a key that no configuration has changes the method."""
        try:
            return kind(self.key)
        except KeyError:
            return "method"


def kind(key: str) -> Kind:
    """What a change of a key does; see the table at the top.

    Raises:
        KeyError: the key has no kind, which a test makes sure of.
    """
    fitting = {entry: name for name, entries in KINDS.items() for entry in entries if _within(key, entry)}
    if not fitting:
        raise KeyError(f"{key} is of no kind: say in ddpm_ip/settings.py what a change of it does")
    return fitting[max(fitting, key=len)]


def continued(wanted: Wanted, saved: Mapping[str, Any], where: Path) -> tuple[Config, list[Change]]:
    """The settings with which a run continues, and which of them are new.

    Args:
        wanted: what is asked for.
        saved: the configuration that the run was made with; what it does not say has the defaults of version 0.1.
        where: the checkpoint, or the file, that it was saved in.

    Raises:
        CheckpointError: what was saved is no configuration.
        ConfigError: a configuration is given that differs from the run, an option changes the method and ``--change``
            does not name it, or an option cannot be used.
    """
    if wanted.config is not None:
        config, own = wanted.config, _as_it_is(saved, where)
    elif wanted.file is not None:
        config, own = load(wanted.file, wanted.options), understood(saved, where).to_dict()
    else:
        own = understood(saved, where).to_dict()
        config = from_dict(own, f"the configuration of {where}", wanted.options)
    found = changes(own, config.to_dict())
    if wanted.file is not None and (strays := [c for c in found if not wanted.gives(c.key)]):
        raise ConfigError(_other_file(wanted.file, strays, where))
    if refused := [c for c in found if c.kind == "method" and not wanted.allows(c.key)]:
        raise ConfigError(_other_method(refused, where))
    return config, found


def check_as_trained(config: Config, saved: Mapping[str, Any], where: Path, of: Sequence[str] = MAKES_IMAGES) -> None:
    """Refuses to make or measure images as those of a run with another method than its own.

    Args:
        config: with which the weights are about to be used.
        saved: the configuration that they were trained with.
        where: the checkpoint, or the file, that it was saved in.
        of: the sections that count; by default those that say what the network means.

    Raises:
        ConfigError: with every difference.
        CheckpointError: nothing was saved.
    """
    if not isinstance(saved, Mapping):
        raise CheckpointError(f"{where} does not say with which configuration it was trained")
    found = [c for c in changes(_as_it_is(saved, where), config.to_dict()) if c.kind == "method"]
    if other := [c for c in found if any(_within(c.key, section) for section in of)]:
        raise ConfigError(
            f"the weights of {where} were trained by another method than is asked for:\n{as_trained(other)}\n"
            "Leave -c and these options out: the settings of the run are taken"
        )


def as_trained(found: Sequence[Change]) -> str:
    """Differences from the settings that weights were trained with, each on a line of its own."""
    return "\n".join(f"  {c.key}: trained with {_shown(c.old)}, asked for is {_shown(c.new)}" for c in _told(found))


def understood(saved: Mapping[str, Any], where: Path) -> Config:
    """A configuration that was saved with a run.

    Raises:
        CheckpointError: it cannot be used by this version.
    """
    try:
        return from_dict(saved, f"the configuration in {where}")
    except ConfigError as error:
        raise CheckpointError(f"{error}\nIt was saved by another version, or damaged") from None


def _as_it_is(saved: Mapping[str, Any], where: Path) -> Mapping[str, Any]:
    """A saved configuration as plain values, with the defaults filled in unless it has classes of somebody's own."""
    try:
        return understood(saved, where).to_dict()
    except CheckpointError:
        return saved


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """What two configurations, as plain values, say differently, in the order of the keys."""
    was, now = flatten(old), flatten(new)
    keys = sorted(was.keys() | now.keys())
    pairs = ((key, was.get(key, _MISSING), now.get(key, _MISSING)) for key in keys)
    return [Change(key, a, b) for key, a, b in pairs if a is _MISSING or b is _MISSING or a != b]


def keys(cls: type = Config, prefix: str = "") -> list[str]:
    """Every key that a configuration can have, of all variants of its sections, by dotted path."""
    known = sections(cls)
    found: dict[str, None] = {}
    for field_ in dataclasses.fields(cls):
        inner = known.get(field_.name, [])
        found |= dict.fromkeys(key for variant in inner for key in keys(variant, f"{prefix}{field_.name}."))
        if not inner:
            found[f"{prefix}{field_.name}"] = None
    return list(found)


def _other_file(file: Path, strays: Sequence[Change], where: Path) -> str:
    lines = "\n".join(f"  {c.key}: the run has {_shown(c.old)}, {file} gives {_shown(c.new)}" for c in strays)
    return (
        f"{file}, with the options given, differs from the run of {where}, and nothing was touched:\n{lines}\n"
        "Leave -c out: a run continues with its own settings. To change one on purpose give it as an option, as in "
        f"--{strays[0].key} VALUE"
    )


def _other_method(refused: Sequence[Change], where: Path) -> str:
    lines = "\n".join(f"  {c.key}: the run has {_shown(c.old)}, asked for is {_shown(c.new)}" for c in _told(refused))
    named = " ".join(dict.fromkeys(c.key for c in refused))
    return (
        f"{where} was trained by another method than is asked for, and nothing was touched:\n{lines}\n"
        "Leave these out to continue the run as it is, or start a new run in another folder (-e). To change the method "
        f"of this run on purpose, which its history will tell, add --change {named}"
    )


def _meant(named: str) -> list[str]:
    """The keys or sections that a word of ``--change`` means, which may be one of xyfJASON's; a name is its section."""
    return [key.removesuffix(".name") for key in in_our_words({}, {named: None}).overrides] or [named]


def _within(key: str, section: str) -> bool:
    return key == section or key.startswith(f"{section}.")


def _told(found: Sequence[Change]) -> list[Change]:
    """Those that tell a person something: of a section that one side leaves out the keys do, and its null does not."""
    return [c for c in found if not all(value is None or value is _MISSING for value in (c.old, c.new))] or list(found)


def _shown(value: Any) -> str:
    return "nothing" if value is _MISSING else f"{value!r}"[:200]
