"""The samples section: real images, samples of the runs side by side, and how they developed in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm_ip.report.compare import grouped, show
from ddpm_ip.report.evaluated import sample_files
from ddpm_ip.report.markup import Markup, tag
from ddpm_ip.report.pictures import PAGE_BYTES, contact_sheet, data_uri, open_picture
from ddpm_ip.report.run import Run
from ddpm_ip.report.svg import run_label
from ddpm_ip.report.table import Setting
from ddpm_ip.run.record import SECTIONS
from ddpm_ip.run.row import spacing_name

FILM = 5
MAX_PAIRS = 16


def samples_section(runs: Sequence[Run], real: Image.Image | None) -> Markup:
    """All pictures of the page, which share its byte budget equally."""
    pairs = _grid_files(runs)
    shown = sorted(pairs, key=lambda setting: setting.order)[:MAX_PAIRS]
    films = [film(run.grids) for run in runs]
    limit = PAGE_BYTES // max(
        1, sum(map(len, films)) + sum(len(pairs[setting]) for setting in shown) + (real is not None)
    )
    left_out = f"{len(pairs) - MAX_PAIRS} more settings are not pictured; their grids are in the run folders."
    return tag(
        "section",
        tag("h2", "Samples"),
        tag("figure.real", tag("figcaption", "Real data"), _img(real, "Real images", limit)) if real else None,
        _side_by_side(runs, pairs, shown, limit) if shown else tag("p", "No run has sample grids from an evaluation."),
        tag("p.quiet", left_out) if len(pairs) > MAX_PAIRS else None,
        [tag("p.quiet", sentence) for run in runs if (sentence := _kept(run))],
        tag("h3", "During training") if any(films) else None,
        [_filmstrip(run, film, i, limit) for i, (run, film) in enumerate(zip(runs, films, strict=True)) if film],
    )


def film(grids: Sequence[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """Up to five grids: the first, the last, and evenly spaced ones between."""
    chosen = np.linspace(0, len(grids) - 1, min(FILM, len(grids))).round().astype(int)
    return [grids[i] for i in chosen]


def _grid_files(runs: Sequence[Run]) -> dict[Setting, dict[str, str]]:
    """For each setting, by run: the grid that ``results.json`` names (the newest)."""
    found: dict[Setting, dict[str, str]] = {}
    for run in runs:
        for result in run.results:
            if result.grid:
                found.setdefault(Setting.of(result), {})[run.name] = result.grid
    return found


def _side_by_side(
    runs: Sequence[Run], pairs: Mapping[Setting, Mapping[str, str]], shown: Sequence[Setting], limit: int
) -> Markup:
    mixed = len({setting.spacing for setting in shown} - {SECTIONS}) > 1
    pictured = [(i, run) for i, run in enumerate(runs) if any(run.name in names for names in pairs.values())]
    blocks = []
    for setting in shown:
        title = f"{setting.row}, {show(setting.steps)} {'step' if setting.steps == 1 else 'steps'}"
        detail = f", {spacing_name(setting.spacing or '')}" if mixed and setting.spacing not in (None, SECTIONS) else ""
        figures = [_grid(run, pairs[setting].get(run.name), i, title, limit) for i, run in pictured]
        side = "div.side many" if len(pictured) > 3 else "div.side"
        blocks.append(tag("div.pair", tag("h3", title + detail), tag(side, figures)))
    # Two runs: two settings beside each other; from four runs on: one setting over the whole width.
    columns = f"grid-template-columns: repeat(auto-fill, minmax(min(100%, {13 * min(len(pictured), 4)}rem), 1fr))"
    return tag("div.pairs", blocks, style=columns)


def _grid(run: Run, relative: str | None, index: int, title: str, limit: int) -> Markup:
    caption = tag("figcaption", run_label(index, run.name))
    if relative is None:
        return tag("figure", caption, tag("div.absent", "no samples at this setting"))
    alt = f"Samples of {run.name}, {title}"
    if relative in run.folders:
        sheet = contact_sheet(sample_files(run.folders[relative]))
        return tag("figure", caption, _img(sheet, alt, limit) if sheet else tag("div.absent", f"{relative} is empty"))
    path = run.file(relative)
    picture = _picture(path, alt, limit) if path else None
    return tag("figure", caption, picture or tag("div.absent", f"{relative} is missing"))


def _kept(run: Run) -> str | None:
    """Where the images are that a table kept."""
    homes: dict[str, list[int]] = {}
    for name, count in run.kept:
        homes.setdefault(str(Path(name).parent), []).append(count)
    found = [
        f"{grouped(sum(counts))} in {home}/images-… ({len(counts)} cell{'s' * (len(counts) > 1)})"
        for home, counts in homes.items()
    ]
    return f"{run.name}: images that the table kept: {'; '.join(found)}." if found else None


def _filmstrip(run: Run, chosen: Sequence[tuple[int, Path]], index: int, limit: int) -> Markup:
    figures = [
        tag("figure", tag("figcaption", f"step {grouped(step)}"), _picture(path, f"{run.name} at step {step}", limit))
        for step, path in chosen
    ]
    return tag("figure.strip", tag("figcaption", run_label(index, run.name)), tag("div.film", figures))


def _picture(path: Path, alt: str, limit: int) -> Markup:
    picture = open_picture(path)
    return _img(picture, alt, limit) if picture else tag("div.absent", f"{path.name} is damaged")


def _img(picture: Image.Image, alt: str, limit: int) -> Markup:
    return tag("img", src=data_uri(picture, limit), alt=alt)
