"""The training loss against closed forms, and the variational bound against torch.distributions and erf."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from ddpm_ip.denoiser import Denoiser, Prediction
from ddpm_ip.draws import Draws, Stream
from ddpm_ip.images import to_unit
from ddpm_ip.nn import UNetConfig
from ddpm_ip.nn.network import Cond
from ddpm_ip.objective import Objective, bound_term, discretized_log_likelihood, gaussian_kl
from ddpm_ip.perturbation import InputPerturbation, NoPerturbation
from ddpm_ip.schedule import Schedule, expand_like, posterior
from ddpm_ip.times import Uniform
from ddpm_ip.weighting import Constant

TOTAL = 5
SCHEDULE = Schedule(TOTAL, "linear", 0.1, 0.5)
SHAPE = (2, 6, 6)
DEVIATION = 0.6  # of the Gaussian data


def gaussian_data(n: int) -> Tensor:
    return DEVIATION * Draws(99, 0, torch.arange(n)).start(SHAPE)


class Linear(nn.Module):
    """``k_t y``."""

    def __init__(self, k: Tensor) -> None:
        super().__init__()
        self.k = nn.Parameter(k.clone())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return expand_like(self.k[t], x) * x


def best_k(gamma: float) -> Tensor:
    """The minimiser of E (k y - eps)^2 on the data: Cov(y, eps) / Var(y)."""
    bar = SCHEDULE.alpha_bars()
    return ((1 - bar).sqrt() / (bar * DEVIATION**2 + (1 - bar) * (1 + gamma**2))).float()


@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_the_loss_of_a_linear_network_equals_its_closed_form(gamma: float) -> None:
    """E (k y - eps)^2 = k^2 (alpha^2 c^2 + sigma^2 (1 + gamma^2)) - 2 k sigma + 1, time by time."""
    n, k = 2048, torch.linspace(0.2, 1.3, TOTAL)
    draws = Draws(4, 1, torch.arange(n))
    t = draws.times(TOTAL)
    loss = Objective(InputPerturbation(gamma=gamma))(Denoiser(Linear(k), SCHEDULE), gaussian_data(n), draws).per_sample
    assert loss.shape == (n,)
    for time in range(TOTAL):
        a2, some, slope = SCHEDULE.alpha_bar(time), loss[t == time].detach().double(), float(k[time])
        expected = slope**2 * (a2 * DEVIATION**2 + (1 - a2) * (1 + gamma**2)) - 2 * slope * math.sqrt(1 - a2) + 1
        assert abs(some.mean() - expected) < 5 * some.std() / math.sqrt(len(some)), time


@pytest.mark.parametrize("gamma", [0.0, 0.6])
def test_the_minimiser_is_the_shrunk_one(gamma: float) -> None:
    """The gradient vanishes at Cov / Var with the perturbed variance, and not at plain DDPM's minimiser."""
    n = 2048

    def gradient(k: Tensor) -> Tensor:
        network = Linear(k)
        loss = Objective(InputPerturbation(gamma=gamma))(
            Denoiser(network, SCHEDULE), gaussian_data(n), Draws(4, 2, torch.arange(n))
        )
        loss.per_sample.mean().backward()
        return network.k.grad

    noise = 5 * 2 * 1.5 / math.sqrt(n / TOTAL * math.prod(SHAPE)) / TOTAL
    assert gradient(best_k(gamma)).abs().max() < noise
    if gamma:
        bar = SCHEDULE.alpha_bars()
        expected = 2 * best_k(0.0) * (1 - bar) * gamma**2 / TOTAL  # d/dk of the closed form, times P(t)
        torch.testing.assert_close(gradient(best_k(0.0)), expected.float(), atol=noise, rtol=0)
        assert expected.max() > 2 * noise


def test_the_minimiser_is_epsilon_scaling_with_a_time_shift() -> None:
    """eps_IP(y, t) = eps*(c y, t') / sqrt(1 + gamma^2), with the noise level of t' that of the scaled input."""
    gamma, bar = 0.3, SCHEDULE.alpha_bars()
    c = 1 / (bar + (1 - bar) * (1 + gamma**2)).sqrt()
    shifted = bar * c**2
    plain_at_shifted = (1 - shifted).sqrt() / (shifted * DEVIATION**2 + 1 - shifted)
    torch.testing.assert_close(best_k(gamma), (plain_at_shifted * c / math.sqrt(1 + gamma**2)).float())
    assert (best_k(gamma) < best_k(0.0)).all()


