"""Time samplers: the loss that they lead to is in expectation that of uniform times."""

from __future__ import annotations

import torch

from ddpm_ip.draws import Draws, Stream
from ddpm_ip.times import Observer, Uniform


def test_uniform_times_are_those_of_the_draws_with_weights_of_one() -> None:
    draws = Draws(4, 7, torch.arange(5000))
    t, importance = Uniform().draw(draws, 10)
    words = draws.bits(Stream.TIME, 1)[:, 0].double()
    assert torch.equal(t, (words / 2**32 * 10).floor().long())
    assert t.dtype == torch.int64
    assert torch.equal(importance, torch.ones(5000))
    counts = torch.bincount(t, minlength=10)
    assert ((counts - 500).abs() < 5 * (500 * 0.9) ** 0.5).all()


def test_uniform_times_remember_nothing() -> None:
    uniform = Uniform()
    assert uniform.start(10, torch.device("cpu")) is uniform
    assert not isinstance(uniform, Observer)
