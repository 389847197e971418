"""The training section: what was logged, against the training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddpm_ip.report.compare import describe, show
from ddpm_ip.report.downloads import csv_text, files, standalone
from ddpm_ip.report.markup import Markup, sentence_list, tag
from ddpm_ip.report.numbers import figures
from ddpm_ip.report.plots import LARGEST, Floats, curve, window
from ddpm_ip.report.reading import curve_of
from ddpm_ip.report.run import Run
from ddpm_ip.report.svg import run_label, to_svg
from ddpm_ip.report.texts import CITATION, LOSS, METHOD

MAX_PANELS = 12
NOT_PLOTTED = ("step", "loss", "images_per_s", "seconds", "tflops", "share_of_peak")
TITLES = {"loss": "Loss", "images_per_s": "Images per second", "grad_norm": "Gradient norm", "lr": "Learning rate"}
LINEAR = ("images_per_s", "lr")
"""Quantities that are read as amounts, from zero; all others get a logarithmic axis where they span enough."""


def training_section(runs: Sequence[Run]) -> Markup:
    """Loss first, then speed, then every other number that was logged."""
    logged = [(run.series, run) for run in runs if run.metrics]
    if not logged:
        return tag("section", tag("h2", "Training"), tag("p", "No run has logged metrics."), _method())
    extra = dict.fromkeys(key for _, run in logged for row in run.metrics for key in row if key not in NOT_PLOTTED)
    every = ((key, group) for key in ["images_per_s", *extra] for group in _comparable(logged, key))
    drawn = [(key, group) for key, group in every if any(np.isfinite(series_of(run, key)[1]).any() for _, run in group)]
    panels = [_panel(group, key, f"curve{i}") for i, (key, group) in enumerate(drawn[:MAX_PANELS])]
    left_out = len(drawn) - MAX_PANELS
    return tag(
        "section",
        tag("h2", "Training"),
        tag("ul.legend", [tag("li", run_label(i, name)) for i, name in _names(logged).items()]),
        _smoothing(logged),
        _panel(logged, "loss", "loss"),
        _why_higher(runs),
        tag("div.panels", panels),
        tag("p.quiet", f"{left_out} more logged quantities are not drawn.") if left_out > 0 else None,
        [tag("p.quiet", text) for text in _evaluated(logged)],
        files("training", {"csv": _csv(runs)}, "all logged numbers"),
        _method(),
    )


def _why_higher(runs: Sequence[Run]) -> Markup | None:
    """Why the loss of a run with input perturbation is higher than that of one without, with the bound of each."""
    strengths = dict.fromkeys(gamma for run in runs if (gamma := strength(run)) is not None)
    bounds = [f"{figures(gamma**2 / (1 + gamma**2))} for γ = {show(gamma)}" for gamma in list(strengths)[:6] if gamma]
    return tag("p", LOSS, f"{sentence_list(bounds)}.") if bounds else None


def strength(run: Run) -> float | None:
    """The largest gamma of a run's training; None if it is unknown."""
    gamma = run.settings.get("perturbation.gamma")
    if not isinstance(gamma, int | float) or isinstance(gamma, bool) or not 0 <= gamma < 1e6:
        return None
    return None if describe(run) == "plain DDPM" else float(gamma)


def _csv(runs: Sequence[Run]) -> str:
    """Every number that was logged, a line each."""
    lines = (
        (run.name, row["step"], key, float(value))
        for run in runs
        for row in run.metrics
        for key, value in row.items()
        if key != "step" and _is_number(value) and abs(value) < LARGEST
    )
    return csv_text(("run", "step", "quantity", "value"), lines)


def _method() -> Markup:
    lines = tag("ol.method", [tag("li", line) for line in METHOD])
    return tag("details", tag("summary", "What input perturbation is"), lines, tag("p.quiet", CITATION))


def _names(logged: Sequence[tuple[int, Run]]) -> dict[int, str]:
    """What the lines of a colour are called: runs that differ in their seed alone share one."""
    return {series: run.group or run.name for series, run in logged}


def _smoothing(logged: Sequence[tuple[int, Run]]) -> Markup | None:
    """What is thin and what is bold; short curves are drawn as they are."""
    widths = [str(width) for width in sorted({window(len(run.metrics)) for _, run in logged}) if width > 1]
    if not widths:
        return None
    return tag("p.quiet", f"Thin: as logged. Bold: moving mean over {sentence_list(widths, 'or')} logged values.")


def _comparable(logged: Sequence[tuple[int, Run]], key: str) -> list[list[tuple[int, Run]]]:
    """The runs whose values may share a plot: what ``train.eval`` measured compares under one protocol only."""
    groups: dict[Any, list[tuple[int, Run]]] = {}
    for i, run in logged:
        measured = any(isinstance(v := row.get("values"), Mapping) and key in v for row in run.evaluations)
        groups.setdefault(curve_of(run.evaluations[-1]) if measured else None, []).append((i, run))
    return list(groups.values())


def _evaluated(logged: Sequence[tuple[int, Run]]) -> list[str]:
    """Under which protocol each run was evaluated during training, and the caveats of the numbers."""
    sentences = []
    for _, run in logged:
        newest = run.evaluations[-1] if run.evaluations else {}
        protocol, warnings = newest.get("protocol"), newest.get("warnings")
        if isinstance(protocol, Mapping) and protocol.get("line"):
            notes = [f"Warning: {show(text)}." for text in warnings[:MAX_PANELS]] if isinstance(warnings, list) else []
            sentences.append(" ".join([f"{run.name}, during training: {show(protocol['line'])}.", *notes]))
    return sentences


def series_of(run: Run, key: str) -> tuple[Floats, Floats]:
    """(steps, values) of one logged quantity; lines without it, or where it is no number, are left out.

    What is too large to be drawn is NaN.
    """
    rows = [(float(row["step"]), float(row[key])) for row in run.metrics if _is_number(row.get(key))]
    steps, values = np.array(rows, dtype=np.float64).reshape(-1, 2).T
    return steps, np.where(np.abs(values) < LARGEST, values, np.nan)


def _panel(logged: Sequence[tuple[int, Run]], key: str, ident: str) -> Markup | None:
    """One curve for each run; None if no run has this quantity."""
    series = [(i, *series_of(run, key)) for i, run in logged]
    series = [line for line in series if np.isfinite(line[2]).any()]
    if not series:
        return None
    main, title = key == "loss", TITLES.get(key, show(key))
    gaps = sum(int(np.sum(~np.isfinite(values))) for _, _, values in series)
    picture = to_svg(curve(series, wide=main, log=key not in LINEAR), ident, f"{title} over training steps")
    entries = [(i, 0, name) for i, name in _names(logged).items()]
    return tag(
        "figure.main-plot" if main else "figure",
        tag("figcaption", title, f" ({gaps} of the logged values not finite or beyond {LARGEST:g})" if gaps else None),
        picture,
        files(title, {"svg": standalone(picture, f"{title} over training steps", entries)}),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
