"""Makes of pages that are readable on GitHub the pages of a site, while Sphinx reads them. Four things are done:

* The lists of links under the headings of index.md become the site's table of contents.
* A comment such as ``<!-- generated: commands -->`` is replaced by that part of the reference (reference.py).
* A link whose text is the name of a page shows what the index calls that page.
* Links to files outside docs/ lead to SOURCE_URL, where the repository can be read in a browser; without one the
  files are copied into the site, as they are at that moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import reference

CODE = re.compile(r"(^```.*?^```[^\n]*|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
OUTSIDE = re.compile(r"\]\(\.\./([^)\s]+)\)")
ON_SITE = {"README.md": "index.md", "CHANGELOG.md": "changes.md"}  # pages of the site that stand for such files
NAMED = re.compile(r"\[([\w-]+)\.md\]\((?=\1\.md[#)])")
ANNOTATED = re.compile(r"~?(\w+\.)*\bAnnotated\[")
ARRAY = re.compile(r"[\w.~]*ndarray\[tuple\[[\w.~]+, \.\.\.\], [\w.~]*dtype\[(?:~?numpy\.)?(\w+)\]\]")
ALIAS = re.compile(r"(?:[\w.~]+\.)?TypeAliasForwardRef\('(?:\w+\.)*(\w+)'\)")
MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
ENTRY = re.compile(r"^\* \[(.+?)\]\((\S+)\.md\)", re.MULTILINE)


def outside_links(text: str, url: str) -> str:
    """A page whose links to files outside docs/ lead to a URL, or without one to copies."""

    def target(link: re.Match[str]) -> str:
        name = link[1].partition("#")[0]
        if name in ON_SITE:
            return f"]({ON_SITE[name]})"
        return f"]({url.rstrip('/')}/{link[1]})" if url else f"](path:../{name})"

    return outside_code(text, lambda part: OUTSIDE.sub(target, part))


def titled_links(text: str, titles: Mapping[str, str]) -> str:
    """A page whose links called ``page.md`` are called as that page is."""
    return outside_code(text, lambda part: NAMED.sub(lambda link: f"[{titles.get(link[1], link[1])}](", part))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """A page of which everything but blocks and spans of code is changed."""
    return "".join(part if n % 2 else change(part) for n, part in enumerate(CODE.split(text)))


def toctrees(index: str) -> str:
    """The table of contents, in Sphinx's words: a caption for each heading, an entry for each link below it."""
    found = []
    for title, body in SECTION.findall(index):
        if entries := ENTRY.findall(body):
            lines = [f"{name.replace('`', '')} <{page}>" for name, page in entries]
            found.append("\n".join(["```{toctree}", ":hidden:", f":caption: {title}", "", *lines, "```", ""]))
    return "\n".join(found)


def generated(text: str) -> str:
    """A page with the parts of the reference in the places of their comments."""
    return MARK.sub(lambda mark: reference.PARTS[mark[1]](), text)


def read(app: Any, page: str, source: list[str]) -> None:
    """What Sphinx reads in place of a page's text."""
    index = Path(app.srcdir, f"{app.config.root_doc}.md").read_text(encoding="utf-8")
    titles = {name: title for title, name in ENTRY.findall(index)}
    text = titled_links(outside_links(generated(source[0]), app.config.source_url), titles)
    source[0] = f"{text}\n\n{toctrees(index)}" if page == app.config.root_doc else text


def plain_summary(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """A property's first line is a sentence; napoleon would take what is before a colon for its type."""
    if what == "property" and lines:
        lines[0] = lines[0].replace(": ", " – ", 1)


def plain_signature(app: Any, what: str, name: str, thing: Any, options: Any, call: str, returns: str) -> Any:
    """A signature as a reader needs it: types without what they carry for the program, ``...`` for a made default."""
    return tuple(part and short(part) for part in (call, returns))


def short(call: str) -> str:
    """``Annotated[TYPE, more]`` as ``TYPE``; arrays as ``NDArray[uint8]`` and ``ArrayLike``."""
    return ALIAS.sub(r"\1", ARRAY.sub(r"NDArray[\1]", unannotated(call))).replace("<factory>", "...")


def unannotated(text: str) -> str:
    """``Annotated[TYPE, more]`` as ``TYPE``."""
    while start := ANNOTATED.search(text):
        depth, comma, end = 0, 0, start.end()
        while depth or text[end] != "]":
            depth += (text[end] in "[({") - (text[end] in "])}")
            comma = comma or (end if text[end] == "," and not depth else 0)
            end += 1
        text = f"{text[: start.start()]}{text[start.end() : comma or end]}{text[end + 1 :]}"
    return text


def setup(app: Any) -> dict[str, bool]:
    app.add_config_value("source_url", "", "env")
    app.connect("source-read", read)
    app.connect("autodoc-process-signature", plain_signature)
    app.connect("autodoc-process-docstring", plain_summary, priority=100)
    return {"parallel_read_safe": True}
