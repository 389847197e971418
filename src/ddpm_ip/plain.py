"""Plain values (objects, lists, texts, numbers) as JSON and YAML texts: bounded, and without any code.

What people are shown of values and names that come from outside is bounded, too, and cannot steer their terminal:
:func:`quoted`, :func:`shown`, :func:`visible`.

Files are read and written by :mod:`ddpm_ip.files`, which stands on this.
"""

from __future__ import annotations

import errno
import json
import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import yaml

from ddpm_ip.errors import ConfigError

NOT_FINITE = "not finite"
DEPTH = 100  # levels of nesting that are read
QUOTED, SHOWN = 80, 300  # characters of a value, and of a name, that a message has room for

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
    return int(digits) if len(digits) <= 300 else float(digits[0] + "inf" if digits[0] in "+-" else "inf")


_JSON = json.JSONDecoder(parse_int=_whole)


def parse_yaml(text: str, origin: str) -> Any:
    """YAML with numbers and truth values as people mean them; keys are texts, no key twice, no tags, no merge keys.

    Raises:
        ConfigError: with ``origin`` and the line.
    """
    try:
        return load_yaml(text)
    except UNREADABLE as error:
        raise ConfigError(f"{shown(origin)} {reason(error).removeprefix('it ')}") from None


def load_yaml(text: str) -> Any:
    """As :func:`parse_yaml`, where the caller knows the origin and tells of it.

    Raises:
        ValueError, RecursionError: it is not YAML, nested too deeply, or unfolds to too much.
    """
    try:
        value = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, TypeError, ValueError) as error:  # of a text that is nearly a number or a date
        raise ValueError(f"it is not valid YAML: {' '.join(str(error).split())}") from None
    _refuse_deep(value, 2 * max(len(text), 100_000))  # aliases that are a convenience unfold to less
    return value


def yaml_text(tree: Mapping[str, Any]) -> str:
    """Plain values as YAML, in their order."""
    text = _dumped(tree, allow_unicode=True)
    return text if visible(text) == text else _dumped(tree, allow_unicode=False)  # or some line ends become spaces


def _dumped(tree: Mapping[str, Any], allow_unicode: bool) -> str:
    text: str = yaml.dump(
        dict(tree), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=allow_unicode
    )
    return text


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


def visible(text: str) -> str:
    """A text in which what cannot be seen (control characters, marks of direction, ...) is an escape; line ends stay.

    So a name or a key from outside moves no cursor, colours nothing, and hides nothing.
    """
    return text if text.replace("\n", "").isprintable() else "".join(map(_visible, text))


def _visible(one: str) -> str:
    """A character, or its escape, which JSON understands, too."""
    if one.isprintable() or one == "\n":
        return one
    units = one.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def shown(name: object) -> str:
    """A name from outside, such as a path or a key, for a message: in one line, visible, of bounded length."""
    text = visible(str(name)).replace("\n", "\\n")
    half = SHOWN // 2
    return text if len(text) <= SHOWN else f"{text[:half]}...{text[-half:]}"


def quoted(value: object) -> str:
    """A value from outside for a message, as Python writes it: of bounded length, whatever it is."""
    try:
        text = _SHORT.repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes
        text = "something huge"
    return text if len(text) <= QUOTED else f"{text[: QUOTED - 3]}..."


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, QUOTED, QUOTED, 40


def remedy(error: OSError) -> str:
    """What to do about an error of the system's; a sentence without its stop."""
    return _REMEDY.get(error.errno or 0, "Choose another place, or put that right and try again")


_ROOM, _RIGHTS = "Free some space there", "Choose a place that you may write to, or change who may"
_REMEDY = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "Raise the limit on the size of a file (ulimit -f), or choose another place",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ENOENT: "Check the path",
    errno.ENOTDIR: "Choose another place: a part of the path is a file",
    errno.EMFILE: "Raise the limit on open files (ulimit -n)",
}


def kind_of(value: Any) -> str:
    """A word for a plain value."""
    if isinstance(value, float) and not math.isfinite(value):
        return NOT_FINITE
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "empty"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else "something else")


def _refuse_deep(value: Any, most: int) -> None:
    """Refuses what is nested deeper than DEPTH, or unfolds (YAML has aliases) to more than so many characters."""
    level = [value]
    for _ in range(DEPTH):
        children = list(islice((child for one in level for child in _children(one)), most + 1))
        most -= len(children) + sum(len(child) for child in children if isinstance(child, str))
        if most < 0:
            raise ValueError("it unfolds to far more than is written")
        level = [child for child in children if isinstance(child, (dict, list))]
        if not level:
            return
    raise RecursionError


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return (part for item in value.items() for part in item)
    return value if isinstance(value, list) else ()


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of numbers (1e-4 is one) and truth values (``no`` is a word).

    Refused as soon as they are met: what is nested deeper than DEPTH, tags, merge keys (which multiply what they
    merge), keys that are no texts, and a key twice.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if tag := getattr(event, "tag", None):
            raise yaml.composer.ComposerError(None, None, f"tags are not read: {quoted(tag)}", event.start_mark)
        self._depth += 1
        if self._depth > DEPTH + 1:
            raise RecursionError
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value
            wrong = ""
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.tag.endswith(":str"):
                wrong = f"a key must be a text, and {quoted(key) if isinstance(key, str) else 'this one'} is none"
            elif key == "<<" and not key_node.style:
                wrong = "merge keys (<<) are not read: write out what is merged"
            elif key in seen:
                wrong = f"the key {quoted(key)} is there twice"
            if wrong:
                raise yaml.constructor.ConstructorError(None, None, wrong, key_node.start_mark)
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping

    def construct_scalar(self, node: Any) -> str:
        text: str = super().construct_scalar(node)
        if "\0" in text:
            raise yaml.constructor.ConstructorError(None, None, "a text holds a NUL character", node.start_mark)
        return text


_REPLACED = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp", "merge", "value")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, rx) for tag, rx in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: _whole(node.value.replace("_", "")))
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


class _Dumper(yaml.SafeDumper):
    """Puts every text in quotes that would be something else without, to this loader or to others."""


_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {**yaml.SafeDumper.yaml_implicit_resolvers, **_Loader.yaml_implicit_resolvers}
}
