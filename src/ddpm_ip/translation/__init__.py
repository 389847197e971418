"""Configurations and overrides of xyfJASON's diffusion-models-pytorch, in this program's words.

There a configuration is a tree of ``target`` (a class) and ``params`` (its arguments); before May 2023 it was flat, and
until February 2023 the keys of the diffusion stood in the section ``model``. What a key means and what holds when it is
left out are taken from that repository's documents, configurations and scripts (commit 3351aab, branch dev at b61baa5,
and those before them): :mod:`~ddpm_ip.translation.words` has it as tables, which :mod:`~ddpm_ip.translation.reader`
applies. Every function is pure: plain values in, plain values and notes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any, NamedTuple

from ddpm_ip.errors import ConfigError
from ddpm_ip.translation.notes import Notes
from ddpm_ip.translation.reader import Reader, why_left_out, word
from ddpm_ip.translation.words import ALL, EARLIER, SAME

__all__ = ["Notes", "Translated", "flat", "in_our_words", "is_published"]


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
    ours = {name: one for name, one in said.items() if name in SAME or name not in theirs}
    whole = is_published(tree)
    reader = Reader(flat(tree) if whole else {}, theirs, ours, whole)
    found = reader.read()
    written |= {
        name: written[path] for name in found for path in theirs if EARLIER.get(path, path) == reader.source.get(name)
    }
    if whole:  # what is called the same is read with the rest, unless its section begins again under another name
        ours = {n: v for n, v in ours.items() if n not in theirs or f"{n.rpartition('.')[0]}.name" in ours}
        return Translated(_nested(found), ours, written, reader.notes)
    for name, value in found.items():
        if name in ours and ours[name] != value:
            raise ConfigError(f"{name} is said twice, as {word(ours[name])} and as {word(value)}: give it once")
        ours[name] = value
    return Translated(tree, ours, written, reader.notes)


def _spread(path: str, value: Any) -> dict[str, Any]:
    """``train.optim.params.lr`` as ``train.optim.lr``; ``--model.params '{dim: 64}'`` as one override a key."""
    first, *rest = path.split(".")
    name = ".".join([first, *(part for part in rest if part != "params")])
    return flat(value, f"{name}.") if rest[-1:] == ["params"] and isinstance(value, dict) else {name: value}


def _is_known(path: str) -> bool:
    """Whether a dotted path, without ``params``, is a word of that repository's, which may be one of ours, too."""
    return EARLIER.get(path, path) in ALL or why_left_out(path) is not None


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *sections, key = path.split(".")
        reduce(lambda node, name: node.setdefault(name, {}), sections, tree)[key] = value
    return tree
