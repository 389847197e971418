"""Damaged and malicious run folders: a sentence for that part, and the report of the other runs is made."""

import json
import os
import random
import struct
import zlib

import pytest
import yaml
from PIL import Image
from tests.conftest import SHARE

from ddpm_ip.cli import main
from ddpm_ip.errors import UserError
from ddpm_ip.report.page import markdown_table, write_report
from ddpm_ip.report.pictures import open_picture
from ddpm_ip.report.run import Run

from .synthetic import VALUES, config, make_run, result
from .test_evaluated import evaluation, lines
from .test_page import HOSTILE, Page

DEEP = b"[" * 100_000 + b"\n\n"


def page_of(run, other, out):
    """The page of all, well-formed, with all that the other run says; the numbers as Markdown are made, too."""
    bad = run if isinstance(run, list) else [run]
    text = write_report([*bad, other], out / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    shown = {float(attributes["value"]) for attributes in page.all("data")}
    assert shown >= set(VALUES.values())
    assert not {"script", "b", "iframe"} & {name for name, _ in page.elements}
    assert markdown_table([*bad, other])
    return text


@pytest.fixture
def bad(tmp_path):
    return make_run(tmp_path / "bad")


@pytest.fixture
def good(tmp_path):
    return make_run(tmp_path / "good")


FILES = ("config.yaml", "metrics.jsonl", "results.json", "provenance.json", "evaluations.jsonl", "table/table.json")
FILES += ("samples.evaluation.json", "exposure/ddim-10-01234567.json", "calibration-ddim-10-01234567.json")


def several(home, n):
    return [make_run(home / f"bad-{i}") for i in range(n)]


def one_for_each_file(home):
    """Runs, one for each of the files, which lack it and are called after it."""
    runs = {}
    for name in FILES:
        run = make_run(home / f"bad-{len(runs)}")
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).unlink(missing_ok=True)
        runs[name] = run
    return runs


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00garbage\n\n", DEEP, b"null\n\n", b'"text"\n\n', b'{"a": 1e999, "step": [1]}\n\n'],
    ids=["empty", "not UTF-8", "deep", "null", "a text", "odd"],
)
def test_any_file_may_be_damaged(good, tmp_path, content):
    runs = one_for_each_file(tmp_path)
    for name, run in runs.items():
        (run / name).write_bytes(content)
    page_of(list(runs.values()), good, tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to nowhere", "circle", "device", "sparse"])
def test_what_is_no_file_is_told(good, tmp_path, kind):
    runs = one_for_each_file(tmp_path)
    for name, run in runs.items():
        path = run / name
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "sparse":
            with open(path, "wb") as file:
                file.truncate(10**12)
        else:
            path.symlink_to({"link to nowhere": "absent", "circle": path.name, "device": "/dev/zero"}[kind])
    text = page_of(list(runs.values()), good, tmp_path)
    for name, run in runs.items():
        if "evaluation.json" not in name or kind not in ("folder", "sparse"):  # which are no evaluations
            assert f"<li>{run.name}: {name} cannot be read" in text, name


def test_a_damaged_configuration_is_no_plain_ddpm(bad, good, tmp_path):
    (bad / "config.yaml").write_text("a: [1,\n")
    text = page_of(bad, good, tmp_path)
    assert "bad (unknown settings)" in text
    assert "bad: config.yaml cannot be read: it is not valid YAML" in text
    assert "bad: no config.yaml" not in text  # which is another matter
    (bad / "config.yaml").unlink()
    assert "bad: no config.yaml, so its settings are unknown" in page_of(bad, good, tmp_path)


CONFIGS = [
    {"perturbation": 5},
    {"perturbation": {"name": ["input"], "gamma": {"a": HOSTILE}}},
    {"perturbation": {"name": "input", "gamma": "x" * 100_000}},
    {"train": [1, 2], "data": None, "seed": {"a": [{1: 2, "b": 3}]}},
    {"data": {"name": {"deep": HOSTILE}}, 5: 6, None: 7, HOSTILE: HOSTILE},
    {"seed": 10**400, "data": {"name": "d\x00\x1b[31m\u202e"}},
    {f"key{i}": i for i in range(3000)},
    {"when": "!!timestamp 2026-01-01"},
]


def test_a_configuration_may_hold_anything(good, tmp_path):
    runs = several(tmp_path, len(CONFIGS))
    for run, change in zip(runs, CONFIGS, strict=True):
        (run / "config.yaml").write_text(yaml.safe_dump(config(0.0) | change))
    text = page_of(runs, good, tmp_path)
    assert not {"\x00", "\x1b", "\u202e"} & set(text)


@pytest.mark.parametrize(
    "text", ["a: !!binary QUJD\n", "a: !!set {b, c}\n", "? [1, 2]\n: 3\n", "&a a: *a\n", "a: &b [*b]\n"]
)
def test_a_configuration_may_use_all_of_yaml(bad, good, tmp_path, text):
    (bad / "config.yaml").write_text(text)
    page_of(bad, good, tmp_path)


PROVENANCES = [
    {"command": ["a", 1], "git": [1], "versions": 3, "hardware": {"a": HOSTILE}, "data": [], "parameters": "many"},
    {"command": {"a": 1}, "git": {"commit": [HOSTILE], "dirty": HOSTILE}, "versions": [HOSTILE], "started": 10**200},
    {"earlier": [{"command": HOSTILE, "versions": {"a": 1}}] * 3000},
    {"changes": [{"key": HOSTILE, "from": None, "to": [1]}, {}], "earlier": {"earlier": {"command": 1}}},
    {"x" * 10_000: "y" * 1_000_000, HOSTILE: HOSTILE, "data": {"fingerprint": {"a": 1}}},
]


def test_provenance_may_hold_anything(good, tmp_path):
    runs = several(tmp_path, len(PROVENANCES))
    for run, content in zip(runs, PROVENANCES, strict=True):
        (run / "provenance.json").write_text(json.dumps(content))
    text = page_of(runs, good, tmp_path)
    assert len(text) < 2_000_000


def test_a_long_history_is_unfolded_in_lines(bad, good, tmp_path):
    changes = [{"step": i, "key": "train.optim.lr", "to": i / 10} for i in range(1000)]
    (bad / "provenance.json").write_text(json.dumps({"changes": changes}))
    text = page_of(bad, good, tmp_path)
    assert "<summary>Changes</summary>" in text
    assert "step: 7; key: train.optim.lr; to: 0.7" in text
    assert "and 800 more, in provenance.json" in text


NUMBERS = (1e308, -1e308, 1e-320, 10**290, float("nan"), float("inf"), -0.0, True, None, "1", [1], {})


def test_numbers_may_be_anything(good, tmp_path):
    runs = several(tmp_path, len(NUMBERS))
    for run, number in zip(runs, NUMBERS, strict=True):
        with_number(run, number)
    page_of(runs, good, tmp_path)


def with_number(bad, number):
    """Puts it wherever a number should be."""
    logged = [{"step": i, "loss": number if i % 2 else 1.0, "lr": number, "mine": number} for i in range(1, 200)]
    logged += [{"step": number, "loss": 1.0}, {"step": -5, "loss": 1.0}]
    (bad / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged))
    rows = [result(0.5), *(result(0.5) | {key: number} for key in ("value", "spread", "steps", "seed", "n_samples"))]
    rows += [result(number, seed=seed, metric="IS") for seed in range(3)]
    rows += [result(number, steps=k, metric="KID", spread=number) for k in (1, 20)]
    (bad / "results.json").write_text(json.dumps(rows))
    measured = lines(0.5).replace("0.5", json.dumps(number)).replace('"step": 100', '"step": 50')
    (bad / "evaluations.jsonl").write_text(lines(1.0) + measured)
    (bad / "samples.evaluation.json").write_text(json.dumps([evaluation(number), evaluation(1.0, steps=number)]))


