"""What differs between runs, in keys and in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddpm_ip.report.groups import SEED
from ddpm_ip.report.markup import sentence_list
from ddpm_ip.report.numbers import canonical, figures, plain
from ddpm_ip.report.run import Run
from ddpm_ip.run.identity import method
from ddpm_ip.run.record import flatten

ABSENT = "–"
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """Dotted config keys whose value is not the same in all runs, in the order of the first config that has them.

    Of a run whose configuration cannot be read, nothing is known to differ.
    """
    runs = [run for run in runs if run.settings]
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    return [key for key in keys if len({canonical(run.settings.get(key)) for run in runs}) > 1]


def show(value: Any) -> str:
    """A config or provenance value for a reader."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return _cut(grouped(value), 300)
    if isinstance(value, float):
        return figures(value, 6)
    return _cut(value if isinstance(value, str) else plain(value), 300)


def grouped(number: int) -> str:
    """20000 as ``20 000`` with narrow no-break spaces; four digits stay together."""
    return f"{number:,}".replace(",", "\u202f") if abs(number) >= 10_000 else str(number)


def describe(run: Run) -> str:
    """What kind of training a run is: plain DDPM, or input perturbation of which strength; since when; or imported."""
    return method(_kind(run), run.history, run.imported, run.step)


_USUAL = {"until": None, "anneal": "none", "random": False, "probability": 1, "target": "clean"}  # of a perturbation


def _kind(run: Run) -> str:
    if not run.settings or "perturbation" in run.settings:
        return "unknown settings"
    name, gamma = run.settings.get("perturbation.name"), run.settings.get("perturbation.gamma")
    if name in (None, "none") or (name == "input" and 0 in (gamma, run.settings.get("perturbation.probability"))):
        return "plain DDPM"
    strength = f", γ = {show(gamma)}" if gamma is not None else ""
    found = {key: run.settings.get(f"perturbation.{key}", usual) for key, usual in _USUAL.items()}
    strength += "".join(f", {key} {show(value)}" for key, value in found.items() if value != _USUAL[key])
    return f"input perturbation{strength}" if name == "input" else f"perturbation “{show(name)}”{strength}"


def lead(runs: Sequence[Run]) -> str:
    """The first paragraph: what was compared, and what is the same."""
    groups = one_of_each_group(runs)
    names = [run.group or run.name for run in groups] if len(groups) < len(runs) else [run.name for run in runs]
    about = sentence_list([f"{name} ({describe(run)})" for name, run in zip(names, groups, strict=True)])
    if len(runs) == 1:
        return f"This page reports one run, {about}{_training(runs[0])}."
    keys = differing_keys(runs)
    same = len({key for run in runs for key in run.settings}) - len(keys)
    if len(groups) == 1:
        return f"{_count(len(runs)).capitalize()} runs differ in their seed alone: {about}{_training(runs[0])}."
    seeds = "" if len(groups) == len(runs) else f", {_of_seeds(runs, len(groups))}"
    opening = f"{_count(len(runs)).capitalize()} runs are compared{seeds}: {about}."
    if not keys:
        return f"{opening} Their configs are the same in all {same} settings{_training(runs[0])}."
    told = keys if len(groups) == len(runs) else [key for key in keys if key != SEED]
    where = [f"{key} ({', '.join(_short(run, key) for run in groups)})" for key in told]
    differ = sentence_list(where) if len(told) <= 3 else f"{_count(len(told))} settings, listed under “Provenance”"
    seed = "" if SEED in keys or SEED not in runs[0].settings else ", the seed among them"
    return f"{opening} Their configs differ in {differ}; the other {_count(same)} settings are the same{seed}."


def _of_seeds(runs: Sequence[Run], groups: int) -> str:
    """How many groups of runs there are, and how many of them have several seeds."""
    names = [run.group or str(run.path) for run in runs]
    several = sum(names.count(name) > 1 for name in set(names))
    which = "with several seeds" if several == groups else f"{_count(several)} of them with several seeds"
    return f"{_count(groups)} settings{'' if several == groups else ','} {which}"


def one_of_each_group(runs: Sequence[Run]) -> list[Run]:
    """The first run of each group of seeds (:mod:`ddpm_ip.report.groups`)."""
    return list({run.group or run.path: run for run in reversed(runs)}.values())[::-1]


def other_differences(runs: Sequence[Run]) -> list[str]:
    """What differs outside the configs and may matter too: data, code, versions, hardware; one sentence each."""
    facts = {
        "data.fingerprint": "data (fingerprint)",
        "git.commit": "code (git commit)",
        "versions.torch": "torch version",
        "hardware": "hardware",
        "parameters": "number of parameters",
    }
    known = [flatten(run.provenance or {}) for run in runs]
    found = []
    for key, name in facts.items():
        values = [facts_of_run.get(key) for facts_of_run in known]
        # An unknown value is no difference.
        if len({canonical(value) for value in values if value is not None}) > 1:
            listed = "; ".join(f"{run.name}: {show(value)}" for run, value in zip(runs, values, strict=True))
            found.append(f"Not in the configs, but different too: {name} ({listed}).")
    return found


def _training(run: Run) -> str:
    if run.imported is not None and not run.step:
        return ""
    steps, data = run.settings.get("train.n_steps"), run.settings.get("data.name")
    length = f", trained for {show(steps)} steps" if steps is not None else ""
    return length + (f" on {show(data)}" if data and length else "")


def _short(run: Run, key: str) -> str:
    """A value within a sentence."""
    if not run.settings:
        return "unknown"
    return "not set" if run.settings.get(key) is None else _cut(show(run.settings[key]), 40)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _count(number: int) -> str:
    return COUNTS[number] if number < len(COUNTS) else grouped(number)
