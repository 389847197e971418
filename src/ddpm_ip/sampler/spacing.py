"""The times on the grid: which of the schedule's times a walk goes through.

By a rule over whole times (:func:`respace`), by a rule over noise levels (:mod:`ddpm_ip.sampler.levels`), by one of
guided-diffusion's strings (:func:`guided_times`), or one by one. :func:`times_of` knows them all.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Sequence
from itertools import accumulate, pairwise, repeat
from typing import Any, Literal, get_args

from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler.levels import LEVELS, rounded
from ddpm_ip.schedule import Schedule, linspace

COUNT = r"[1-9][0-9]{0,8}"  # in a string of guided-diffusion
Spacing = Literal["uniform", "uniform-leading", "uniform-linspace", "uniform-trailing", "quad"]
OPTIMISED = "optimised"  # times that `ddpm-ip times` found for these weights
MOST_TIMES = 100_000  # one by one


def times_of(schedule: Schedule, steps: int | str | None, spacing: str | Sequence[float]) -> list[float]:
    """The times on the grid, falling, in 0..T-1.

    Args:
        schedule: of the model.
        steps: how many; all T if None. Or one of guided-diffusion's strings.
        spacing: a rule's name, with its settings as in ``karras,rho=5``; or the times themselves, as numbers or as text
            such as ``[999, 500.5, 0]``.

    Raises:
        ConfigError: there is no such rule, or it has no such times.
    """
    given = listed(spacing)
    if given is not None:
        return _checked(schedule, steps, given)
    name, settings = parsed(str(spacing))
    if name == OPTIMISED:
        raise ConfigError(
            "the spacing optimised takes times that were found for these weights and this number of steps: find them "
            "with `ddpm-ip times --weights ... --steps N`"
        )
    if name in get_args(Spacing) or isinstance(steps, str):
        return [float(t) for t in respace(schedule.total_steps, steps, name)]
    if steps is None:
        return [float(t) for t in range(schedule.total_steps - 1, -1, -1)]
    if not 1 <= steps <= schedule.total_steps:
        raise _out_of_range(steps, schedule.total_steps)
    whole = settings.pop("whole", False)
    try:
        times = LEVELS[name](schedule, steps, **settings)
    except ValueError as error:
        raise ConfigError(f"the spacing {spacing}: {error}") from None
    times = rounded(times) if whole else times
    if any(s >= t for t, s in pairwise(times)):
        raise ConfigError(
            f"the spacing {spacing} has no {steps} different times out of {schedule.total_steps}: ask for fewer steps"
            + (", or leave whole=true out" if whole else "")
        )
    return times


def check(spacing: str | Sequence[float]) -> None:
    """Refuses what no model could have.

    Raises:
        ValueError: says which spacings there are.
    """
    given = listed(spacing)
    if given is None:
        try:
            parsed(str(spacing))
        except ConfigError as error:
            raise ValueError(str(error)) from None
    elif not given or len(given) > MOST_TIMES or any(not s < t for t, s in pairwise(given)) or not given[-1] >= 0:
        raise ValueError(f"the spacing, as a list of times, must fall and end at 0 or above, got {list(given)[:8]}")


def listed(spacing: str | Sequence[float]) -> tuple[float, ...] | None:
    """The times of a spacing that says them one by one; None for a rule."""
    if not isinstance(spacing, str):
        return tuple(spacing)
    text = spacing.strip().removeprefix("[").removesuffix("]")
    if not re.fullmatch(r"[-+0-9.eE]+([ ,]+[-+0-9.eE]+)*,?", text):
        return None
    try:
        return tuple(map(float, text.replace(",", " ").split()))
    except ValueError:
        return None


def shown(spacing: str | Sequence[float]) -> str:
    """A spacing as one text, the same for all ways to write it; :func:`times_of` reads it."""
    given = listed(spacing)
    if given is None:
        return str(spacing).replace(" ", "")
    return f"[{', '.join(str(int(t)) if t.is_integer() else repr(t) for t in map(float, given))}]"


def parsed(spacing: str) -> tuple[str, dict[str, Any]]:
    """Name and settings of a rule.

    Raises:
        ConfigError: says which there are.
    """
    name, *settings = (part.strip() for part in spacing.split(","))
    known = (*get_args(Spacing), *LEVELS, OPTIMISED)
    if name not in known:
        if name.strip().startswith("["):
            raise ConfigError(f"the spacing {spacing[:100]}: a list of times is of numbers, as in [999,500.5,0]")
        near = difflib.get_close_matches(name.lower(), known, 1)
        raise ConfigError(
            f"unknown spacing (respace_type) {name[:100]!r}: "
            + (f"did you mean {near[0]}? " if near else "")
            + f"Choose one of {', '.join(known)}, or a list of times"
        )
    keys = [] if name not in LEVELS else [*list(inspect.signature(LEVELS[name]).parameters)[2:], "whole"]
    found: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        value = _value(text)
        if key not in keys or key in found or value is None or isinstance(value, bool) != (key == "whole"):
            has = f"its settings are {', '.join(keys)}, as in {name},{keys[0]}=..." if keys else "it has no settings"
            raise ConfigError(f"the spacing {spacing[:100]}: {setting!r} is not possible; {has}")
        found[key] = value
    return name, found


def _value(text: str) -> float | bool | None:
    """A finite number, true or false; None if it is neither."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return number if math.isfinite(number := float(text)) else None
    except ValueError:
        return None


