"""Rows of the benchmark as text with aligned columns, and how much faster ours is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

UNITS = {"train": "images/s", "sample": "evaluations x images/s", "data": "images/s"}
COLUMNS = (
    "system", "batch", "gpus", "precision", "ms", "p10-p90", "rate", "of ours", "GFLOP/img", "TFLOP/s", "of peak",
    "GiB", "warm-up s",
)  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """One block of text a task: a title, the columns, a line for each row, and the ratios."""
    tasks = dict.fromkeys(row["task"] for row in rows)
    return "\n\n".join(_block([row for row in rows if row["task"] == task]) for task in tasks)


def ratios(rows: Sequence[Row]) -> list[str]:
    """``train, batch 128: ours / plain: 3.10x, ours / diffusers: 4.02x``, for whatever was measured besides ours."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["ratio_to_ours"] and not row["ours"]:
            place = f"{row['task']}{_from(row)}, batch {row['batch']}"
            found.setdefault(place, []).append(f"ours / {row['system']}: {1 / row['ratio_to_ours']:.2f}x")
    return [f"{place}: {', '.join(parts)}" for place, parts in found.items()]


def line(row: Row) -> str:
    """A row in a few words, for the log."""
    if row["error"]:
        return f"{row['error']}"
    return f"{row['images_per_s']:,.1f} {UNITS[row['task']]}, {row['ms']:.2f} ms, ready after {row['warmup_s']:.1f} s"


def _block(rows: Sequence[Row]) -> str:
    task = rows[0]["task"]
    return "\n".join([f"{task}: {UNITS[task]}", *_align([COLUMNS, *map(_cells, rows)]), *ratios(rows)])


def _cells(row: Row) -> tuple[str, ...]:
    system = row["system"] + _from(row)
    start = (system, str(row["batch"]), str(row["gpus"]), row["precision"] or "-")
    if row["error"]:
        return (*start, row["error"])
    share, memory = row["share_of_peak"], row["memory_gib"]
    return (
        *start,
        f"{row['ms']:.2f}",
        f"{row['ms_p10']:.2f}-{row['ms_p90']:.2f}",
        f"{row['images_per_s']:.1f}",
        _number(row["ratio_to_ours"], ".2f"),
        _number(row["gflop_per_image"], ".2f"),
        _number(row["tflops"], ".2f"),
        "-" if share is None else f"{100 * share:.0f} %",
        "-" if memory is None else f"{memory['allocated']:.1f}/{memory['reserved']:.1f}",
        f"{row['warmup_s']:.1f}",
    )


def _align(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """The first column to the left, numbers to the right; what stands alone at the end of a line is left as it is."""
    whole = [cells for cells in lines if len(cells) == len(COLUMNS)]
    widths = [max(len(cells[i]) for cells in whole) for i in range(len(COLUMNS))]
    widths[:4] = [max(len(cells[i]) for cells in lines) for i in range(4)]
    return [_join(cells, widths) for cells in lines]


def _join(cells: tuple[str, ...], widths: Sequence[int]) -> str:
    numbers = [text.rjust(width) for text, width in zip(cells[1:], widths[1:], strict=False)]
    if len(cells) < len(COLUMNS):
        numbers[-1] = cells[-1]
    return "  ".join([cells[0].ljust(widths[0]), *numbers])


def _from(row: Row) -> str:
    return f" ({row['source']})" if row["source"] else ""


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
