"""Every block of a shell or of Python in the README and in docs/*.md is run, or says above it why not.

Commands are run small (tests/pages.py). Python is run by tests/test_docs.py and test_extending.py. Each command is read
by its parser in tests/test_docs.py, also those that are not run.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.pages import PAGES, Block, Place, blocks, smaller
from tests.tiny import ROOT

import ddpm_ip
from ddpm_ip import cli
from ddpm_ip.config import from_dict
from ddpm_ip.plain import parse_yaml
from ddpm_ip.run.folder import RunFolder

BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.language in ("shell", "bash")]
ENDS = {"doctor": (0, 1)}  # 1 if something is wrong, such as MNIST that is not here
RUN = [block for block in SHELL if not block.marked and block.commands]


def test_every_line_of_a_shell_can_be_run_or_says_why_not() -> None:
    assert {block.language for block in BLOCKS} <= {"shell", "python", "yaml", "toml", "text", ""}
    assert {block.place: block.others for block in SHELL if block.others and not block.marked} == {}


def test_a_mark_needs_a_reason(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run -->\n```shell\na\n```\n<!-- not run: b -->\n\n```shell\nddpm-ip a \\\n b # c\n# d\ne\n```"
    )
    first, second = blocks(page)
    assert (first.marked, second.marked, second.line) == (False, True, 7)
    assert (first.others, second.others, second.commands) == (["a"], ["e"], [("a", ["b"])])


@pytest.mark.large
@pytest.mark.parametrize("block", RUN, ids=[f"{block.page.stem}-{block.number}" for block in RUN])
def test_the_commands_of_a_block_run(
    block: Block, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = any("--class" in words or "--classes.count" in words for _, words in block.commands)
    classes |= block.page.stem == "classes"
    place = Place(tmp_path / "home", request.getfixturevalue("trained_with_classes" if classes else "trained"))
    monkeypatch.chdir(place.folder)
    for command, words in block.commands:
        given = smaller(command, words)
        place.provide([command, *words])
        assert cli.main([command, *given]) in ENDS.get(command, (0,)), (block.place, command, given)


def test_the_configuration_on_its_page_is_one() -> None:
    texts = [block.text for block in BLOCKS if block.page.stem == "configuration" and block.language == "yaml"]
    assert [from_dict(parse_yaml(text, "a page")).perturbation.name for text in texts] == ["input"]


FILES = (ROOT / "docs/files.md").read_text(encoding="utf-8")
NAMED = [name for row in re.findall(r"^\| (`.+?) \|", FILES, re.MULTILINE) for name in re.findall(r"`(.+?)`", row)]


def pattern(name: str) -> str:
    """A name of the page as a regular expression of paths in a run."""
    plain = re.escape(name).replace("NNNNNNNN", r"\d{8}").replace("HASH", "[0-9a-f]+").replace(r"\*", "[^/]+")
    return f"{plain}.+" if name.endswith("/") else plain


def test_the_page_of_files_has_every_file_of_a_run(trained_with_classes: Path) -> None:
    there = [path.relative_to(trained_with_classes).as_posix() for path in trained_with_classes.rglob("*.*")]
    assert [path for path in there if not any(re.fullmatch(pattern(name), path) for name in NAMED)] == []
    home = RunFolder(Path("run"))
    paths = [getattr(home, name) for name, kind in vars(RunFolder).items() if isinstance(kind, property)]
    tops = {name.partition("/")[0] for name in NAMED}
    assert {path.name for path in paths if isinstance(path, Path)} <= tops


def test_every_file_on_its_page_is_known_to_the_program() -> None:
    """Each part of a name, but for what stands for something, is in the code as it is, or as its stem."""
    code = "".join(path.read_text(encoding="utf-8") for path in Path(ddpm_ip.__file__).parent.rglob("*.py"))
    parts = {part for name in NAMED for part in re.split(r"/|NNNNNNNN|HASH|\*|NAME|000000|1$", name) if part}
    assert {part for part in parts if part not in code and f'"{Path(part).stem}' not in code} == set()