def test_of_the_bound_alone_the_minimiser_is_not_shrunk() -> None:
    """From t = 1 on it is Cov(y, eps + gamma xi) / Var(y), that of a network which is asked for all of the noise."""
    n, gamma = 4096, 0.6

    def pull(k: Tensor) -> Tensor:
        network, draws = Linear(k), Draws(4, 2, torch.arange(n))
        objective = Objective(InputPerturbation(gamma=gamma), loss="vlb")
        objective(Denoiser(network, SCHEDULE), gaussian_data(n).clamp(-1, 1), draws).per_sample.mean().backward()
        return network.k.grad[1:].abs()

    variance, bar = float(gaussian_data(n).clamp(-1, 1).var()), SCHEDULE.alpha_bars()
    slope = (1 - bar).sqrt() / (bar * variance + (1 - bar) * (1 + gamma**2))
    assert (pull(((1 + gamma**2) * slope).float()) < 0.1 * pull(slope.float())).all()


# --- times and weights -----------------------------------------------------------------------------------------------


def loss_of_version_0_1(
    perturbation: NoPerturbation | InputPerturbation, denoiser: Denoiser, x0: Tensor, draws: Draws
) -> Tensor:
    """The body of version 0.1's ``Objective.__call__`` and of the perturbations that it knew, word for word."""
    schedule = denoiser.schedule
    t = draws.times(schedule.total_steps)
    eps = draws.eps(x0.shape[1:])
    gamma = perturbation.gamma if isinstance(perturbation, InputPerturbation) else 0
    noise = eps if gamma == 0 else eps + gamma * draws.xi(eps.shape[1:])
    yt = schedule.alpha(t, x0) * x0 + schedule.sigma(t, x0) * noise
    prediction = denoiser(yt, t)
    per_sample = ((prediction.output - denoiser.target(x0, eps, t)) ** 2).flatten(1).mean(dim=1)
    if prediction.variance_fraction is not None:
        per_sample = per_sample + schedule.total_steps / 1000 * bound_term(schedule, prediction, x0, yt, t)
    return per_sample


@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0", "pred_v"])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("perturbation", [NoPerturbation(), InputPerturbation(gamma=0.15)])
@pytest.mark.parametrize("schedule", [SCHEDULE, Schedule(1000, "cosine")])
def test_uniform_times_and_constant_weights_are_version_0_1_to_the_bit(
    kind: str, learned: bool, perturbation: NoPerturbation | InputPerturbation, schedule: Schedule
) -> None:
    """Losses and gradients."""
    torch.manual_seed(0)
    network = UNetConfig(2, 8, (1, 2), (False, True), 1, num_groups=4).build(2, 4 if learned else 2, None).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    denoiser, draws = Denoiser(network, schedule, kind, learned), Draws(11, 3, torch.arange(24))
    x0 = to_unit((Draws(12, 0, torch.arange(24)).start(SHAPE) * 90 + 128).round().clamp(0, 255))
    ours = Objective(perturbation, Uniform(), Constant())(denoiser, x0, draws)
    theirs = loss_of_version_0_1(perturbation, denoiser, x0, draws)
    assert torch.equal(ours.per_sample, theirs)
    assert torch.equal(ours.unweighted, theirs)
    assert len(theirs.unique()) == 24
    parameters = list(network.parameters())
    for mine, their in zip(
        torch.autograd.grad(ours.per_sample.sum() / 24, parameters, retain_graph=True),
        torch.autograd.grad(theirs.sum() / 24, parameters),
        strict=True,
    ):
        assert torch.equal(mine, their)


class Sqrt:
    """The square root of the noise level."""

    def __call__(self, schedule: Schedule, t: Tensor, prediction_type: str) -> Tensor:
        assert prediction_type == "pred_v"
        return schedule.sigma(t, t.float()) ** 0.5


class Late:
    """The last time half of the time, the rest uniformly."""

    def draw(self, draws: Draws, total_steps: int) -> tuple[Tensor, Tensor]:
        u = draws.bits(Stream.TIME, 1)[:, 0].double() / 2**32
        t = torch.where(u < 0.5, total_steps - 1, ((u - 0.5) * 2 * (total_steps - 1)).long())
        p = torch.where(t == total_steps - 1, 0.5, 0.5 / (total_steps - 1))
        return t, (1 / (total_steps * p)).float()


