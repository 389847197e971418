"""Seeded damage to what JSON and YAML texts say: other values, other types, missing and strange keys, bombs."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

import yaml

DEEP = "\ue000DEEP"  # stands for a list nested too deeply for anything that would write it
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 0.5, -0.0, 2**31, -(2**63), 2**64, 10**30, 10**400, 1e-320, 1e308, float("inf"),
    float("-inf"), float("nan"), "", " ", "0", "1", "nan", "true", "x" * 10_000, "\x1b[2J\x07", "../../x",
    "/etc/passwd", "\ud800", "\u202e", "<script>", "a.b", "name", "inf", "2001-13-45", [], [[]], [None], {}, {"": {}},
    {"name": "x"}, {"name": []}, [1, "a", {}], list(range(2000)), DEEP,
)  # fmt: skip
KEYS = ("", " ", "name", "schema", "x" * 300, "a.b", "__class__", "\x1b[31m", "\ud800", "0", "step", "values")

Place = tuple[Any, Any]  # a dict or a list, and a key or an index of it


def mutated_json(content: bytes, rng: Random) -> bytes:
    """One JSON value, otherwise than it was."""
    try:
        tree = json.loads(content)
    except ValueError:
        return content
    return _json(mutated_tree(tree, rng))


def mutated_lines(content: bytes, rng: Random) -> bytes:
    """JSON lines, some of them otherwise."""
    lines = content.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        lines[at] = lines[at].rstrip(b"\n")
    elif kind == 1:
        lines.insert(at, rng.choice((b"\n", b"null\n", b"[]\n", b"{}\n", b"\xff\n", b"[" * 100_000 + b"\n", lines[at])))
    elif kind == 2:
        rng.shuffle(lines)
    else:
        lines[at] = _json(mutated_tree(json.loads(lines[at]), rng)) + b"\n"
    return b"".join(lines)


def mutated_yaml(content: bytes, rng: Random) -> bytes:
    """A YAML text whose values are otherwise, or which has what only YAML has."""
    kind = rng.random()
    if kind < 0.2:
        return rng.choice(HOSTILE_YAML)
    if kind < 0.4:
        return content + b"\n" + rng.choice(HOSTILE_YAML)
    if kind < 0.6:  # in place of a value
        lines = content.splitlines(keepends=True)
        at = rng.randrange(len(lines))
        key, colon, _ = lines[at].partition(b":")
        lines[at] = key + (colon or b":") + b" " + rng.choice(HOSTILE_VALUES) + b"\n"
        return b"".join(lines)
    if b"*" in content:
        raise ValueError("it has aliases already, and would be unpacked here")
    tree = mutated_tree(yaml.safe_load(content), rng)
    text = yaml.safe_dump(tree, sort_keys=False, default_flow_style=rng.choice((None, True, False)), allow_unicode=True)
    return _deepened(text, rng).encode("utf-8", "backslashreplace")


def mutated_tree(tree: Any, rng: Random) -> Any:
    """One to three places of a tree of plain values, otherwise than they were."""
    if rng.random() < 0.03:
        return rng.choice(VALUES)
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if places := _places(tree):
            _mutate(rng.choice(places), places, rng)
    return tree


def _places(node: Any) -> list[Place]:
    keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    return [place for key in keys for place in ((node, key), *_places(node[key]))]


def _mutate(place: Place, places: list[Place], rng: Random) -> None:
    holder, key = place
    kind = rng.randrange(10)
    old = holder[key]
    if kind < 5:
        holder[key] = rng.choice(VALUES)
    elif kind == 5:
        del holder[key]
    elif kind == 6 and isinstance(holder, dict):
        holder[rng.choice((*KEYS, f"{key} ", f"{key}s"))] = holder.pop(key)
    elif kind == 7:
        holder[key] = rng.choice(([old], {"name": old}, str(old), {str(old)[:50]: old}, [old, old]))
    elif kind == 8 and isinstance(old, (int, float)):
        holder[key] = rng.choice((-old, old + 1, old * 1000, float(old), old + 0.5, bool(old)))
    else:
        other, name = rng.choice(places)
        holder[key] = copy.deepcopy(other[name])


def _json(tree: Any) -> bytes:
    return _deepened(json.dumps(tree), None).encode("utf-8", "surrogatepass")


def _deepened(text: str, rng: Random | None) -> str:
    depth = 100_000 if rng is None else rng.choice((99, 150, 3000, 30_000))
    for written in (json.dumps(DEEP), f'"{DEEP}"', DEEP):
        text = text.replace(written, "[" * depth + "]" * depth)
    return text


def _bomb(levels: int, width: int) -> bytes:
    """Aliases of aliases: ``width ** levels`` values in a few lines."""
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines).encode()


HOSTILE_VALUES = (
    b"!!python/object/apply:os.system ['touch pwned']", b"!!python/name:os.system", b"!!binary 'AAAA'", b"!!set {a, b}",
    b"!!omap [a: 1]", b"!!timestamp 2001-01-01", b"!!int x", b"!!float nan", b"!!bool maybe", b"!!null x", b"!x y",
    b"&a [*a]", b"*unknown", b"&b {x: *b}", b"{<<: 1}", b"{<<: [1]}", b"{<<: {a: 1}, a: 2}", b"{a: 1, a: 2}", b"|",
    b">", b"? x", b"@x", b"`x", b"%x", b"0x1F", b"0o17", b"1_000", b"1__0_", b"12:30:45", b"2001-13-45", b"1e400",
    b"-.inf", b"+.nan", b"1e-99999999", b"=", b"~", b"'", b'"\\ud800"', b'"\\x00"', b"\t x", b"[" * 50_000,
    b"{a: " * 3000, b"- - - - -", b"9" * 5000,
)  # fmt: skip
HOSTILE_YAML = (
    _bomb(9, 9), _bomb(30, 2), _bomb(4, 200), b"<<: *x", b"a: &a {b: 1}\n<<: [*a, *a]\nb: 2", b"&a a: *a", b"&r\nx: *r",
    b"---\na: 1\n---\nb: 2", b"--- !!python/module:os", b"%YAML 9.9\n---\na: 1", b"%TAG ! x\n--- !y z",
    b"? [a, b]\n: c", b"? {a: b}\n: c", b"null: 1", b"1: 2\ntrue: 3", b"a: b: c", b"- a\nb: c", b"\xff\xfea\x00",
    b"\x00", b"a:\n\t- b", b"!!map [a]", b"data: &d\n  train: *d\ntrain: *d", b"a: " * 5000, b"- " * 5000, b"? " * 5000,
    b"#" * 10_000, b"[" * 100_000, b"!!str a: b", b"<<: {<<: {<<: {}}}", b"x: &x " * 50 + b"y", b"'a': \"b",
    b"...\n...", b"2001-01-01: 1", b"!!binary a: 1", b"schema: 99", b"train: {n_steps: 5}\n'train': {n_steps: 6}",
)  # fmt: skip
