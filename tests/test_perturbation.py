"""Input perturbation: what the network is fed changes, its target does not; gamma = 0 is plain DDPM, bit for bit."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor, nn

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws, Stream
from ddpm_ip.objective import Objective
from ddpm_ip.perturbation import InputPerturbation, NoPerturbation, Perturbation, label
from ddpm_ip.schedule import Schedule, expand_like


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


# --- strengths by time, step and image -------------------------------------------------------------------------------

ROWS, SHAPE = torch.arange(500), (1, 2, 2)
EPS = Draws(1, 30, ROWS).eps(SHAPE)


def strengths(perturbation: Perturbation, step: int | Tensor = 30, total: int = 1000) -> tuple[Tensor, Tensor]:
    """The strength that each row was perturbed with, by what was added to its eps; and the times, (B,)."""
    draws = Draws(1, step, ROWS)
    t, xi = draws.times(total), draws.xi(SHAPE)
    added = perturbation(torch.zeros_like(EPS), draws, t, Schedule(total))
    each = (added * xi).sum((1, 2, 3)) / (xi * xi).sum((1, 2, 3))
    torch.testing.assert_close(added, expand_like(each, xi) * xi, rtol=1e-4, atol=1e-6)
    return each, t


def test_a_list_of_strengths_is_interpolated_from_the_first_time_to_the_last() -> None:
    each, t = strengths(InputPerturbation((0.3, 0.1, 0.2)))
    u = t / 999
    expected = torch.where(u < 0.5, 0.3 - 0.4 * u, 0.1 + 0.2 * (u - 0.5))
    torch.testing.assert_close(each, expected, rtol=1e-5, atol=1e-7)
    whole, _ = strengths(InputPerturbation(tuple(k / 100 for k in range(7))), total=7)
    assert set((whole * 100).round().tolist()) == set(range(7))
    assert InputPerturbation((0.2, 0.2)) == InputPerturbation(0.2)


@pytest.mark.parametrize("step", [0, 1, 25, 39, 40, 41, 10**6])
@pytest.mark.parametrize("anneal", ["none", "linear"])
def test_the_strength_ends(anneal: str, step: int) -> None:
    """SimpleTuner's gamma (1 - step / until), or gamma until then; a step on the device gives the same bits."""
    perturbation = InputPerturbation(0.2, until=40, anneal=anneal)
    each, _ = strengths(perturbation, step)
    expected = 0.2 * (max(1 - step / 40, 0) if anneal == "linear" else step < 40)
    torch.testing.assert_close(each, torch.full_like(each, expected), rtol=1e-5, atol=0)
    assert torch.equal(strengths(perturbation, torch.tensor(step))[0], each)


def test_a_random_strength_is_uniform_up_to_gamma() -> None:
    each, _ = strengths(InputPerturbation(0.4, random=True))
    words = Draws(1, 30, ROWS).bits(Stream.STRENGTH, 1)[:, 0].double() / 2**32
    torch.testing.assert_close(each, (0.4 * words).float(), rtol=1e-4, atol=1e-7)
    assert abs(each.mean() - 0.2) < 5 * 0.4 / (12 * len(ROWS)) ** 0.5


def test_images_are_perturbed_with_a_probability_and_the_others_are_untouched() -> None:
    perturbation = InputPerturbation(0.4, probability=0.7)
    each, t = strengths(perturbation)
    hit = each > 0
    torch.testing.assert_close(each[hit], torch.full((int(hit.sum()),), 0.4))
    assert abs(hit.float().mean() - 0.7) < 5 * (0.21 / len(ROWS)) ** 0.5
    noise = perturbation(EPS, Draws(1, 30, ROWS), t, Schedule())
    assert torch.equal(noise[~hit], EPS[~hit])
    whole = InputPerturbation(0.4)(EPS, Draws(1, 30, ROWS), t, Schedule())
    assert torch.equal(noise[hit], whole[hit])


def test_settings_multiply() -> None:
    every = InputPerturbation((0.4, 0.2), until=60, anneal="linear", random=True, probability=0.5)
    each, t = strengths(every)
    draws = Draws(1, 30, ROWS)
    u = draws.bits(Stream.STRENGTH, 1)[:, 0] / 2**32
    c = draws.bits(Stream.CHANCE, 1)[:, 0] < 2**31
    torch.testing.assert_close(each, (0.4 - 0.2 * t / 999) * 0.5 * u * c, rtol=1e-4, atol=1e-7)


OFF = [
    InputPerturbation(0.0, target="consistent"),
    InputPerturbation((0.0, 0.0)),
    InputPerturbation(0.3, probability=0.0, target="consistent"),
    InputPerturbation(0.3, until=2, target="consistent"),
    InputPerturbation(0.3, until=1, anneal="linear", random=True, probability=0.5, target="consistent"),
    InputPerturbation((0.0, 0.0, 0.3), until=2),
]


