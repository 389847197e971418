"""Time samplers: their probabilities, and that importance weights give the loss of uniform times."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.tiny import Crash, assert_same_state, crash_at, run, tiny, two_processes, weights
from torch import Tensor

from ddpm_ip.draws import Draws, Stream
from ddpm_ip.errors import CheckpointError, ConfigError
from ddpm_ip.schedule import Schedule
from ddpm_ip.times import Lognormal, LossSecondMoment, Observer, Skewed, Table, TimesConfig, Uniform
from ddpm_ip.times.loss_second_moment import History

CPU = torch.device("cpu")


def test_uniform_times_are_those_of_the_draws_with_weights_of_one() -> None:
    draws = Draws(4, 7, torch.arange(5000))
    t, importance = Uniform().draw(draws, 10)
    words = draws.bits(Stream.TIME, 1)[:, 0].double()
    assert torch.equal(t, (words / 2**32 * 10).floor().long())
    assert t.dtype == torch.int64
    assert torch.equal(importance, torch.ones(5000))
    counts = torch.bincount(t, minlength=10)
    assert ((counts - 500).abs() < 5 * (500 * 0.9) ** 0.5).all()


@pytest.mark.parametrize("times", [Uniform(), Lognormal(), Skewed()])
def test_what_has_fixed_probabilities_remembers_nothing(times: TimesConfig) -> None:
    assert not isinstance(times.start(Schedule(), CPU), Observer)
    assert Uniform().start(Schedule(), CPU) == Uniform()


# --- fixed probabilities ---------------------------------------------------------------------------------------------


def shares(times: TimesConfig, schedule: Schedule, n: int = 200_000) -> tuple[Tensor, Tensor, Tensor]:
    """The times of many draws, their weights, and how often each time came."""
    t, importance = times.start(schedule, CPU).draw(Draws(1, 2, torch.arange(n)), schedule.total_steps)
    assert t.dtype == torch.int64
    assert importance.dtype == torch.float32
    return t, importance, torch.bincount(t, minlength=schedule.total_steps) / n


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_lognormal_times_have_normal_noise_levels(kind: str) -> None:
    """Mean, deviation and the shares beyond one deviation of ln(sigma / alpha), up to the width of a step."""
    schedule = Schedule(1000, kind)
    t, importance, _ = shares(Lognormal(), schedule)
    bar = schedule.alpha_bars()
    logs = 0.5 * ((1 - bar) / bar).log()
    found = logs[t]
    assert found.mean() == pytest.approx(-1.2, abs=0.01)
    assert found.std() == pytest.approx(1.2, abs=0.02)
    for z in (-1.0, 0.5, 2.0):
        edge = -1.2 + 1.2 * z
        width = float(logs.diff()[(logs[:-1] - edge).abs().argmin()])  # of the time there, part of which lies beyond
        expected = 0.5 * (1 + math.erf(z / math.sqrt(2)))
        assert (found < edge).double().mean() == pytest.approx(expected, abs=0.004 + 0.4 / 1.2 * width)
    assert torch.equal(importance, torch.ones(len(t)))


@pytest.mark.parametrize(("a", "b"), [(1.0, 2.0), (0.5, 0.5), (3.0, 1.5)])
def test_skewed_times_have_the_moments_of_a_beta_distribution(a: float, b: float) -> None:
    t, importance, _ = shares(Skewed(a, b), Schedule())
    u = (t.double() + 0.5) / 1000
    variance = a * b / (a + b) ** 2 / (a + b + 1)
    assert u.mean() == pytest.approx(a / (a + b), abs=5 * (variance / len(u)) ** 0.5 + 2e-3)
    assert u.var() == pytest.approx(variance, rel=0.02)
    assert torch.equal(importance, torch.ones(len(t)))


def test_a_square_root_of_uniform_numbers_is_skewed() -> None:
    """The default is MixFlow's ``1 - sqrt(uniform)``: below u lies 1 - (1 - u)^2."""
    _, _, share = shares(Skewed(), Schedule(100))
    below = share.cumsum(0)
    expected = 1 - (1 - torch.arange(1, 101) / 100) ** 2
    torch.testing.assert_close(below, expected, atol=4e-3, rtol=0)


@pytest.mark.parametrize("times", [Lognormal(reweigh=True), Skewed(2, 2, reweigh=True), Skewed(1, 1, reweigh=True)])
def test_reweighing_gives_uniform_means(times: Lognormal | Skewed) -> None:
    """The mean weight is 1, and the weighted mean of f(t) that of uniform times."""
    schedule = Schedule(50, "cosine")
    t, importance, share = shares(times, schedule)
    seen = share * len(t) > 1000
    found = torch.zeros(50).index_add_(0, t, importance) / len(t)
    torch.testing.assert_close(found[seen], torch.full((50,), 1 / 50)[seen], rtol=0.15, atol=0)
    assert seen.sum() > 20


