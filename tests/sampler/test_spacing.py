"""The times on the grid, against the programs that published the rules."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler.spacing import guided_times, respace

KINDS = ("uniform", "uniform-leading", "uniform-linspace", "uniform-trailing", "quad")

COUNTS = (1, 2, 3, 7, 10, 30, 33, 50, 99, 100, 250, 300, 333, 500, 999, 1000)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_respacing_equals_diffusers(spacing: str) -> None:
    compared = 0
    for total in (1000, 400, 37):
        reference = DDPMScheduler(total, timestep_spacing=spacing)
        for n in (n for n in COUNTS if n <= total):
            if n == 1 and spacing == "linspace":
                continue  # numpy's linspace of one point is time 0: nothing but noise; ours is T - 1
            reference.set_timesteps(n)
            theirs = reference.timesteps.tolist()
            if len(set(theirs)) != n or -1 in theirs:
                continue  # times that repeat; or diffusers' sum that misses 0, see below
            assert respace(total, n, f"uniform-{spacing}") == theirs, (total, n)
            compared += 1
    assert compared >= 30


@pytest.mark.parametrize("total", [1000, 400, 37])
def test_trailing_is_the_rule_without_the_rounding_of_a_sum(total: int) -> None:
    """As version 0.1 has it. diffusers' sum of floating-point numbers gives 111 of 1000 counts other times."""
    reference, other = DDPMScheduler(total, timestep_spacing="trailing"), {}
    for n in range(1, total + 1):
        exact = [round(total - Fraction(i * total, n)) - 1 for i in range(n)]
        assert respace(total, n, "uniform-trailing") == exact
        reference.set_timesteps(n)
        if (theirs := reference.timesteps.tolist()) != exact:
            other[n] = [b - a for a, b in zip(exact, theirs, strict=False)], len(theirs) - n, theirs[-1]
    for differences, more, last in other.values():
        assert set(differences) <= {-1, 0, 1}
        assert more in (0, 1)
        assert (more == 1) == (last == -1), "one time too many, which is no time"
    if total == 1000:
        assert len(other) == 111
        assert {48, 96, 112, 240} <= other.keys()
        assert sum(map(abs, other[48][0])) == 4
        assert other[61][1:] == (1, -1)


def test_uniform_is_leading() -> None:
    assert all(respace(1000, n, "uniform") == respace(1000, n, "uniform-leading") for n in COUNTS)


def test_one_step_starts_from_the_noisiest_time() -> None:
    assert respace(1000, 1, "uniform-linspace") == respace(1000, 1, "uniform-trailing") == [999]


@pytest.mark.parametrize("n", [2, 10, 20, 33, 50, 80, 100, 250, 300, 998])
def test_linspace_is_the_rule_of_guided_diffusion(n: int) -> None:
    """``space_timesteps(1000, [n])``: a running sum of a fractional stride, rounded, kept in a set."""
    stride, at, times = (1000 - 1) / (n - 1), 0.0, set()
    for _ in range(n):
        times.add(round(at))
        at += stride
    assert respace(1000, n, "uniform-linspace") == sorted(times, reverse=True)


@pytest.mark.parametrize("n", [2, 10, 20, 50, 100, 150])
def test_quad_is_the_rule_of_ddim(n: int) -> None:
    times = [int(x) for x in np.linspace(0, np.sqrt(1000 * 0.8), n) ** 2]
    if len(set(times)) == n:
        assert respace(1000, n, "quad") == times[::-1]
    else:
        with pytest.raises(ConfigError, match="uniform-linspace"):
            respace(1000, n, "quad")


def test_quad_is_compared_where_it_matters() -> None:
    """The counts of DDIM's tables exist; a count that does not is refused (so the test above has both branches)."""
    assert len(respace(1000, 20, "quad")) == 20
    with pytest.raises(ConfigError, match=r"quad has only \d+ different times for 1000 steps.*exactly K for K of 1-29"):
        respace(1000, 1000, "quad")
    for n in range(1, 1001):
        times = {int(x) for x in np.linspace(0, np.sqrt(800), n) ** 2}
        assert (len(times) == n) == (n <= 29)
        if n <= 29:
            assert respace(1000, n, "quad") == sorted(times, reverse=True)


