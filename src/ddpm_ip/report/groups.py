"""Runs that differ in their seed alone are one group: they share a colour, and the spread over them is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ddpm_ip.report.numbers import canonical, counted

if TYPE_CHECKING:
    from ddpm_ip.report.run import Run

SEED = "seed"
_TAIL = re.compile(r"[\s/_.,=+-]*((?<![a-zA-Z])s(eeds?)?[=_-]?\d*)?[\s/_.,=+-]*$")


def grouped_by_seed(runs: Sequence[Run]) -> list[Run]:
    """The same runs, each with its ``series`` (the number of its group) and its ``group`` (what that is called).

    A group has the same settings but for ``seed``, and different seeds. A run alone is a group called after itself.
    """
    places: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        places.setdefault(_key(run, i), []).append(i)
    groups = [part for members in places.values() for part in _told_apart(runs, members)]
    groups.sort(key=lambda members: members[0])
    names = _unique([group_name([runs[i].name for i in members]) for members in groups])
    found = list(runs)
    for number, (members, name) in enumerate(zip(groups, names, strict=True)):
        for i in members:
            found[i] = replace(runs[i], series=number, group=name)
    return found


def group_name(names: Sequence[str]) -> str:
    """What the names of runs begin with, and how many there are: ``gamma-0.1 (3 seeds)``."""
    if len(names) == 1:
        return names[0]
    begin = _TAIL.sub("", _common_beginning(names))
    return f"{begin or names[0] + ' and others'} ({counted(len(names), 'seed')})"


def _common_beginning(names: Sequence[str]) -> str:
    same = 0
    for letters in zip(*names, strict=False):
        if len(set(letters)) > 1:
            break
        same += 1
    return names[0][:same]


def _key(run: Run, place: int) -> str:
    """Equal for runs that may be of one group; of a run whose settings or seed are unknown there is one."""
    if run.settings.get(SEED) is None:
        return f"run {place}"
    return repr(sorted((key, canonical(v)) for key, v in run.settings.items() if key != SEED))


def _told_apart(runs: Sequence[Run], members: Sequence[int]) -> list[list[int]]:
    """One group, unless two of its runs have the same seed: these are no independent measurements."""
    seeds = [canonical(runs[i].settings.get(SEED)) for i in members]
    return [list(members)] if len(set(seeds)) == len(seeds) else [[i] for i in members]


def _unique(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} [{i + 1}]" for i, name in enumerate(names)]
