"""The results table in the published shape, rows by steps, and next to it what others published.

:func:`lay_out` makes it as plain values, which is what ``table.json`` holds; text, Markdown, CSV and the page of
``ddpm-ip report`` are renderings of that.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from ddpm_ip.metric import find, fixed
from ddpm_ip.run.record import Record, computed_in_words, described, network, records
from ddpm_ip.run.row import ROW, corrections_label, row_label, sampler_label, spacing_name
from ddpm_ip.table.rows import brief, labels

Grid = dict[str, Any]  # table.json
Cell = Mapping[str, Any] | None  # value, spread or None, number of seeds, mark; None: not measured
Source = tuple[str, str, str]  # where published numbers come from, how they were made, their respacing
LEADING = {"uniform": "uniform-leading"}  # two names of one rule


def lay_out(
    method: str,
    identity: str,
    protocol: Mapping[str, Any],
    settings: Sequence[Mapping[str, Any]],
    measured: Sequence[Mapping[str, Any]],
) -> Grid:
    """The table.

    Args:
        method: what was trained, such as ``DDPM-IP, gamma 0.1``.
        identity: short hash of the protocol.
        protocol: what all cells have in common; where they have several spacings, a list of these.
        settings: ``sampler``, ``corrections``, ``clip``, ``spacing``, ``steps`` and ``seed`` of every cell that was
            asked for, in order; ``column``, if that is not the steps; and ``why_not``, if there can be no such cell.
        measured: of those that are there, the same with ``values``, ``protocol`` and ``warnings`` of the evaluation,
            and ``identity`` of their own protocol where the table has several.

    Returns:
        ``blocks``, one a metric, with ``rows`` of ``cells`` in the order of ``steps``, the columns, to be shown with
        ``decimals``; ``notes``, sentences beneath it; ``results``, the numbers of single cells, each a row of
        :class:`ddpm_ip.run.record.Record`; the protocol, and whether ``columns`` are steps or evaluations.

    Raises:
        UserError: a cell is damaged.
    """
    settings = [{"spacing": protocol["spacing"], "why_not": None, "column": s["steps"], **s} for s in settings]
    measured = [{"spacing": protocol["spacing"], "identity": identity, **c} for c in measured]
    columns, seeds = (_unique(s[key] for s in settings) for key in ("column", "seed"))
    rows, places = _rows(settings)
    found = {place_key(c): _records(c, protocol) for c in measured}
    published, others = _published(protocol, list(rows.values()), columns)

    def cell(metric: str, label: str, column: Any) -> Cell:
        keys = places.get((label, column), [])
        return _cell([found.get(key, {}).get(metric) for key in keys]) if len(keys) == len(seeds) else None

    def block(metric: str) -> dict[str, Any]:
        ours = [_own_row(label, s, [cell(metric, label, k) for k in columns]) for label, s in rows.items()]
        rows_of_all = [*ours, *_published_rows(published, metric, columns, protocol)]
        return {"metric": metric, "decimals": _decimals(ours), "rows": rows_of_all}

    return {
        "method": method,
        "protocol_id": identity,
        "line": protocol_line(protocol),
        "steps": columns,
        "columns": "steps",
        "seeds": seeds,
        "blocks": [block(metric) for metric in _unique(metric for cell in found.values() for metric in cell)],
        "notes": [
            *_notes(settings, len(measured), seeds),
            *_notes_on_evaluations(rows, places, found),
            *_notes_on_metrics(found, len(seeds)),
            *_unique(f"Warning: {text}" for c in measured for text in c["warnings"]),
            *_notes_on_published(protocol, published, others),
        ],
        "results": [record.to_dict() for cell in found.values() for record in cell.values()],
        "protocol": {**protocol, "evaluation": _evaluation(measured)},
    }


def _rows(
    settings: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Mapping[str, Any]], dict[tuple[str, Any], list[str]]]:
    """A setting of each row, by its label; and the keys of the cells of a row and column, one a seed."""
    rows: dict[str, Mapping[str, Any]] = {}
    places: dict[tuple[str, Any], list[str]] = {}
    for label, s in zip(labels(settings), settings, strict=True):
        rows[label] = s
        places.setdefault((label, s["column"]), []).append(place_key(s))
    return rows, places


def place_key(place: Mapping[str, Any]) -> str:
    """What makes a cell: sampler, corrections and the rest of its row, spacing, steps and seed, as one text."""
    return json.dumps(
        [{key: place[key] for key in ROW if key in place}, *(place.get(k) for k in ("spacing", "steps", "seed"))],
        sort_keys=True,
    )


def protocol_line(protocol: Mapping[str, Any]) -> str:
    """All that the numbers were measured under, as one sentence."""
    p = protocol
    extractor = described(p["extractor"], p["extractor_identity"])
    average = p.get("averaged")
    which = f"averaged weights ({average})" if isinstance(average, str) else "averaged weights"
    which = "weights" if average is False else "weights, averaged or not," if average == "unknown" else which
    return (
        f"{p['n_samples']:,} images a cell, rounded to uint8, against {p['n_reference']:,} of {p['reference']} "
        f"(SHA-256 {p['reference_sha256'][:12]}); extractor {extractor}; {which} {p['weights'][:12]}; "
        f"{' or '.join(_spacings(protocol))} times; {computed_in_words(p)}"
    )


def _spacings(protocol: Mapping[str, Any]) -> list[str]:
    spacing = protocol["spacing"]
    return [spacing] if isinstance(spacing, str) else list(spacing)


def as_text(grid: Grid) -> str:
    """For a terminal: one block a metric, columns aligned."""
    parts = [_filled(f"{grid['method']}. Protocol {grid['protocol_id']}: {grid['line']}.")]
    for block in grid["blocks"]:
        lines = _lines(grid, block)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        parts.append("\n".join(_aligned(line, widths) for line in lines))
    return "\n\n".join([*parts, *(["\n".join(map(_filled, grid["notes"]))] if grid["notes"] else [])]) + "\n"


def as_markdown(grid: Grid) -> str:
    """The same in Markdown."""
    identity = _one_line(grid["protocol_id"]).replace("`", "'")
    parts = [f"**{_markdown(grid['method'])}.** Protocol `{identity}`: {_markdown(grid['line'])}."]
    for block in grid["blocks"]:
        head, *rows = ([_markdown(text) for text in line] for line in _lines(grid, block))
        lines = [head, ["---", *["--:"] * len(grid["steps"])], *rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    notes = [f"* {_markdown(note)}" for note in grid["notes"]]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])]) + "\n"


def _one_line(text: str) -> str:
    """A text without line ends and other characters that are not seen, which become escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _markdown(text: str) -> str:
    """A text of somebody else's, such as the name of a folder, as Markdown that shows it and does nothing else."""
    text = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|`*]|(?<=\])(?=[(\[]))", r"\\\1", text)


def as_csv(grid: Grid) -> str:
    """One line a number, unrounded; those of others name their source."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["metric", "row", "steps", "value", "mark", "spread", "seeds", "source", "protocol"])
    for block in grid["blocks"]:
        for row in block["rows"]:
            for column, cell in zip(grid["steps"], row["cells"], strict=True):
                if cell is not None:
                    numbers = [cell[key] for key in ("value", "mark", "spread", "seeds")]
                    own = "" if row["source"] else f"{grid['line']} [{grid['protocol_id']}]"
                    steps = cell.get("steps") or column
                    fields = [block["metric"], row["label"], steps, *numbers, row["source"], own]
                    writer.writerow([_one_line(x) if isinstance(x, str) else x for x in fields])
    return file.getvalue()


def _filled(text: str) -> str:
    return textwrap.fill(_one_line(text), 120, break_long_words=False, break_on_hyphens=False)


def _lines(grid: Grid, block: Mapping[str, Any]) -> list[list[str]]:
    """The cells of a block as text, the header first."""
    unit = grid.get("columns", "steps")
    head = [block["metric"], *(f"{k} {unit}" if i == 0 else str(k) for i, k in enumerate(grid["steps"]))]
    rows = ([row["label"], *(_show(cell, block["decimals"]) for cell in row["cells"])] for row in block["rows"])
    return [[_one_line(text) for text in line] for line in (head, *rows)]


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    numbers = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
    return "  ".join([line[0].ljust(widths[0]), *numbers])


def _show(cell: Cell, decimals: int) -> str:
    if cell is None:
        return "–"
    spread = "" if cell["spread"] is None else f" ± {fixed(cell['spread'], decimals)}"
    return f"{fixed(cell['value'], decimals)}{cell['mark']}{spread}"


def _decimals(rows: Sequence[Mapping[str, Any]]) -> int:
    """Two as in papers, or as many as give the smallest number that was measured here three figures."""
    values = (cell["value"] for row in rows for cell in row["cells"] if cell)
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    return min(6, max(2, 2 - math.floor(math.log10(min(sizes))))) if sizes else 2


def _row(label: str, source: str | None, cells: Sequence[Cell]) -> dict[str, Any]:
    return {"label": label, "source": source, "cells": list(cells)}


def _own_row(label: str, setting: Mapping[str, Any], cells: Sequence[Cell]) -> dict[str, Any]:
    parts = {
        "sampler": sampler_label(brief(setting)),
        "corrections": "+".join(corrections_label(brief(setting))),
        "spacing": setting["spacing"],
    }
    return {**_row(label, None, cells), **parts}


def _cell(numbers: Sequence[Record | None]) -> Cell:
    """Of one seed its value and, where there is one, its deviation over parts; else mean and deviation over seeds."""
    whole = [record for record in numbers if record is not None]
    if len(whole) < len(numbers):
        return None
    cost = {"steps": whole[0].steps, "evaluations": whole[0].evaluations}
    if len(whole) == 1:
        return {**_number(whole[0].value, whole[0].spread, 1), **cost}
    values = [record.value for record in whole]
    return {**_number(statistics.fmean(values), statistics.stdev(values), len(values)), **cost}


def _number(value: float, spread: float | None, seeds: int, mark: str = "") -> dict[str, Any]:
    return {"value": value, "spread": spread, "seeds": seeds, "mark": mark}


def _published(
    protocol: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], steps: Sequence[int | str]
) -> tuple[list[Mapping[str, Any]], bool]:
    """What others measured with the same extractor, data and variance; and whether of another number of images, too."""
    labels_of = ((row["sampler"].get("var_type"), row_label(brief(row))) for row in rows)
    variances = _unique(variance for variance, label in labels_of if label == variance)
    entries = json.loads(files("ddpm_ip.table").joinpath("published.json").read_text(encoding="utf-8"))
    same = ("extractor", "data", "image_size")
    known = [
        entry
        for variance in variances
        for entry in entries
        if entry["variance"] == variance
        and all(entry[key] == protocol[key] for key in same)
        and any(str(k) in entry["values"] for k in steps)
    ]
    published = [entry for entry in known if entry["n_samples"] == protocol["n_samples"]]
    return published, len(published) < len(known)


def _sources(published: Sequence[Mapping[str, Any]]) -> list[Source]:
    return _unique(_source(entry) for entry in published)


def _source(entry: Mapping[str, Any]) -> Source:
    return entry["source"], entry["note"], entry["respace_type"]


def _published_rows(
    published: Sequence[Mapping[str, Any]], metric: str, steps: Sequence[int | str], protocol: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Numbers of others; marked where the sampling visits other times, which with all steps cannot be."""
    sources, total = _sources(published), protocol["diffusion"]["total_steps"]
    rows = []
    for entry in published:
        numbers = [(k, entry["values"].get(str(k), {}).get(metric)) for k in steps]
        other = _other_times(entry["respace_type"], protocol)
        cells = [None if v is None else _number(v, None, 1, "†" if other and k != total else "") for k, v in numbers]
        if any(cells):
            place = sources.index(_source(entry)) + 1
            rows.append(_row(f"published: {entry['method']}, {entry['variance']} [{place}]", entry["source"], cells))
    return rows


def _other_times(respace_type: str, protocol: Mapping[str, Any]) -> bool:
    return respace_type not in [LEADING.get(mine, mine) for mine in _spacings(protocol)]


def _notes(settings: Sequence[Mapping[str, Any]], measured: int, seeds: Sequence[int]) -> list[str]:
    """What is missing, what cannot be, and of which seeds the numbers are."""
    notes = []
    possible = {place_key(s) for s in settings if s["why_not"] is None}
    if missing := len(possible) - measured:
        notes.append(f"Not finished: {missing} of {len(possible)} cells are missing. The same call makes them.")
    holes: dict[str, dict[str, list[str]]] = {}
    for label, s in zip(labels(settings), settings, strict=True):
        if s["why_not"] is not None:
            columns = holes.setdefault(s["why_not"], {}).setdefault(label, [])
            columns += [] if str(s["column"]) in columns else [str(s["column"])]
    for why_not, rows in holes.items():
        cells = "; ".join(f"{label} at {', '.join(columns)}" for label, columns in rows.items())
        notes.append(f"Not possible: {cells}: {why_not}.")
    if len(seeds) > 1:
        notes.append(f"Mean ± standard deviation over the sampling seeds {', '.join(map(str, seeds))}.")
    return notes


def _notes_on_evaluations(
    rows: Iterable[str], places: Mapping[tuple[str, Any], Sequence[str]], found: Mapping[str, Mapping[str, Record]]
) -> list[str]:
    """Which cells ask the network otherwise than their column says."""
    others = []
    for row in rows:
        told = []
        for (label, column), keys in places.items():
            record = next(iter(found.get(keys[0], {}).values()), None)
            if label == row and record is not None and isinstance(column, int) and record.evaluations != column:
                steps = "" if record.steps in (column, record.evaluations) else f" ({record.steps} steps)"
                told.append(f"{record.evaluations} at {column}{steps}")
        others += [f"{row} {', '.join(told)}"] if told else []
    what = "Evaluations of the network, where they are not the number above"
    return [f"{what}: {'; '.join(others)}."] if others else []


def _notes_on_metrics(cells: Mapping[Any, Mapping[str, Record]], seeds: int) -> list[str]:
    """What the deviations are over, and what the numbers are not."""
    numbers = {record.metric: record for cell in cells.values() for record in cell.values()}
    known = [(name, record, found.metric) for name, record in numbers.items() if (found := find(name)) is not None]
    notes = []
    spread = [
        f"of {name} over {metric.parts} {metric.part}" for name, record, metric in known if record.spread is not None
    ]
    if spread and seeds == 1:
        notes.append(f"± is a standard deviation, {', '.join(spread)} of the images. One sampling seed.")
    whose = _unique(network(r.extractor, r.versions) for cell in cells.values() for r in cell.values())
    notes += [f"The Inception is that of {name}." for name in whose if name is not None]
    return notes + _unique(
        metric.elsewhere for name, _, metric in known if metric.elsewhere and name not in metric.names(None)
    )


def _notes_on_published(
    protocol: Mapping[str, Any], published: Sequence[Mapping[str, Any]], are_there_others: bool
) -> list[str]:
    """The sources, by number; or why there are none."""
    if are_there_others and not published:
        return ["Numbers published for these rows are of 50,000 images a cell, and so have no place here."]
    notes = []
    for number, (source, how, respace_type) in enumerate(_sources(published), 1):
        other = _other_times(respace_type, protocol)
        caveat = f" † Its times are {respace_type}, so this does not compare." if other else ""
        notes.append(f"[{number}] Not measured here: {source}. {how}.{caveat}")
    return notes


def _records(cell: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, Record]:
    """The numbers of a cell by metric, as they stand in ``table.json``."""
    identity = cell["identity"]
    line = f"{protocol_line({**protocol, 'spacing': cell['spacing']})} [{identity}]"
    picture = f"table/{identity}/{cell['grid']}" if cell.get("grid") else None
    numbers = records(cell, f"the cell {row_label(cell)}, {cell['steps']} steps, seed {cell['seed']}")
    spacing = cell["spacing"]
    named = {"spacing": spacing} if spacing_name(spacing) != spacing else {}  # optimised times: one line of a plot
    return {
        r.metric: dataclasses.replace(r, sampling={**r.sampling, **named}, grid=picture, line=f"{r.metric}: {line}")
        for r in numbers
    }


def _evaluation(measured: Sequence[Mapping[str, Any]]) -> Any:
    """What the evaluation says of itself, which is the same for all cells."""
    return {k: v for k, v in measured[0]["protocol"].items() if k not in ("sampling", "line")} if measured else None


def _unique(items: Any) -> list[Any]:
    return list(dict.fromkeys(items))