@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0", "pred_v"])
@pytest.mark.parametrize("perturbation", OFF, ids=str)
def test_strength_zero_is_plain_ddpm_bit_for_bit(perturbation: InputPerturbation, kind: str) -> None:
    """However it comes to be zero: input, loss and gradients. The step is 2, the third."""
    plain, plain_loss, plain_grads = run(NoPerturbation(), kind)
    off, off_loss, off_grads = run(perturbation, kind)
    assert torch.equal(plain.fed[0], off.fed[0])
    assert torch.equal(plain_loss, off_loss)
    assert all(torch.equal(a, b) for a, b in zip(plain_grads, off_grads, strict=True))


def test_a_zero_keeps_its_sign_where_nothing_is_added() -> None:
    """``-0.0 + 0 xi`` is 0.0: adding nothing is not the same as not adding."""
    zeros = torch.full((4, 1, 1, 1), -0.0)
    noise = InputPerturbation(0.3, until=1)(zeros, Draws(1, 5, torch.arange(4)), torch.arange(4), Schedule())
    assert torch.equal(noise.signbit(), zeros.signbit())


def test_nothing_waits_for_the_device() -> None:
    meta = torch.device("meta")
    draws = Draws(1, torch.zeros((), dtype=torch.int64, device=meta), torch.arange(6, device=meta))
    perturbation = InputPerturbation((0.1, 0.2), 9, "linear", True, 0.5, "consistent")
    x0 = torch.zeros(6, 2, 3, 3, device=meta)
    network = Denoiser(lambda x, t: 0.5 * x, Schedule(), "pred_v")
    assert Objective(perturbation)(network, x0, draws).per_sample.shape == (6,)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gamma": ()}, "gamma must be a number or a list of 1 to 10000 numbers, got 0"),
        ({"gamma": (0.1, -0.1)}, "gamma must be >= 0, got -0.1"),
        ({"anneal": "linear"}, "anneal linear needs until"),
        ({"anneal": "cosine", "until": 5}, "anneal must be one of none, linear"),
        ({"until": 0}, "until must be at least 1"),
        ({"probability": 1.1}, "probability must be in"),
        ({"target": "noisy"}, "target must be one of clean, consistent"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        InputPerturbation(**settings)


@pytest.mark.parametrize(
    ("perturbation", "expected"),
    [
        (NoPerturbation(), "DDPM"),
        (InputPerturbation(), "DDPM-IP, gamma 0.1"),
        (InputPerturbation(0.1, probability=0), "DDPM"),
        (InputPerturbation((0.1, 0.2)), "DDPM-IP, gamma 0.1, 0.2 by t"),
        (InputPerturbation(tuple(k / 10 for k in range(9))), "DDPM-IP, gamma 0, 0.1, ..., 0.7, 0.8 by t"),
        (InputPerturbation(0.1, until=7), "DDPM-IP, gamma 0.1, until step 7"),
        (
            InputPerturbation(0.1, 7, "linear", True, 0.8, "consistent"),
            "DDPM-IP, gamma 0.1, falling to 0 at step 7, random strength, probability 0.8, consistent target",
        ),
    ],
)
def test_what_a_method_is_called(perturbation: Perturbation, expected: str) -> None:
    assert label(perturbation) == expected


# --- the optimum on Gaussian data: targets, and what is not DDPM-IP --------------------------------------------------

DEVIATION, FEW = 0.6, Schedule(4, "linear", 0.1, 0.6)


def optimum(kind: str, perturbation: Perturbation) -> Tensor:
    """The k_t whose network k_t y has the least squared error of its target: Cov / Var over 6,000 images, (T,)."""
    draws = Draws(3, 4, torch.arange(6000))
    x0 = DEVIATION * Draws(77, 0, torch.arange(6000)).normal(0, (1, 6, 6))
    seen: list[Tensor] = []

    def network(y: Tensor, t: Tensor) -> Tensor:
        seen.append(y)
        return torch.zeros_like(y).requires_grad_()

    outputs: list[Tensor] = []
    denoiser = Denoiser(lambda y, t: outputs.append(network(y, t)) or outputs[0], FEW, kind)
    loss = Objective(perturbation)(denoiser, x0, draws)
    (gradient,) = torch.autograd.grad(loss.per_sample.sum(), outputs[0])  # -2 w target / d, at an output of 0
    pull = (-gradient * seen[0]).sum((1, 2, 3)).double()
    size = (seen[0] ** 2).mean((1, 2, 3)).double() * 2
    if isinstance(perturbation, InputPerturbation) and perturbation.target == "consistent":
        a, s = FEW.alpha(loss.t, seen[0]), FEW.sigma(loss.t, seen[0])
        size = size * perturbation.consistent(x0, x0, perturbation.strength(draws, loss.t, FEW), (a, s))[1]
    return torch.stack([pull[loss.t == time].sum() / size[loss.t == time].sum() for time in range(4)])


@pytest.mark.parametrize("target", ["clean", "consistent"])
@pytest.mark.parametrize("kind", ["pred_eps", "pred_x0", "pred_v"])
def test_the_noise_that_an_optimal_network_finds_shrinks_as_derived(kind: str, target: str) -> None:
    """By 1/(1 + gamma^2) of the natural estimate E[n | y] if consistent, whatever is predicted; else by 1 - abar k for
    v and by nothing for x0."""
    gamma, bar = 0.8, FEW.alpha_bars()
    a, s = bar.sqrt(), (1 - bar).sqrt()
    k = optimum(kind, InputPerturbation(gamma, target=target))
    eps = {"pred_eps": k, "pred_x0": (1 - a * k) / s, "pred_v": s + a * k}[kind]  # of y = 1
    natural = s * (1 + gamma**2) / (bar * DEVIATION**2 + (1 - bar) * (1 + gamma**2))
    lost = gamma**2 / (1 + gamma**2)
    shrunk = {"pred_eps": 1 - lost, "pred_x0": 1.0, "pred_v": 1 - bar * lost}[kind] if target == "clean" else 1 - lost
    torch.testing.assert_close(eps, (shrunk * natural).double(), atol=0.02, rtol=0)


def test_the_consistent_loss_stays_bounded_and_its_weight_moves_no_minimiser() -> None:
    """On a schedule that ends at abar 2e-9, where the target's deviation is 2,000; the loss of the truth is 0."""
    schedule, rows = Schedule(1000, "cosine"), torch.arange(2000)
    draws, x0 = Draws(2, 2, rows), Draws(8, 0, rows).normal(0, (1, 2, 2)).clamp(-1, 1)
    for kind in ("pred_x0", "pred_v"):
        loss = Objective(InputPerturbation(0.1, target="consistent"))(
            Denoiser(lambda x, t: torch.zeros_like(x), schedule, kind), x0, draws
        ).per_sample
        assert loss.max() < 30

    def truth(y: Tensor, t: Tensor) -> Tensor:
        a, s = schedule.alpha(t, y), schedule.sigma(t, y)
        return (y - s * draws.eps((1, 2, 2))) / a

    loss = Objective(InputPerturbation(0.1, target="consistent"))(Denoiser(truth, schedule, "pred_x0"), x0, draws)
    assert loss.per_sample.max() < 1e-3  # rounding of (y - s eps) / a


def others(name: str, gamma: float) -> tuple[Tensor, Tensor]:
    """Three methods that are taken for input perturbation: the input and target of each, at t = 1 of FEW."""
    draws = Draws(5, 6, torch.arange(20_000))
    x0, eps, xi = DEVIATION * draws.start((1, 4, 4)), draws.eps((1, 4, 4)), draws.xi((1, 4, 4))
    a, s = FEW.level(1)
    if name == "without sigma":  # kohya's first version for Flux
        return a * x0 + s * eps + gamma * xi, eps
    if name == "DDPM-y":  # the perturbed noise is the target, too
        return a * x0 + s * (eps + gamma * xi), eps + gamma * xi
    offset = eps + gamma * xi[:, :, :1, :1]  # one number for a channel, in the target, too
    return a * x0 + s * offset, offset


@pytest.mark.parametrize("name", ["without sigma", "DDPM-y", "offset noise"])
def test_what_is_taken_for_input_perturbation_has_another_optimum(name: str) -> None:
    """The optimal linear network of each in closed form, and by the samples; that of DDPM-IP lies elsewhere."""
    gamma, bar = 0.5, FEW.alpha_bar(1)
    s, data = math.sqrt(1 - bar), bar * DEVIATION**2
    ours = s / (data + s**2 * (1 + gamma**2))
    if name == "without sigma":
        expected = {"each": s / (data + s**2 + gamma**2)}
    elif name == "DDPM-y":
        expected = {"each": s * (1 + gamma**2) / (data + s**2 * (1 + gamma**2))}
    else:  # brightness has 16 pixels' worth of it, anything else is plain DDPM
        inflated = 1 + 16 * gamma**2
        expected = {"mean": s * inflated / (data + s**2 * inflated), "rest": s / (data + s**2)}
    y, target = others(name, gamma)
    for part, k in expected.items():
        mean = [x.mean((2, 3), keepdim=True) for x in (y, target)]
        some, wanted = {"each": (y, target), "mean": mean, "rest": [y - mean[0], target - mean[1]]}[part]
        found = float((some * wanted).mean() / (some * some).mean())
        assert found == pytest.approx(k, rel=0.02)
        assert abs(k / ours - 1) > 0.1
