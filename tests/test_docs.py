"""The Python of the README and of docs/*.md runs as it is written: each page's blocks in order, as one program."""

import re
import shutil
from pathlib import Path

import pytest
from tests.tiny import ROOT, finish, start

NOT_RUN = "<!-- not run -->"  # on a line above a block that cannot be run, such as one that shows a pattern
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES.remove(ROOT / "docs/extending.md")  # whose blocks each stand alone: tests/test_extending.py


def program(text: str) -> str:
    """The Python blocks of a page, each line where it is on the page, and nothing else."""
    lines, inside, run, before = [], False, True, ""
    for line in text.splitlines():
        if not inside and re.fullmatch(r"```python\s*", line):
            inside, run = True, before.strip() != NOT_RUN
            line = ""
        elif inside and re.fullmatch(r"```\s*", line):
            inside = False
        lines.append(line if inside and run else "")
        before = line or before  # an empty line may stand between
    assert not inside, "a block has no end"
    return "\n".join(lines)


WITH_PYTHON = [page for page in PAGES if program(page.read_text(encoding="utf-8")).strip()]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder beside the configurations; an error names the line of the page."""
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))
    home = tmp_path / "home"
    shutil.copytree(ROOT / "configs", home / "configs")
    script = tmp_path / f"{page.stem}.py"
    script.write_text(program(page.read_text(encoding="utf-8")), encoding="utf-8")
    code, output = finish(start(script, cwd=home))
    assert code == 0, output


def test_the_readme_has_python() -> None:
    assert ROOT / "README.md" in WITH_PYTHON


def test_blocks_stay_on_their_lines() -> None:
    page = ["text", "```python", "a = 1", "```", "", "```shell", "b", "```", NOT_RUN, "", "```python", "c", "```", "d"]
    page += ["```python", "e = a", "```"]
    expected = [""] * len(page)
    expected[2], expected[15] = "a = 1", "e = a"
    assert program("\n".join(page)).split("\n") == expected


def test_a_block_without_an_end_is_seen() -> None:
    with pytest.raises(AssertionError, match="no end"):
        program("```python\na = 1")
