"""The samples section: a matrix of grids for each sampler, images from noise on, and their development in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm_ip.report.compare import grouped, one_of_each_group, show
from ddpm_ip.report.evaluated import sample_files
from ddpm_ip.report.markup import Markup, join, tag
from ddpm_ip.report.numbers import counted
from ddpm_ip.report.pictures import (
    PAGE_BYTES,
    contact_sheet,
    data_uri,
    enlargement,
    lossless,
    open_picture,
    pixel_exact,
    upper_half,
)
from ddpm_ip.report.run import Run
from ddpm_ip.report.svg import run_label
from ddpm_ip.report.table import Setting
from ddpm_ip.run.record import SECTIONS, Record
from ddpm_ip.run.row import spacing_name

FILM = 5
STRIPS = 4  # pictures of how an image came about, of one folder
MAX_GRIDS = 16
MAX_STEPS, MAX_OPEN = 5, 2
WIDTH, FILM_WIDTH, STRIP_WIDTH = 250, 170, 720  # CSS pixels: of a grid, of one of a film, of a strip
SMALL = 170  # ... of a grid on a phone and on paper

SAME_NOISE = "An image began with the same noise in all of these grids; their upper halves are shown."

Found = Mapping[Setting, Mapping[Path, Record]]


def samples_section(runs: Sequence[Run], real: Image.Image | None) -> Markup:
    """All pictures of the page, which share its byte budget equally."""
    found = _grid_files(runs)
    shown = _shown(found)
    pictured = one_of_each_group([run for run in runs if any(run.path in found[s] for s in shown)])
    films = [film(run.grids) for run in one_of_each_group(runs)]
    strips = [sample_files(folder)[:STRIPS] for run in runs for folder in run.strips]
    cells = sum(run.path in found[setting] for setting in shown for run in pictured)
    limit = PAGE_BYTES // max(1, cells + sum(map(len, films)) + sum(map(len, strips)) + (real is not None))
    left_out = len(found) - len(shown)
    return tag(
        "section",
        tag("h2", "Samples"),
        _matrices(pictured, found, shown, limit) if shown else tag("p", "No run has sample grids from an evaluation."),
        tag("p.quiet", _noise(pictured, found, shown)) if shown else None,
        tag("p.quiet", f"{left_out} more settings are not pictured; their grids are in the run folders.")
        if left_out
        else None,
        [tag("p.quiet", sentence) for run in runs if (sentence := _kept(run))],
        tag("figure.real", tag("figcaption", "Real data"), _img(real, "Real images", limit)) if real else None,
        _strips(runs, limit),
        tag("h3", "During training") if any(films) else None,
        [
            _filmstrip(run, film, limit)
            for run, film in zip(one_of_each_group(runs), films, strict=True)
            if film
        ],
    )  # fmt: skip


def film(grids: Sequence[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """Up to five grids: the first, the last, and evenly spaced ones between."""
    chosen = np.linspace(0, len(grids) - 1, min(FILM, len(grids))).round().astype(int)
    return [grids[i] for i in chosen]


def _grid_files(runs: Sequence[Run]) -> dict[Setting, dict[Path, Record]]:
    """For each setting, by run: the measurement whose grid was made last."""
    found: dict[Setting, dict[Path, Record]] = {}
    for run in runs:
        for result in run.results:
            if result.grid:
                found.setdefault(Setting.of(result), {})[run.path] = result
    return found


def _shown(found: Found) -> list[Setting]:
    """The settings that are pictured: of each sampler the first few numbers of steps."""
    settings = sorted(found, key=lambda setting: setting.order)
    few = [s for s in settings if [t for t in settings if t.family == s.family].index(s) < MAX_STEPS]
    return few[:MAX_GRIDS]


def _families(shown: Sequence[Setting]) -> list[list[Setting]]:
    """The settings of each sampler."""
    families: dict[tuple[str, str | None], list[Setting]] = {}
    for setting in shown:
        families.setdefault(setting.family, []).append(setting)
    return list(families.values())


def _matrices(runs: Sequence[Run], found: Found, shown: Sequence[Setting], limit: int) -> Markup:
    """The first samplers, and the others to unfold."""
    every = [_matrix(runs, found, family, limit) for family in _families(shown)]
    more = every[MAX_OPEN:]
    summary = f"{counted(len(more), 'more sampler')}"
    return join(every[:MAX_OPEN], tag("details", tag("summary", summary), more) if more else None)


def _matrix(runs: Sequence[Run], found: Found, family: Sequence[Setting], limit: int) -> Markup:
    """Rows are runs, columns are steps; the name of a run stands above its row, so that a phone has room for both."""
    row = family[0].row
    mixed = len({setting.spacing for setting in found} - {SECTIONS}) > 1
    spacing = family[0].spacing
    detail = f", {spacing_name(spacing or '')}" if mixed and spacing not in (None, SECTIONS) else ""
    names = [f"{show(s.steps)} {'step' if s.steps == 1 else 'steps'}" for s in family]
    head = tag("tr", [tag("th", name, scope="col") for name in names])
    bodies = []
    for run in (run for run in runs if any(run.path in found[setting] for setting in family)):
        cells = [
            _grid(run, found[setting].get(run.path), f"{row}, {name}", limit)
            for setting, name in zip(family, names, strict=True)
        ]
        label = tag("th", run_label(run.series, run.name), scope="rowgroup", colspan=len(family))
        bodies.append(tag("tbody", tag("tr", label), tag("tr", [tag("td", cell) for cell in cells])))
    return tag(
        "div.matrix",
        tag("h3", row + detail),
        tag("div.scroll", tag("table.grids", tag("thead", head), bodies), tabindex=0),
    )


def _noise(runs: Sequence[Run], found: Found, shown: Sequence[Setting]) -> str:
    records = [found[setting][run.path] for setting in shown for run in runs if run.path in found[setting]]
    seeds = {record.seed for record in records}
    grouped_runs = any(run.group != run.name for run in runs)
    groups = " Of runs that differ in their seed alone the first is shown." if grouped_runs else ""
    if len(seeds) == 1 and None not in seeds:
        return f"{SAME_NOISE} Sampling seed {show(next(iter(seeds)))}.{groups}"
    return f"These grids were not all made with the same sampling seed.{groups}"


def _grid(run: Run, record: Record | None, title: str, limit: int) -> Markup:
    if record is None or record.grid is None:
        return tag("div.absent", "no samples at this setting")
    alt, relative = f"Samples of {run.name}, {title}", record.grid
    if relative in run.folders:
        sheet = contact_sheet(sample_files(run.folders[relative]))
        return _img(upper_half(pixel_exact(sheet)), alt, limit) if sheet else tag("div.absent", f"{relative} is empty")
    path = run.file(relative)
    if path is None:
        return tag("div.absent", f"{relative} is missing")
    picture = open_picture(path)
    return (
        _img(upper_half(pixel_exact(picture)), alt, limit) if picture else tag("div.absent", f"{path.name} is damaged")
    )


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


def _strips(runs: Sequence[Run], limit: int) -> Markup | None:
    """From noise to images: the strips that ``ddpm-ip sample --mode denoise`` left in a run."""
    found = []
    for run in runs:
        for folder in run.strips:
            files = sample_files(folder)[:STRIPS]
            pictures = [_picture(path, f"{run.name}: from noise to image", limit, STRIP_WIDTH) for path in files]
            name = tag("figcaption", run_label(run.series, run.name), f" ({folder.relative_to(run.path)})")
            found += [tag("figure.strip", name, tag("div.scroll", pictures, tabindex=0))] if pictures else []
    told = tag("p.quiet", "A row is an image on its way: pure noise at the left, what is kept at the right.")
    return tag("div", tag("h3", "From noise to image"), found, told) if found else None


def _filmstrip(run: Run, chosen: Sequence[tuple[int, Path]], limit: int) -> Markup:
    figures = [
        tag(
            "figure",
            tag("figcaption", f"step {grouped(step)}"),
            _picture(path, f"{run.name} at step {step}", limit, FILM_WIDTH),
        )
        for step, path in chosen
    ]
    return tag("figure.strip", tag("figcaption", run_label(run.series, run.name)), tag("div.film", figures))


def _picture(path: Path, alt: str, limit: int, width: int) -> Markup:
    picture = open_picture(path)
    return _img(picture, alt, limit, width) if picture else tag("div.absent", f"{path.name} is damaged")


def _img(picture: Image.Image, alt: str, limit: int, width: int = WIDTH) -> Markup:
    """A picture in its own pixels, each a square of whole screen pixels."""
    picture = lossless(pixel_exact(picture if picture.mode in ("L", "RGB") else picture.convert("RGB")), limit)
    times, small = (enlargement(picture, room) for room in (width, SMALL if width <= WIDTH else width))
    style = f"--w: {picture.width}px; --times: {times}; --small: {small}"
    return tag("img", src=data_uri(picture, limit), alt=alt, width=picture.width, height=picture.height, style=style)