ODD = [
    {"values": {"step": 3, "loss": HOSTILE, HOSTILE: 1.0, "FD": "0.5"}},
    {"values": {"FD": [1]}},
    {"values": {}},
    {"protocol": {"sampling": {"sampler": {"name": ["a"]}, "spacing": {"a": 1}, "steps": 5}}},
    {"protocol": {"sampling": {"sampler": 3, "corrections": 5, "steps": 5}}},
    {"protocol": {"sampling": {"sampler": {"name": "a"}, "corrections": ["x"], "clip": [1], "steps": "ddim25"}}},
    {"protocol": {"line": [HOSTILE], "extractor_identity": 5}, "warnings": [HOSTILE, 5, None]},
    {"protocol": {"samples_path": "\x00" * 5000, "grid": "../../x", "reference_sha256": 5}, "grid": "a" * 5000},
]


def test_evaluations_may_hold_anything(good, tmp_path):
    runs = several(tmp_path, len(ODD))
    for i, (run, odd) in enumerate(zip(runs, ODD, strict=True)):
        row = {**evaluation(1.0), **odd}
        (run / "evaluations.jsonl").write_text(lines(1.0) + json.dumps({"step": 500, **row}) + "\n")
        (run / "samples.evaluation.json").write_text(json.dumps([row]))
        (tmp_path / f"beside-{i}.json").write_text(json.dumps([row]))
        rows = [result(0.25 + i), {**result(0.5), **odd.get("protocol", {}), **odd}]
        (run / "results.json").write_text(json.dumps(rows))
    text = page_of(runs, good, tmp_path)
    for i in range(len(ODD)):
        assert f'value="{0.25 + i}"' in text