def _checked(schedule: Schedule, steps: int | str | None, times: Sequence[float]) -> list[float]:
    last = schedule.total_steps - 1
    if steps is not None and steps != len(times):
        raise ConfigError(f"the spacing names {len(times)} times, and the steps are {steps}: leave the steps out")
    if not times or any(not 0 <= t <= last for t in times) or any(s >= t for t, s in pairwise(times)):
        raise ConfigError(f"the times of the spacing must fall, from at most {last} to at least 0")
    return [float(t) for t in times]


def _out_of_range(steps: int, total_steps: int) -> ConfigError:
    return ConfigError(f"the steps (respace_steps) are {steps}; choose 1..{total_steps} (diffusion.total_steps)")


def respace(total_steps: int, steps: int | str | None, spacing: str = "uniform-linspace") -> list[int]:
    """Chooses whole times by a rule over times.

    ``uniform`` and ``uniform-leading``: ``0, r, 2r, ...`` with ``r = T // steps`` (DDIM; diffusers ``leading``); the
    noisiest time T-1 is never visited. ``uniform-linspace``: both ends, rounded (diffusers ``linspace``).
    ``uniform-trailing``: ``T-1`` downwards, ``round(T - i T / steps) - 1``, halves to the even number. That is the rule
    behind diffusers' ``trailing``, whose floating-point sum gives other times for 111 of the 1000 counts of T = 1000:
    where a half is rounded the other way some differ by one (48 steps), and where the sum does not reach 0 there is one
    more, which is -1 (61 steps). ``quad``: squares of evenly spaced numbers up to ``sqrt(0.8 T)`` (DDIM's code), dense
    near the data.

    Args:
        total_steps: T.
        steps: how many; all T if None. Or one of guided-diffusion's strings, which say times by themselves: see
            :func:`guided_times`.
        spacing: the rule, one of :data:`Spacing`, for a number.

    Returns:
        Exactly ``steps`` different times in 0..T-1, falling.

    Raises:
        ConfigError: the rule has no such number of different times.
    """
    if isinstance(steps, str):
        if spacing != "uniform-linspace":
            raise ConfigError(
                f"the steps {steps!r} say by themselves which times are visited, and so does the spacing {spacing}: "
                "give a number of steps, or leave the spacing out"
            )
        return guided_times(total_steps, steps)
    if spacing not in get_args(Spacing):
        raise ConfigError(f"unknown spacing (respace_type) {spacing!r}: choose one of {', '.join(get_args(Spacing))}")
    if steps is None or (steps == total_steps and spacing != "quad"):
        return list(range(total_steps - 1, -1, -1))
    if not 1 <= steps <= total_steps:
        raise _out_of_range(steps, total_steps)
    times = _times(total_steps, steps, spacing)
    if (found := len(set(times))) != steps:
        most = math.isqrt(total_steps) + 1  # quad: beyond that the first two squares are below 1
        counts = [k for k in range(1, most + 1) if len(set(_times(total_steps, k, spacing))) == k]
        raise ConfigError(
            f"the spacing (respace_type) {spacing} has only {found} different times for {steps} steps out of "
            f"{total_steps}: it has exactly K for K of {_ranges(counts)}. Ask for one of these, or use uniform-linspace"
        )
    return sorted(times, reverse=True)


