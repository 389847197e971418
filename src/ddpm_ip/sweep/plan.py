"""What a sweep is asked for, and the runs that follow from it: every value of every key, with every seed.

A *point* is one value of each key; a *run* is a point with a seed, and a folder of the sweep. ``SWEEP_DIR/sweep.json``
holds what was asked. A later call may ask for more values and more seeds of the same, and for nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from ddpm_ip.config import Config, from_dict
from ddpm_ip.errors import ConfigError
from ddpm_ip.files import Shape, read_json, reading
from ddpm_ip.plain import UNREADABLE, load_yaml, quoted, reason, shown
from ddpm_ip.settings import as_trained, changes, kind

SEEDS = (0, 1, 2)
COSTS = (  # sections and keys that change what a run costs, or how long a step takes
    "model", "data", "classes", "train.n_steps", "train.batch_size", "train.micro_batch", "train.mixed_precision",
    "train.fast", "train.deterministic",
)  # fmt: skip
LONGEST_NAME = 100  # characters of the folder of a run
MOST_TOLD = 5  # differences in a message


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        name: of its folder, such as ``gamma=0.1,seed=0``.
        point: the same without the seed; empty where nothing but the seed varies.
        values: by key.
        seed: of the training.
        config: all its settings.
    """

    name: str
    point: str
    values: Mapping[str, Any]
    seed: int
    config: Config

    @property
    def images(self) -> int:
        """Images that it is trained with, each as often as it comes."""
        return self.config.train.n_steps * self.config.train.batch_size


