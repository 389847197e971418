"""Every key of the configuration in words: type, default, meaning, and what a change of it does to a run.

All of it is read from the dataclasses: types and defaults from their fields, meanings from their docstrings, changes
from :data:`ddpm_ip.settings.KINDS`. ``ddpm-ip config --keys`` prints it, and the reference page is made of it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ddpm_ip.config import Config
from ddpm_ip.errors import ConfigError
from ddpm_ip.mistakes import nearest
from ddpm_ip.settings import Kind, kind
from ddpm_ip.variants import FilledIn, sections, variant_name, variants

NEEDED = "needed"  # in place of a default
CHANGES: dict[Kind, str] = {
    "free": "no step computes anything else: an option changes it",
    "noted": "the same thing is learned, by other steps: an option changes it, which is logged",
    "method": "something else is learned: refused, unless --change names it",
}
_WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "null"}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Attributes:
        path: dotted, as on the command line: ``perturbation.gamma``.
        type: in words, with the range where the type has one: ``whole number >= 1``.
        default: as in a YAML file; :data:`NEEDED` where there is none.
        meaning: plain text.
        change: what a change does to a run that is continued, a key of :data:`CHANGES`.
    """

    path: str
    type: str
    default: str
    meaning: str
    change: Kind


@dataclass(frozen=True)
class Section:
    """The keys of a section, or of one of the names that a section can have.

    Attributes:
        path: dotted; empty for the keys that are in no section.
        name: the value of ``PATH.name`` that has these keys; None where a section has no names.
        is_default: whether it holds where the section is left out.
        purpose: what the section is for, whichever name it has; plain text.
        meaning: what it is with this name.
        keys: without those of the sections inside, and without ``name``.
    """

    path: str
    name: str | None
    is_default: bool
    purpose: str
    meaning: str
    keys: tuple[Key, ...]


@cache
def all_sections() -> tuple[Section, ...]:
    """Every section with its keys, in the order of the configuration; a section with names once for each name."""
    return tuple(_read(Config, "", True, ""))


def find(part: str) -> list[Section]:
    """The sections, or single keys in theirs, that a word means.

    Args:
        part: a section or a key by dotted path (``train.optim``, ``perturbation.gamma``), the last part of a key
            (``gamma``), or a name (``ddim``).

    Raises:
        ConfigError: there is nothing of that name; says the nearest.
    """
    known = all_sections()
    found = [s for s in known if _within(s.path, part) or s.name == part]
    if not found:
        chosen = [(s, tuple(k for k in s.keys if k.path == part or k.path.endswith(f".{part}"))) for s in known]
        found = [dataclasses.replace(s, keys=keys) for s, keys in chosen if keys]
    if not found:
        words = {w for s in known for w in (s.path, s.name, *(k.path for k in s.keys)) if w}
        words |= {w.rpartition(".")[2] for w in words}
        near = nearest(part, sorted(words))
        advice = f"did you mean {near}?" if near else "`ddpm-ip config --keys` lists all"
        raise ConfigError(f"--keys {part:.100}: there is no such section, key or name; {advice}")
    return found


def as_text(found: Iterable[Section]) -> str:
    """Sections for a terminal: ``key: default  (type; change)``, and below it what it means."""
    lines: list[str] = []
    path = ""
    for section in found:
        if section.path != path:
            lines += ["", f"## {section.path}: {section.purpose}"]
            lines += [] if (known := names(section.path)) is None else [_indented(f"one of {known}")]
        path = section.path
        if section.name is not None:
            lines += ["", f"# {path}.name: {section.name}{' (default)' if section.is_default else ''}"]
            lines += [_indented(section.meaning)]
        for key in section.keys:
            lines += [f"{key.path}: {key.default}  ({key.type}; {key.change})", _indented(key.meaning)]
    lines += [
        "",
        "What a change does when a run is continued:",
        *(f"  {name}: {text}" for name, text in CHANGES.items()),
    ]
    return "\n".join(lines).strip()


