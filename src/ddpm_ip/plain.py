"""Plain values (objects, lists, texts, numbers) as JSON and YAML texts: bounded, and without any code.

Files are read and written by :mod:`ddpm_ip.files`, which stands on this.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import yaml

from ddpm_ip.errors import ConfigError

NOT_FINITE = "not finite"
DEPTH = 100  # levels of nesting that are read

# What reading a text or a file, and looking at what is in it, may raise.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RecursionError,
    yaml.YAMLError,
)


def parse_json(text: str) -> Any:
    """JSON with whole numbers that every float can hold.

    Raises:
        ValueError, RecursionError: it is not JSON, or nested too deeply.
    """
    value = _JSON.decode(text)
    _refuse_deep(value, len(text))
    return value


def _whole(digits: str) -> int | float:
    """A whole number; one that no float could hold is infinite, so that nobody stumbles over it later."""
    return int(digits) if len(digits) <= 300 else float(digits)


_JSON = json.JSONDecoder(parse_int=_whole)


def parse_yaml(text: str, origin: str) -> Any:
    """YAML with numbers and truth values as people mean them; no tags, no key twice.

    Raises:
        ConfigError: with ``origin`` and the line.
    """
    try:
        return load_yaml(text)
    except UNREADABLE as error:
        raise ConfigError(f"{origin} {reason(error).removeprefix('it ')}") from None


def load_yaml(text: str) -> Any:
    """As :func:`parse_yaml`, where the caller knows the origin and tells of it.

    Raises:
        ValueError, RecursionError: it is not YAML, nested too deeply, or unfolds to too much.
    """
    try:
        value = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, TypeError, ValueError) as error:  # a list as a key is a TypeError, month 13 a ValueError
        raise ValueError(f"it is not valid YAML: {' '.join(str(error).split())}") from None
    _refuse_deep(value, max(len(text), 100_000))
    return value


def yaml_text(tree: Mapping[str, Any]) -> str:
    """Plain values as YAML, in their order."""
    return yaml.safe_dump(dict(tree), sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


def reason(error: BaseException) -> str:
    """What is wrong, to follow a file's name and a colon."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, UnicodeDecodeError):
        return "it is not a text file (in UTF-8)"
    if isinstance(error, RecursionError):
        return f"it is nested more than {DEPTH} levels deep"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not valid JSON: {error}"
    said = error.args[0] if isinstance(error, KeyError) and error.args else error  # str() would put it in quotes
    return " ".join(str(said).split())[:500]


def kind_of(value: Any) -> str:
    """A word for a plain value."""
    if isinstance(value, float) and not math.isfinite(value):
        return NOT_FINITE
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "empty"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else "something else")


def _refuse_deep(value: Any, most: int) -> None:
    """Refuses what is nested deeper than DEPTH, or unfolds (YAML has aliases) to more than so many values."""
    level = [value]
    for _ in range(DEPTH):
        children = list(islice((child for one in level for child in _children(one)), most + 1))
        most -= len(children)
        if most < 0:
            raise ValueError("it unfolds to far more than is written")
        level = [child for child in children if isinstance(child, (dict, list))]
        if not level:
            return
    raise RecursionError


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


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