class Words:
    """Draws whose words are given."""

    def __init__(self, words: list[tuple[int, int]]) -> None:
        self.words = torch.tensor(words)

    def bits(self, stream: Stream, n: int) -> Tensor:
        assert stream is Stream.TIME
        return self.words[:, :n]


def test_a_rare_time_is_drawn_as_seldom_as_is_said() -> None:
    """Of probability 2^-40, between two others: by the place of uniform numbers of 52 bits, in whole numbers."""
    rare, half = 2.0**-40, 2**51
    table = Table.of(torch.tensor([0.5, rare, 0.5 - rare], dtype=torch.float64), True, CPU)
    numbers = [0, half - 1, half, half + 2**12 - 1, half + 2**12, 2**52 - 1]
    t, importance = table.draw(Words([(u >> 20, (u & 0xFFFFF) << 12) for u in numbers]), 3)
    assert t.tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(importance[2:4], torch.full((2,), 2.0**40 / 3))


def test_weights_that_leap_are_told_of() -> None:
    """On the cosine schedule the last time has a probability of some 10^-15; without weights nothing leaps."""
    for quiet in (Skewed(reweigh=True), Skewed(8, 1), Lognormal()):
        assert quiet.start(Schedule(1000, "cosine"), CPU).leaps() == ""
    said = Lognormal(reweigh=True).start(Schedule(1000, "cosine"), CPU).leaps()
    assert "the loss at time 999 counts 4e+11 times" in said
    assert "of 1000 times" in said


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Lognormal(std=0), "std must be above 0"),
        (lambda: Lognormal(mean=math.nan), "mean must be a finite number"),
        (lambda: Skewed(a=0), "a must be above 0"),
        (lambda: Skewed(b=math.inf), "b must be above 0"),
        (lambda: LossSecondMoment(history=0), "history must be a whole number"),
        (lambda: LossSecondMoment(uniform_prob=0), "uniform_prob must be above 0"),
        (lambda: Lognormal(mean=40).start(Schedule(), CPU), "noise levels go from -4.6 to 5.1"),
    ],
)
def test_senseless_settings_are_refused(make, said: str) -> None:
    with pytest.raises((ValueError, ConfigError), match=said):
        make()


# --- loss-second-moment ----------------------------------------------------------------------------------------------


class Reference:
    """Section 3.3 of Nichol & Dhariwal 2021 in numpy, loss by loss: a list of the last ones for each time."""

    def __init__(self, total: int, size: int = 10, uniform: float = 0.001) -> None:
        self.last: list[list[float]] = [[] for _ in range(total)]
        self.size, self.uniform = size, uniform

    def probabilities(self) -> np.ndarray:
        if any(len(own) < self.size for own in self.last):
            return np.full(len(self.last), 1 / len(self.last))
        roots = np.array([math.sqrt(sum(x * x for x in own) / self.size) for own in self.last])
        return (1 - self.uniform) * roots / roots.sum() + self.uniform / len(roots)

    def observe(self, times: list[int], losses: list[float]) -> None:
        for time, loss in zip(times, losses, strict=True):
            self.last[time] = [*self.last[time], loss][-self.size :]


def losses_at(t: Tensor, step: int) -> Tensor:
    """What a network might lose: large and noisy at t = 0, small at the end."""
    noise = Draws(99, step, torch.arange(len(t))).normal(0, ()).exp()
    return noise / (t + 1) ** 1.5


def test_loss_second_moment_equals_a_list_of_losses_for_each_time() -> None:
    """Over many batches in which times come up to 40 times: probabilities, weights, and the times themselves."""
    total, size = 12, 10
    history, reference = LossSecondMoment().start(Schedule(total), CPU), Reference(total)
    uniform, learned = 0, 0
    for step in range(60):
        draws = Draws(3, step, torch.arange([17, 64, 240][step % 3]))
        p = reference.probabilities()
        np.testing.assert_allclose(history.probabilities().numpy(), p, rtol=1e-12)
        t, importance = history.draw(draws, total)
        np.testing.assert_allclose(importance.numpy(), 1 / (total * p[t.numpy()]), rtol=1e-6)
        u = draws.bits(Stream.TIME, 1)[:, 0].numpy() / 2**32
        edges = np.cumsum(p)
        clear = np.abs(u[:, None] - edges).min(axis=1) > 1e-9
        assert (t.numpy() == np.searchsorted(edges, u, side="right"))[clear].all()
        if np.ptp(p) == 0:
            uniform += 1
            assert torch.equal(t, draws.times(total))
            assert torch.equal(importance, torch.ones(len(t)))
        else:
            learned += 1
        loss = losses_at(t, step)
        history.observe(t, loss)
        reference.observe(t.tolist(), loss.tolist())
        rings = [
            sorted(own[: int(n)]) for own, n in zip(history.losses.tolist(), history.seen.clamp(max=size), strict=True)
        ]
        assert rings == [sorted(own) for own in reference.last]
    assert uniform > 2
    assert learned > 40
    assert p[0] > 20 * p[-1]


