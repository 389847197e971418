"""What ``train.eval`` measured during training, in one table: the newest numbers, and the best."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ddpm_ip.metric import higher_is_better
from ddpm_ip.report.compare import grouped
from ddpm_ip.report.markup import Markup, tag
from ddpm_ip.report.reading import EVALUATIONS
from ddpm_ip.report.run import Run
from ddpm_ip.report.svg import run_label
from ddpm_ip.run.record import records

COLUMNS = ("Run", "Metric", "Evaluations", "Last", "Best")
CAUTION = (
    "These numbers choose the checkpoint in best/. They are of few images, and the best of many looks better than "
    "it is: do not compare them with the tables above. Curves and protocols are under “Training”."
)


def during_training(runs: Sequence[Run]) -> Markup | None:
    """A row for each run and metric; None if no run was evaluated during training."""
    rows = [row for run in runs for row in _rows(run.series, run)]
    if not rows:
        return None
    head = tag("thead", tag("tr", [tag("th", name, scope="col") for name in COLUMNS]))
    return tag(
        "div.protocol",
        tag("h3", "During training (train.eval)"),
        tag("div.scroll", tag("table.during", head, tag("tbody", rows))),
        tag("p.quiet", CAUTION),
    )


def _rows(index: int, run: Run) -> list[Markup]:
    measured: dict[str, list[tuple[int, float]]] = {}
    for line in run.evaluations:
        for record in records(line, EVALUATIONS):
            measured.setdefault(record.metric, []).append((line["step"], record.value))
    return [
        tag(
            "tr",
            tag("th", run_label(index, run.name), scope="row"),
            [tag("td", text) for text in (metric, grouped(len(found)), _told(found[-1]), _best(metric, found))],
        )
        for metric, found in measured.items()
    ]


def _best(metric: str, found: Sequence[tuple[int, float]]) -> str:
    higher, finite = higher_is_better(metric), [one for one in found if math.isfinite(one[1])]
    if higher is None or not finite:
        return "–"
    return _told((max if higher else min)(finite, key=lambda one: one[1]))


def _told(one: tuple[int, float]) -> str:
    step, value = one
    return f"{value:.4g} (step {grouped(round(step))})"
