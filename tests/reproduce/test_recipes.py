"""The recipe of the published table asks for what was published, and can be measured."""

import json
from importlib.resources import files

from ddpm_ip.commands import sweep, table
from ddpm_ip.config import load
from ddpm_ip.metric import chosen
from ddpm_ip.perturbation import label
from ddpm_ip.presets import find
from ddpm_ip.reproduce.program import changed
from ddpm_ip.reproduce.recipes import RECIPES, SMOKE


def test_every_cell_that_was_published_is_asked_for():
    asked = RECIPES["paper_table"].asked({}, {})
    assert [label(run.config.perturbation) for run in asked.runs] == ["DDPM", "DDPM-IP, gamma 0.1"]
    args = sweep._table_parser().parse_args(asked.table)
    _, wanted, reference = table.asked(args, [], asked.runs[0].config.to_dict(), "here")
    slots = wanted.slots(asked.runs[0].config)
    places = {(slot.cell.sampling.sampler.var_type, str(slot.column)) for slot in slots}
    entries = json.loads(files("ddpm_ip.table").joinpath("published.json").read_text())
    of_both = [entry for entry in entries if entry["method"] in ("DDPM", "DDPM-IP")]
    assert len(of_both) == 4
    for entry in of_both:
        assert {(entry["variance"], steps) for steps in entry["values"] if steps != "20"} <= places
        assert {(slot.spacing, slot.why_not) for slot in slots} == {(entry["respace_type"], None)}
        assert {slot.cell.n_samples for slot in slots} == {entry["n_samples"]}
    assert len(places) == 8
    assert wanted.metrics is not None
    assert sorted(chosen(wanted.metrics)) == ["fid", "isc"]
    assert reference is None


def test_every_cell_of_the_rehearsal_can_be():
    asked = SMOKE["paper_table"].asked({}, {})
    args = sweep._table_parser().parse_args(asked.table)
    _, wanted, _ = table.asked(args, [], asked.runs[0].config.to_dict(), "here")
    slots = wanted.slots(asked.runs[0].config)
    assert len(slots) == 8
    assert {slot.why_not for slot in slots} == {None}


def test_the_runs_are_those_of_the_presets():
    plain, ip = (run.config for run in RECIPES["paper_table"].asked({}, {}).runs)
    assert ip == load(find("ddpm_ip_cifar10"))
    published = load(find("ddpm_cifar10")).to_dict()
    assert {key for key, value in plain.to_dict().items() if value != published[key]} == {"perturbation"}


def test_what_is_not_as_published_is_named():
    recipe = RECIPES["paper_table"]
    options = {"train.n_steps": 1000, "model.dim": 64, "train.micro_batch": 32, "train.keep_last": 3}
    assert changed(recipe, recipe.asked({}, {})) == []
    (text,) = changed(recipe, recipe.asked(options, {}))
    assert text.startswith("Not trained as published: ")
    assert "train.n_steps: 800000 -> 1000" in text
    assert "model.dim: 128 -> 64" in text
    assert "keep_last" not in text
    assert changed(SMOKE["paper_table"], SMOKE["paper_table"].asked({}, {})) == []
