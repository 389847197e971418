"""The provenance section: for each run, everything needed to say where its numbers come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddpm_ip.plain import yaml_text
from ddpm_ip.report.compare import describe, show
from ddpm_ip.report.markup import Markup, join, tag
from ddpm_ip.report.run import Run
from ddpm_ip.report.svg import run_label


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
        _details("Resolved configuration", [yaml_text(run.config)]),
    )


def _facts(run: Run, known: dict[str, Any]) -> dict[str, str]:
    facts = {"Training": describe(run)}
    facts |= {key.replace("_", " ").capitalize(): _fact(key, value) for key, value in known.items()}
    samplers = _unique(", ".join(filter(None, (r.row, r.spacing))) for r in run.results)
    seeds = sorted({r.seed for r in run.results if r.seed is not None})
    return facts | {"Sampled with": "; ".join(samplers), "Sampling seed": ", ".join(map(str, seeds))}


def _fact(key: str, value: Any) -> str:
    """One entry of ``provenance.json``; whatever else someone put there is shown too."""
    if value is None:
        return ""
    if key == "git" and isinstance(value, dict):
        return f"{value.get('commit') or 'unknown commit'}{', with uncommitted changes' if value.get('dirty') else ''}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {show(item)}" for name, item in value.items())
    return show(value)


def _hash_lines(run: Run) -> list[str]:
    weights = [f"{digest}  weights" for digest in _unique(r.weights for r in run.results)]
    references = _unique(f"{r.reference_sha256}  {r.reference}" if r.reference_sha256 else None for r in run.results)
    return [*weights, *references, *(f"{digest}  {name}" for name, digest in run.hashes.items())]


def _unique(items: Any) -> list[str]:
    return list(dict.fromkeys(item for item in items if item))


def _details(summary: str, lines: Sequence[str]) -> Markup:
    return tag("details", tag("summary", summary), tag("pre", "\n".join(lines)))
