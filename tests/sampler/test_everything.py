"""Everything with everything: samplers, their settings, corrections, spacings, networks. A walk, or a refusal in words.

New members of the unions are covered by themselves: what a setting can be is read from its annotation.
"""

from __future__ import annotations

import dataclasses
import inspect
import random
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import pytest
import torch
from tests.conftest import SHARE
from torch import Tensor

from ddpm_ip.denoiser import Denoiser, PredictionType
from ddpm_ip.errors import ConfigError
from ddpm_ip.nn.network import Cond
from ddpm_ip.sampler import DDIM, AnySampler, VarType, walk
from ddpm_ip.sampler.correction import AnyCorrection, Auto, Clip, ClipMode, Guidance
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.schedule import BetaSchedule, Schedule
from ddpm_ip.sections import Classes
from ddpm_ip.variants import variant_name, variants

SAMPLERS, CORRECTIONS = variants(AnySampler), variants(AnyCorrection)
ALONE = [cls for cls in CORRECTIONS if cls is not Auto]  # what it can stand for
SPACINGS = [
    "uniform", "uniform-leading", "uniform-linspace", "uniform-trailing", "quad", "logsnr", "karras", "karras,rho=5",
    "exponential", "beta", "optimised",
]  # fmt: skip
LISTED = ((999.0, 700.5, 400.0, 0.25, 0.0), (19.0, 3.5, 2.0), (7.0,), (0.0,))
STEPS = (1, 2, 3, 4, 5, 7, 10)
STRINGS = ("ddim5", "3,2,1", "6")
BATCHES, COMBINATIONS = 100, 20
CLASSES = (None, Classes(3), Classes(3), Classes(10), Classes(3, 0.0))  # of the model
CHOSEN = ((1,), (0, 2), (-1,), (2, -1, 0), (9,))
SHAPE, IMAGES, VARIANCE = (1, 4, 4), 2, 0.25


class Combination(NamedTuple):
    """A way to make images, as it is asked for: a class and its settings for sampler and corrections."""

    sampler: tuple[type, dict[str, Any]]
    corrections: list[tuple[type, dict[str, Any]]]
    rest: dict[str, Any]
    schedule: Schedule
    prediction_type: PredictionType
    var_type: VarType
    classes: Classes | None

    @property
    def learned_variance(self) -> bool:
        return self.var_type == "learned_range"

    def sampling(self) -> Sampling:
        """Raises ValueError or ConfigError where it is refused."""
        (sampler, settings), corrections = self.sampler, [made(**given) for made, given in self.corrections]
        return Sampling(sampler(**settings), tuple(corrections), **self.rest).filled(self.var_type)

    def check(self, sampling: Sampling) -> None:
        """Raises ConfigError where the model cannot be sampled so."""
        sampling.check(self.schedule, self.learned_variance, self.classes)

    def names(self) -> set[str]:
        """What a refusal can name: what was chosen, and how it was set."""
        parts = [self.sampler, *self.corrections]
        settings = [given for _, given in parts] + [self.rest, {"var_type": self.var_type}]
        found = {variant_name(made) for made, _ in parts} | {key for given in settings for key in given}
        found |= {c.name for given in settings for c in given.get("chain") or ()}
        return found | {v for given in settings for v in given.values() if isinstance(v, str)}


