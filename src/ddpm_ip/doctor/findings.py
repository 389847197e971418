"""What the doctor finds, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        level: a ``problem`` must be fixed, a ``note`` should be known.
        what: the thing.
        text: its state.
        cure: what to do, where there is something.
    """

    level: Literal["OK", "note", "problem"]
    what: str
    text: str
    cure: str | None = None


def as_text(findings: Sequence[Finding]) -> str:
    """One screen: a line for each finding, and below it how to fix it."""
    width = max(len(f.what) for f in findings)
    lines = []
    for f in findings:
        lines.append(f"{f.level:<7}  {f.what:<{width}}  {f.text}")
        lines += [f"{'':<7}  {'':<{width}}  -> {f.cure}"] if f.cure else []
    problems, notes = (sum(f.level == level for f in findings) for level in ("problem", "note"))
    return "\n".join([*lines, "", f"{_count(problems, 'problem')}, {_count(notes, 'note')}"])


def as_json(findings: Sequence[Finding]) -> str:
    """The same for programs."""
    problems = sum(f.level == "problem" for f in findings)
    return json.dumps({"problems": problems, "findings": [asdict(f) for f in findings]}, indent=1, ensure_ascii=False)


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
