"""Fits on Gaussian data, where the states of every walk are known, and of corrections that were planted."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests.exposure import gaussian
from tests.exposure.gaussian import DEVIATION, SCHEDULE, SHAPE, Walked, denoiser, deviation

from ddpm_ip.exposure.bands import haar_energy, noise_energy, split
from ddpm_ip.exposure.candidates import (
    BALANCE,
    BOTH,
    BY_SLOPE,
    BY_T,
    CONSTANT,
    NONE,
    UNDONE,
    Candidate,
    _of_few_numbers,
)
from ddpm_ip.exposure.choice import choose
from ddpm_ip.exposure.fit import Balance, Scale, Target, Watch, fit
from ddpm_ip.exposure.lockstep import Lockstep
from ddpm_ip.exposure.mismatch import Mismatch
from ddpm_ip.exposure.truth import Truth, truth
from ddpm_ip.sample.generator import Generator
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver, Restart, UniPC
from ddpm_ip.sampler.correction import BandGains, EpsilonScaling, IPEmulator
from ddpm_ip.sampler.sampling import Sampling

FINE = Sampling(DDIM(eta=0.0), clip="none", steps=100, spacing="logsnr", block=64, seed=3)
COARSE = replace(FINE, steps=6)
N = 512


def generator(sampling: Sampling, factor: float = 1.0, rank: int = 0, world: int = 1) -> Generator:
    made = gaussian.generator(sampling, denoiser(factor), rank, world)
    made.model.engine.reduce = lambda tensor, how: tensor
    made.model.engine.gather = lambda tensor: tensor
    return made


def target() -> Target:
    _, height, width = SHAPE
    return Target(DEVIATION**2 * noise_energy(height, width), noise_energy(height, width))


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (5, 12), (7, 9)])
def test_the_energies_of_noise_are_those_of_many_draws(shape: tuple[int, int]) -> None:
    images = torch.randn(4000, 1, *shape, generator=torch.Generator().manual_seed(0))
    found = haar_energy(images)
    error = found.std(dim=0) / len(images) ** 0.5
    assert ((found.mean(dim=0) - noise_energy(*shape)).abs() < 4.5 * error).all()
    assert torch.allclose(sum(split(images)), images, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", [DDIM(eta=0.0), Ancestral("fixed_small"), DPMSolver(order=2)])
def test_the_measured_energies_of_a_walk_are_those_of_the_linear_algebra(sampler: object) -> None:
    sampling = replace(COARSE, sampler=sampler)  # type: ignore[arg-type]
    made = generator(sampling)
    states = Walked(made.plan, 1.0, (0.0, 1.0)).states()[1:]
    wanted = [
        deviation(x) ** 2 / (a**2 * DEVIATION**2 + s**2)
        for x, (a, s) in zip(states, made.plan.after.tolist(), strict=True)
    ]
    found = fit(made, N, target(), Watch()).ratio
    error = (2 / (N * 3 * 64 * noise_energy(8, 8))).sqrt()  # of a mean square of as many normal numbers
    off = (found / torch.tensor(wanted)[:, None] - 1) / error
    assert off.abs().max() < 4.5
    assert 0.6 < off.square().mean().sqrt() < 1.5  # visits of one walk hang together, so few of these are independent


def test_an_exact_denoiser_and_fine_steps_need_no_correction() -> None:
    fine = replace(FINE, sampler=DPMSolver(order=2), steps=40)
    fitted = fit(generator(fine), N, target(), Balance())
    assert isinstance(fitted.correction, BandGains)
    gains = torch.tensor([[gain for _, gain in band] for band in fitted.correction.x0])  # type: ignore[union-attr]
    total = gains.log().sum(dim=1).exp()  # over the walk
    error = (2 / (N * 3 * 64 * noise_energy(8, 8))).sqrt() / 2
    assert ((total - 1).abs() < 4.5 * error + 0.002).all()


@pytest.mark.parametrize("of_x0", [(1.1, 0.93, 1.06, 0.9), (0.95, 1.05, 0.9, 1.08)])
def test_planted_gains_are_found(of_x0: tuple[float, ...]) -> None:
    """Each state is multiplied band by band after every step; the fit undoes each, to 5 % and better. Of gains that
    differ for prediction and noise it finds what both together do to the state: energies say no more.
    """
    of_eps = (1.1, 0.93, 1.06, 0.9)
    chain = (BandGains(of_x0, of_eps),)
    made = generator(replace(FINE, steps=12, corrections=chain))
    fitted = fit(made, N, target(), Balance())
    plain = fit(generator(replace(FINE, steps=12)), N, target(), Balance())
    assert isinstance(fitted.correction, BandGains)
    assert isinstance(plain.correction, BandGains)
    levels = zip(made.plan.alpha.tolist(), made.plan.sigma.tolist(), made.plan.after.tolist(), strict=True)
    share = [a_s * a * DEVIATION**2 / (a_s * a * DEVIATION**2 + s_s * s) for a, s, (a_s, s_s) in levels]  # of x0
    for band, (a, b) in enumerate(zip(of_x0, of_eps, strict=True)):
        pairs = zip(fitted.correction.eps[band], plain.correction.eps[band], share[:-1], strict=True)  # type: ignore[arg-type]
        for (_, gain), (_, usual), x0 in pairs:
            assert gain / usual == pytest.approx(1 / (a * x0 + b * (1 - x0)), rel=0.05)


@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_a_planted_factor_of_the_noise_is_found(factor: float) -> None:
    """On true states as the slope, exactly; along the walk as the scale that brings the states back, to 0.3 %
    where the walk has steps enough; the last ones, where a factor does little, say nothing."""
    made = generator(replace(FINE, sampler=DPMSolver(order=2), steps=40), factor)
    real = (DEVIATION * torch.randn(256, *SHAPE, generator=torch.Generator().manual_seed(1)) * 127.5 + 127.5).round()
    slope = truth(made, real.clamp(0, 255).byte(), None, 0).slope
    assert slope[:24].tolist() == pytest.approx([factor] * 24, rel=0.01)
    scaled = fit(made, 128, target(), Scale()).correction
    assert scaled is not None
    factors = scaled.numbers(made.plan, SCHEDULE)[:-1, 0]
    assert float(factors.median()) == pytest.approx(factor, abs=0.003)


@pytest.mark.parametrize("sampler", [DDIM(), DPMSolver(order=2), UniPC()])
def test_a_walk_with_factors_found_on_the_way_is_the_walk_with_their_correction(sampler: object) -> None:
    """Also where predictions are remembered: at every visit the network says the same, divided by the factor."""
    sampling = replace(COARSE, sampler=sampler, steps=8)  # type: ignore[arg-type]
    found = fit(generator(sampling, 0.95), 64, target(), Scale())
    assert isinstance(found.correction, EpsilonScaling)
    again = fit(generator(replace(sampling, corrections=(found.correction,)), 0.95), 64, target(), Watch())
    factors = found.correction.numbers(generator(sampling).plan, SCHEDULE)[:, 0]
    assert (factors - 1).abs().max() > 0.03
    torch.testing.assert_close(found.norm / factors, again.norm, rtol=1e-5, atol=0)


def test_a_time_that_is_visited_again_keeps_its_gains() -> None:
    """So the images of the fit are those of the table that it leaves."""
    made = generator(replace(COARSE, sampler=Restart(rho_low=0.5, rho_high=20.0)))
    times = [made.plan.t[i].item() for i, end in enumerate(made.plan.state.tolist()) if end]
    assert len(set(times)) < len(times)
    fitted = fit(made, 64, target(), Balance())
    assert isinstance(fitted.correction, BandGains)
    again = fit(generator(replace(made.sampling, corrections=(fitted.correction,))), 64, target(), Watch())
    torch.testing.assert_close(again.statistics, fitted.statistics, rtol=1e-4, atol=1e-4)


def test_gains_of_both_leave_the_states_their_energy() -> None:
    """Coarse steps lose variance; with the energy of the prediction on true states given, all bands have theirs."""
    made = generator(COARSE)
    unit = [a**2 * DEVIATION**2 + s**2 for a, s in zip(made.plan.alpha.tolist(), made.plan.sigma.tolist(), strict=True)]
    shrunk = torch.tensor([a * DEVIATION**2 / v for a, v in zip(made.plan.alpha.tolist(), unit, strict=True)])
    predicted = (shrunk**2 * torch.tensor(unit))[:, None] * noise_energy(8, 8)
    plain = fit(made, N, target(), Watch()).ratio
    for method in (Balance(), Balance(predicted)):
        ratio = fit(made, N, target(), method).ratio
        assert (ratio[-1] - 1).abs().max() < (plain[-1] - 1).abs().min() / 3


def test_walks_side_by_side_are_the_walks_of_a_generator_on_any_number_of_processes() -> None:
    sampling = replace(COARSE, sampler=DPMSolver(order=2), block=3)
    whole = {}
    for rank in range(2):
        made = generator(sampling, rank=rank, world=2)
        walks = Lockstep(made, 10)
        for i in range(made.plan.visits):
            for _ in walks.visit(i):
                pass
        whole |= {int(b.indices[0]) // 3: b.x for b in walks.blocks}
    assert sorted(whole) == [0, 1, 2, 3]
    alone = generator(sampling)
    for block, x in whole.items():
        *_, last = alone.states(block)
        assert torch.equal(x, last.xt)


def test_the_mismatch_is_the_distance_of_gaussians() -> None:
    """Against the product of roots by eigenvalues of the plain product, another way to the same trace."""
    torch.manual_seed(0)
    real, other = torch.randn(400, 5).double(), 1.3 * torch.randn(300, 5).double() + 0.4
    judge = Mismatch.to(real)
    scaled = [x / real.std(dim=0) for x in (real, other)]
    means, covariances = [x.mean(dim=0) for x in scaled], [torch.cov(x.T) for x in scaled]
    cross = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    wanted = (means[0] - means[1]).square().sum() + sum(c.trace() for c in covariances) - 2 * cross
    assert judge(other) == pytest.approx(float(wanted), rel=1e-9)
    assert judge(real) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("better", "scale"), [(BY_SLOPE, 0.98), (BY_T, 1.02)])
def test_few_numbers_are_read_off_the_table_whose_images_are_better(better: str, scale: float) -> None:
    """The one fitted on the way, or the network's slope: a constant, a line and TSR come from the same."""
    made = generator(COARSE)
    visits, plain = made.plan.visits, SimpleNamespace(ratio=torch.ones(made.plan.visits, 4))
    on_the_way = EpsilonScaling(times=(0.0, 999.0), scales=(1.02, 1.02))
    trial = SimpleNamespace(
        model=made.model, taken={"time_shift"}, target=target(), generator=lambda: made,
        walked=lambda chain=(), method=None, few=False: SimpleNamespace(correction=method and on_the_way),
        candidate=lambda name, chain, *_: Candidate(name, chain, 0.5 if name == better else 0.8, 1.0, plain),  # type: ignore[arg-type]
    )  # fmt: skip
    known = Truth(torch.ones(visits, 4), torch.full((visits,), 0.98), torch.ones(visits))
    tried = {c.name: c.chain[0] for c in _of_few_numbers(trial, known, 0.1, plain)}  # type: ignore[arg-type]
    assert tried[UNDONE] == IPEmulator(0.1, undo=True)
    assert tried[CONSTANT] == EpsilonScaling(scale)
    for name in ("epsilon_scaling, line", "tsr"):
        factors = tried[name].numbers(made.plan, SCHEDULE)
        assert 0.5 < (factors.mean() - 1) / (scale - 1) < 1.5  # on its side of 1; TSR's cannot be a constant


def candidate(name: str, share: float) -> Candidate:
    return Candidate(name, (), share, 1.0, SimpleNamespace())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shares", "chosen"),
    [
        ({BALANCE: 0.5, BOTH: 0.45}, BALANCE),  # not clearly better
        ({BALANCE: 0.5, BOTH: 0.3}, BOTH),
        ({BALANCE: 0.8, BOTH: 0.9}, NONE),  # not enough to be sure
        ({BALANCE: 0.65, "tsr": 0.64}, NONE),
        ({BALANCE: 0.9, "tsr": 0.4}, "tsr"),
        ({"tsr": 0.5}, "tsr"),  # where the sampling has gains already
    ],
)
def test_what_is_chosen(shares: dict[str, float], chosen: str) -> None:
    tried = [candidate(NONE, 1.0), *(candidate(name, share) for name, share in shares.items())]
    assert choose(tried).name == chosen
