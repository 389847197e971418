"""What ``ddpm-ip table`` wrote, on the page: in its own shape, and among the results of other runs."""

import json

import pytest

from ddpm_ip.report.run import Run, load_runs
from ddpm_ip.report.table import tables

from .synthetic import result
from .test_page import HOSTILE, report


def cell(value, spread=None, mark=""):
    return {"value": value, "spread": spread, "seeds": 1, "mark": mark}


def write_grid(run, value=3.25, **changes):
    (run / "table").mkdir()
    rows = [
        {"label": "fixed_small", "source": None, "cells": [cell(value, 0.125), None]},
        {"label": "published: DDPM [1]", "source": "somebody", "cells": [cell(5.375), cell(11.25, mark="†")]},
    ]
    results = [result(value, "fixed_small", 1000, metric="FID", grid=None, protocol="FID: the line")]
    grid = {
        "method": "DDPM",
        "protocol_id": "0123456789ab",
        "line": "50,000 images",
        "steps": [1000, 100],
        "seeds": [0],
    }
    grid |= {"blocks": [{"metric": "FID", "decimals": 2, "rows": rows}], "notes": ["[1] Not measured here."]}
    (run / "table" / "table.json").write_text(json.dumps(grid | {"results": results} | changes))


def test_the_table_is_shown_with_its_protocol_and_what_is_published(runs, tmp_path):
    assert "As in the papers" not in report(runs, tmp_path)[0]
    write_grid(runs[0])
    text, page = report(runs, tmp_path)
    for piece in ("Protocol 0123456789ab: 50,000 images.", "published: DDPM [1]", "11.25†", "[1] Not measured here."):
        assert piece in text
    assert '<td>3.25<span class="spread"> ± 0.12</span></td><td>–</td>' in text
    assert sum(attributes.get("class") == "published" for attributes in page.all("tr")) == 1
    assert len(page.ids) == len(set(page.ids))


def test_what_all_tables_say_is_said_once(runs, tmp_path):
    for run in runs:
        write_grid(run)
    text, _ = report(runs, tmp_path)
    section = text[text.index("As in the papers") :]
    assert section.count("50,000 images.") == section.count("[1] Not measured here.") == 1
    assert "Protocol 0123456789ab: as above, of other weights." in section


def test_its_numbers_stand_beside_those_of_other_runs(runs):
    for run, value in zip(runs, (3.25, 2.5), strict=True):
        write_grid(run, value)
    pixels, fid = tables(load_runs(runs))
    assert (pixels.protocol.metric, fid.protocol.metric) == ("FD-pixels", "FID")
    assert [c.value for c in fid.cells.values()] == [3.25, 2.5]
    assert fid.lines == ("FID: the line",)


def test_a_run_with_a_table_alone_has_been_evaluated(runs):
    (runs[0] / "results.json").unlink()
    assert any("results.json" in sentence for sentence in Run.load(runs[0]).missing())
    write_grid(runs[0])
    loaded = Run.load(runs[0])
    assert not any("results.json" in sentence for sentence in loaded.missing())
    assert "table/table.json" in loaded.hashes


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": [{}]},
        {"blocks": 3},
        {"blocks": [{"metric": "FID", "decimals": 10**9, "rows": []}]},
        {"blocks": [{"metric": "FID", "decimals": "2", "rows": []}]},
        {"blocks": [{"metric": {"a": 1}, "decimals": 2, "rows": [{"label": "a", "source": None, "cells": [1.0]}]}]},
        {"notes": None},
        {"notes": [3]},
        {"steps": 5},
        {"results": [{}]},
        {"results": 3},
        {"results": [result("much")]},
    ],
)
def test_a_damaged_table_costs_itself_alone(runs, tmp_path, change):
    write_grid(runs[0], **change)
    write_grid(runs[1])
    text, page = report(runs, tmp_path)
    assert "table/table.json" in text
    assert "11.25†" in text  # the other run's
    assert len(page.all("data")) >= 8


def test_hostile_strings_in_it_are_text(runs, tmp_path):
    rows = [{"label": HOSTILE, "source": HOSTILE, "cells": [cell(1.0, mark=HOSTILE), None]}]
    blocks = [{"metric": HOSTILE, "decimals": 2, "rows": rows}]
    write_grid(runs[0], method=HOSTILE, line=HOSTILE, notes=[HOSTILE], protocol_id=HOSTILE, blocks=blocks)
    _, page = report(runs, tmp_path)
    assert not page.all("script")
