"""The times on the grid: which of the schedule's times a walk goes through."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import accumulate, repeat
from typing import Literal, get_args

from ddpm_ip.errors import ConfigError
from ddpm_ip.schedule import linspace

COUNT = r"[1-9][0-9]{0,8}"  # in a string of guided-diffusion
Spacing = Literal["uniform", "uniform-leading", "uniform-linspace", "uniform-trailing", "quad"]


def respace(total_steps: int, steps: int | str | None, spacing: Spacing = "uniform-linspace") -> list[int]:
    """Chooses the times on the grid.

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
        spacing: the rule, for a number.

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
        raise ConfigError(f"the steps (respace_steps) are {steps}; choose 1..{total_steps} (diffusion.total_steps)")
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


def _times(total_steps: int, steps: int, spacing: Spacing) -> list[int]:
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
