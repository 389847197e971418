"""The bound, and losses with it and without, against a second form from the papers, in float64.

The official programs (improved-diffusion, guided-diffusion, DDPM-IP) state, for a linear chain of betas,

    simple          mean |eps - eps^|^2
    hybrid          simple + T / 1000 L_t, the mean of p(x_{t-1} | x_t) held still in L_t ("rescaled MSE")
    bound alone     T L_t ("rescaled KL")
    L_t             KL(q(x_{t-1} | x_t, x_0) || p) in bits per dimension; at t = 0 -log2 of the probability of 8 bits

with the perturbed input in place of x_t everywhere. At t = 0 they use tanh for the normal distribution function.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.images import to_unit
from ddpm_ip.objective import Loss, Objective
from ddpm_ip.perturbation import InputPerturbation, NoPerturbation
from ddpm_ip.schedule import Schedule
from ddpm_ip.times import LossSecondMoment

GAMMA, SHAPE, N = 0.15, (2, 4, 4), 96


class At:
    """Given times, with importance weights of one."""

    def __init__(self, t: Tensor) -> None:
        self.t = t

    def draw(self, draws: Draws, total_steps: int) -> tuple[Tensor, Tensor]:
        return self.t, torch.ones(len(self.t))


class Net(nn.Module):
    """Two numbers, one for the mean and one for the variance."""

    def __init__(self, learned: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(0.9)), nn.Parameter(torch.tensor(0.4))
        self.learned = learned

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        u = (t.to(x.dtype) / 1000)[:, None, None, None]
        a, b = self.a.to(x.dtype), self.b.to(x.dtype)
        output = a * torch.tanh(x) * (0.5 + 0.5 * u)
        return torch.cat((output, torch.tanh(b * x + u)), 1) if self.learned else output


def batch() -> tuple[Tensor, Draws]:
    levels = (Draws(12, 0, torch.arange(N)).start(SHAPE) * 70 + 128).round().clamp(0, 255)
    return to_unit(levels), Draws(11, 3, torch.arange(N))


def second_form(
    schedule: Schedule, net: Net, kind: str, variance: str, t: Tensor, exact: bool = True
) -> dict[str, Tensor]:
    """Simple loss and L_t in float64, all tables from the betas; ``clean`` is L_t at the true x_t."""
    x0, draws = batch()
    x0, eps, xi = x0.double(), draws.eps(SHAPE).double(), draws.xi(SHAPE).double()
    betas = schedule.betas()
    bars = torch.cumprod(1 - betas, 0)
    previous = torch.cat((torch.ones(1, dtype=torch.float64), bars[:-1]))
    posterior = betas * (1 - previous) / (1 - bars)
    small = torch.cat((posterior[1:2], posterior[1:]))
    large = torch.cat((posterior[1:2], betas[1:])) if variance == "fixed_large" else betas

    def of(table: Tensor) -> Tensor:
        return table[t][:, None, None, None]

    def parts(noise: Tensor) -> tuple[Tensor, Tensor]:
        """The network's output and L_t for an input with this noise."""
        xt = of(bars).sqrt() * x0 + (1 - of(bars)).sqrt() * noise
        output, v = net(xt, t).chunk(2, 1) if net.learned else (net(xt, t), None)
        x = output if kind == "pred_x0" else xt / of(bars).sqrt() - (1 / of(bars) - 1).sqrt() * output

        def mean(image: Tensor) -> Tensor:
            first = betas * previous.sqrt() / (1 - bars)
            second = (1 - previous) * (1 - betas).sqrt() / (1 - bars)
            return of(first) * image + of(second) * xt

        if v is None:
            log = of(small if variance == "fixed_small" else large).log().expand_as(x)
        else:
            log = (v + 1) / 2 * of(betas).log() + (1 - v) / 2 * of(small).log()
        truth = of(small).log()
        kl = 0.5 * (log - truth - 1 + (truth - log).exp() + (mean(x0) - mean(x)) ** 2 / log.exp())

        def cdf(z: Tensor) -> Tensor:
            return torch.special.ndtr(z) if exact else (1 + (math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)).tanh()) / 2

        high, low = (cdf((x0 - mean(x) + half) / (log / 2).exp()) for half in (1 / 255, -1 / 255))
        high, low = torch.where(x0 > 0.999, 1.0, high), torch.where(x0 < -0.999, 0.0, low)
        bits = torch.where(t[:, None, None, None] == 0, -(high - low).clamp(min=1e-12).log(), kl) / math.log(2)
        return output, bits.mean((1, 2, 3))

    output, bound = parts(eps + GAMMA * xi)
    target = eps if kind == "pred_eps" else x0
    return {"simple": ((output - target) ** 2).mean((1, 2, 3)), "bound": bound, "clean": parts(eps)[1]}


def ours(schedule: Schedule, net: Net, kind: str, t: Tensor, **settings: str) -> Loss:
    x0, draws = batch()
    objective = Objective(InputPerturbation(GAMMA), At(t), **settings)
    return objective(Denoiser(net, schedule, kind, net.learned), x0, draws)


LATER = 1 + torch.arange(N) * 998 // (N - 1)
SCHEDULES = {"linear": Schedule(), "cosine": Schedule(1000, "cosine")}