def _ranges(numbers: Sequence[int]) -> str:
    """``1-29, 31`` of rising numbers."""
    starts = [n for i, n in enumerate(numbers) if i == 0 or numbers[i - 1] < n - 1]
    ends = [n for i, n in enumerate(numbers) if i + 1 == len(numbers) or numbers[i + 1] > n + 1]
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def _times(total_steps: int, steps: int, spacing: str) -> list[int]:
    if spacing in ("uniform", "uniform-leading"):
        return [i * (total_steps // steps) for i in range(steps)]
    if spacing == "uniform-linspace":
        points: list[int] = linspace(0, total_steps - 1, steps).round().long().tolist()
        return points if steps > 1 else [total_steps - 1]
    if spacing == "uniform-trailing":
        return [round(total_steps - i * total_steps / steps) - 1 for i in range(steps)]
    squares: list[int] = (linspace(0, math.sqrt(0.8 * total_steps), steps) ** 2).long().tolist()
    return squares


def guided_times(total_steps: int, text: str) -> list[int]:
    """The times that guided-diffusion's ``--timestep_respacing`` means, falling.

    Always exactly as many as the string says, or an error. ``"250"``: evenly from 0 to T-1; ``"10,10,5"``: the same in
    as many equal sections of the times, the first count for the section next to the data; ``"ddim50"``: every r-th time
    from 0, with the smallest whole r that gives so many.

    In a section the times are a running sum, rounded: for most counts, all even ones among them, these are the times of
    ``uniform-linspace``, for some odd counts a few differ by one (21 of 1000 steps, for example).

    Args:
        total_steps: T.
        text: the string.

    Raises:
        ConfigError: it is no such string, or there are no such times.
    """
    if match := re.fullmatch(rf"ddim({COUNT})", text):
        strides = {len(range(0, total_steps, r)): r for r in range(total_steps - 1, 0, -1)}  # the smallest of a count
        if (stride := strides.get(int(match[1]))) is None:
            raise ConfigError(
                f"the steps {text!r}: no whole stride through {total_steps} times gives exactly {match[1]}; there are "
                f"{_ranges(sorted(strides)) or 'none'}. Choose one of these, or a spacing such as uniform-trailing"
            )
        return list(range(0, total_steps, stride))[::-1]
    if not re.fullmatch(rf"{COUNT}(,{COUNT})*,?", text):
        raise ConfigError(f"the steps {text[:100]!r}: write a number, sections such as 10,10,5, or ddim50")
    counts = [int(count) for count in text.rstrip(",").split(",")]
    if len(counts) > total_steps:
        raise ConfigError(f"the steps {text[:100]!r}: {len(counts)} sections of {total_steps} times")
    size, longer = divmod(total_steps, len(counts))
    times: set[int] = set()
    start = 0
    for i, count in enumerate(counts):
        length = size + (i < longer)
        if count > length:
            raise ConfigError(
                f"the steps {text[:100]!r}: section {i + 1} has {length} times, and {count} are asked for. Choose at "
                f"most {length} there"
            )
        stride_in_section = (length - 1) / (count - 1) if count > 1 else 1.0
        places = accumulate(repeat(stride_in_section, count - 1), initial=0.0)  # a running sum, with its rounding
        times |= {start + round(place) for place in places}
        start += length
    return sorted(times, reverse=True)
