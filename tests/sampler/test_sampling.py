"""How images are made, as one object: what it says of itself, and every sampler and correction there is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import ROOT, tree

from ddpm_ip.cli import main
from ddpm_ip.config import Config, from_dict, load, merge
from ddpm_ip.errors import ConfigError
from ddpm_ip.options import CORRECTIONS as CORRECTION_NAMES
from ddpm_ip.options import SAMPLERS as SAMPLER_NAMES
from ddpm_ip.run.record import understood
from ddpm_ip.run.row import row_label
from ddpm_ip.sample.store import sample_files
from ddpm_ip.sampler import DDIM, Ancestral, AnySampler, DPMSolver, Sampler, respace
from ddpm_ip.sampler.correction import AnyCorrection, EpsilonScaling
from ddpm_ip.sampler.sampling import Computed, Sampling
from ddpm_ip.schedule import Schedule
from ddpm_ip.variants import variant_name, variants

SAMPLERS = [cls() if cls is not Ancestral else Ancestral("fixed_small") for cls in variants(AnySampler)]
COMPUTED = Computed("no", False, "cpu")
OLD = ROOT / "tests/legacy/v0.1"


# --- every one of them -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_every_sampler_is_a_plan_of_finite_numbers(sampler: AnySampler) -> None:
    assert isinstance(sampler, Sampler)
    for schedule in (Schedule(), Schedule(1000, "cosine"), Schedule(50)):
        for steps in (1, 2, 5, 20):
            times = respace(schedule.total_steps, steps)
            plan = sampler.plan(schedule, times)
            assert plan.update.isfinite().all()
            assert plan.times()[0] == times[0]
            assert plan.after[-1].tolist() == [1, 0], "the clean image is at the end"
            assert not plan.update[-1, 0, -1], "and gets no noise"
            assert len(set(plan.word.tolist())) == plan.visits, "no two visits share their noise"
            assert plan.carry[:, 0].all()


@pytest.mark.parametrize("name", [*map(variant_name, variants(AnySampler))])
def test_every_sampler_is_reached_by_its_name(name: str) -> None:
    config = from_dict({"data": {"name": "digits"}, "sampling": {"sampler": {"name": name}}})
    assert config.sampling.sampler.name == name
    assert from_dict(config.to_dict()) == config


# --- the section and what wins ---------------------------------------------------------------------------------------


def config_of(**overrides: Any) -> Config:
    return from_dict(merge(tree(), overrides))


def test_the_section_reads_and_writes_itself(tmp_path: Path) -> None:
    text = """
data: {name: digits}
sampling:
  sampler: {name: ddim, eta: 0.5}
  corrections: [{name: epsilon_scaling, scale: 1.02}]
  clip: keep_eps
  steps: "10,10,5"
  seed: 18446744073709551615
  block: 32