def test_the_weights_multiply_the_error_and_not_the_bound() -> None:
    x0, draws = levels_and_draws()
    denoiser = Denoiser(lambda x, t: torch.cat((0.8 * x, torch.tanh(x)), 1), SCHEDULE, "pred_v", learned_variance=True)
    loss = Objective(weighting=Sqrt())(denoiser, x0, draws)
    plain = Objective()(denoiser, x0, draws)
    assert torch.equal(loss.terms["mse"], plain.terms["mse"])
    weights = (1 - SCHEDULE.alpha_bars()[plain.t]) ** 0.25
    expected = weights * plain.terms["mse"].double() + TOTAL / 1000 * plain.terms["vlb"].double()
    torch.testing.assert_close(loss.per_sample.double(), expected, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(loss.per_sample, plain.per_sample, rtol=0.01)


def test_importance_weights_keep_the_expectation() -> None:
    """Another distribution of times, another variance, the same mean; and the bound is weighted, too."""
    n = 8192
    draws, x0 = Draws(4, 1, torch.arange(n)), gaussian_data(n).clamp(-1, 1)
    denoiser = Denoiser(
        lambda x, t: torch.cat((0.8 * x, torch.tanh(x)), 1), SCHEDULE, "pred_eps", learned_variance=True
    )
    uniform, late = Objective()(denoiser, x0, draws), Objective(times=Late())(denoiser, x0, draws)
    assert (late.t == TOTAL - 1).float().mean() > 0.45
    deviation = (uniform.per_sample.var() / n + late.per_sample.var() / n) ** 0.5
    assert abs(uniform.per_sample.mean() - late.per_sample.mean()) < 4 * deviation
    assert abs(uniform.per_sample.mean() - late.unweighted.mean()) > 8 * deviation, "the weights matter"
    torch.testing.assert_close(late.per_sample, late.unweighted * Late().draw(draws, TOTAL)[1])


def test_the_condition_is_handed_to_the_network() -> None:
    seen: list[object] = []

    def network(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        seen.append(cond)
        return x

    cond = Cond(torch.arange(3))
    Objective()(Denoiser(network, SCHEDULE), gaussian_data(3), Draws(3, 3, torch.arange(3)), cond)
    assert seen == [cond]


# --- the variational bound -------------------------------------------------------------------------------------------


def test_gaussian_kl_equals_torch_distributions() -> None:
    m1, v1, m2, v2 = Draws(1, 0, torch.arange(4)).eps((200,)).double()
    expected = kl_divergence(Normal(m1, (v1 / 2).exp()), Normal(m2, (v2 / 2).exp()))
    torch.testing.assert_close(gaussian_kl(m1, v1, m2, v2), expected)
    assert torch.equal(gaussian_kl(m1, v1, m1, v1), torch.zeros(200, dtype=torch.float64))


LEVELS = torch.arange(256).double() / 127.5 - 1


@pytest.mark.parametrize("mean", [-1.3, -0.99, 0.0, 0.37, 1.0])
@pytest.mark.parametrize("deviation", [0.005, 0.05, 0.7])
def test_the_256_levels_share_all_probability(mean: float, deviation: float) -> None:
    """They sum to one, and each is the Gaussian's integral over its bin, the outermost to infinity."""
    log = discretized_log_likelihood(LEVELS, torch.tensor(mean).double(), torch.tensor(deviation).double().log())
    assert log.exp().sum() == pytest.approx(1, abs=1e-8)

    def below(x: float) -> float:
        return 0.5 * (1 + math.erf((x - mean) / deviation / math.sqrt(2)))

    edges = [-math.inf, *((k + 0.5) / 127.5 - 1 for k in range(255)), math.inf]
    expected = torch.tensor([below(b) - below(a) for a, b in pairwise(edges)], dtype=torch.float64)
    torch.testing.assert_close(log.exp(), expected, atol=1e-6, rtol=2e-5)
    assert log.isfinite().all()


def bound_by_hand(x0: Tensor, xt: Tensor, prediction: Prediction, t: Tensor) -> Tensor:
    """The bound's terms from distributions, in float64, row by row."""
    terms = []
    for i, time in enumerate(t.tolist()):
        q = posterior(SCHEDULE.alpha_bar(time), SCHEDULE.alpha_bar(time - 1))
        small = q.variance if time else posterior(SCHEDULE.alpha_bar(1), SCHEDULE.alpha_bar(0)).variance
        fraction = prediction.variance_fraction[i].double()
        deviation = (fraction * math.log(q.beta) + (1 - fraction) * math.log(small)).div(2).exp()
        mean = q.c0 * prediction.x0[i].double() + q.ct * xt[i].double()
        if time:
            truth = Normal(q.c0 * x0[i].double() + q.ct * xt[i].double(), math.sqrt(small))
            nats = kl_divergence(truth, Normal(mean, deviation)).mean()
        else:
            below = Normal(mean, deviation).cdf
            low = torch.where(x0[i] < -0.999, 0, below(x0[i].double() - 1 / 255))
            high = torch.where(x0[i] > 0.999, 1, below(x0[i].double() + 1 / 255))
            nats = -(high - low).clamp(min=1e-12).log().mean()
        terms.append(nats / math.log(2))
    return torch.stack(terms)


def levels_and_draws() -> tuple[Tensor, Draws]:
    draws = Draws(11, 0, torch.arange(40))
    levels = (Draws(12, 0, torch.arange(40)).start(SHAPE) * 90 + 128).round().clamp(0, 255)
    return to_unit(levels), draws


@pytest.mark.parametrize("perturbation", [NoPerturbation(), InputPerturbation(gamma=0.4)])
def test_the_bound_equals_the_sum_of_its_distributions(perturbation: NoPerturbation | InputPerturbation) -> None:
    """t = 0 (likelihood) and t > 0 (KL) alike; it sees the input that the network is fed, the perturbed one."""
    x0, draws = levels_and_draws()
    seen: list[Tensor] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return torch.cat((0.8 * x, torch.tanh(x)), dim=1)

    denoiser = Denoiser(network, SCHEDULE, "pred_eps", learned_variance=True)
    loss = Objective(perturbation)(denoiser, x0, draws)
    t = draws.times(TOTAL)
    assert set(t.tolist()) == set(range(TOTAL))
    expected = bound_by_hand(x0, seen[0], denoiser(seen[0], t), t)
    torch.testing.assert_close(loss.terms["vlb"].double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bound_term(SCHEDULE, denoiser(seen[0], t), x0, seen[0], t), loss.terms["vlb"])
    torch.testing.assert_close(loss.per_sample, loss.terms["mse"] + TOTAL / 1000 * loss.terms["vlb"])


def test_the_bound_is_least_at_the_true_variance() -> None:
    """With the true mean, the posterior variance (fraction 0) gives a KL of zero for t > 0; any other gives more."""
    x0 = gaussian_data(TOTAL - 1)
    t = torch.arange(1, TOTAL)
    xt = SCHEDULE.alpha(t, x0) * x0 + SCHEDULE.sigma(t, x0)

    def bound(fraction: float) -> Tensor:
        return bound_term(SCHEDULE, Prediction(x0, x0, x0, torch.full_like(x0, fraction)), x0, xt, t)

    torch.testing.assert_close(bound(0.0), torch.zeros(TOTAL - 1), atol=1e-6, rtol=0)
    assert (bound(0.5) > 1e-4).all()
    assert (bound(1.0) > bound(0.5)).all()


@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0", "pred_v"])
def test_the_bound_teaches_only_the_variance(kind: str) -> None:
    """Its gradient reaches the second half of the output; that of the simple loss only the first."""
    x0 = gaussian_data(16)
    output = torch.zeros(16, 2 * SHAPE[0], *SHAPE[1:], requires_grad=True)
    denoiser = Denoiser(lambda x, t: output, SCHEDULE, kind, learned_variance=True)
    loss = Objective()(denoiser, x0, Draws(3, 3, torch.arange(16)))
    for term, taught in (("mse", 0), ("vlb", 1)):
        (gradient,) = torch.autograd.grad(loss.terms[term].sum(), output, retain_graph=True)
        halves = gradient.chunk(2, dim=1)
        assert torch.equal(halves[1 - taught], torch.zeros_like(halves[0]))
        assert (halves[taught].flatten(1).abs().amax(1) > 0).all()


def test_nothing_but_the_mse_without_learned_variance() -> None:
    x0 = gaussian_data(3)
    loss = Objective()(Denoiser(lambda x, t: x, SCHEDULE), x0, Draws(3, 3, torch.arange(3)))
    assert set(loss.terms) == {"mse"}
    assert torch.equal(loss.terms["mse"], loss.per_sample)