def test_the_weighted_loss_has_the_mean_of_uniform_times_and_less_variance() -> None:
    total, n = 12, 100_000
    history = LossSecondMoment().start(Schedule(total), CPU)
    for step in range(10):
        t = Uniform().draw(Draws(3, step, torch.arange(400)), total)[0]
        history.observe(t, losses_at(t, step))
    draws = Draws(3, 77, torch.arange(n))
    t, importance = history.draw(draws, total)
    weighted, plain = importance * losses_at(t, 5), losses_at(draws.times(total), 5)
    deviation = (weighted.var() / n + plain.var() / n) ** 0.5
    assert abs(weighted.mean() - plain.mean()) < 4 * deviation
    assert weighted.var() < 0.7 * plain.var()


def test_losses_that_are_not_finite_are_passed_over() -> None:
    """As of a step that fp16's scaler skips: the rest of the batch counts as if they were not in it."""
    t, loss = torch.tensor([1, 0, 1, 1, 0]), torch.tensor([1.0, math.inf, math.nan, 3.0, 2.0])
    history, other = (LossSecondMoment(history=2).start(Schedule(2), CPU) for _ in range(2))
    history.observe(t, loss)
    fine = loss.isfinite()
    other.observe(t[fine], loss[fine])
    assert torch.equal(history.losses, other.losses)
    assert history.seen.tolist() == [1, 2]


def test_where_all_losses_are_zero_times_are_uniform() -> None:
    history = LossSecondMoment(history=1).start(Schedule(4), CPU)
    history.observe(torch.arange(4), torch.zeros(4))
    t, importance = history.draw(Draws(0, 0, torch.arange(100)), 4)
    assert set(t.tolist()) == {0, 1, 2, 3}
    assert importance.isfinite().all()


def test_a_history_is_taken_over_and_a_senseless_one_refused() -> None:
    one, two = (LossSecondMoment().start(Schedule(5), CPU) for _ in range(2))
    one.observe(torch.arange(5).repeat(3), torch.rand(15))
    where = two.losses.data_ptr()
    two.load({k: v.clone() for k, v in one.tensors().items()})
    assert two.losses.data_ptr() == where, "a captured graph reads it there"
    assert all(torch.equal(v, one.tensors()[k]) for k, v in two.tensors().items())
    two.load({})
    assert torch.equal(two.seen, one.seen)
    with pytest.raises(CheckpointError, match="negative"):
        two.load({"losses": one.losses, "seen": one.seen - 100})


def learning(**settings):
    """A run whose history is full after a few steps."""
    config = tiny({"dropout": 0.0}, n_steps=6, optim={"lr": 1e-3, "eps": 1e-3}, **settings)
    train = replace(config.train, times=LossSecondMoment(history=1))
    return replace(config, train=train, diffusion=replace(config.diffusion, total_steps=3))


def test_a_run_that_stops_continues_bit_for_bit(tmp_path) -> None:
    """Its history is full by then, so the times of the last steps depend on what was saved."""
    run(learning(save_freq=6), tmp_path / "one")
    with pytest.raises(Crash):
        run(learning(save_freq=4), tmp_path / "two", hooks=crash_at(5))
    run(learning(save_freq=6), tmp_path / "two", "latest")
    assert_same_state(tmp_path / "one", tmp_path / "two", 6)
    first, second = (weights(tmp_path / name, 6, "times") for name in ("one", "two"))
    assert first.keys() == {"losses", "seen"}
    assert all(torch.equal(v, second[k]) for k, v in first.items())
    assert (weights(tmp_path / "two", 4, "times")["seen"] >= 1).all()


def test_two_processes_remember_what_one_does(tmp_path) -> None:
    run(learning(save_freq=6), tmp_path / "one")
    assert two_processes(lambda: run_together(tmp_path / "two")) == [0, 0]
    one, two = (weights(tmp_path / name, 6, "times") for name in ("one", "two"))
    assert torch.equal(one["seen"], two["seen"])
    torch.testing.assert_close(one["losses"], two["losses"], rtol=1e-4, atol=1e-6)


def run_together(folder) -> None:
    from ddpm_ip.train.loop import train

    train(learning(save_freq=6), folder)


def test_nothing_waits_for_the_device() -> None:
    """Tensors without numbers can be drawn from and observed: nothing is looked at, and no shape depends on them."""
    device = torch.device("meta")
    history = History(10, LossSecondMoment(), device)
    draws = Draws(1, torch.zeros((), dtype=torch.int64, device=device), torch.arange(6, device=device))
    for times in (history, Skewed().start(Schedule(10), device), Uniform()):
        t, importance = times.draw(draws, 10)
        assert (t.shape, importance.shape) == ((6,), (6,))
    history.observe(t, importance)