"""
    (tmp_path / "a.yaml").write_text(text)
    sampling = load(tmp_path / "a.yaml").sampling
    assert sampling == Sampling(
        DDIM(0.5), (EpsilonScaling(1.02),), "keep_eps", "10,10,5", seed=2**64 - 1, block=32
    )  # fmt: skip
    (tmp_path / "b.yaml").write_text(load(tmp_path / "a.yaml").to_yaml())
    assert load(tmp_path / "b.yaml").sampling == sampling


def test_another_sampler_starts_from_its_own_defaults() -> None:
    changed = config_of(**{"sampling.sampler.name": "dpm_solver"}).sampling.sampler
    assert changed == DPMSolver()
    assert config_of(**{"sampling.sampler.eta": 0.5}).sampling.sampler == DDIM(0.5), "only one has an eta"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"sampling.sampler.name": "ddimm"}, "sampling.sampler.name: unknown name 'ddimm'; did you mean ddim"),
        ({"sampling.sampler": {"name": "ddim", "eta": 2}}, "sampling.sampler: eta must lie in"),
        ({"sampling.corrections": [{"name": "epsilon"}]}, "sampling.corrections.0.name: unknown name 'epsilon'"),
        ({"sampling.corrections": [{"name": "epsilon_scaling", "scal": 1}]}, r"corrections.0.scal: .*mean scale"),
        ({"sampling.block": 0}, "must be at least 1"),
        ({"sampling.seed": -1}, "seed must lie in"),
        ({"sampling.spacing": "karas"}, "unknown spacing .*'karas'.*did you mean karras"),
        ({"sampling.spacing": "karras,rh=3"}, "its settings are rho, sigma_min, sigma_max, whole"),
        ({"sampling.spacing": "logSNR"}, "did you mean logsnr"),
        ({"sampling.spacing": "[999,abc]"}, r"the spacing \[999,abc\]: a list of times is of numbers"),
        ({"sampling.spacing": [5, 7]}, "must fall"),
    ],
)
def test_what_cannot_be_is_told_with_its_place(override: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config_of(**override)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"spacing": "karras", "spacing.rho": 5},
            "spacing.rho: sampling.spacing is given, too, as 'karras'",
        ),
        ({"sampler.name": "ddim", "sampler.eta": 2}, "--sampling.sampler.eta: eta must lie in"),
        ({"sampler.name": "heun", "sampler.order": 3}, "order is one of .*, er_sde, ipndm, ipndm_v or unipc"),
        (
            {"sampler.name": "dpm_solver", "sampler.corrected": True},
            "corrected: plays no part with the other",
        ),
        ({"sampler.name": "ddim", "sampler.eta": True}, "sampler.eta: a number is needed, not true/false"),
        ({"sampler": {"name": "unipc"}, "sampler.order": 2, "sampler.lower_order_final": True}, "final: plays no part"),
    ],
)
def test_what_cannot_be_of_the_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_dict(tree(), overrides={f"sampling.{key}": value for key, value in options.items()})


def test_what_plays_no_part_any_more_is_told_of_options_alone() -> None:
    """A file may say all settings of its sampler; an option that makes some of them idle does not have to name them."""
    tree = {"data": {"name": "digits"}, "sampling": {"sampler": {"name": "dpm_solver", "order": 3, "corrected": True}}}
    assert from_dict(tree, overrides={"sampling.sampler.order": 1}).sampling.sampler == DPMSolver(1)


def test_the_names_in_the_help_are_all_that_there_are() -> None:
    assert sorted(map(variant_name, variants(AnySampler))) == list(SAMPLER_NAMES)
    assert sorted(map(variant_name, variants(AnyCorrection))) == list(CORRECTION_NAMES)


@pytest.mark.parametrize(
    ("sampler", "model", "alone", "in_training"),
    [
        (None, "fixed_large", "fixed_large", "fixed_small"),
        (None, "fixed_small", "fixed_small", "fixed_small"),
        ("fixed_large", "fixed_small", "fixed_large", "fixed_large"),
        (None, "learned_range", "learned_range", "learned_range"),
    ],
)
def test_a_variance_that_is_left_open(sampler: str | None, model: str, alone: str, in_training: str) -> None:
    config = config_of(**{"sampling.sampler.var_type": sampler, "diffusion.var_type": model, "sampling.steps": 50})
    assert config.sampling.filled(config.diffusion.var_type).sampler == Ancestral(alone)
    preview = config.sampling_in_training(7)
    assert preview.sampler == Ancestral(in_training)
    assert (preview.steps, preview.seed) == (7, config.seed), "steps are the caller's, the seed is the run's"


def test_previews_use_the_section_s_sampler_and_corrections() -> None:
    config = config_of(**{
        "sampling.sampler.name": "ddim", "sampling.clip": "none", "sampling.corrections": [{"name": "epsilon_scaling"}],
    })  # fmt: skip
    preview = config.sampling_in_training(2000)
    assert (preview.sampler, preview.corrections, preview.clip) == (DDIM(), (EpsilonScaling(),), "none")
    assert preview.steps == 1000, "no more than there are"


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def old_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(OLD, tmp_path_factory.mktemp("old") / "v0.1"))


def sampled(run: Path, folder: Path, *options: str) -> dict[str, Any]:
    given = ["--weights", str(run / "run"), "--n_samples", "2", "--save_dir", str(folder), *options]
    assert main(["sample", *given]) == 0
    return json.loads((folder / "sampling.json").read_text())


@pytest.mark.parametrize(
    ("options", "row", "steps"),
    [
        ("--respace_steps 5", "fixed_large", 5),
        ("--var_type fixed_small --steps 5", "fixed_small", 5),
        ("--sampler ddim,eta=0.5 --steps 5", "ddim,eta=0.5", 5),
        ("--sampler ddim --sampler.eta=0.5 --steps 5", "ddim,eta=0.5", 5),
        ("--ddim_eta 0.5 --steps 3,2", "ddim,eta=0.5", 5),
        ("--sampler dpm_solver --sampler.order 1 --steps ddim10", "dpm_solver,order=1", 10),
        (
            "--sampler ddim --corrections epsilon_scaling,scale=1.02 --clip none --steps 4",
            "ddim,eta=0+epsilon_scaling,scale=1.02+clip=none",
            4,
        ),
        ("--sampling.sampler.name ddim --sampling.steps 3", "ddim,eta=0", 3),
    ],
)
def test_options_and_what_they_mean(old_run: Path, tmp_path: Path, options: str, row: str, steps: int) -> None:
    facts = sampled(old_run, tmp_path / "a", *options.split())
    assert row_label(facts) == row
    assert (facts["steps"], facts["evaluations"]) == (steps, steps)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            "--sampler ddim --var_type fixed_small",
            "the keys of sampling.sampler are name, eta; var_type is one of sampling.sampler.name ancestral",
        ),
        ("--sampler ddim,eta=0.1 --ddim_eta 0.2", "sampling.sampler.eta is given twice"),
        ("--sampler ddim,eta", "'eta' is no KEY=VALUE"),
        ("--corrections scale=1", "write NAME, or NAME,KEY=VALUE"),
        ("--corrections epsilon_scaling epsilon_scaling,scale=2", "epsilon_scaling is given twice"),
        ("--corrections tsr --sampling.corrections []", "sampling.corrections is given twice"),
        ("--steps 10,10,5 --spacing quad", "leave the spacing out"),
        ("--steps 101", "choose 1..100"),
        ("--var_type learned_range", "learned_range needs a network with learned variance"),
    ],
)
def test_options_that_do_not_fit(
    old_run: Path, tmp_path: Path, options: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--weights", str(old_run / "run"), "--n_samples", "2", "--save_dir", str(tmp_path / "a")]
    assert main(["sample", *given, *options.split()]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "a").exists(), "nothing is made"


# --- facts, and those of version 0.1 ---------------------------------------------------------------------------------


def test_facts_say_all_that_an_image_depends_on() -> None:
    diffusion = config_of().to_dict()["diffusion"]
    base = Sampling(DDIM(0.5), (EpsilonScaling(1.02),), steps=5, block=8)
    facts = base.facts(diffusion, COMPUTED)
    assert json.loads(json.dumps(facts)) == facts
    changes: list[dict[str, Any]] = [
        {"sampler": DDIM(0.4)}, {"sampler": DPMSolver()}, {"corrections": ()}, {"corrections": (EpsilonScaling(1.03),)},
        {"clip": "none"}, {"steps": 6}, {"steps": "3,2"}, {"spacing": "quad"}, {"seed": 1}, {"block": 4},
        {"spacing": "karras"}, {"spacing": (900.5, 10, 0), "steps": None}, {"afs": True, "sampler": DDIM()},
        {"denoise_to_zero": False},
    ]  # fmt: skip
    found = [facts, *(dataclasses.replace(base, **change).facts(diffusion, COMPUTED) for change in changes)]
    found += [
        base.facts({**diffusion, "beta_end": 0.01}, COMPUTED),
        base.facts(diffusion, Computed("bf16", True, "cuda")),
    ]
    assert len({json.dumps(one, sort_keys=True) for one in found}) == len(found)
    assert base.facts({**diffusion, "var_type": "fixed_small"}, COMPUTED) == facts, "the sampler says its variance"


@pytest.mark.parametrize(("name", "row", "steps"), [("small", "fixed_small", 10), ("large", "fixed_large", 20)])
def test_samples_of_version_0_1_continue_with_the_same_bytes(old_run: Path, name: str, row: str, steps: int) -> None:
    folder = old_run / f"samples-{name}"
    facts = understood(json.loads((folder / "sampling.json").read_text()))
    assert (row_label(facts), facts["steps"], facts["evaluations"]) == (row, steps, steps)
    before = {p.name: p.read_bytes() for p in sample_files(folder)}
    assert len(before) == 6
    (folder / "000001.png").unlink()
    (folder / "000005.png").unlink()
    options = ["--var_type", row, "--respace_steps", str(steps), "--batch_size", "4"]
    options += ["--respace_type", "uniform-trailing", "--seed", "9"] if name == "large" else []
    given = ["-c", str(old_run / "tiny.yaml"), "--weights", str(old_run / "run"), "--save_dir", str(folder)]
    assert main(["sample", *given, "--n_samples", "6", *options]) == 0
    after = {p.name: p.read_bytes() for p in sample_files(folder)}
    assert after == before


def test_a_table_of_version_0_1_continues(old_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = {p.name: p.read_bytes() for p in (old_run / "run/table").glob("*/cell-*.json")}
    assert len(cells) == 4
    given = ["-e", str(old_run / "run"), "--extractor", "pixels", "--steps", "10", "5", "--n_samples", "12"]
    assert main(["table", *given, "--batch_size", "4"]) == 0
    said = capsys.readouterr()
    assert "4 of 4 cells are there" in said.err
    assert len(list((old_run / "run/table").glob("*/protocol.json"))) == 1
    more = ["--sampler", "ddim", "--corrections", "epsilon_scaling,scale=1.01"]
    assert main(["table", *given, "--batch_size", "4", *more]) == 0
    shown = capsys.readouterr().out
    assert "ddim+epsilon_scaling,scale=1.01" in shown
    assert {p.name: p.read_bytes() for p in (old_run / "run/table").glob("*/cell-*.json")}.items() >= cells.items()
    (whole,) = (old_run / "run/table").glob("*/table.json")
    labels = [row["label"] for row in json.loads(whole.read_text())["blocks"][0]["rows"]]
    assert labels == ["ddim+epsilon_scaling,scale=1.01", "fixed_large", "fixed_small"]
