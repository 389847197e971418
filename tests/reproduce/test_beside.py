"""Rows that were measured stand above those that were published of the same method and variance, and of no other."""

from ddpm_ip.reproduce.beside import DIFFERENCE, beside
from ddpm_ip.table import layout

STEPS = [1000, 100, 50, 10]


def grid(method: str, value: float, weights: str, spacing: str = "uniform-leading") -> layout.Grid:
    """A table of both variances as it is laid out, with what was published of them."""
    protocol = {"extractor": "inception", "data": "cifar10-train", "image_size": 32, "n_samples": 50_000}
    protocol |= {"spacing": spacing, "diffusion": {"total_steps": 1000}, "weights": weights * 64}
    rows = [
        {"sampler": {"name": "ancestral", "var_type": name}, "corrections": [], "clip": "rederive"}
        for name in ("fixed_large", "fixed_small")
    ]
    published, _ = layout._published(protocol, rows, STEPS)
    cells = [{"value": value, "spread": None, "seeds": 1, "mark": ""}, None, None, None]
    own = [{"label": row["sampler"]["var_type"], "source": None, "cells": cells} for row in rows]
    others = layout._published_rows(published, "FID", STEPS, protocol)
    block = {"metric": "FID", "decimals": 2, "rows": [*own, *others]}
    return {
        "method": method, "protocol_id": weights, "line": f"weights {weights * 12}", "protocol": protocol,
        "steps": STEPS, "columns": "steps", "blocks": [block], "notes": ["Both.", method], "results": [],
    }  # fmt: skip


def test_each_row_is_followed_by_what_was_published_of_it():
    found = beside([grid("DDPM", 3.5, "a"), grid("DDPM-IP, gamma 0.1", 4, "b")], ["First."])
    rows = found["blocks"][0]["rows"]
    assert [row["label"] for row in rows] == [
        "DDPM, fixed_large", "published: DDPM, fixed_large [1]", DIFFERENCE,
        "DDPM, fixed_small", "published: DDPM, fixed_small [1]", DIFFERENCE,
        "DDPM-IP, gamma 0.1, fixed_large", "published: DDPM-IP, fixed_large [1]", DIFFERENCE,
        "DDPM-IP, gamma 0.1, fixed_small", "published: DDPM-IP, fixed_small [1]", DIFFERENCE,
    ]  # fmt: skip
    firsts = [row["cells"][0]["value"] for row in rows if row["label"] == DIFFERENCE]
    assert firsts == [3.5 - 3.0459, 3.5 - 5.3727, 4 - 3.2497, 4 - 4.4868]
    assert {row["cells"][1] for row in rows if row["label"] == DIFFERENCE} == {None}, "it is not measured"
    assert found["notes"] == ["First.", "Both.", "DDPM", "DDPM-IP, gamma 0.1"]
    assert found["line"] == f"weights {'a' * 12} and {'b' * 12}"
    text = layout.as_text(found)
    assert "0.45" in text
    assert text.count("published: ") == 4


def test_of_other_times_there_is_no_difference():
    rows = beside([grid("DDPM", 3.5, "a", "quad")])["blocks"][0]["rows"]
    measured_at_all_steps = next(row for row in rows if row["label"] == DIFFERENCE)["cells"]
    assert measured_at_all_steps[0] is not None, "all steps are the same steps"
    few = grid("DDPM", 3.5, "a", "quad")
    few["blocks"][0]["rows"][0]["cells"] = few["blocks"][0]["rows"][0]["cells"][::-1]
    rows = beside([few])["blocks"][0]["rows"]
    assert next(row for row in rows if row["label"] == DIFFERENCE)["cells"] == [None] * 4
