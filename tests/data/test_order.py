"""Reliability tests 12 and 34: the order is a function, and each epoch a permutation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_ip.data.order import _permutation, order

seeds = st.integers(-(2**70), 2**70)


@given(seed=seeds, n=st.integers(1, 200), epoch=st.integers(0, 10**6))
def test_every_epoch_is_a_permutation(seed, n, epoch):
    indices = order(seed, np.arange(n) + epoch * n, n)
    assert indices.dtype == np.int64
    assert np.array_equal(np.sort(indices), np.arange(n))


@given(seed=seeds, n=st.integers(1, 50), batch=st.integers(1, 70), world=st.integers(1, 4))
def test_batches_and_ranks_only_cut_the_same_stream(seed, n, batch, world):
    counters = np.arange(3 * n)
    whole = order(seed, counters, n)
    cut = [order(seed, part, n) for part in np.split(counters, range(batch, 3 * n, batch))]
    assert np.array_equal(np.concatenate(cut), whole)
    for rank in range(world):
        assert np.array_equal(order(seed, counters[rank::world], n), whole[rank::world])


def test_shape_and_any_mixture_of_epochs():
    counters = np.array([[0, 25], [7, 19]])
    flat = order(3, np.arange(30), 10)
    assert np.array_equal(order(3, counters, 10), flat[counters])
    assert order(3, np.empty(0, np.int64), 10).shape == (0,)


def test_epochs_and_seeds_differ():
    first, second = order(0, np.arange(200), 100).reshape(2, 100)
    assert (first != second).any()
    assert (order(1, np.arange(100), 100) != first).any()
    assert (first != np.arange(100)).any()


def test_the_order_never_changes():
    """A frozen answer: another NumPy, machine or rewrite must not silently reorder anybody's training data."""
    assert order(0, np.arange(12), 6).tolist() == [0, 2, 1, 5, 4, 3, 5, 3, 2, 4, 1, 0]


def test_every_index_is_as_likely_at_every_place():
    counts = np.zeros((5, 5))
    for seed in range(2000):
        counts[np.arange(5), order(seed, np.arange(5), 5)] += 1
    assert np.abs(counts - 400).max() < 100  # 5.6 standard deviations


def test_two_permutations_are_kept():
    order(11, np.arange(95, 105), 100)
    hits = _permutation.cache_info().hits
    order(11, np.arange(95, 105), 100)
    assert _permutation.cache_info().hits == hits + 2
    assert _permutation.cache_info().currsize <= 2


@pytest.mark.parametrize(("counters", "n"), [([-1], 5), ([0], 0), ([0], -3)])
def test_out_of_range(counters, n):
    with pytest.raises(ValueError, match="at least 1"):
        order(0, np.array(counters), n)