def test_many_keys_protocols_and_problems_stay_a_page(bad, good, tmp_path):
    row = {f"key {i}": 1.0 for i in range(2000)}
    (bad / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 1.0, **row}) + "\n")
    rows = [result(1.0, n_samples=i) for i in range(200)] + [result("x")] * 500
    (bad / "results.json").write_text(json.dumps(rows))
    text = write_report([good, bad], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "more logged quantities are not drawn" in text
    assert "more protocols are not shown" in text
    assert "more like these" in text
    assert text.count('class="plot"') < 50


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def bomb(width, height):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


PICTURES = {
    "bomb": bomb(20_000, 20_000),
    "bomb that only warns": bomb(10_000, 10_000),
    "empty image": bomb(0, 0),
    "cut": bomb(8, 8)[:40],
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
    "text": b"no picture",
}


@pytest.mark.parametrize("kind", [*PICTURES, "pipe", "folder", "link out", "device"])
def test_pictures_may_be_anything(bad, good, tmp_path, kind):
    Image.new("RGB", (8, 8)).save(tmp_path / "private.png")
    for path in (bad / "eval/fixed_large-10.png", bad / "samples/step000100.png", bad / "samples/step000200.png"):
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind in ("link out", "device"):
            path.symlink_to(tmp_path / "private.png" if kind == "link out" else "/dev/zero")
        else:
            path.write_bytes(PICTURES[kind])
    shown = page_of(bad, good, tmp_path).count("<img")
    assert shown == 2 * (4 + 5) - (1 if kind in ("link out", "device") else 2)  # other grids stand in for links


def test_a_picture_with_more_pixels_than_are_looked_at(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("L", (300, 300)).save(path)
    assert open_picture(path).size == (300, 300)
    monkeypatch.setattr("ddpm_ip.report.pictures.LARGEST", 80_000)
    assert open_picture(path) is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "RGBA"])
def test_pictures_of_any_mode_are_shown(bad, good, tmp_path, mode):
    Image.new(mode, (8, 8)).save(bad / "eval/fixed_large-10.png")
    assert page_of(bad, good, tmp_path).count("<img") == 2 * (4 + 5)


def test_names_are_text_everywhere(tmp_path, good):
    """In titles, labels, alternative texts, captions, headings and the labels of figures."""
    run = make_run(tmp_path / "x\"'><b onload=alert(1)>&amp;\x1b[31m")
    text = page_of(run, good, tmp_path)
    assert "<b onload" not in text
    assert "\x1b" not in text
    assert 'onload="' not in text
    assert "&amp;amp;" in text


def test_the_command_says_what_is_no_run(tmp_path, bad, capsys):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path / "absent", loop, tmp_path / ("x" * 300), bad / "config.yaml"):
        assert main(["report", str(path), str(bad), "-o", str(tmp_path / "page.html")]) == 1
        assert "is not a run folder" in capsys.readouterr().err
    with pytest.raises(UserError):
        Run.load("a\0b")


@pytest.mark.large
@pytest.mark.parametrize("seed", range(2 * SHARE))
def test_mutations_of_every_file(good, tmp_path, seed):
    """Bytes changed, cut, doubled and taken from elsewhere, by a seed."""
    rng = random.Random(seed)
    runs = several(tmp_path, 12)
    for run in runs:
        (run / "evaluations.jsonl").write_text(lines(3.0, 2.0, 1.0))
        (run / "samples.evaluation.json").write_text(json.dumps([evaluation(1.0)]))
        mutate(run, rng)
    page_of(runs, good, tmp_path)


def mutate(run, rng):
    """Mutates one of the files."""
    pieces = [b"null", b"[]", b"{}", b"1e999", b"-1", b'""', b"NaN", b"true", b"\xff", b"\n", b'"', b"9" * 400]
    path = run / rng.choice([name for name in FILES if (run / name).exists()])
    content = path.read_bytes()
    for _ in range(rng.randint(1, 4)):
        at, to = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
        content = content[:at] + rng.choice(pieces) + content[min(to, at + rng.choice([0, 1, 5, 10**6])) :]
    path.write_bytes(content)