def some(hint: Any, default: Any, draw: random.Random) -> Any:
    """A value for a setting: often the default, otherwise any that its type allows, sensible or not."""
    if draw.random() < 0.4:
        return default
    if get_origin(hint) is Literal:
        return draw.choice(get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return some(draw.choice(get_args(hint)), default, draw)
    if hint is bool:
        return draw.random() < 0.5
    if hint is int:
        return draw.choice((1, 2, 3, 4))
    if hint is float and isinstance(default, float | int):
        return draw.choice((0.0, 0.5, 1.0, 0.9 * default, 1.1 * default))
    return None if hint is types.NoneType else default


def settings(cls: type, draw: random.Random) -> dict[str, Any]:
    """Of a dataclass, those that have a default."""
    hints = get_type_hints(cls)
    given = {
        f.name: some(hints[f.name], f.default, draw)
        for f in dataclasses.fields(cls)
        if f.name != "name" and f.default is not dataclasses.MISSING
    }
    return {name: value for name, value in given.items() if draw.random() < 0.7}


def calibrated(draw: random.Random) -> dict[str, Any]:
    """What a calibration may fill into ``auto``; it may clash with what is given beside it."""
    chosen = draw.sample(ALONE, draw.choice((0, 1, 2)))
    chosen.sort(key=lambda made: made is not Guidance)
    found = [(c, settings(c, draw)) for c in chosen]
    try:
        return {"chain": tuple(c(**said) for c, said in found)}
    except ValueError:
        return {"chain": tuple(c() for c, _ in found)}


def combination(batch: int, number: int) -> Combination:
    """One of the combinations; always the same one."""
    draw = random.Random(f"{batch} {number}")
    schedule = Schedule(draw.choice((1000, 1000, 1000, 20)), draw.choice(get_args(BetaSchedule)))
    switches = [f.name for f in dataclasses.fields(Sampling) if isinstance(f.default, bool)]
    rest: dict[str, Any] = {name: True for name in switches if draw.random() < 0.15}
    rest["clip"] = draw.choice(get_args(ClipMode))
    kind = draw.random()
    if kind < 0.1:
        fitting = [times for times in LISTED if times[0] < schedule.total_steps]
        rest |= {"steps": None, "spacing": draw.choice(fitting if draw.random() < 0.9 else LISTED)}
    elif kind < 0.15:
        rest |= {"steps": draw.choice(STRINGS)}
    else:
        rest |= {"steps": draw.choice(STEPS), "spacing": draw.choice(SPACINGS)}
    chosen = draw.sample(CORRECTIONS, min(draw.choice((0, 1, 1, 2)), len(CORRECTIONS)))
    if draw.random() < 0.9:
        chosen.sort(key=lambda made: made is not Guidance)  # else refused
    if draw.random() < 0.02:
        chosen = chosen * 2  # refused
    sampler, classes = draw.choice(SAMPLERS), draw.choice(CLASSES)
    given = [(c, settings(c, draw)) for c in chosen]
    if draw.random() < 0.9:  # else auto is not filled in, which is refused
        given = [(c, calibrated(draw) if c is Auto else said) for c, said in given]
    if draw.random() < (0.1 if classes is None else 0.5):
        rest["classes"] = draw.choice(CHOSEN)
    return Combination(
        (sampler, settings(sampler, draw)),
        given,
        rest,
        schedule,
        draw.choice(get_args(PredictionType)),
        draw.choice(get_args(VarType)),
        classes,
    )


class Counting:
    """The best network for data N(label / 10, VARIANCE), in any of its dialects, which counts how often it is asked."""

    def __init__(self, schedule: Schedule, kind: PredictionType, learned_variance: bool) -> None:
        self.schedule, self.kind, self.learned_variance, self.calls = schedule, kind, learned_variance, 0

    def __call__(self, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        self.calls += 1
        mean = 0 if cond is None or cond.labels is None else cond.labels.clamp(min=0).reshape(-1, 1, 1, 1) / 10
        last = self.schedule.total_steps - 1
        levels = [self.schedule.level(min(max(float(u), 0.0), last)) for u in t]
        a, s = (torch.tensor(v).reshape(-1, 1, 1, 1) for v in zip(*levels, strict=True))
        off = (x - a * mean) / (a**2 * VARIANCE + s**2)
        x0, eps = mean + a * VARIANCE * off, s * off
        output = {"pred_eps": eps, "pred_x0": x0, "pred_v": a * eps - s * x0}[self.kind]
        return torch.cat((output, torch.sin(x)), dim=1) if self.learned_variance else output


def outcome(asked: Combination) -> str:
    """What became of it: what is wrong, or "" where all is well."""
    try:
        sampling = asked.sampling()
        asked.check(sampling)
        plan, corrections = sampling.plan(asked.schedule), sampling.all_corrections()
    except (ConfigError, ValueError) as error:
        named = any(name in str(error) for name in asked.names())
        return "" if named else f"a refusal that names nothing that was asked for: {error!r}"
    network = Counting(asked.schedule, asked.prediction_type, asked.learned_variance)
    labels = sampling.labels(torch.arange(IMAGES), asked.classes)
    cond = None if labels is None else Cond(labels)
    denoiser = Denoiser(network, asked.schedule, asked.prediction_type, asked.learned_variance, cond=cond)
    walked = walk(plan, denoiser, 3, torch.arange(IMAGES), SHAPE, corrections)
    states = list(walked)
    if network.calls != sampling.evaluations(plan) or len(states) != plan.visits + 1:
        return f"{network.calls} calls and {len(states)} states for a plan of {plan.visits} visits"
    for state in states:
        if state.xt.shape != (IMAGES, *SHAPE) or not state.xt.isfinite().all():
            return f"the state after visit {state.row} is {state.xt}"
    return ""


@pytest.mark.large
@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_combination_walks_or_is_refused_in_words(batch: int) -> None:
    """2,000 of them; a tenth in `make test`."""
    for number in range(COMBINATIONS):
        asked = combination(batch, number)
        assert not (wrong := outcome(asked)), f"{wrong}\n{asked}"


def test_most_combinations_walk_and_each_method_does() -> None:
    """Refusals are no way out: of what the test above tries, most is walked, with each sampler and each correction."""
    walked: set[type] = set()
    refused = total = 0
    for batch in range(BATCHES // SHARE):
        for number in range(COMBINATIONS):
            asked = combination(batch, number)
            total += 1
            try:
                asked.check(asked.sampling())
            except (ConfigError, ValueError):
                refused += 1
            else:
                walked |= {asked.sampler[0], *(made for made, _ in asked.corrections)}
    assert walked == {*SAMPLERS, *CORRECTIONS}
    assert refused < total / 2


def alternatives(cls: type) -> Iterator[Any]:
    """A sampler with its defaults, and with each other value of each setting that has a list of values."""
    hints = get_type_hints(cls)
    for f in dataclasses.fields(cls):
        arms = get_args(hints[f.name]) if get_origin(hints[f.name]) in (Union, types.UnionType) else (hints[f.name],)
        values = [v for arm in arms if get_origin(arm) is Literal for v in get_args(arm)]
        for value in [False, True] if hints[f.name] is bool else values:
            try:
                yield cls(**{f.name: value})
            except ValueError:  # a value that needs another setting, too
                continue


@pytest.mark.large
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 50])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("shape", get_args(BetaSchedule))
def test_every_plan_is_finite(shape: BetaSchedule, spacing: str, steps: int) -> None:
    schedule = Schedule(1000, shape)
    try:
        times = Sampling(DDIM(), steps=steps, spacing=spacing).plan(schedule).t.tolist()  # type: ignore[arg-type]
    except ConfigError as error:
        words = str(error)
        assert spacing in words
        return
    for sampler in (s for cls in SAMPLERS for s in alternatives(cls)):
        try:
            plan = sampler.plan(schedule, times)
        except ConfigError as error:
            words = str(error)
            assert any(str(v) in words for v in dataclasses.asdict(sampler).values()), sampler
            continue
        numbers = [plan.t, plan.alpha, plan.sigma, plan.after, plan.update, plan.carry]
        assert all(v.isfinite().all() for v in numbers), sampler
        noisy = plan.update[:, :, -1].any(1)
        assert plan.log_bounds is None or plan.log_bounds[noisy].isfinite().all(), sampler
        assert ((plan.t >= 0) & (plan.t < schedule.total_steps)).all(), sampler
        assert len(set(plan.word[noisy].tolist())) == noisy.sum(), "noise of its own at each visit"


@pytest.mark.parametrize("cls", [*SAMPLERS, *CORRECTIONS, Clip], ids=lambda cls: str(cls.__name__))
def test_a_method_is_one_short_file(cls: type) -> None:
    lines = Path(str(inspect.getsourcefile(cls))).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120


def kinds(values: Sequence[Any]) -> set[type]:
    return {type(v) for v in values}


def test_settings_are_read_from_their_annotations() -> None:
    """The generator of the tests above: every kind of value that a setting can have is tried."""
    draw = random.Random(0)
    assert {some(Literal["a", "b"], "a", draw) for _ in range(50)} == {"a", "b"}
    assert kinds([some(int | None, None, draw) for _ in range(50)]) == {int, types.NoneType}
    assert kinds([some(float | bool, 0.5, draw) for _ in range(50)]) == {float, bool}
    assert {some(str, "path", draw) for _ in range(50)} == {"path"}
