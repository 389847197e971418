"""One self-contained HTML page, and one Markdown text, from run folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from PIL import Image

from ddpm_ip import __version__
from ddpm_ip.files import write_text
from ddpm_ip.report.calibration import calibration_section
from ddpm_ip.report.compare import describe, lead, one_of_each_group, show
from ddpm_ip.report.during import during_training
from ddpm_ip.report.exposure import exposure_section
from ddpm_ip.report.grids import grids_section
from ddpm_ip.report.headline import headline
from ddpm_ip.report.markdown import markdown, plain
from ddpm_ip.report.markup import Markup, join, tag
from ddpm_ip.report.numbers import counted
from ddpm_ip.report.provenance import provenance_section
from ddpm_ip.report.results import MOST_TABLES, results_section
from ddpm_ip.report.run import Run, load_runs
from ddpm_ip.report.samples import samples_section
from ddpm_ip.report.stale import stale
from ddpm_ip.report.table import Table, tables
from ddpm_ip.report.training import training_section

# The page keeps its own promise: a browser refuses to load anything from elsewhere.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    runs: Sequence[Path | str | Run],
    out: Path | str,
    title: str | None = None,
    notes: Sequence[str] = (),
    real: Image.Image | None = None,
    floors: Mapping[str, float] | None = None,
) -> Path:
    """Writes the report of one or several runs as one HTML file without any other resource.

    What is damaged in a folder is left out, with a sentence on the page. The same folders give the same bytes. Numbers
    of different protocols (metric, reference set, number of images) never share a table.

    Args:
        runs: run folders (EXP_DIR), or loaded runs.
        out: the file to write; in an existing folder, ``report.html``.
        title: heading of the page; by default made from the runs.
        notes: sentences beneath the results, e.g. what two halves of the real data score against each other.
        real: contact grid of real images, to look at next to the samples.
        floors: by metric, what a perfect sampler would score; stated, and drawn as a line.

    Returns:
        The file that was written.

    Raises:
        UserError: if a folder is not a run folder, or if matplotlib is missing.
    """
    page = html_page(load_runs(runs), title, notes, real, floors or {})
    out = Path(out) / "report.html" if Path(out).is_dir() else Path(out)
    write_text(out, page)
    return out


def markdown_table(runs: Sequence[Path | str | Run]) -> str:
    """The results as Markdown: one table per protocol, each under a line that says what was compared."""
    loaded = load_runs(runs)
    parts = []
    for table in tables(loaded):
        p = table.protocol
        against = f"{p.n_reference or ''} images of {p.reference or 'an unnamed reference set'}".strip()
        digest = f" (SHA-256 {p.reference_sha256[:12]})" if p.reference_sha256 else ""
        samples = f"{p.n_images} samples" if p.n_images is not None else "samples"
        title = plain(f"{p.metric}, {samples} against {against}{digest}")
        parts.append(f"{title}\n\n{markdown(table)}\n")
    damaged = [f"* {plain(f'{run.name}: {problem}.')}\n" for run in loaded for problem in run.problems]
    return "\n".join([*(parts or ["No run has results yet.\n"]), *(["".join(damaged)] if damaged else [])])


def html_page(
    runs: Sequence[Run], title: str | None, notes: Sequence[str], real: Image.Image | None, floors: Mapping[str, float]
) -> Markup:
    """The whole page as text; see :func:`write_report`."""
    title = title or _default_title(runs)
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(files("ddpm_ip.report").joinpath("style.css").read_text(encoding="utf-8"))),
    )
    found = tables(runs)
    results = results_section(found, runs, notes, floors, during_training(runs))  # refuses a floor of nothing
    body = join(
        tag("header", tag("h1", title), tag("p.lead", lead(runs))),
        headline(found, runs, floors),
        _missing(runs),
        samples_section(runs, real),
        results,
        grids_section(runs),
        exposure_section(runs),
        calibration_section(runs, found),
        training_section(runs),
        _protocol(found),
        provenance_section(runs),
        tag("footer.quiet", f"Written by ddpm-ip {__version__} from {counted(len(runs), 'run folder')}."),
    )
    return join(Markup("<!doctype html>\n"), tag("html", tag("head", head), tag("body", tag("main", body)), lang="en"))


def _missing(runs: Sequence[Run]) -> Markup | None:
    """What the run folders lack, and what is not of their newest weights, named once and early."""
    items = [tag("li", f"{run.name}: {what}.") for run in runs for what in (*run.missing(), *run.problems)]
    old = [tag("li", f"{run.name}: {what}.") for run in runs for what in stale(run)]
    notices = (("Missing or damaged", items), ("Stale: not of the newest weights", old))
    return join([tag("div.notice", tag("strong", name), tag("ul", told)) for name, told in notices if told])


def _protocol(found: Sequence[Table]) -> Markup | None:
    """One line for each protocol, that of most numbers; where they differ in it, as in the weights, see Provenance."""
    shown = [Counter(r.line for _, r in table.measured if r.line).most_common(1) for table in found[:MOST_TABLES]]
    lines = [f"{line.rstrip('.')}." for most in shown for line, _ in most]
    more = sum(len(table.lines) - 1 for table in found if table.lines)
    note = f"Of other weights or spacings: {counted(more, 'more line')}, under “Protocol of every number”."
    if not lines:
        return None
    told = [tag("p.protocol-line", line) for line in lines]
    return tag("section", tag("h2", "Protocol"), told, tag("p.quiet", note) if more else None)


def _default_title(runs: Sequence[Run]) -> str:
    named = [run.settings.get("data.name") for run in runs]
    data = list(dict.fromkeys(show(name) for name in named if name and name != "unknown"))
    place = f" on {data[0]}" if len(data) == 1 else ""
    if len(runs) == 1:
        kind = describe(runs[0])
        return kind[0].upper() + kind[1:] + ("," if "," in kind and place else "") + place
    groups = one_of_each_group(runs)
    plain = sum(describe(run) == "plain DDPM" for run in groups)
    if len(groups) == 1:
        kind = describe(runs[0])
        return f"{kind[0].upper()}{kind[1:]}, {len(runs)} seeds{place}"
    return (
        "Input perturbation against plain DDPM" if 0 < plain < len(groups) else f"{len(runs)} runs compared"
    ) + place
