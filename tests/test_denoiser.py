"""The three prediction types are one and the same prediction, read differently."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.errors import ConfigError
from ddpm_ip.nn.network import Cond
from ddpm_ip.schedule import Schedule

KINDS = ("pred_eps", "pred_x0", "pred_v")
SCHEDULE = Schedule()
SHAPE = (3, 4, 4)


def exact() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, noise, times over the whole range, noisy images."""
    t = torch.tensor([0, 1, 10, 100, 400, 700])
    rows = torch.arange(len(t))
    x0, eps = Draws(1, 0, rows).start(SHAPE).clamp(-1, 1), Draws(1, 0, rows).eps(SHAPE)
    return x0, eps, t, SCHEDULE.alpha(t, x0) * x0 + SCHEDULE.sigma(t, x0) * eps


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_says_the_truth_gives_the_truth(kind: str) -> None:
    """target() is what __call__ undoes: x0 and eps come back from each type."""
    x0, eps, t, xt = exact()
    target = Denoiser(lambda x, t: x, SCHEDULE, kind).target(x0, eps, t)
    got = Denoiser(lambda x, t: target, SCHEDULE, kind)(xt, t)
    assert torch.equal(got.output, target)
    assert got.variance_fraction is None
    # Dividing by a small sigma or alpha enlarges float32's rounding.
    torch.testing.assert_close(got.x0, x0, atol=2e-5, rtol=0)
    torch.testing.assert_close(got.eps, eps, atol=5e-5, rtol=0)


def test_the_targets_are_those_of_the_papers() -> None:
    """v = alpha eps - sigma x0 (Salimans & Ho), computed here from alpha_bar in float64."""
    x0, eps, t, _ = exact()
    bar = SCHEDULE.alpha_bars()[t].reshape(-1, 1, 1, 1)
    v = bar.sqrt() * eps.double() - (1 - bar).sqrt() * x0.double()
    assert torch.equal(Denoiser(lambda x, t: x, SCHEDULE, "pred_eps").target(x0, eps, t), eps)
    assert torch.equal(Denoiser(lambda x, t: x, SCHEDULE, "pred_x0").target(x0, eps, t), x0)
    torch.testing.assert_close(Denoiser(lambda x, t: x, SCHEDULE, "pred_v").target(x0, eps, t), v.float())


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_the_network_says_x0_and_eps_explain_the_input(kind: str) -> None:
    """alpha x0 + sigma eps = x_t for an arbitrary output."""
    _, _, t, xt = exact()
    got = Denoiser(lambda x, t: torch.sin(3 * x) - 0.3, SCHEDULE, kind)(xt, t)
    assert not torch.equal(got.x0, xt)
    torch.testing.assert_close(SCHEDULE.alpha(t, xt) * got.x0 + SCHEDULE.sigma(t, xt) * got.eps, xt, atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_learned_variance_is_the_second_half_of_the_channels(kind: str) -> None:
    """Scaled from [-1, 1] to [0, 1]; the first half is read as if the second were not there."""
    _, _, t, xt = exact()
    fraction = torch.linspace(0, 1, xt.numel()).reshape(xt.shape)
    two = torch.cat((xt.cos(), 2 * fraction - 1), dim=1)
    both = Denoiser(lambda x, t: two, SCHEDULE, kind, learned_variance=True)(xt, t)
    one = Denoiser(lambda x, t: x.cos(), SCHEDULE, kind)(xt, t)
    assert torch.equal(both.x0, one.x0)
    assert torch.equal(both.eps, one.eps)
    assert torch.equal(both.output, one.output)
    torch.testing.assert_close(both.variance_fraction, fraction, atol=1e-6, rtol=0)


def test_half_precision_of_the_network_ends_at_the_denoiser() -> None:
    _, _, t, xt = exact()
    got = Denoiser(lambda x, t: x.bfloat16(), SCHEDULE)(xt, t)
    assert {p.dtype for p in got[:3]} == {torch.float32}


def test_the_condition_reaches_the_network_and_without_one_two_arguments_do() -> None:
    _, _, t, xt = exact()
    seen: list[tuple[object, ...]] = []

    def network(*given: object) -> Tensor:
        seen.append(given)
        return xt

    denoiser, cond = Denoiser(network, SCHEDULE), Cond(torch.arange(len(t)))
    with_cond, without = denoiser(xt, t, cond), denoiser(xt, t)
    assert [len(given) for given in seen] == [3, 2]
    assert seen[0][2] is cond
    assert all(given[0] is xt and given[1] is t for given in seen)
    assert torch.equal(with_cond.x0, without.x0)


def test_an_unknown_type_is_refused() -> None:
    x0, eps, t, xt = exact()
    denoiser = Denoiser(lambda x, t: x, SCHEDULE, "pred_score")
    with pytest.raises(ConfigError, match=r"pred_score.*pred_eps, pred_x0, pred_v"):
        denoiser(xt, t)
    with pytest.raises(ConfigError, match="pred_score"):
        denoiser.target(x0, eps, t)


def test_a_network_of_whole_times_is_told_the_nearest() -> None:
    """One with a table of embeddings; the level is the one that is asked."""
    table, xt = torch.arange(1000.0), exact()[-1]
    t = torch.tensor([0.0, 0.4, 9.6, 100.0, 399.7, 700.2])
    alpha, sigma = torch.full((6, 1, 1, 1), 0.8), torch.full((6, 1, 1, 1), 0.6)
    of_a_table = Denoiser(lambda x, t: table[t].reshape(-1, 1, 1, 1) + 0 * x, SCHEDULE, whole_times=True)
    seen = of_a_table.at(xt, t, alpha, sigma)
    assert seen.output[:, 0, 0, 0].tolist() == [0, 0, 10, 100, 400, 700]
    torch.testing.assert_close(seen.x0, (xt - 0.6 * seen.output) / 0.8)
    told: list[Tensor] = []
    Denoiser(lambda x, t: told.append(t) or x, SCHEDULE).at(xt, t, alpha, sigma)
    assert torch.equal(told[0], t), "others are told what is asked"
