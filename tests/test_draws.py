"""Randomness as a function: the generator is Philox, rows do not see their neighbours, streams do not meet."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm_ip.draws import Draws, Stream, dropout_seed, philox

WORD = st.integers(0, 2**32 - 1)
ROWS = torch.arange(64)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_answers(counter: list[int], key: list[int], words: list[int]) -> None:
    """The known-answer vectors of Random123, the authors' own library."""
    got = philox(*(torch.tensor([c]) for c in counter), seed=key[0] | key[1] << 32)
    assert [int(w) for w in got] == words


@given(st.tuples(WORD, WORD, WORD, WORD), st.integers(0, 2**64 - 1))
def test_philox_equals_whole_number_arithmetic(counter: tuple[int, int, int, int], seed: int) -> None:
    """int64 tensors that wrap around give what Python's unbounded integers give."""
    c0, c1, c2, c3 = counter
    k0, k1 = seed % 2**32, seed // 2**32
    for _ in range(10):
        high0, low0 = divmod(c0 * 0xD2511F53, 2**32)
        high1, low1 = divmod(c2 * 0xCD9E8D57, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    got = philox(*(torch.tensor([c]) for c in counter), seed=seed)
    assert [int(w) for w in got] == [c0, c1, c2, c3]


@given(
    st.lists(st.tuples(st.sampled_from(Stream), WORD, WORD), min_size=2, max_size=8, unique=True),
    st.integers(0, 2**64 - 1),
)
def test_no_two_places_share_a_block(places: list[tuple[Stream, int, int]], seed: int) -> None:
    """Philox is a bijection of counters, so blocks of different (stream, step, row, position) differ, always."""
    blocks = [
        tuple(block)
        for stream, step, row in places
        for block in Draws(seed, step, torch.tensor([row])).bits(stream, 8).reshape(2, 4).tolist()
    ]
    assert len(set(blocks)) == 2 * len(places)


def test_the_first_words_of_a_block_do_not_depend_on_how_many_are_asked() -> None:
    draws = Draws(1, 2, ROWS)
    assert torch.equal(draws.bits(Stream.EPS, 9), draws.bits(Stream.EPS, 32)[:, :9])


@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (3, 32, 32)])
def test_rows_are_independent_of_their_neighbours_bit_for_bit(shape: tuple[int, ...]) -> None:
    """Whatever the batch, the micro-batch or the process: a row draws the same numbers."""
    whole = Draws(123, 45, ROWS)
    some = torch.tensor([3, 60, 17])
    part = Draws(123, 45, some)
    for draw in (
        lambda d: d.eps(shape),
        lambda d: d.xi(shape),
        lambda d: d.start(shape),
        lambda d: d.noise(shape),
        lambda d: d.times(1000),
        lambda d: d.flips(),
    ):
        assert torch.equal(draw(part), draw(whole)[some])


def test_seed_step_row_and_stream_all_matter() -> None:
    def draw(seed: int = 0, step: int = 0, row: int = 0, stream: Stream = Stream.EPS) -> list[int]:
        return Draws(seed, step, torch.tensor([row])).bits(stream, 4)[0].tolist()

    variants = [draw(), draw(seed=1), draw(seed=2**32), draw(seed=2**63), draw(step=1), draw(row=1)]
    variants += [draw(stream=s) for s in Stream if s is not Stream.EPS]
    assert len({tuple(v) for v in variants}) == len(variants)


def test_the_streams_keep_their_numbers() -> None:
    """They are part of every published result."""
    assert {s.name: int(s) for s in Stream} == {
        "TIME": 0, "EPS": 1, "XI": 2, "FLIP": 3, "DROPOUT": 4, "START": 5, "STEP": 6,
        "LABEL": 7, "STRENGTH": 8, "CHANCE": 9, "RESAMPLE": 10,
    }  # fmt: skip


def test_normal_numbers_are_normal() -> None:
    """Four moments within five standard errors, and Kolmogorov-Smirnov at the 0.1 % level."""
    x = Draws(2024, 7, torch.arange(128)).normal(Stream.EPS, (999,)).double().flatten()  # odd: half a pair is left over
    n = x.numel()
    for power, moment, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs((x**power).mean() - moment) < 5 * math.sqrt(variance / n)
    expected = torch.special.ndtr(x.sort().values)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    distance = torch.maximum((steps[1:] - expected).max(), (expected - steps[:-1]).max())
    assert distance * math.sqrt(n) < 1.95
    assert x.isfinite().all()
    assert 4.0 < x.abs().max() < math.sqrt(2 * 32 * math.log(2)) + 1e-3  # the tail that 32 bits can reach


def test_normal_numbers_at_the_ends_of_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The word 0 is no logarithm of zero, the word 2^32 - 1 no number beyond one."""
    ends = torch.tensor([[0, 0, 0, 2**31, 2**32 - 1, 0, 2**32 - 1, 2**32 - 1]])
    monkeypatch.setattr(Draws, "bits", lambda self, stream, n: ends[:, :n])
    x = Draws(0, 0, torch.tensor([0])).normal(Stream.EPS, (8,))[0]
    largest = math.sqrt(2 * 32 * math.log(2))
    torch.testing.assert_close(x[:4], torch.tensor([largest, 0.0, -largest, 0.0]), atol=2e-6, rtol=1e-6)
    assert torch.equal(x[4:].abs(), torch.zeros(4))


def test_streams_seeds_steps_and_neighbours_are_uncorrelated() -> None:
    rows = torch.arange(50)
    series = [Draws(5, 0, rows).normal(stream, (1000,)).flatten() for stream in Stream]
    series += [draws.eps((1000,)).flatten() for draws in (Draws(5, 1, rows), Draws(6, 0, rows), Draws(5, 0, rows + 50))]
    series += [series[1].roll(shift) for shift in (1, 2, 1000)]  # the next number, the next pair, the next row
    correlation = torch.corrcoef(torch.stack(series)) - torch.eye(len(series))
    assert correlation.abs().max() < 5 / math.sqrt(50_000)


def test_times_are_uniform_and_in_range() -> None:
    n, total = 50_000, 10
    counts = torch.bincount(Draws(1, 3, torch.arange(n)).times(total), minlength=total).double()
    assert len(counts) == total
    chi2 = ((counts - n / total) ** 2 / (n / total)).sum()
    assert chi2 < 27.9  # 0.1 % level, 9 degrees of freedom


@pytest.mark.parametrize("total", [1, 2, 1000, 4000])
def test_times_at_the_ends_of_the_words(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Draws, "bits", lambda self, stream, n: torch.tensor([[0], [2**32 - 1]]))
    assert Draws(0, 0, torch.arange(2)).times(total).tolist() == [0, total - 1]


def test_half_of_the_images_are_mirrored() -> None:
    flips = Draws(0, 0, torch.arange(40_000)).flips()
    assert abs(flips.double().mean() - 0.5) < 5 * 0.5 / math.sqrt(40_000)


def test_dropout_seeds_differ_by_seed_step_and_rank_and_fit_a_generator() -> None:
    seeds = [dropout_seed(s, step, rank) for s in (0, 1, 2**64 - 1) for step in range(40) for rank in range(8)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**63 for s in seeds)
    assert max(seeds) > 2**62  # the high bits are used
    torch.Generator().manual_seed(max(seeds))