@given(st.integers(2, 1500), st.integers(-1, 1501), st.sampled_from(KINDS))
def test_exactly_as_many_times_as_asked_or_an_error(total: int, steps: int, kind: str) -> None:
    try:
        times = respace(total, steps, kind)
    except ConfigError:
        assert kind == "quad" or not 1 <= steps <= total  # the uniform rules always have as many
        return
    assert 1 <= steps <= total
    assert len(times) == steps
    assert all(a > b for a, b in pairwise(times))
    assert all(type(t) is int for t in times)
    assert times[0] <= total - 1
    assert times[-1] >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_count_every_time_is_visited(kind: str) -> None:
    assert respace(12, None, kind) == list(range(11, -1, -1))


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"logsnr.*uniform-linspace"):
        respace(10, 5, "logsnr")


# --- guided-diffusion's strings --------------------------------------------------------------------------------------


def guided_diffusion(total: int, counts: list[int]) -> list[int]:
    """``space_timesteps``, step by step: sections of nearly equal size, in each a running sum, rounded."""
    times, begin = set(), 0
    for section, count in enumerate(counts):
        size = total // len(counts) + (1 if section < total % len(counts) else 0)
        stride, at = (size - 1) / (count - 1) if count > 1 else 1, 0.0
        for _ in range(count):
            times.add(begin + round(at))
            at += stride
        begin += size
    return sorted(times, reverse=True)


@pytest.mark.parametrize("total", [1000, 4000, 37])
@pytest.mark.parametrize("text", ["250", "25", "21", "10,10,5", "1", "1,1", "10,15,20", "7,", "12,12,12"])
def test_sections_are_those_of_guided_diffusion(total: int, text: str) -> None:
    counts = [int(n) for n in text.split(",") if n]
    if any(n > total // len(counts) for n in counts):
        with pytest.raises(ConfigError, match="section"):
            respace(total, text)
    else:
        assert respace(total, text) == guided_diffusion(total, counts)


def test_sections_by_hand() -> None:
    """The example of guided-diffusion's docstring, and one small enough to write out."""
    assert len(guided_times(300, "10,15,20")) == 45
    assert guided_times(12, "2,3") == [11, 8, 6, 5, 0]
    assert guided_times(10, "4") == [9, 6, 3, 0]
    assert respace(1000, "250") == respace(1000, 250), "an even count, so the two rules agree"
    assert respace(1000, "21") != respace(1000, 21), "where they differ the string is guided-diffusion's"


@pytest.mark.parametrize("total", [1, 2, 12, 37, 100])
def test_as_many_times_as_a_string_says_or_an_error(total: int) -> None:
    """What guided-diffusion's loop gives, for one section and for a stride."""
    for n in range(1, total + 2):
        stride = next((r for r in range(1, total) if len(range(0, total, r)) == n), None)
        expected = None if stride is None else sorted(range(0, total, stride), reverse=True)
        for text, times in ((f"ddim{n}", expected), (f"{n},", guided_diffusion(total, [n]) if n <= total else None)):
            if times is None:
                with pytest.raises(ConfigError):
                    respace(total, text)
            else:
                assert respace(total, text) == times
                assert len(times) == n


@pytest.mark.parametrize(("total", "n"), [(1000, 50), (1000, 250), (1000, 34), (4000, 100), (12, 5)])
def test_ddim_strides_are_whole(total: int, n: int) -> None:
    stride = next((r for r in range(1, total) if len(range(0, total, r)) == n), None)
    if stride is None:
        counts = sorted({len(range(0, total, r)) for r in range(1, total)})
        with pytest.raises(ConfigError, match="no whole stride") as caught:
            respace(total, f"ddim{n}")
        for one in str(caught.value).partition("there are ")[2].partition(". Choose")[0].split(", "):
            first, _, last = one.partition("-")
            told = list(range(int(first), int(last or first) + 1))
            assert counts[: len(told)] == told
            del counts[: len(told)]
        assert counts == []
    else:
        assert respace(total, f"ddim{n}") == sorted(range(0, total, stride), reverse=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ddim",
        "ddim0",
        "10,,5",
        "a",
        "-3",
        "0",
        "10;5",
        "ddim501",
        "ddim1",
        "1" * 5000,
        "ddim" + "9" * 5000,
        "1," * 1001,
    ],
)
def test_what_is_no_such_string_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        respace(1000, text)


def test_a_string_says_the_times_by_itself() -> None:
    with pytest.raises(ConfigError, match="leave the spacing out"):
        respace(1000, "10,10,5", "quad")
