"""The provenance section: for each run, everything needed to say where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ddpm_ip.plain import yaml_text
from ddpm_ip.report.compare import ABSENT, describe, differing_keys, other_differences, show
from ddpm_ip.report.markup import Markup, join, tag
from ddpm_ip.report.numbers import figures
from ddpm_ip.report.reading import PROVENANCE
from ddpm_ip.report.run import Run
from ddpm_ip.report.svg import run_label

MOST_ENTRIES, MOST_OPEN = 200, 4
LONGEST_COMMIT = 12  # letters; provenance.json has all of them


SAME = "the same in all"


def provenance_section(runs: Sequence[Run]) -> Markup:
    """What differs between the runs, what is the same in all, and the rest of each run to unfold."""
    return tag(
        "section",
        tag("h2", "Provenance"),
        _differences(runs),
        [tag("p", sentence) for sentence in other_differences(runs)],
        _facts_of_all(runs),
        [_provenance(run, folded=len(runs) > MOST_OPEN) for run in runs],
    )


def _differences(runs: Sequence[Run]) -> Markup | None:
    """The settings that differ between the runs, and no other."""
    keys = differing_keys(runs)
    if len(runs) < 2 or not keys:
        return None
    left = [tag("code", key) for key in keys]
    top = [run_label(run.series, run.name) for run in runs]
    values = [[show(run.settings.get(key)) for run in runs] for key in keys]
    return join(tag("h3", "Settings that differ"), _table(left, top, values))


def _facts_of_all(runs: Sequence[Run]) -> Markup:
    """Each fact once where it is the same in all runs, and otherwise by run."""
    facts = [{**_facts(run), "Machine time": machine_time(run) or ""} for run in runs]
    names = [
        name for name in dict.fromkeys(name for one in facts for name in one) if any(one.get(name) for one in facts)
    ]
    same = {name: facts[0].get(name, "") for name in names if len({one.get(name, "") for one in facts}) == 1}
    differ = [name for name in names if name not in same]
    top = [run_label(run.series, run.name) for run in runs]
    values = [[one.get(name, "") or ABSENT for one in facts] for name in differ]
    return join(
        tag("h3", "How they were made" if len(runs) > 1 else "How it was made"),
        _table(list(differ), top, values) if differ else None,
        tag("p.quiet", f"{SAME.capitalize()}:") if differ and same else None,
        tag("dl.facts", [[tag("dt", name), tag("dd", value)] for name, value in same.items()]) if same else None,
    )


def _table(left: Sequence[str], top: Sequence[str], values: Sequence[Sequence[str]]) -> Markup:
    """Facts by run, a column a run; a row a run where that is narrower."""
    if len(top) > max(MOST_OPEN, len(left)):
        left, top, values = top, left, list(zip(*values, strict=True))
    head = tag("tr", tag("td"), [tag("th", name, scope="col") for name in top])
    rows = [
        tag("tr", tag("th", name, scope="row"), [tag("td", value) for value in row])
        for name, row in zip(left, values, strict=True)
    ]
    return tag("div.scroll", tag("table.settings", tag("thead", head), tag("tbody", rows)), tabindex=0)


def machine_time(run: Run) -> str | None:
    """How long the processes of a run trained, by its log, as GPU-hours or hours of processes on CPUs.

    The clock of the log starts again at each resume; a stretch counts up to its last logged line.
    """
    seconds = [float(t) for row in run.metrics if isinstance(t := row.get("seconds"), int | float) and 0 <= t < 1e12]
    if not seconds:
        return None
    total = seconds[-1] + sum(before for before, after in pairwise(seconds) if after < before)
    computed = (run.provenance or {}).get("computed")
    computed = computed if isinstance(computed, Mapping) else {}
    n = computed.get("processes")
    processes = n if type(n) is int and 0 < n < 10**6 else 1
    what = "GPU" if computed.get("device") == "cuda" else "process"
    known = "" if type(n) is int else ", if it was one process"
    seconds_of_all = total * processes
    units = (("hours", 3600), ("minutes", 60), ("seconds", 1))
    unit, size = next((one for one in units if seconds_of_all >= one[1]), units[-1])
    return f"{figures(seconds_of_all / size)} {what}-{unit} of training, by its log{known}"


def _provenance(run: Run, folded: bool) -> Markup:
    known = dict(run.provenance or {})
    command = known.get("command")
    protocols = _unique(record.line for record in run.results)
    name = run_label(run.series, run.name)
    return tag(
        "details.run" if folded else "div.run",
        tag("summary", name) if folded else tag("h3", name),
        tag("pre.command", str(command)) if command else None,
        _details("SHA-256 of weights, reference set and files", _hash_lines(run)),
        _details("Protocol of every number", protocols) if protocols else None,
        _details("Resolved configuration", [yaml_text(run.config)], ".folded") if run.config else None,
        [_details(_words(key), _history(value)) for key, value in known.items() if _is_history(value)],
    )


def _facts(run: Run) -> dict[str, str]:
    known = {key: value for key, value in (run.provenance or {}).items() if key != "command"}
    facts = {"Training": describe(run)}
    facts |= {_words(key): _fact(key, value) for key, value in known.items() if value != [] and not _is_history(value)}
    spacings = _unique(record.spacing for record in run.results)
    apart = len(spacings) > 1  # then each has its own
    samplers = _unique("@".join(filter(None, (r.label, r.spacing if apart else None))) for r in run.results)
    seeds = sorted({r.seed for r in run.results if r.seed is not None})
    times = {} if apart else {"Times": "".join(spacings)}
    return facts | {"Sampled with": "; ".join(samplers), **times, "Sampling seed": ", ".join(map(str, seeds))}


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
        return f"{show(value.get('commit') or 'unknown commit')[:LONGEST_COMMIT]}{changed}"
    if key == "started" and isinstance(value, str):
        return value.replace("T", " ", 1).removesuffix("+00:00") + " UTC" * value.endswith("+00:00")
    if isinstance(value, dict):
        return ", ".join(f"{show(name)} {show(item)}" for name, item in value.items())
    return show(value)


def _hash_lines(run: Run) -> list[str]:
    weights = [f"{digest}  weights" for digest in _unique(r.weights for r in run.results)]
    references = _unique(f"{r.reference_sha256}  {r.reference}" if r.reference_sha256 else None for r in run.results)
    return [*weights, *references, *(f"{digest}  {name}" for name, digest in run.hashes.items())]


def _unique(items: Any) -> list[str]:
    return list(dict.fromkeys(item for item in items if item))


def _details(summary: str, lines: Sequence[str], css: str = "") -> Markup:
    return tag(f"details{css}", tag("summary", summary), tag("pre", "\n".join(lines)))
