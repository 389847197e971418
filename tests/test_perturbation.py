"""Input perturbation: what the network is fed changes, its target does not; gamma = 0 is plain DDPM, bit for bit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.objective import Objective
from ddpm_ip.perturbation import InputPerturbation, NoPerturbation, Perturbation
from ddpm_ip.schedule import Schedule


class Recorder(nn.Module):
    """Keeps what it is fed; its output depends on a parameter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.fed: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.fed = (x.detach().clone(), t.clone())
        return self.conv(x) + t.reshape(-1, 1, 1, 1) / 1000


def run(perturbation: Perturbation, kind: str = "pred_eps") -> tuple[Recorder, Tensor, list[Tensor]]:
    """Loss per sample and gradients of one step."""
    network = Recorder()
    x0 = Draws(9, 0, torch.arange(6)).normal(0, (2, 5, 5)).clamp(-1, 1)
    loss = Objective(perturbation)(Denoiser(network, Schedule(), kind), x0, Draws(1, 2, torch.arange(6)))
    loss.per_sample.mean().backward()
    return network, loss.per_sample.detach(), [p.grad for p in network.parameters()]


@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0", "pred_v"])
def test_gamma_zero_is_plain_ddpm_bit_for_bit(kind: str) -> None:
    """The same input, loss and gradients."""
    plain, plain_loss, plain_grads = run(NoPerturbation(), kind)
    zero, zero_loss, zero_grads = run(InputPerturbation(gamma=0.0), kind)
    assert torch.equal(plain.fed[0], zero.fed[0])
    assert torch.equal(plain_loss, zero_loss)
    assert all(torch.equal(a, b) for a, b in zip(plain_grads, zero_grads, strict=True))
    assert not torch.equal(plain_loss, run(InputPerturbation(gamma=0.1), kind)[1])  # the comparison can fail


def test_another_gamma_shares_times_and_noise_bit_for_bit() -> None:
    """A baseline and a study of gamma see the same t and eps; what differs is proportional to one and the same xi."""
    plain, tenth, fifth = (run(InputPerturbation(gamma=gamma))[0] for gamma in (0, 0.1, 0.2))
    assert torch.equal(plain.fed[1], tenth.fed[1])
    assert torch.equal(plain.fed[1], fifth.fed[1])
    draws = Draws(1, 2, torch.arange(6))
    sigma = Schedule().sigma(draws.times(1000), plain.fed[0])
    for network, gamma in ((tenth, 0.1), (fifth, 0.2)):
        expected = plain.fed[0] + sigma * gamma * draws.xi((2, 5, 5))
        torch.testing.assert_close(network.fed[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5])
def test_variance_of_the_input_and_the_clean_target(gamma: float) -> None:
    """Var y_t = alpha^2 Var x_0 + sigma^2 (1 + gamma^2) and Cov(y_t, target) = sigma: the target is the clean eps."""
    n, deviation, schedule = 2048, 0.5, Schedule(4, "linear", 0.1, 0.6)
    network = Recorder()
    draws = Draws(3, 4, torch.arange(n))
    x0 = deviation * Draws(77, 0, torch.arange(n)).normal(0, (2, 6, 6))
    Objective(InputPerturbation(gamma=gamma))(Denoiser(network, schedule), x0, draws)
    yt, t = network.fed
    for time in range(4):
        y, eps = yt[t == time].double().flatten(), draws.eps((2, 6, 6))[t == time].double().flatten()
        a2 = schedule.alpha_bar(time)
        variance = a2 * deviation**2 + (1 - a2) * (1 + gamma**2)
        assert y.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / y.numel()))
        assert abs((y * eps).mean() - math.sqrt(1 - a2)) < 5 * math.sqrt((variance + 1 - a2) / y.numel())


@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0", "pred_v"])
def test_a_network_that_says_the_clean_truth_has_no_loss(kind: str) -> None:
    """Whatever gamma is: nothing of xi is in the target."""
    rows = torch.arange(4)
    draws, schedule = Draws(5, 6, rows), Schedule()
    x0 = Draws(8, 0, rows).normal(0, (1, 4, 4))
    t, eps = draws.times(1000), draws.eps((1, 4, 4))
    a, s = schedule.alpha(t, x0), schedule.sigma(t, x0)
    truth = {"pred_eps": eps, "pred_x0": x0, "pred_v": a * eps - s * x0}[kind]
    loss = Objective(InputPerturbation(gamma=0.3))(Denoiser(lambda x, t: truth, schedule, kind), x0, draws)
    assert torch.equal(loss.per_sample, torch.zeros(4))


@pytest.mark.parametrize("gamma", [-0.1, float("nan"), -float("inf")])
def test_a_senseless_gamma_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must be >= 0"):
        InputPerturbation(gamma=gamma)
