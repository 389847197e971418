"""What is wrong with a tree of plain values, in words: the key as a person writes it, the mistake, the nearest name."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ddpm_ip.plain import quoted, shown
from ddpm_ip.variants import has_name, sections, variant_name


def explain(error: Mapping[str, Any], root: type) -> str:
    """One error of pydantic's as a sentence, with the nearest name that exists.

    Args:
        error: an entry of ``ValidationError.errors()``.
        root: the dataclass that was checked.
    """
    path, variants = _place(error["loc"], root)
    key, kind, given = shown(".".join(path)), error["type"], error["input"]
    for n, part in enumerate(path, 1):
        if part in _SEVERAL and n < len(path):  # pydantic tells of each kind in turn; a person wants to know them all
            return f"{'.'.join(path[:n])}: {_SEVERAL[part]}"
    if kind == "unexpected_keyword_argument":
        section, parents = _place(error["loc"][:-1], root)
        known = [f.name for parent in parents for f in dataclasses.fields(parent)]
        variant = error["loc"][-2] if len(error["loc"]) > 1 else None  # pydantic's name of the chosen one, if there are
        which = f" (of {variant})" if has_name(parents) and variant == variant_name(parents[0]) else ""
        return (
            f"{key}: unknown key"
            + _suggest(path[-1], known, f"the keys of {'.'.join(section) or 'a config'} are")
            + which
        )
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag, known = error["ctx"].get("tag"), [variant_name(v) for v in variants]
        wrong = "not given" if tag is None else f"unknown name {quoted(tag)}"
        return f"{key}.name: {wrong}" + _suggest(tag or "", known, "choose one of")
    if kind == "missing":
        return f"{key}: not given, but needed"
    if kind in ("dataclass_type", "model_attributes_type", "dict_type"):
        return f"{key}: must be a section of keys and values, got {quoted(given)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}" + ("" if kind == "value_error" else f", got {quoted(given)}")


_SEVERAL = {  # values of several plain kinds
    "image_size": "must be a whole number of pixels, or [height, width]",
    "steps": 'must be a whole number, or a text such as "10,10,5" or "ddim50"',
}


def _place(loc: Sequence[Any], root: type) -> tuple[list[str], list[type]]:
    """Where a pydantic error is: the path as a person writes it, and the dataclasses that can stand there.

    (pydantic puts the name of the chosen variant into its path; nobody writes it there.)
    """
    path: list[str] = []
    variants: list[type] = [root]
    for part in loc:
        by_name = {variant_name(v): v for v in variants} if variants and has_name(variants) else {}
        if part in by_name:
            variants = [by_name[part]]
            continue
        path.append(str(part))
        if isinstance(part, int):  # a place in a list of variants
            continue
        variants = sections(variants[0]).get(str(part), []) if len(variants) == 1 else []
    return path, variants


def _suggest(word: str, known: Sequence[str], otherwise: str) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; {otherwise} {', '.join(known)}"