def _indented(text: str) -> str:
    return textwrap.fill(text, 110, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def names(path: str) -> str | None:
    """The names that a section can have, with commas; None where it has none."""
    found = [s.name for s in all_sections() if s.path == path and s.name is not None]
    return ", ".join(found) or None


def _read(cls: type, path: str, is_default: bool, purpose: str) -> Iterator[Section]:
    inner, told = sections(cls), _arguments(cls)
    named = any(f.name == "name" for f in dataclasses.fields(cls)) and len(_names(cls)) == 1
    hints = get_type_hints(cls, include_extras=True)
    keys = [
        _key(field, hints[field.name], f"{path}.{field.name}".lstrip("."), told)
        for field in dataclasses.fields(cls)
        if (field.name not in inner or _several(hints[field.name])) and not (named and field.name == "name")
        if not any(isinstance(mark, FilledIn) for mark in getattr(hints[field.name], "__metadata__", ()))
    ]
    name = variant_name(cls) if named else None
    yield Section(path, name, is_default, purpose, _first(cls), tuple(keys))
    for field in dataclasses.fields(cls):
        held = inner.get(field.name, [])
        usual = None if field.default_factory is dataclasses.MISSING else type(field.default_factory())
        for variant in held:
            yield from _read(variant, f"{path}.{field.name}".lstrip("."), variant is usual, told.get(field.name, ""))


def _names(cls: type) -> Sequence[Any]:
    """The values that the ``name`` of a dataclass can have."""
    return get_args(get_type_hints(cls)["name"])


def _several(hint: Any) -> bool:
    return get_origin(hint) is tuple


def _key(field: dataclasses.Field[Any], hint: Any, path: str, told: dict[str, str]) -> Key:
    meaning = told.get(field.name, "")
    return Key(path, in_words(hint), _default(field), meaning, kind(path))


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value: Any = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return NEEDED
    return value if isinstance(value, str) else json.dumps(value)


def in_words(hint: Any) -> str:
    """A type as a person says it: ``whole number >= 1``, ``list of numbers, or null``.

    Args:
        hint: of a field that is no section, with its annotations.
    """
    if variants(hint):
        return "list of sections, each with its name"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{in_words(arguments[0])} {_range(arguments[1:])}".strip()
    if origin is Literal:
        return _or([str(value) for value in arguments])
    if origin in (Union, types.UnionType):
        return _or([in_words(arm) for arm in arguments if arm is not int or float not in arguments])
    if origin is tuple:
        one = re.sub(r"\b(whole number|number|text|list)\b", r"\1s", in_words(arguments[0]))
        return f"list of {one}" if arguments[-1] is Ellipsis else f"list of {len(arguments)} {one}"
    return _WORDS[hint]


def _or(words: Sequence[str]) -> str:
    """``a, b or c``."""
    *first, last = dict.fromkeys(word for text in words for word in text.split(" or "))
    return f"{', '.join(first)} or {last}" if first else last


def _range(metadata: Sequence[Any]) -> str:
    """The range that a type is annotated with: ``>= 1``, ``in [0, 1)``; bounds of 32 bits and more say nothing."""
    marks = [mark for one in metadata for mark in getattr(one, "metadata", [one])]
    found = {n: b for n in _SIGNS for m in marks if (b := getattr(m, n, None)) is not None and b < 2**31}
    multiples = [f"a multiple of {m.multiple_of}" for m in marks if getattr(m, "multiple_of", None) is not None]
    if len(found) == 2:
        (low, a), (high, b) = found.items()
        return ", ".join([f"in {'[' if low == 'ge' else '('}{a:g}, {b:g}{']' if high == 'le' else ')'}", *multiples])
    return ", ".join([*(f"{_SIGNS[name]} {bound:g}" for name, bound in found.items()), *multiples])


def _first(cls: type) -> str:
    """What a dataclass is: the first paragraph of its docstring."""
    return _plain(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0])


def _arguments(cls: type) -> dict[str, str]:
    """What the fields of a dataclass mean, by field: the items of ``Args:`` or ``Attributes:`` of its docstring.

    Fields that it inherits are explained where they are.
    """
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        text = inspect.cleandoc(owner.__doc__ or "") if dataclasses.is_dataclass(owner) else ""
        for block in re.split(r"^(?:Args|Attributes):\n", text, flags=re.MULTILINE)[1:]:
            inside = re.split(r"\n(?=\S)", block)[0]
            for item in re.split(r"^    (?=\S)", inside, flags=re.MULTILINE)[1:]:
                fields, _, meaning = item.partition(":")
                found |= dict.fromkeys(re.split(r",\s*", fields.strip()), _plain(meaning))
    return found


def _plain(text: str) -> str:
    """A piece of a docstring as plain text in one line."""
    text = re.sub(r" \((?:see )?:\w+:`[^`]*`\)|[,;] see above", "", " ".join(text.split()))
    text = re.sub(r":\w+:`(?:[\w.]+\.)?([^`]*)`", r"`\1`", text).replace("``", "`")
    return re.sub(r"\bNone\b", "null", text).strip()


def _within(path: str, part: str) -> bool:
    return path == part or path.startswith(f"{part}.")
