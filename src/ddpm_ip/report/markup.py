"""HTML from Python calls: every string is escaped, unless it already is markup."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import TypeAlias

VOID = {"meta", "img", "br", "hr"}


class Markup(str):
    """Text that is HTML already. Only this module and fixed texts of the package make it."""

    __slots__ = ()


# Nothing that a page shows, and what would turn the order of letters around.
INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

Child: TypeAlias = "str | Sequence[Child] | None"


def escape(text: str) -> str:
    """Text as HTML, within an element or an attribute; characters that cannot be seen become a mark."""
    return html.escape(INVISIBLE.sub("\ufffd", text))


def join(*children: Child) -> Markup:
    """Children one after the other: strings are escaped, :class:`Markup` is kept, lists are opened, None is skipped."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(escape(child))
        elif child is not None:
            parts.append(join(*child))
    return Markup("".join(parts))


def tag(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Markup:
    """``tag("p", "a < b", class_="lead")`` gives ``<p class="lead">a &lt; b</p>``.

    Args:
        name: the element, with its class after a dot if it has one: ``"p.lead"``.
        children: content, see :func:`join`.
        attributes: a trailing underscore is dropped, others become hyphens; None leaves the attribute out.
    """
    name, _, css = name.partition(".")
    pairs = {"class": css or None, **{key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}}
    text = "".join(
        f" {key}" if value is True else f' {key}="{escape(str(value))}"'
        for key, value in pairs.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Markup(f"<{name}{text}>")
    return Markup(f"<{name}{text}>{join(*children)}</{name}>")


def sentence_list(items: Sequence[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return f" {last} ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
