"""The provenance section: for each run, everything needed to say where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddpm_ip.plain import yaml_text
from ddpm_ip.report.compare import describe, show
from ddpm_ip.report.markup import Markup, join, tag
from ddpm_ip.report.reading import PROVENANCE
from ddpm_ip.report.run import Run
from ddpm_ip.report.svg import run_label

MOST_ENTRIES = 200


def provenance_section(runs: Sequence[Run]) -> Markup:
    """Command, versions, hardware, hashes, and the configuration to unfold."""
    return tag("section", tag("h2", "Provenance"), [_provenance(run, i) for i, run in enumerate(runs)])


def _provenance(run: Run, index: int) -> Markup:
    known = dict(run.provenance or {})
    command = known.pop("command", None)
    protocols = _unique(record.line for record in run.results)
    return join(
        tag("h3", run_label(index, run.name)),
        tag("pre.command", str(command)) if command else None,
        tag("dl.facts", [[tag("dt", name), tag("dd", value)] for name, value in _facts(run, known).items() if value]),
        _details("SHA-256 of weights, reference set and files", _hash_lines(run)),
        _details("Protocol of every number", protocols) if protocols else None,
        _details("Resolved configuration", [yaml_text(run.config)]) if run.config else None,
        [_details(_words(key), _history(value)) for key, value in known.items() if _is_history(value)],
    )


def _facts(run: Run, known: dict[str, Any]) -> dict[str, str]:
    facts = {"Training": describe(run)}
    facts |= {_words(key): _fact(key, value) for key, value in known.items() if not _is_history(value)}
    samplers = _unique(", ".join(filter(None, (r.row, r.spacing))) for r in run.results)
    seeds = sorted({r.seed for r in run.results if r.seed is not None})
    return facts | {"Sampled with": "; ".join(samplers), "Sampling seed": ", ".join(map(str, seeds))}


def _words(key: str) -> str:
    return show(key).replace("_", " ").capitalize()


def _is_history(value: Any) -> bool:
    """Whether a value is a list of records, such as the processes or the changes before this one."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _history(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["; ".join(f"{key}: {show(value)}" for key, value in one.items()) for one in entries[:MOST_ENTRIES]]
    more = len(entries) - MOST_ENTRIES
    return [*lines, *([f"... and {more} more, in {PROVENANCE}"] if more > 0 else [])]


def _fact(key: str, value: Any) -> str:
    """One entry of ``provenance.json``; whatever else someone put there is shown too."""
    if value is None:
        return ""
    if key == "git" and isinstance(value, dict):
        changed = ", with uncommitted changes" if value.get("dirty") else ""
        return f"{show(value.get('commit') or 'unknown commit')}{changed}"
    if isinstance(value, dict):
        return ", ".join(f"{show(name)} {show(item)}" for name, item in value.items())
    return show(value)


def _hash_lines(run: Run) -> list[str]:
    weights = [f"{digest}  weights" for digest in _unique(r.weights for r in run.results)]
    references = _unique(f"{r.reference_sha256}  {r.reference}" if r.reference_sha256 else None for r in run.results)
    return [*weights, *references, *(f"{digest}  {name}" for name, digest in run.hashes.items())]


def _unique(items: Any) -> list[str]:
    return list(dict.fromkeys(item for item in items if item))


def _details(summary: str, lines: Sequence[str]) -> Markup:
    return tag("details", tag("summary", summary), tag("pre", "\n".join(lines)))
