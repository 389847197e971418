"""The IP emulator on a mixture of Gaussians, whose optimal networks with and without perturbation are known."""

from __future__ import annotations

import math

import pytest
import torch
from tests.sampler.correction.rows import asks, row_at
from tests.sampler.oracle import ROWS, SHAPE, network, network_with_variance
from torch import Tensor

from ddpm_ip.denoiser import Denoiser, Prediction
from ddpm_ip.sampler import DDIM, Ancestral, respace, walk
from ddpm_ip.sampler.correction import Denoise, IPEmulator, Row
from ddpm_ip.schedule import Schedule

WEIGHTS = torch.tensor([0.5, 0.2, 0.3]).double()
CENTRES = torch.tensor([[-0.7, 0.2], [0.1, -0.5], [0.6, 0.6]]).double()
VARIANCES = torch.tensor([[0.02, 0.05], [0.1, 0.01], [0.03, 0.03]]).double()
SCHEDULES = [Schedule(), Schedule(1000, "cosine"), Schedule(1000, "quad"), Schedule(100, "const")]


def mean_of_x0(y: Tensor, alpha: float, noise: float) -> Tensor:
    """E[x0 | y] for ``y = alpha x0 + noise n`` (..., 2), n standard normal and x0 from the mixture."""
    spread = alpha**2 * VARIANCES + noise**2
    off = y[..., None, :] - alpha * CENTRES
    log_share = WEIGHTS.log() - 0.5 * (off**2 / spread + spread.log()).sum(-1)
    within = CENTRES + alpha * VARIANCES / spread * off
    return (log_share.softmax(-1)[..., None] * within).sum(-2)


def optimal_eps(x: Tensor, alpha: float, sigma: float, gamma: float) -> Tensor:
    """E[eps | y] for ``y = alpha x0 + sigma (eps + gamma xi)``: of two independent noises, eps is 1 / (1 + gamma^2)."""
    y = x.reshape(-1, 2)
    f2 = 1 + gamma**2
    return ((y - alpha * mean_of_x0(y, alpha, sigma * math.sqrt(f2))) / (sigma * f2)).reshape(x.shape)


def optimal(schedule: Schedule, kind: str, gamma: float = 0.0) -> Denoise:
    """The optimal network as float64 function, in its own terms, at the levels of the times that it is told."""

    def output(x: Tensor, t: float) -> Tensor:
        alpha, sigma = schedule.level(t)
        eps = optimal_eps(x, alpha, sigma, gamma)
        x0 = (x - sigma * eps) / alpha
        return {"pred_eps": eps, "pred_x0": x0, "pred_v": alpha * eps - sigma * x0}[kind]

    return asks(output, kind)


def points(alpha: float, sigma: float, gamma: float = 0.0) -> Tensor:
    """Inputs (16, 1, 4, 2) as training with gamma has them, and some that are far off."""
    draw = torch.Generator().manual_seed(3)
    which = torch.multinomial(WEIGHTS, 64, replacement=True, generator=draw)
    one, two = torch.randn(2, 64, 2, dtype=torch.float64, generator=draw)
    x = alpha * (CENTRES[which] + VARIANCES[which].sqrt() * one) + sigma * math.sqrt(1 + gamma**2) * two
    x[:4] *= 3
    return x.reshape(16, 1, 4, 2)


@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0", "pred_v"])
@pytest.mark.parametrize("gamma", [0.1, 0.25])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.beta_schedule)
def test_an_optimal_network_becomes_the_optimal_one_of_the_other_training(
    schedule: Schedule, gamma: float, kind: str
) -> None:
    last = schedule.total_steps - 1
    shift = 0.5 * math.log(1 + gamma**2)
    for t in (0.0, 1.0, 0.05 * last, 0.3 * last, 0.5 * last, 0.7 * last):
        alpha, sigma = schedule.level(t)
        x = points(alpha, sigma, gamma)
        for undo, trained, wanted in ((False, 0.0, gamma), (True, gamma, 0.0)):
            if undo and schedule.half_log_snr(t) + shift > schedule.half_log_snr(0):
                continue  # below the least noise there is no time: see the next test
            emulator, denoise = IPEmulator(gamma, undo), optimal(schedule, kind, trained)
            seen = emulator.wrap(denoise)(x, row_at(schedule, t, len(x), emulator))
            expected = optimal_eps(x, alpha, sigma, wanted)
            torch.testing.assert_close(seen.eps, expected, atol=1e-6, rtol=1e-6)
            x0 = (x - sigma * expected) / alpha
            torch.testing.assert_close(seen.x0, x0, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.beta_schedule)
