"""The site of the documentation: what is done to its pages, and that its reference leaves nothing out. (docs/site/)

Sphinx, which `make docs` needs, is not needed here.
"""

from __future__ import annotations

import argparse
import re
import sys

import pytest
from tests.pages import PAGES
from tests.tiny import ROOT

import ddpm_ip
from ddpm_ip import cli
from ddpm_ip.parser import Parser
from ddpm_ip.settings import keys

sys.path.insert(0, str(ROOT / "docs/site"))
import reference

import pages

INDEX = (ROOT / "docs/index.md").read_text(encoding="utf-8")
URL = "https://host/tree"


def test_every_page_is_in_the_index_once() -> None:
    listed = [page for _, body in pages.SECTION.findall(INDEX) for _, page in pages.ENTRY.findall(body)]
    assert sorted(listed) == sorted(p.stem for p in PAGES if p.parent.name == "docs" and p.stem != "index")


def test_a_heading_of_the_index_is_a_caption() -> None:
    text = "# T\n[not](this.md)\n## How-to\n* [`a` page](a.md): text\n* [B](b.md)\n\n## Empty\nwords\n"
    assert pages.toctrees(text).split("```")[1::2] == [
        "{toctree}\n:hidden:\n:caption: How-to\n\na page <a>\nB <b>\n",
    ]


@pytest.mark.parametrize(
    ("link", "with_url", "without"),
    [
        ("[a](../src/a.py)", f"[a]({URL}/src/a.py)", "[a](path:../src/a.py)"),
        ("[`a`](../src/a.py#L3)", f"[`a`]({URL}/src/a.py#L3)", "[`a`](path:../src/a.py)"),
        ("[a](../CHANGELOG.md)", "[a](changes.md)", "[a](changes.md)"),
        ("[a](../README.md#b)", "[a](index.md)", "[a](index.md)"),
        ("[a](b.md#c)", "[a](b.md#c)", "[a](b.md#c)"),
        ("`[a](../b.py)`", "`[a](../b.py)`", "`[a](../b.py)`"),
        ("```\n[a](../b.py)\n```\n", "```\n[a](../b.py)\n```\n", "```\n[a](../b.py)\n```\n"),
    ],
)
def test_a_link_out_of_docs_leads_somewhere(link: str, with_url: str, without: str) -> None:
    assert pages.outside_links(link, f"{URL}/") == with_url
    assert pages.outside_links(link, "") == without


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        ("(a: ~typing.Annotated[~m.A | B[int, str], ~m.By(x=[1])] = <factory>)", "(a: ~m.A | B[int, str] = ...)"),
        ("(a: tuple[Annotated[int, F(Ge(0))], ...], b: int)", "(a: tuple[int, ...], b: int)"),
        ("~numpy.ndarray[tuple[~typing.Any, ...], ~numpy.dtype[~numpy.uint8]] | None", "NDArray[uint8] | None"),
        ("(a: TypeAliasForwardRef('numpy.typing.ArrayLike') = 1)", "(a: ArrayLike = 1)"),
    ],
)
def test_a_signature_has_short_types(call: str, shown: str) -> None:
    assert pages.short(call) == shown


def test_a_page_that_help_names_is_a_link() -> None:
    assert reference.escaped("as `docs/a.md` or docs/b-c.md, *x*") == "as `docs/a.md` or [b-c.md](b-c.md), \\*x\\*"


def test_a_page_that_is_named_shows_its_title() -> None:
    text = "[a.md](a.md) [a.md](a.md#b) [b](a.md) `[a.md](a.md)` [c.md](c.md) [a.md](b.md)"
    shown = "[A](a.md) [A](a.md#b) [b](a.md) `[a.md](a.md)` [c](c.md) [a.md](b.md)"
    assert pages.titled_links(text, {"a": "A"}) == shown


def test_every_part_of_the_reference_has_its_place() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    assert sorted(name for text in texts for name in pages.MARK.findall(text)) == sorted(reference.PARTS)


def test_the_reference_has_every_command_and_option() -> None:
    made = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", reference.commands(), re.DOTALL | re.MULTILINE))
    assert list(made) == list(cli._COMMANDS)
    for name, (_, arguments, _) in cli._COMMANDS.items():
        parser = Parser(prog=name, epilog=cli._epilog(name), allow_abbrev=False)
        arguments(parser)
        options = [o for a in parser._actions[1:] if a.help != argparse.SUPPRESS for o in a.option_strings]
        heads = " ".join(re.findall(r"^`(.*)`\n: ", made[name], re.MULTILINE))
        assert [option for option in options if not re.search(rf"(^|[ ,]){option}\b", heads)] == []


def test_the_reference_has_every_key() -> None:
    told = set(re.findall(r"^`([\w.]+)`\n: ", reference.keys(), re.MULTILINE))
    titles = set(re.findall(r"^## ([\w.]+): ", reference.keys(), re.MULTILINE))
    known = {key for key in keys() if not (key.endswith(".name") and key.removesuffix(".name") in titles)}
    filled_in = {"sampling.corrections.chain", "sampling.corrections.calibration"}  # of `auto`, by the program alone
    assert known - filled_in == told - {"sampling.corrections"}  # the list itself


def test_the_reference_has_every_public_name() -> None:
    told = re.findall(r"^\.\. auto(?:class|function):: ddpm_ip\.(\w+)$", reference.python(), re.MULTILINE)
    assert sorted(told) == sorted(name for name in ddpm_ip.__all__ if not name.startswith("_"))


def test_plain_text_stays_plain() -> None:
    assert reference.escaped("a_b*c  <d>\n`e_f` [g]") == r"a\_b\*c \<d\> `e_f` \[g\]"
    assert (
        reference.escaped("see --a_b.c, -e; not x-y or 5-6 `-g --h`") == "see `--a_b.c`, `-e`; not x-y or 5-6 `-g --h`"
    )
