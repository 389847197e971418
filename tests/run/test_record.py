"""Records: every kind of file of every version is read to the same words, and which numbers may stand side by side."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddpm_ip.errors import UserError
from ddpm_ip.files import read_json, read_lines, read_rows
from ddpm_ip.run.record import (
    COMPUTED,
    ROW,
    Evaluation,
    Record,
    computed_in_words,
    curve_id,
    identities,
    network,
    records,
)
from ddpm_ip.run.row import row_label
from ddpm_ip.sampler.sampling import Computed, Sampling

RUN = Path(__file__).parents[1] / "legacy" / "v0.1" / "run"
CELLS = sorted(RUN.glob("table/*/cell-*.json"))
WEIGHTS = "93d8f77ae03a4e7052313f564dc2e618adafdb406184a423a0d182b904984642"
DDIM = {"sampler": {"name": "ddim", "eta": 0.0}, "corrections": [], "clip": "rederive"}
FACTS = {**DDIM, "steps": 10, "spacing": "quad", "evaluations": 10, "seed": 0}
FACTS |= {"block": 64, "precision": "bf16", "fast": True, "device": "cuda"}


def one(**changes: Any) -> Record:
    known: dict[str, Any] = {"metric": "FD-x", "value": 3.0, "sampling": FACTS, "weights": "ab" * 32, "n_images": 20}
    known |= {"extractor": "x", "extractor_identity": {"resize": "none"}, "reference": "digits"}
    known |= {"reference_sha256": "cd" * 32, "n_reference": 1797, "versions": {"torch": "2"}}
    return dataclasses.replace(Record(**known), **changes)


def sampled(**changes: Any) -> Record:
    return one(sampling={**FACTS, **changes})


# --- reading ----------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_back() -> None:
    record = one(spread=0.1, averaged=True, grid="a.png", line="all of it", samples_path="/a")
    assert records(json.loads(json.dumps(record.to_dict())), "here") == [record]


def test_an_evaluation_is_one_record_a_value() -> None:
    sampling = {**FACTS, "weights": "ab" * 32, "averaged": True}
    protocol = {"extractor": "x", "extractor_identity": {"a": 1}, "n_images": 9, "sampling": sampling, "line": "l"}
    found = records(Evaluation({"FD-x": 1.0, "CS-x": 2.0, "CS-x_std": 0.5}, protocol, []).to_dict(), "here")
    assert [(r.metric, r.value, r.spread) for r in found] == [("FD-x", 1.0, None), ("CS-x", 2.0, 0.5)]
    for record in found:
        assert (record.weights, record.averaged, record.sampling) == ("ab" * 32, True, FACTS)
        assert (record.row, record.steps, record.seed) == ("ddim,eta=0", 10, 0)


def test_the_files_of_version_0_1_say_the_same_of_the_same_number() -> None:
    """A cell, and its row in table.json, which says less itself and the rest for all rows together."""
    table = read_json(RUN / "table" / "table.json")
    rows = {(r.row, r.steps): r for row in table["results"] for r in records(row, "row", table["protocol"])}
    for path in CELLS:
        (cell,) = records(read_json(path), str(path))
        row = rows[cell.row, cell.steps]
        assert (row.value, row.weights, row.n_images) == (cell.value, WEIGHTS, 12)
        assert row.sampling == cell.sampling
        assert row.comparable() == cell.comparable()
        assert row.extractor_identity == {"range": "[0, 1]", "resize": "none"}
    assert {r.row for r in rows.values()} == {"fixed_large", "fixed_small"}


def test_results_of_version_0_1_are_read() -> None:
    (row,) = read_rows(RUN / "results.json")
    (found,) = records(row, "results.json")
    assert (found.metric, found.value, found.row, found.steps) == ("FD-pixels", row["value"], "fixed_small", 5)
    assert (found.spacing, found.evaluations, found.seed, found.n_images) == ("uniform-linspace", 5, 0, 12)
    assert found.described_extractor == "pixels (range [0, 1], resize none)"
    assert found.grid == "eval/fixed_small-5.png"
    assert found.line == row["protocol"]


def test_evaluations_of_version_0_1_share_a_curve_with_todays() -> None:
    first, second = read_lines(RUN / "evaluations.jsonl").rows
    (old,), (again,) = records(first, "1"), records(second, "2")
    assert old.curve() == again.curve()
    today = json.loads(json.dumps(second))
    sampling = today["protocol"]["sampling"]
    row = {
        "sampler": {"name": "ancestral", "var_type": sampling.pop("var_type")},
        "corrections": [],
        "clip": "rederive",
    }
    sampling |= {**row, "spacing": sampling.pop("respace_type"), "evaluations": 4, "diffusion": {"total_steps": 100}}
    today["protocol"] |= {"versions": {"ddpm-ip": "9"}, "line": "in other words"}
    (new,) = records(today, "3")
    assert new.curve() == old.curve()
    assert curve_id(new) == curve_id(old)
    sampling["steps"] = 5
    assert records(today, "4")[0].curve() != old.curve()


@pytest.mark.parametrize("block", [1, 64])
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("fast", [True, False])
def test_old_words_of_what_computed_a_number_are_facts_again(block: int, precision: str, fast: bool) -> None:
    facts = {"block": block, "precision": precision, "fast": fast, "device": "cuda"}
    row = {"metric": "FID", "value": 1, "var_type": "fixed_large", "steps": 3, "computed": computed_in_words(facts)}
    (found,) = records(row, "here")
    assert {key: found.sampling[key] for key in facts} == facts
    (other,) = records({**row, "computed": "in some other way"}, "here")
    assert other.comparable() != records({k: v for k, v in row.items() if k != "computed"}, "here")[0].comparable()


def test_steps_may_be_one_of_guided_diffusions_strings() -> None:
    record = sampled(steps=25, spacing="10,10,5", evaluations=25)
    assert (record.steps, record.spacing, record.evaluations) == ("10,10,5", "sections", 25)
    assert sampled(spacing="ddim50", steps=50).steps == "ddim50"
    assert sampled().steps == 10


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "here: metric, value, sampler, steps missing"),
        ({"metric": "FID", "value": 1, "var_type": "fixed_large"}, "here: steps missing"),
        ({"metric": "FID", "sampling": {}}, "here: value missing"),
        ({"metric": "FID", "value": "much", "sampling": {}}, "value must be a number, got 'much'"),
        ({"metric": "FID", "value": 1, "sampling": [1]}, "sampling must be an object"),
        ({"metric": "FID", "value": 1, "sampling": {"sampler": {}}}, "damaged"),
        ({"metric": "FID", "value": 1, "sampling": {"sampler": 3}}, "damaged"),
        ({"metric": "FID", "value": 1, "sampling": {**FACTS, "corrections": None}}, "damaged"),
        ({"metric": "FID", "value": 1, "sampling": {**FACTS, "steps": 0}}, "steps must be at least 1, got 0"),
        ({"metric": "FID", "value": 1, "sampling": {**FACTS, "evaluations": "x"}}, "evaluations must be a number"),
        ({"metric": "FID", "value": 1, "sampling": {**FACTS, "evaluations": 0}}, "evaluations must be at least 1"),
        ({"metric": "FID", "value": 1, "sampling": {**FACTS, "steps": 10**10}}, "steps must be at most 1,000,000,000"),
        ({"metric": "FID", "value": 1, "sampling": {**FACTS, "spacing": ["a"]}}, "spacing must be a text"),
        ({"values": [1], "protocol": {}}, "values and protocol must be objects"),
        ({"values": {"FID": None}, "protocol": {}}, "value missing"),
    ],
)
def test_damage_is_told_with_its_place(row: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        records(row, "here")
    assert str(caught.value).startswith("here: ")


# --- what may stand side by side --------------------------------------------------------------------------------------

DEPENDS: dict[str, Callable[[], Record]] = {
    "metric": lambda: one(metric="sFD-x"),
    "extractor": lambda: one(extractor="y"),
    "identity": lambda: one(extractor_identity={"resize": "299"}),
    "images": lambda: one(n_images=21),
    "reference": lambda: one(reference_sha256="00" * 32),
    "count of the reference": lambda: one(n_reference=3),
    "block": lambda: sampled(block=32),
    "precision": lambda: sampled(precision="no"),
    "fast": lambda: sampled(fast=False),
    "device": lambda: sampled(device="cpu"),
}
COMPARED: dict[str, Callable[[], Record]] = {
    "seed": lambda: sampled(seed=1),
    "steps": lambda: sampled(steps=20),
    "spacing": lambda: sampled(spacing="uniform"),
    "sampler": lambda: sampled(sampler={"name": "ddim", "eta": 1.0}),
    "corrections": lambda: sampled(corrections=[{"name": "epsilon_scaling", "scale": 1.01}]),
    "clip": lambda: sampled(clip="none"),
    "what a later version adds": lambda: sampled(guidance=2.0),
}
ASIDE: dict[str, Callable[[], Record]] = {
    "value": lambda: one(value=9.0, spread=1.0),
    "versions": lambda: one(versions={"torch": "3"}),
    "line": lambda: one(line="other words", grid="a.png"),
    "name of the reference": lambda: one(reference="the same images"),
    "averaged": lambda: one(averaged=True),
}


@pytest.mark.parametrize("change", DEPENDS)
def test_what_a_number_depends_on_separates(change: str) -> None:
    other = DEPENDS[change]()
    assert other.comparable() != one().comparable()
    assert other.curve() != one().curve()
    assert other.identity() != one().identity()


@pytest.mark.parametrize("change", COMPARED)
def test_what_is_compared_stands_side_by_side_but_on_no_curve(change: str) -> None:
    other = COMPARED[change]()
    assert other.comparable() == one().comparable()
    assert other.curve() != one().curve()
    assert other.identity() != one().identity()


def test_the_keys_of_sampling_are_those_that_are_written() -> None:
    assert (*Sampling().row(), "afs", "denoise_to_zero", "classes") == ROW
    assert tuple(Sampling(afs=True, denoise_to_zero=False, classes=(1,)).row()) == ROW
    assert ("block", *Computed._fields) == COMPUTED


def test_a_curve_is_of_changing_weights() -> None:
    other = one(weights="00" * 32)
    assert other.curve() == one().curve()
    assert other.identity() != one().identity()
    assert one(samples_path="/elsewhere").identity() != one().identity()


@pytest.mark.parametrize("change", ASIDE)
def test_what_a_number_does_not_depend_on_changes_nothing(change: str) -> None:
    other = ASIDE[change]()
    assert other.comparable() == one().comparable()
    assert other.curve() == one().curve()
    assert other.identity() == one().identity()


def test_a_reference_without_a_hash_is_known_by_its_name() -> None:
    assert one(reference_sha256=None, reference="a").comparable() != one(reference_sha256=None).comparable()


def test_a_score_that_looks_at_no_reference_depends_on_none() -> None:
    assert one(metric="CS-x").comparable() == one(metric="CS-x", reference_sha256="00" * 32).comparable()
    assert one(metric="novel").comparable() != one(metric="novel", reference_sha256="00" * 32).comparable()


def test_evaluations_that_measure_the_same_are_known() -> None:
    row = {"values": {"FD-x": 1.0}, "protocol": {"n_images": 3}}
    again = {"values": {"FD-x": 2.0, "KD-x": 1.0}, "protocol": {"n_images": 3, "versions": {"torch": "9"}}}
    assert identities(row) < identities(again)
    damaged = {"values": {"FD-x": "?"}, "protocol": {"n_images": 3}}
    assert identities(damaged)
    assert not identities(damaged) & identities(row)
    assert identities({"values": {}, "protocol": {}})


def test_the_inception_is_that_of_a_version_of_torch_fidelity() -> None:
    versions = {"torch": "2", "torch-fidelity": "0.4.0"}
    assert network("inception", versions) == "torch-fidelity 0.4.0"
    assert [network(name, versions) for name in ("pixels", "dinov2-vit-l-14", None)] == [None] * 3
    assert network("inception", {}) is None


def test_a_sampler_of_which_little_is_known_has_a_label() -> None:
    assert row_label({"sampler": {"name": "ancestral"}}) == "ancestral"
    assert row_label({"sampler": {"name": "ddim", "eta": 0.5}, "clip": "none"}) == "ddim,eta=0.5+clip=none"