def test_beyond_the_ends_the_network_is_asked_at_them(schedule: Schedule) -> None:
    last = schedule.total_steps - 1
    for t, undo in ((float(last), False), (last - 0.001, False), (0.0, True)):
        asked: list[tuple[float, float, float]] = []
        denoise, emulator = optimal(schedule, "pred_v", 0.15 if undo else 0.0), IPEmulator(0.15, undo)

        def noted(x: Tensor, row: Row, denoise: Denoise = denoise, asked: list = asked) -> Prediction:
            asked.append((float(row.t[0]), float(row.alpha), float(row.sigma)))
            return denoise(x, row)

        alpha, sigma = schedule.level(t)
        x = points(alpha, sigma, 0.15)
        seen = emulator.wrap(noted)(x, row_at(schedule, t, len(x), emulator))
        assert asked == [pytest.approx((0.0 if undo else last, *schedule.level(0 if undo else last)), rel=1e-9)]
        assert seen.x0.isfinite().all()
        # Near enough to the optimum: at that end eps is nearly the input, or the noise is nearly nothing.
        expected = optimal_eps(x, alpha, sigma, 0.0 if undo else 0.15)
        assert (seen.eps - expected).norm() < (0.2 if undo else 0.03) * expected.norm()


@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0", "pred_v"])
@pytest.mark.parametrize("first", [False, True], ids=["added and undone", "undone and added"])
def test_forward_then_undo_is_the_identity(first: bool, kind: str) -> None:
    """For any network: the outer one asks at u, and the inner one leads from u back to t."""
    schedule, gamma = Schedule(), 0.2
    inner, outer = IPEmulator(gamma, first), IPEmulator(gamma, not first)
    denoise = asks(lambda x, t: torch.tanh(1.3 * x) + 0.1 * math.cos(t / 100), kind)
    for t in (50.0, 400.5, 900.0):
        u = schedule.time(schedule.half_log_snr(t) + (0.5 if outer.undo else -0.5) * math.log(1 + gamma**2))
        numbers = row_at(schedule, u, 4, inner).numbers

        def emulated(x: Tensor, row: Row, numbers: dict = numbers) -> Prediction:
            return inner.wrap(denoise)(x, row._replace(numbers=numbers))

        x = points(*schedule.level(t))[:4]
        row = row_at(schedule, t, 4, outer)
        for found, expected in zip(outer.wrap(emulated)(x, row)[:2], denoise(x, row)[:2], strict=True):
            torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-7)


def test_gamma_0_changes_nothing() -> None:
    schedule = Schedule()
    plan = Ancestral("fixed_small").plan(schedule, respace(1000, 7))
    for denoiser in (Denoiser(network, schedule), Denoiser(network, schedule, "pred_v")):
        *_, plain = walk(plan, denoiser, 0, ROWS, SHAPE)
        *_, same = walk(plan, denoiser, 0, ROWS, SHAPE, [IPEmulator(0.0)])
        torch.testing.assert_close(same.xt, plain.xt, atol=2e-6, rtol=2e-5)


def test_a_walk_of_the_emulated_network_is_that_of_the_optimal_ip_network() -> None:
    """Also with a learned variance, whose fraction is what the network says where it is asked."""
    schedule, gamma = Schedule(), 0.15

    def walked(trained: float, *corrections: IPEmulator) -> Tensor:
        def function(x: Tensor, t: Tensor) -> Tensor:
            return torch.stack([
                optimal_eps(one, *schedule.level(float(at)), trained) for one, at in zip(x.double(), t, strict=True)
            ]).float()  # fmt: skip

        plan = DDIM().plan(schedule, respace(1000, 6, "uniform-leading"))
        *_, last = walk(plan, Denoiser(function, schedule), 1, torch.arange(4), (1, 4, 2), corrections)
        return last.xt

    torch.testing.assert_close(walked(0.0, IPEmulator(gamma)), walked(gamma), atol=2e-3, rtol=1e-3)
    assert (walked(0.0) - walked(gamma)).abs().max() > 0.02
    learned = Denoiser(network_with_variance, schedule, learned_variance=True)
    plan = Ancestral("learned_range").plan(schedule, respace(1000, 6))
    *_, last = walk(plan, learned, 0, ROWS, SHAPE, [IPEmulator()])
    assert last.xt.isfinite().all()
    assert last.seen is not None
    assert last.seen.variance_fraction is not None


@pytest.mark.parametrize("gamma", [-0.1, math.inf, math.nan])
def test_a_gamma_that_is_none_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must be"):
        IPEmulator(gamma)