@dataclass(frozen=True)
class Asked:
    """What a sweep is made of.

    Attributes:
        config: the values of the configuration file.
        origin: its path, for messages.
        options: further items of the configuration, by dotted path, the same for all runs.
        over: the values that are tried, by dotted path.
        seeds: of the training, each with every point.
        images: how many images each run is trained with, whatever its batch; None for ``train.n_steps`` steps.
        table: options of the results table, as words of ``ddpm-ip table``.
        exposure: options of the measurement of exposure bias, as words of ``ddpm-ip exposure``; None for none.
    """

    config: Mapping[str, Any]
    origin: str
    options: Mapping[str, Any] = field(default_factory=dict)
    over: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    seeds: Sequence[int] = SEEDS
    images: int | None = None
    table: Sequence[str] = ()
    exposure: Sequence[str] | None = None

    @cached_property
    def runs(self) -> list[SweepRun]:
        """All runs, seed by seed, so that every point has a number early.

        Raises:
            ConfigError: a value cannot be used, something is asked for twice, or a key changes nothing of the training.
        """
        self._refuse_twice()
        points = [dict(zip(self.over, values, strict=True)) for values in product(*self.over.values())]
        runs = [self._run(point, seed) for seed in self.seeds for point in points]
        for key in self.over:
            if _is_idle(key):
                raise ConfigError(
                    f"--over {key}: it changes no step of the training, so all runs would be the same. How images are "
                    "made is compared by the rows and columns of the table: --rows, --sampler, --steps"
                )
        same: dict[str, SweepRun] = {}
        for run in runs:
            first = same.setdefault(json.dumps(run.config.to_dict(), sort_keys=True), run)
            if first is not run:
                raise ConfigError(f"--over: {first.name} and {run.name} are the same run: leave one of the values out")
        return runs

    def _refuse_twice(self) -> None:
        for key, given in (("seed", self.options), ("seed", self.over)):
            if key in given:
                raise ConfigError("the seeds of a sweep are those of --seeds: leave seed out")
        for key, values in self.over.items():
            if key in self.options:
                raise ConfigError(f"{key} is given by --over and by --{key}: give it once")
            if not values:
                raise ConfigError(f"--over {key}: there is no value; write {key}=VALUE,VALUE")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"--seeds {' '.join(map(str, self.seeds))}: give each seed once, and at least one")
        if "train.alert_command" in {*self.over, *self.options}:
            raise ConfigError("train.alert_command is for a single training; the runs of a sweep log their alerts")
        if self.images is not None and "train.n_steps" in {*self.over, *self.options}:
            raise ConfigError("--images says how many steps there are, and train.n_steps does, too: give one of them")

    def _run(self, values: Mapping[str, Any], seed: int) -> SweepRun:
        overrides = {**self.options, **values, "seed": seed}
        config = from_dict(self.config, self.origin, overrides)
        if self.images is not None:
            steps = math.ceil(self.images / config.train.batch_size)
            config = replace(config, train=replace(config.train, n_steps=steps))
        config = replace(config, train=replace(config.train, alert_command=None))
        point = ",".join(f"{self.short[key]}={in_words(value)}" for key, value in values.items())
        name = f"{point},seed={seed}" if point else f"seed={seed}"
        return SweepRun(_file_name(name), point, values, seed, config)

    @cached_property
    def short(self) -> dict[str, str]:
        """By key the last part of it, where no other ends so; else all of it."""
        ends = [key.rpartition(".")[2] for key in self.over]
        return {key: end if ends.count(end) == 1 else key for key, end in zip(self.over, ends, strict=True)}

    @property
    def unequal(self) -> list[str]:
        """The keys by which the runs differ in cost; with ``images``, the batch is none."""
        keys = [key for key in self.over if any(_within(key, cost) for cost in COSTS)]
        return [key for key in keys if self.images is None or key != "train.batch_size"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``sweep.json`` holds them."""
        plain = {key: getattr(self, key) for key in ("config", "origin", "options", "images", "exposure")}
        over = {key: list(values) for key, values in self.over.items()}
        return {**plain, "over": over, "seeds": list(self.seeds), "table": list(self.table)}


def read_asked(file: Path) -> Asked | None:
    """What a sweep was asked for; None if there is none.

    Raises:
        ConfigError: the file is damaged.
        NewerVersion: a newer version of ddpm-ip wrote it.
    """
    if not file.is_symlink() and not file.exists():
        return None
    needs: Shape = {"config": dict, "origin": str, "options": dict, "over": dict, "seeds": list, "table": list}
    advice = "Restore it, or begin another sweep in another folder"
    found = read_json(file, needs, advice=advice, error=ConfigError)
    images, exposure = found.get("images"), found.get("exposure")
    with reading(file, advice, ConfigError):
        if not all(isinstance(values, list) for values in (*found["over"].values(), exposure or [])):
            raise TypeError("the values of a key, and the options of exposure, are lists")
        if not all(isinstance(word, str) for word in (*found["table"], *(exposure or []))):
            raise TypeError("the options of table and exposure are words")
        if not all(type(number) is int for number in (*found["seeds"], images or 0)):
            raise TypeError("seeds and images are whole numbers")
    return Asked(**{name: found[name] for name in needs}, images=images, exposure=exposure)


def grown(old: Asked, new: Asked, folder: Path) -> Asked:
    """What a sweep is asked for that is called again: the same, or more values and seeds of it.

    What is measured afterwards (table, exposure) may change: it is made again.

    Raises:
        ConfigError: something else is asked for; with the differences.
    """
    if set(old.over) != set(new.over):
        was, now = (", ".join(one.over) or "no key" for one in (old, new))
        raise ConfigError(f"the sweep in {shown(folder)} is over {was}, and {now} is asked for. {_ELSEWHERE}")
    new = replace(new, over={key: new.over[key] for key in old.over})  # in one order, since folders are named by it
    known = {run.name: run for run in new.runs}
    for run in old.runs:
        if run.name not in known:
            raise ConfigError(
                f"the sweep in {shown(folder)} has the run {run.name}, which is not asked for any more: more values "
                f"and more seeds may be added, and none left out. {_ELSEWHERE}"
            )
        refuse_changed(run.config.to_dict(), known[run.name].config.to_dict(), folder / run.name)
    return new


def refuse_changed(there: Mapping[str, Any], asked: Mapping[str, Any], where: Path) -> None:
    """Refuses to continue a run of a sweep with other settings.

    Args:
        there: the settings of the run, plain values.
        asked: those that are asked for.
        where: its folder.

    Raises:
        ConfigError: with the differences.
    """
    if other := changes(there, asked):
        told = as_trained(other[:MOST_TOLD]) + ("\n  and more" if len(other) > MOST_TOLD else "")
        raise ConfigError(f"{shown(where)} is a run with other settings than are asked for:\n{told}\n{_ELSEWHERE}")


_ELSEWHERE = "Choose another folder (-e) for another sweep, or ask for the same; what is there is untouched"


def read_over(texts: Iterable[str]) -> dict[str, list[Any]]:
    """``["perturbation.gamma=0,0.1"]`` to ``{"perturbation.gamma": [0, 0.1]}``; values are YAML.

    Raises:
        ConfigError: a text is of another form, or a key comes twice.
    """
    over: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.removeprefix("--").partition("=")
        if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
            raise ConfigError(f"--over {quoted(text)}: write KEY=VALUE,VALUE, as in perturbation.gamma=0,0.1")
        if key in over:
            raise ConfigError(f"--over {key} is given twice: give all its values at once")
        try:
            over[key] = load_yaml(f"[{values}]")
        except UNREADABLE as error:
            raise ConfigError(f"--over {shown(text)}: the values cannot be read: {reason(error)}") from None
    return over


def in_words(value: Any) -> str:
    """A value as the command line has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _file_name(name: str) -> str:
    """The same where a folder can have the name; else what is left of it, with a hash."""
    safe = re.sub(r"[^A-Za-z0-9_.+=,\[\]-]", "_", name)
    if safe == name and len(name) <= LONGEST_NAME and not name.startswith("."):
        return name
    return f"{safe[:LONGEST_NAME].lstrip('.')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _is_idle(key: str) -> bool:
    """Whether no step of the training depends on a key. Of where images lie (``data.root``) it may."""
    try:
        return kind(key) == "free" and key != "train.n_steps" and not _within(key, "data")
    except KeyError:  # a section with several kinds of keys
        return False


def _within(key: str, section: str) -> bool:
    return key == section or key.startswith(f"{section}.")
