"""The page: self-contained, true to the numbers, safe, and honest about what is missing."""

import base64
import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from PIL import Image

from ddpm_ip.errors import UserError
from ddpm_ip.extras import how_to_install
from ddpm_ip.report.page import write_report
from ddpm_ip.report.pictures import data_uri
from ddpm_ip.report.plots import POINTS, envelope, smooth
from ddpm_ip.report.samples import film

from .synthetic import VALUES, config, make_run, result


class Page(HTMLParser):
    """Elements with their attributes, open ones checked for balance, and the visible text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.open, self.cells = [], [], []
        self.feed(text)
        assert not self.open
        self.ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "hr", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def report(runs, out, **options) -> tuple[str, Page]:
    text = write_report(runs, out / "page.html", **options).read_text(encoding="utf-8")
    return text, Page(text)


def saved(page: Page, name: str) -> str:
    """What the link of a file holds."""
    (link,) = [attributes for attributes in page.all("a") if attributes.get("download") == name]
    return base64.b64decode(link["href"].partition(";base64,")[2]).decode()


def test_self_contained_and_well_formed(runs, tmp_path):
    text, page = report(runs, tmp_path, real=Image.new("L", (40, 40)))
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            value = attributes.get(name, "#")
            saved = tag == "a" and attributes.get("download") and value.startswith(("data:text/csv;", "data:image/"))
            assert value.startswith(("#", "data:image/")) or saved
    assert "@import" not in text
    assert not re.search("https?://|href=[\"']//", text)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert len(page.ids) == len(set(page.ids))
    targets = re.findall(r'(?:url\(#|href="#)([^)"]+)', text)
    assert targets
    assert set(targets) <= set(page.ids)
    assert len(text) < 3_000_000


def test_shows_values_plots_pictures_and_provenance(runs, tmp_path):
    text, page = report(
        runs, tmp_path, notes=["Two halves of the data: 0.3."], floors={"FD-pixels": 0.3}, title="T < U"
    )
    shown = [float(attributes["value"]) for attributes in page.all("data")]
    assert sorted(shown) == sorted([*VALUES.values(), *(value * 0.8 for value in VALUES.values())])
    assert text.count('class="best"') == 4
    # Curves: loss, images/s, grad_norm, lr and the one other key; the effect, the distance; swatches are apart.
    assert sum(attributes.get("class") == "plot" for attributes in page.all("svg")) == 7
    assert "ema_gap" in text
    assert len(page.all("img")) == 2 * len(VALUES) + 2 * 5
    for piece in (
        "T &lt; U",
        "Two halves of the data: 0.3.",
        "floor",
        "12\u202f345",
        "a machine",
        "0123456789",
        "ab" * 32,
    ):
        assert piece in text
    assert "not FID" in text
    assert "ICML 2023" in text


@pytest.mark.usefixtures("drawn_anew")
def test_the_same_folders_give_the_same_bytes(runs, tmp_path):
    first = write_report(runs, tmp_path / "one.html").read_bytes()
    assert write_report(runs, tmp_path / "two.html").read_bytes() == first


def test_into_a_folder(runs, tmp_path):
    assert write_report(runs[:1], tmp_path) == tmp_path / "report.html"
    assert write_report(runs[:1], tmp_path / "new" / "page.html").is_file()


def test_mixed_protocols_have_a_table_each(runs, tmp_path):
    rows = [result(1.0), result(44.0, metric="FID", n_samples=50000), result(2.0, reference_sha256="77" * 32)]
    (runs[0] / "results.json").write_text(json.dumps(rows))
    text, _ = report(runs, tmp_path)
    tables = re.findall(r'<table class="results".*?</table>', text, flags=re.DOTALL)
    values = [set(re.findall(r'value="([^"]+)"', table)) for table in tables]
    assert len(tables) == 3
    assert {"44.0"} in values
    assert {"2.0"} in values
    assert "do not compare across tables" in text
    with pytest.raises(UserError, match="floor"):
        report(runs, tmp_path, floors={"FD-pixels": 1.0})


HOSTILE = "<script>alert('$x')</script>\"&"


def test_hostile_strings_are_text(tmp_path):
    run = make_run(tmp_path / "run <b>&")
    (run / "config.yaml").write_text(yaml.safe_dump(config(0.0) | {"data": {"name": HOSTILE}, HOSTILE: HOSTILE}))
    fields = (
        "metric",
        "var_type",
        "respace_type",
        "sampler",
        "weights",
        "reference",
        "reference_sha256",
        "protocol",
        "grid",
    )
    (run / "results.json").write_text(json.dumps([result(1.0) | dict.fromkeys(fields, HOSTILE)]))
    (run / "provenance.json").write_text(json.dumps({"command": HOSTILE, HOSTILE: {HOSTILE: [HOSTILE]}}))
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 1.0, HOSTILE: 2.0}))
    text, page = report([run, make_run(tmp_path / "other")], tmp_path, title=HOSTILE, notes=[HOSTILE])
    assert not page.all("script")
    assert not page.all("b")
    assert "&lt;script&gt;" in text


def test_missing_pieces_are_named(runs, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.yaml").write_text(yaml.safe_dump(config(0.1)))
    (runs[0] / "eval" / "fixed_large-10.png").unlink()
    (runs[0] / "eval" / "fixed_small-10.png").write_bytes(b"no picture")
    (runs[0] / "samples" / "step001000.png").write_bytes(b"")
    text, _ = report([*runs, bare], tmp_path)
    for name in ("metrics.jsonl", "results.json", "samples/step*.png", "provenance.json"):
        assert f"bare: no {name}" in text
    assert "eval/fixed_large-10.png is missing" in text
    assert "fixed_small-10.png is damaged" in text
    assert "step001000.png is damaged" in text
    alone, _ = report([bare], tmp_path)
    assert "No run has results yet." in alone
    assert "No run has logged metrics." in alone
    assert "No run has sample grids" in alone


def test_odd_numbers_do_not_break_the_page(runs, tmp_path):
    lines = [
        '{"step": 1, "loss": NaN}',
        '{"step": 2, "loss": -1.5}',
        '{"step": 3, "loss": Infinity, "note": "x", "on": true}',
    ]
    (runs[0] / "metrics.jsonl").write_text("\n".join(lines))
    (runs[0] / "results.json").write_text(
        json.dumps([result(0.0), result(float("inf"), steps=1), result(-1.0, steps=7)])
    )
    text, _ = report(runs, tmp_path)
    assert "2 of the logged values not finite" in text


def test_without_matplotlib_the_message_names_the_cure(runs, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=re.escape(how_to_install("plot"))):
        write_report(runs, tmp_path / "page.html")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pictures_keep_their_budget(mode):
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, len(mode)), dtype=np.uint8).squeeze()
    uri = data_uri(Image.fromarray(noise), 40_000)
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 41_000
    flat = data_uri(Image.new(mode, (600, 600)), 40_000)
    assert flat.startswith("data:image/png;base64,")


def test_filmstrip_has_first_and_last(tmp_path):
    grids = [(step, tmp_path) for step in range(23)]
    assert [step for step, _ in film(grids)] == [0, 6, 11, 16, 22]
    assert film(grids[:2]) == grids[:2]
    assert film([]) == []


def test_long_curves_keep_their_spikes():
    steps, values = np.arange(100_000.0), np.ones(100_000)
    values[54_321], values[70_000] = 99.0, np.nan
    x, y = envelope(steps, values)
    assert len(x) <= POINTS
    assert y.max() == 99.0
    assert (np.diff(x) > 0).all()


def test_smoothing_is_a_mean_that_knows_gaps():
    assert smooth(np.full(200, 3.0)) == pytest.approx(np.full(200, 3.0))
    line = np.arange(200.0)
    assert smooth(line)[50:150] == pytest.approx(line[50:150])
    line[100] = np.nan
    assert np.isnan(smooth(line)).sum() == 1