@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0"])
@pytest.mark.parametrize("variance", ["learned_range", "fixed_large", "fixed_small"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_losses_equal_the_second_form(name: str, variance: str, kind: str) -> None:
    """Simple, hybrid and the bound alone, at 96 times from 1 to 999, and their gradients."""
    schedule, net = SCHEDULES[name], Net(variance == "learned_range")
    settings = {} if net.learned else {"fixed": variance}
    expected = second_form(schedule, net, kind, variance, LATER)
    close = {"rtol": 2e-5, "atol": 1e-6}  # of a term in bits, from float32
    simple = ours(schedule, net, kind, LATER, **settings)
    torch.testing.assert_close(simple.terms["mse"].double(), expected["simple"], rtol=1e-6, atol=1e-6)
    total = expected["simple"] + (expected["bound"] if net.learned else 0)
    torch.testing.assert_close(simple.per_sample.double(), total, **close)
    alone = ours(schedule, net, kind, LATER, loss="vlb", **settings)
    torch.testing.assert_close(alone.terms["vlb"].double(), expected["bound"], **close)
    assert torch.equal(alone.per_sample, 1000 * alone.terms["vlb"])
    assert set(alone.terms) == {"vlb"}
    wanted = torch.autograd.grad((1000 * expected["bound"]).mean(), net.parameters(), allow_unused=not net.learned)
    found = torch.autograd.grad(alone.per_sample.mean(), net.parameters(), allow_unused=not net.learned)
    for one, other in zip(found, wanted, strict=True):
        if other is not None:
            torch.testing.assert_close(one.double(), other.double(), rtol=1e-4, atol=1e-6)
    assert found[0] != 0, "the mean learns from the bound alone"


@pytest.mark.parametrize("exact", [True, False])
def test_the_first_time_differs_by_the_distribution_function_alone(exact: bool) -> None:
    """The official tanh is off by up to 1.8e-4: a few hundredths of the term of t = 0, one time of a thousand."""
    net, t = Net(True), torch.zeros(N, dtype=torch.int64)
    expected = second_form(Schedule(), net, "pred_eps", "learned_range", t, exact)
    found = ours(Schedule(), net, "pred_eps", t).terms["vlb"].double()
    if exact:
        torch.testing.assert_close(found, expected["bound"], rtol=1e-5, atol=1e-6)
    else:
        off = (found / expected["bound"] - 1).abs()
        assert 1e-5 < off.max() < 0.1


def test_the_bound_at_the_clean_input() -> None:
    """It alone changes; its gradient still leaves the mean alone, and the network is asked once more."""
    net, calls = Net(True), []
    net.register_forward_hook(lambda *_: calls.append(1))
    published, clean = (ours(Schedule(), net, "pred_eps", LATER, vb_input=which) for which in ("perturbed", "clean"))
    assert len(calls) == 3
    assert torch.equal(published.terms["mse"], clean.terms["mse"])
    expected = second_form(Schedule(), net, "pred_eps", "learned_range", LATER)["clean"]
    torch.testing.assert_close(clean.terms["vlb"].double(), expected, rtol=2e-5, atol=1e-6)
    assert not torch.allclose(clean.terms["vlb"], published.terms["vlb"], rtol=1e-3)
    torch.testing.assert_close(clean.per_sample, clean.terms["mse"] + clean.terms["vlb"])
    mean, variance = torch.autograd.grad(clean.terms["vlb"].sum(), net.parameters(), allow_unused=True)
    assert mean is None or mean == 0
    assert variance != 0


@pytest.mark.parametrize("perturbation", [NoPerturbation(), InputPerturbation(0.0)])
def test_without_perturbation_the_clean_input_costs_nothing(perturbation: NoPerturbation | InputPerturbation) -> None:
    net, calls, (x0, draws) = Net(True), [], batch()
    net.register_forward_hook(lambda *_: calls.append(1))
    denoiser = Denoiser(net, Schedule(), learned_variance=True)
    clean, plain = (Objective(perturbation, vb_input=which)(denoiser, x0, draws) for which in ("clean", "perturbed"))
    assert torch.equal(clean.per_sample, plain.per_sample)
    assert len(calls) == 2


@pytest.mark.parametrize("loss", ["simple", "vlb"])
def test_importance_weights_multiply_the_whole_loss(loss: str) -> None:
    """``1 / (T p(t))`` of a history, for both kinds of loss, which the history sees without them."""
    x0, draws = batch()
    history = LossSecondMoment(history=1).start(Schedule(20), torch.device("cpu"))
    history.observe(torch.arange(20), torch.arange(1.0, 21.0))
    denoiser = Denoiser(Net(True), Schedule(20), learned_variance=True)
    found = Objective(InputPerturbation(GAMMA), history, loss=loss)(denoiser, x0, draws)
    roots = torch.arange(1, 21, dtype=torch.float64)
    p = 0.999 * roots / roots.sum() + 0.001 / 20
    expected = found.unweighted.double() / (20 * p[found.t])
    torch.testing.assert_close(found.per_sample.double(), expected, rtol=1e-6, atol=1e-7)
    assert (found.t > 9).float().mean() > 0.6
