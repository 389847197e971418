"""What is wrong with a tree of plain values, in words: the key as a person writes it, the mistake, the nearest name."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, get_origin, get_type_hints

from ddpm_ip.plain import quoted, shown
from ddpm_ip.translation import in_our_words
from ddpm_ip.variants import HOW_MANY, has_name, sections, variant_name

SURE, LIKELY = 0.8, 0.65  # how alike two names are (difflib), from 0 to 1
MOST = 40  # mistakes that are named


class Mistake(NamedTuple):
    """A key and what is wrong with it."""

    key: str  # dotted
    text: str


def explain(error: Mapping[str, Any], root: type) -> Mistake:
    """One error of pydantic's as a sentence, with the nearest name that exists.

    Args:
        error: an entry of ``ValidationError.errors()``.
        root: the dataclass that was checked.
    """
    path, variants = _place(error["loc"], root)
    key, kind, given = shown(".".join(path)), error["type"], quoted(error["input"])
    for n, part in enumerate(path, 1):
        if part in _SEVERAL and n < len(path):  # pydantic tells of each kind in turn; a person wants to know them all
            return Mistake(".".join(path[:n]), _SEVERAL[part])
    if kind == "unexpected_keyword_argument":
        _, parents = _place(error["loc"][:-1], root)
        variant = error["loc"][-2] if len(error["loc"]) > 1 else None  # pydantic's name of the chosen one, if there are
        which = f" (of {variant})" if has_name(parents) and variant == variant_name(parents[0]) else ""
        return Mistake(key, f"unknown key{_other_key(path, parents, root)}{which}")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag, known = error["ctx"].get("tag"), [variant_name(v) for v in variants]
        wrong = NO_NAME if tag is None else f"unknown name {quoted(tag)}"
        near = nearest(str(tag or "").lower(), known)
        return Mistake(
            f"{key}.name", wrong + (f"; did you mean {near}?" if near else f"; choose one of {_list(known)}")
        )
    if kind == "missing":
        return Mistake(key, MISSING)
    if kind in ("dataclass_type", "model_attributes_type", "dict_type"):
        named = isinstance(error["input"], str) and variants and has_name(variants)
        advice = f"; to choose one by its name write {key}.name" if named else ""
        return Mistake(key, f"must be a section of keys and values, got {given}{advice}")
    if kind in ("tuple_type", "list_type"):
        return Mistake(key, f"must be a list, as in [a, b], got {given}")
    message = error["msg"].removeprefix("Value error, ")[:1000]
    return Mistake(key, f"{message[0].lower()}{message[1:]}" + ("" if kind == "value_error" else f", got {given}"))


MISSING = "not given, but needed"
NO_NAME = "not given"
_SEVERAL = {  # values of several plain kinds
    "image_size": "must be a whole number of pixels, or [height, width]",
    "gamma": "must be a number, or a list of numbers by time",
    "steps": 'must be a whole number, or a text such as "10,10,5" or "ddim50"',
}


def by_origin(mistakes: Sequence[Mistake], origin: str, written: Mapping[str, str], more: int = 0) -> str:
    """All mistakes as one message: those of the options given under the options' names, and the others.

    Args:
        mistakes: of the tree with the options on it.
        origin: of the tree.
        written: for the dotted path of each option's key, how it was written.
        more: how many more there are.
    """
    told: dict[str, list[str]] = {origin: []}
    for mistake in dict.fromkeys(mistakes):
        option = _option(mistake, written)
        line = f"{mistake.key}: {mistake.text}"
        if option is not None:
            word = mistake.key if option == f"{mistake.key}.name" == written[option] else written[option]  # all of it
            item = mistake.key.removeprefix(f"{option}.").isdigit()  # of a list, which its value tells
            anew = option.endswith(".name") and mistake.text == MISSING
            line += "; another name begins its section again, without what the file says there" if anew else ""
            line = f"--{shown(word)}: {mistake.text if item or f'{option}.'.startswith(f'{mistake.key}.') else line}"
        told.setdefault(origin if option is None else "the options given", []).append(line)
    lines = []
    for where, found in told.items():
        if not found:
            continue
        lines += [f"{where} cannot be used:", *(f"  {line:.1000}" for line in dict.fromkeys(found[:MOST]))]
        lines += [f"  and {len(found) - MOST} more"] if len(found) > MOST else []
    return "\n".join([*lines, *([f"  and {more} more"] if more > 0 else [])])


def unknown_option(word: str, options: Sequence[str], root: type | None) -> str:
    """What to do about an option that a command does not have.

    Args:
        word: as written, with its dashes.
        options: those that it has, with theirs.
        root: the dataclass of the configuration whose items the command's other options override; None if of none.
    """
    leaf = _plainest(word)
    paths = () if root is None else _paths(root)
    exact = [f"--{path}" for path in paths if path.rpartition(".")[2] == leaf]
    long = {_plainest(option): option for option in options if option.startswith("--")}
    if leaf in long:
        return f"{word}: unknown option; did you mean {long[leaf]}?"
    near = nearest(leaf, long, SURE)
    exact += [f"--{path}" for path in paths if path.endswith(f".{leaf}.name")]
    longer = [path for path in paths if path.endswith(f"_{leaf}")]
    exact += [f"--{path}" for path in sorted(longer, key=lambda path: path.count("."))]
    exact = exact or [f"--{path}" for path in _with_word(leaf, paths)]
    if exact and near is None:
        return f"{word}: unknown option; did you mean {_or(exact)}?"
    near = near or nearest(leaf, long)
    found = [long[near]] if near else [f"--{path}" for path in _near_leaves(leaf, paths)]
    items = ", and items of the config by their dotted paths, as in --train.batch_size" if paths else ""
    advice = f"did you mean {_or(found)}?" if found else f"there are {_list([*long.values()])}{items}"
    return f"{word}: unknown option; {advice}"


def nearest(word: str, known: Iterable[str], cutoff: float = LIKELY) -> str | None:
    """The most similar name, if one is as similar as that."""
    near = difflib.get_close_matches(word[:100], list(known), n=1, cutoff=cutoff)
    return near[0] if near else None


def _place(loc: Sequence[Any], root: type) -> tuple[list[str], list[type]]:
    """Where a pydantic error is: the path as a person writes it, and the dataclasses that can stand there.

    (pydantic puts the name of the chosen variant into its path; nobody writes it there.)
    """
    path: list[str] = []
    variants: list[type] = [root]
    for part in loc:
        if part in HOW_MANY:
            continue
        by_name = {variant_name(v): v for v in variants} if variants and has_name(variants) else {}
        if part in by_name:
            variants = [by_name[part]]
            continue
        path.append(str(part))
        if isinstance(part, int):  # a place in a list of variants
            continue
        variants = sections(variants[0]).get(str(part), []) if len(variants) == 1 else []
    return path, variants


ELSEWHERE = dict.fromkeys(("num_classes", "n_classes", "class_cond"), "classes.count")  # words of other programs


def _other_key(path: Sequence[str], parents: Sequence[type], root: type) -> str:
    """Where the key that was meant may be: in its section, under the same name elsewhere, or elsewhere and similar."""
    *section, leaf = path
    known = [f.name for parent in parents for f in dataclasses.fields(parent)]
    if near := nearest(leaf, known, SURE):
        return f"; did you mean {near}?"
    if any(name.endswith(f"_{leaf}") for name in known):
        return f"; did you mean {_or(_with_word(leaf, known))}?"
    keys = f"; the keys of {'.'.join(section) or 'a config'} are {_list(known)}"
    if owners := _owners(section, leaf, root):
        return f"{keys}; {leaf} is one of {'.'.join(section)}.name {_or(owners, MOST)}"
    here = [p for p in in_our_words({}, {".".join(path): None}).overrides if p != ".".join(path)]
    elsewhere = (
        [ELSEWHERE[leaf]]
        if leaf in ELSEWHERE
        else here[-1:] or [p for p in _paths(root) if p.rpartition(".")[2] == leaf]
    )
    within = [path.partition(f".{leaf}.")[0] for path in _paths(root) if f".{leaf}." in path]
    elsewhere = elsewhere or [f"{outer}.{leaf}" for outer in dict.fromkeys(within)]
    near = nearest(leaf, known)
    if not elsewhere and (here := _with_word(leaf, known) or ([near] if near else [])):
        return f"; did you mean {_or(here)}?"
    elsewhere = elsewhere or _near_leaves(leaf, _paths(root))
    meant = f"; did you mean {_or(elsewhere)}?" if elsewhere else ""
    return meant if meant and len(section) < 2 else keys + meant


def _owners(section: Sequence[str], leaf: str, root: type) -> list[str]:
    """The names of the variants of a section that have a key."""
    found = [root]
    for name in section:
        found = [variant for cls in found for variant in sections(cls).get(name, [])]
    return [variant_name(cls) for cls in found if leaf in {f.name for f in dataclasses.fields(cls)}]


def _with_word(word: str, paths: Sequence[str]) -> list[str]:
    """The paths of whose last name a word is a part, as ``ema`` of ``train.ema_decay``."""
    return [path for path in paths if word in path.rpartition(".")[2].split("_")]


def _near_leaves(leaf: str, paths: Sequence[str]) -> list[str]:
    """The paths that end in the name most similar to this one."""
    near = nearest(leaf, {path.rpartition(".")[2] for path in paths}, 0.75)
    return [path for path in paths if path.rpartition(".")[2] == near]


@cache
def _paths(root: type) -> tuple[str, ...]:
    """Every item of a configuration by dotted path, of all variants of its sections, those next to the root first."""
    nested, hints = sections(root), get_type_hints(root)
    own = [f.name for f in dataclasses.fields(root) if f.name not in nested]
    one = {name: found for name, found in nested.items() if get_origin(hints[name]) is not tuple}  # others have no path
    inner = [f"{name}.{path}" for name, found in one.items() for variant in found for path in _paths(variant)]
    return tuple(dict.fromkeys([*own, *inner]))


def _option(mistake: Mistake, written: Mapping[str, str]) -> str | None:
    """The path of the option that a mistake comes from; None if it was in the tree."""
    key, (section, _, _) = mistake.key, mistake.key.rpartition(".")
    if key in written:
        return key
    near = [path for path in written if f"{key}.".startswith(f"{path}.") or f"{path}.".startswith(f"{key}.")]
    if not near and mistake.text == MISSING and f"{section}.name" in written:  # it begins that section again
        return f"{section}.name"
    if not near and mistake.text.startswith(f"{NO_NAME};"):  # a key of a section that nothing else begins
        near = [path for path in written if path.startswith(f"{section}.")]
    meant = [path for path in near if mistake.text.startswith(f"{path.rpartition('.')[2]} ")]  # it tells its own name
    return next(iter(meant or near), None)


def _plainest(option: str) -> str:
    """``--Exp-Dir`` as ``exp_dir``."""
    return option.lstrip("-").replace("-", "_").lower()


def _list(words: Sequence[str]) -> str:
    return ", ".join(words[:MOST])


def _or(words: Sequence[str], most: int = 4) -> str:
    """``a, b or c``."""
    *first, last = words[:most]
    return f"{', '.join(first)} or {last}" if first else last
