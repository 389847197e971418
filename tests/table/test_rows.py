"""Rows and columns of a table: how they are written, what they mean, and which cells can be."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import tiny, with_classes

from ddpm_ip import options, texts
from ddpm_ip.commands.compare_samplers import every_sampler
from ddpm_ip.config import Config, from_dict
from ddpm_ip.errors import ConfigError
from ddpm_ip.run.row import DEFAULTS, row_label, short_label
from ddpm_ip.sample.program import SampleOptions
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver, Plan, Rows
from ddpm_ip.sampler.base import steps
from ddpm_ip.sampler.correction import EpsilonScaling
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.sampler.spacing import shown
from ddpm_ip.schedule import Schedule
from ddpm_ip.table.rows import TableOptions, brief, complete, labels
from ddpm_ip.table.sheet import _stem, place_of

BASE = tiny()


def asked(*words: str, **changes: Any) -> list[Sampling]:
    """The rows of these options."""
    p = argparse.ArgumentParser()
    options.add_many(p)
    options.add_common(p)
    rows, common = options.many_overrides(p.parse_args(words), changes)
    return [from_dict(BASE.to_dict(), overrides={**common, **row}).sampling for row in rows]


def named(rows: Sequence[Sampling]) -> list[str]:
    return labels([{**row.row(), "spacing": shown(row.spacing)} for row in rows])


def test_rows_are_the_product_of_samplers_corrections_and_spacings() -> None:
    rows = asked(
        *[
            "--variance",
            "fixed_small",
            "--sampler",
            "ddim,eta=0.5",
            "--corrections",
            "none",
            "epsilon_scaling,scale=1.01",
        ],
        *["--spacing", "quad", "uniform-trailing"],
    )
    chains, spacings = ((), (EpsilonScaling(1.01),)), ("quad", "uniform-trailing")
    assert [(r.sampler, r.corrections, r.spacing) for r in rows] == [
        (s, c, k) for s in (Ancestral("fixed_small"), DDIM(0.5)) for c in chains for k in spacings
    ]
    assert named(rows)[-1] == "ddim,eta=0.5+epsilon_scaling,scale=1.01@uniform-trailing"
    assert named(rows[::2])[-1] == "ddim,eta=0.5+epsilon_scaling,scale=1.01", "one spacing is not named"


def test_one_value_of_each_is_as_ever() -> None:
    words = "--sampler ddim --corrections epsilon_scaling --spacing quad --clip none"
    (row,) = asked(*words.split())
    assert (row.sampler, row.corrections, row.spacing, row.clip) == (DDIM(), (EpsilonScaling(),), "quad", "none")
    (row,) = asked(**{"sampler.eta": 0.25, "sampling.sampler.name": "ddim"})
    assert (row.sampler, row.spacing) == (DDIM(0.25), "uniform-linspace")


def test_rows_are_written_one_by_one() -> None:
    words = "--sampler ddim --rows fixed_small dpm_solver,order=1+epsilon_scaling+clip=none@quad ddpm --spacing quad"
    rows = asked(*words.split(), **{"sampling.corrections": [{"name": "epsilon_scaling"}]})
    assert rows == [
        Sampling(DDIM(), (EpsilonScaling(),), spacing="quad"),
        Sampling(Ancestral("fixed_small"), spacing="quad"),
        Sampling(DPMSolver(1), (EpsilonScaling(),), "none", spacing="quad"),
        Sampling(Ancestral(), spacing="quad"),
    ]
    assert [row.sampler for row in asked("--rows", "ddim")] == [DDIM()], "alone they are all"


@pytest.mark.parametrize(
    ("words", "chain"),
    [
        ("a,x=1 b", [{"name": "a", "x": 1}, {"name": "b"}]),
        ("a,x=1+b c", [{"name": "a", "x": 1}, {"name": "b"}, {"name": "c"}]),
        ("none", []),
    ],
)
def test_one_way_of_sampling_has_one_chain(words: str, chain: list[dict[str, Any]]) -> None:
    p = argparse.ArgumentParser()
    options.add_single(p)
    options.add_common(p)
    found = options.single_overrides(p.parse_args(["--corrections", *words.split(), "--sampler", "fixed_small"]), {})
    assert found["sampling.corrections"] == chain
    assert (found["sampling.sampler.name"], found["sampling.sampler.var_type"]) == ("ancestral", "fixed_small")


numbers = st.floats(1e-9, 1e9) | st.sampled_from([1e-5, 1e20, 1.0, 1 / 3])
samplings = st.builds(
    Sampling,
    st.builds(DDIM, st.floats(0, 1))
    | st.builds(DPMSolver, st.sampled_from([1, 2]), st.sampled_from(["midpoint", "heun"]))
    | st.sampled_from([Ancestral("fixed_small"), Ancestral("fixed_large")]),
    st.just(()) | st.tuples(st.builds(EpsilonScaling, numbers)),
    st.sampled_from(["rederive", "keep_eps", "none"]),
    spacing=st.sampled_from(["quad", "uniform", "uniform-linspace"]),
)  # fmt: skip


@given(st.lists(samplings, min_size=1, max_size=3))
def test_a_label_is_the_text_of_its_row(rows: list[Sampling]) -> None:
    mixed = len({row.spacing for row in rows}) > 1
    told = [] if mixed else ["--spacing", str(rows[0].spacing)]
    assert asked("--rows", *named(rows), *told) == rows
    assert asked("--rows", *(row_label(row.row()) for row in rows), "--spacing", "quad") == [
        dataclasses.replace(row, spacing="quad") for row in rows
    ], "a report says all settings"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rows ddim@quad@uniform", "one spacing"),
        ("--rows ddim+clp=none", r"clp=\.\.\. is none of clip"),
        ("--rows ddim+clip=none+clip=keep_eps", "given twice"),
        ("--rows ddim+", "write NAME"),
        ("--rows ddim,eta", "'eta' is no KEY=VALUE"),
        ("--rows ddim --corrections none", "rows of --rows name their own"),
        ("--rows ddim --spacing quad uniform", "rows of --rows name their own"),
        ("--corrections epsilon_scaling,scale=1e+", "corrections.0.scale"),
    ],
)
def test_what_is_no_row_is_told(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asked(*words.split())


def test_brackets_and_exponents_are_not_taken_apart() -> None:
    assert texts.row_overrides("a,x=[1,2+3],y=1e+5+b,z=-2.5E+3+c@d,rho=7") == {
        "sampling.sampler.name": "a",
        "sampling.sampler.x": [1, "2+3"],
        "sampling.sampler.y": 1e5,
        "sampling.corrections": [{"name": "b", "z": -2500.0}, {"name": "c"}],
        "sampling.spacing": "d,rho=7",
    }


# --- cells -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Twice:
    """Asks the network twice in a step, but once in the last, as Heun does."""

    name: Literal["twice"] = dataclasses.field(default="twice", kw_only=True)

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        rows = Rows(schedule)
        for t, s in steps(times):
            if s >= 0:
                rows.stage(t, s, rows.x)
            rows.add(t, s, rows.x)
        return rows.plan()


def slots(config: Config = BASE, **changes: Any) -> list[tuple[Any, Any, str | None]]:
    """(column, steps, why not) of each place."""
    found = TableOptions(**{"rows": [Sampling(DDIM())], **changes}).slots(config)
    return [(slot.column, slot.cell.sampling.steps, slot.why_not) for slot in found]


def test_a_column_of_evaluations_takes_the_largest_number_of_steps_that_fits() -> None:
    twice = Sampling(Twice())  # type: ignore[arg-type]
    columns = [1, 2, 6, 10, 50]
    assert slots(rows=[Sampling(DDIM())], evaluations=columns) == [(n, n, None) for n in columns]
    assert slots(rows=[twice], evaluations=columns) == [(n, (n + 1) // 2, None) for n in columns]
    assert slots(evaluations=[2000]) == [(2000, 1000, None)], "all that there are"
    quad = Sampling(DDIM(), spacing="quad")
    assert slots(rows=[quad], evaluations=[29, 50]) == [(29, 29, None), (50, 29, None)]


def test_what_cannot_be_is_a_hole_if_another_cell_can() -> None:
    quad, twice = Sampling(DDIM(), spacing="quad"), Sampling(Ancestral("learned_range"))
    found = slots(rows=[quad, twice], steps=[10, 50])
    assert [(column, why and why.split(":")[0]) for column, _, why in found] == [
        (10, None),
        (50, "the spacing (respace_type) quad has only 49 different times for 50 steps out of 1000"),
        (10, "--variance learned_range"),
        (50, "--variance learned_range"),
    ]
    with pytest.raises(ConfigError, match="quad has only 49"):
        slots(rows=[quad], steps=[50])
    two = [EpsilonScaling(1.1), EpsilonScaling(1.2)]
    assert "given twice" in str(slots(rows=[Sampling(DDIM(), tuple(two)), quad], steps=[10])[0][2])


def test_columns_are_one_thing() -> None:
    with pytest.raises(ConfigError, match="both columns"):
        slots(steps=[10], evaluations=[10])
    with pytest.raises(ConfigError, match="--evaluations 0"):
        slots(evaluations=[0, 10])
    with pytest.raises(ConfigError, match=r"--evaluations must name .* none twice"):
        slots(evaluations=[10, 10])
    with pytest.raises(ConfigError, match="none twice"):
        slots(rows=[Sampling(), Sampling(Ancestral("fixed_small"))], steps=[2])


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("ddim,eta=0", "ddim"),
        ("dpm_solver,order=2,solver_type=midpoint", "dpm_solver"),
        ("dpm_solver,order=3", "dpm_solver,order=3"),
        ("dpm_solver+epsilon_scaling,times=0/500,scales=1/1.01", None),
        ("ancestral,var_type=fixed_small+epsilon_scaling,scale=1.005", "fixed_small+epsilon_scaling"),
        ("ddim+clip=none+afs=true+denoise_to_zero=false", None),
        ("ddim+band_gains,x0=[1.0,[[0,1.0],[500,1.25]]]", None),
    ],
)
def test_settings_that_follow_by_themselves_are_left_out(text: str, short: str | None) -> None:
    (row,) = asked("--rows", text)
    assert asked("--rows", row_label(row.row())) == [row]
    assert named([row]) == [short or row_label(brief(row.row()))]
    assert asked("--rows", *named([row])) == [row]


def test_every_method_is_called_by_its_name() -> None:
    names = every_sampler()
    rows = asked("--rows", *names)
    assert named(rows) == names
    assert asked("--rows", *(row_label(row.row()) for row in rows)) == rows


def test_a_page_made_of_files_calls_each_row_as_the_table_does() -> None:
    names = [*every_sampler(), *(f"ddim+{name}" for name in DEFAULTS if name not in every_sampler())]
    names += ["ddim,eta=0.5+tsr,k=0.9", *(f"{name},order=3" for name in ("dpm_solver", "dpm_solver_sde", "unipc"))]
    rows = [row.row() for row in asked("--rows", *names)]
    assert [short_label(row) for row in rows] == [row_label(brief(row)) for row in rows]


def test_a_row_of_an_earlier_version_is_completed() -> None:
    row = {"sampler": {"name": "ddim"}, "corrections": [{"name": "epsilon_scaling", "scale": 1.02}], "clip": "none"}
    assert complete(row) == json.loads(json.dumps(Sampling(DDIM(), (EpsilonScaling(1.02),), "none").row()))
    for odd in (
        {"name": "ddim", "eta": "x"},
        {"name": "ddim", "eta": -1},
        {"name": "ddim", "beta": 1},
        {"name": "new"},
    ):
        assert complete({**row, "sampler": odd})["sampler"] == odd, "left as it is"


@pytest.mark.parametrize(
    ("sampling", "name"),
    [
        (Sampling(Ancestral("fixed_small"), steps=10), "fixed_small-10-seed0"),
        (Sampling(DDIM(0.5), steps=5, clip="none"), "ddim-eta-0.5-clip-none-0cb74a-5-seed0"),
        (Sampling(DDIM(), clip="keep_eps", steps="2,1", seed=3), "ddim-eta-0-clip-keep_eps-92206d-2_1-seed3"),
    ],
)
def test_names_of_files_are_those_that_they_had_first(sampling: Sampling, name: str) -> None:
    stem = _stem(SampleOptions(4, sampling))
    assert stem == name or (
        name is None and stem.startswith("ddim-eta-0-clip-keep_eps-") and stem.endswith("-2_1-seed3")
    )
    assert json.loads(json.dumps(place_of(SampleOptions(4, sampling)))) == place_of(SampleOptions(4, sampling))


CLASSES = ("ddim", "ddim+guidance,scale=2", "ddim+classes=3", "ddim+guidance,scale=2+classes=0/4", "ddim+classes=none")


def test_a_row_names_its_classes_where_they_are_chosen() -> None:
    rows = asked("--rows", *CLASSES)
    assert [row.classes for row in rows] == [None, None, (3,), (0, 4), (-1,)]
    assert asked("--rows", *(row_label(row.row()) for row in rows)) == rows
    assert named(rows) == list(CLASSES)
    assert asked("--rows", "ddim+classes=balanced") == rows[:1]
    assert "classes" not in rows[0].row()


def test_a_column_of_evaluations_is_filled_by_half_as_many_visits_with_guidance() -> None:
    options = TableOptions(asked("--rows", *CLASSES[:2]), evaluations=(4, 7, 1), n_samples=20)
    slots = options.slots(with_classes())
    assert [slot.cell.sampling.steps for slot in slots if slot.why_not is None] == [4, 7, 1, 2, 3]
    assert [slot.why_not for slot in slots if slot.why_not] == ["one step asks the network more than 1 times"]
    with pytest.raises(ConfigError, match="unconditional"):
        TableOptions(asked("--rows", CLASSES[1]), steps=(2,)).slots(tiny())
