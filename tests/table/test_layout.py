"""Names of others in a table: they are shown, and do nothing else."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest

from ddpm_ip.run.record import Record
from ddpm_ip.table.averages import compared
from ddpm_ip.table.layout import _notes_on_metrics, as_csv, as_markdown, as_text

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "a | b |\n| --- | --- |",
    "x\n\n# a heading",
    "[click](javascript:alert(1))",
    "![see](https://example.org/pixel.png)",
    "[a][b]",
    "`code` `` more",
    "**bold** *slanted*",
    "a\\|b \\<i>",
    "\x1b[2J\x1b]0;title\x07",
    "\r\x0b\x0c\x85\u2028\u2029\u202e",
    "&lt;b&gt; &amp;",
]


def grid(text: str) -> dict[str, Any]:
    """A table in which everything that comes from a file is this text."""
    cell = {"value": 1.5, "spread": None, "seeds": 1, "mark": ""}
    row = {"label": text, "source": None, "cells": [cell]}
    return {
        "method": text,
        "protocol_id": text,
        "line": text,
        "steps": [text],
        "blocks": [{"metric": text, "decimals": 2, "rows": [row, {**row, "source": text}]}],
        "notes": [text, f"Warning: {text}"],
    }


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_a_name_and_does_nothing_else(text: str) -> None:
    shown = as_markdown(grid(text))
    lines = shown.splitlines()
    assert [bool(line) for line in lines] == [True, False, *[True] * 4, False, True, True]
    assert all(line.isprintable() for line in lines)
    table = lines[2:6]
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3 for line in table), "two columns, whatever the name"
    code = re.sub(r"Protocol `[^`]*`", "", lines[0])  # the protocol, in which no markup is read
    for line in (code, *lines[1:]):
        bare = re.sub(r"\\[\\`*|\[\](!]", "", line)
        assert "<" not in bare
        assert ">" not in bare
        assert "`" not in bare
        assert "](" not in bare
        assert "][" not in bare
        assert bare.count("*") == (4 if line == code else line.startswith("* "))


@pytest.mark.parametrize("text", HOSTILE)
def test_text_and_csv_stay_on_their_lines(text: str) -> None:
    assert all(line.isprintable() for line in as_text(grid(text)).splitlines())
    rows = list(csv.reader(io.StringIO(as_csv(grid(text)))))
    assert [len(row) for row in rows] == [9, 9, 9]
    assert all(field.isprintable() for row in rows[:2] for field in row)


@pytest.mark.parametrize("text", ["fixed_small", "ddim,eta=0.5", "FD-pixels", "[1] Not measured here: a. b.", "‖μ₁‖²"])
def test_ordinary_names_stay_as_they_are(text: str) -> None:
    for form in (as_markdown, as_text, as_csv):
        assert text in form(grid(text))


def test_what_rounds_to_zero_has_no_sign() -> None:
    """Distances such as KID may be a little below zero."""
    table = grid("ddim")
    for row, value in zip(table["blocks"][0]["rows"], (-0.0004, -0.04), strict=True):
        row["cells"] = [{"value": value, "spread": 0.002, "seeds": 2, "mark": ""}]
    assert "| ddim | 0.00 ± 0.00 |" in as_markdown(table)
    assert "-0.04 ± 0.00" in as_text(table)
    averages = compared({"0.9": {**table, "columns": "steps"}})
    assert "0.00 ± 0.00" in averages
    assert "-0.00" not in averages


def test_a_table_says_whose_inception_it_was() -> None:
    versions = ({"torch-fidelity": "0.4.0"}, {"torch-fidelity": "0.5.0"}, {})
    cells = {i: {"FID": Record("FID", 2.0, extractor="inception", versions=of)} for i, of in enumerate(versions)}
    said = [f"The Inception is that of torch-fidelity {version}." for version in ("0.4.0", "0.5.0")]
    assert _notes_on_metrics(cells, 1) == said
    assert (
        _notes_on_metrics({0: {"FD-pixels": Record("FD-pixels", 2.0, extractor="pixels", versions=versions[0])}}, 1)[
            :-1
        ]
        == []
    )
