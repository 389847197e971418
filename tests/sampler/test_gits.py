"""GITS against every way there is, and against the geometry of trajectories computed here from its definition."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.errors import ConfigError
from ddpm_ip.sample.optimised import cost_of
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver
from ddpm_ip.sampler.gits import cheapest, deviations, teacher_times
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.schedule import Schedule

SCHEDULES = [Schedule(beta_schedule=name) for name in ("linear", "cosine", "quad", "const")]
SHAPE = (2, 3, 3)
CENTRES = 0.8 * torch.tensor([[1.0, -1.0, 1.0] * 6, [-1.0, -1.0, 0.2] * 6, [0.1, 1.0, -0.4] * 6])
SPREAD = 0.2


def mixture_eps(y: Tensor, ratio: float) -> Tensor:
    """The exact eps of three Gaussians of deviation SPREAD, at ``y = x / alpha`` and ``ratio = sigma / alpha``."""
    total = SPREAD**2 + ratio**2
    centres = CENTRES.to(y).reshape(3, *SHAPE)
    away = y[:, None] - centres
    share = torch.softmax(-away.square().flatten(2).sum(dim=2) / (2 * total), dim=1)
    return ratio / total * (share[:, :, None, None, None] * away).sum(dim=1)


def mixture(schedule: Schedule) -> Denoiser:
    def eps(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = schedule.level(float(t[0]))
        return mixture_eps(x.double() / alpha, sigma / alpha).float()

    return Denoiser(eps, schedule)


def model_of(denoiser: Denoiser) -> SimpleNamespace:
    return SimpleNamespace(denoiser=denoiser, device=torch.device("cpu"), shape=SHAPE, classes=None)


def euler(schedule: Schedule, times: list[float], y: Tensor) -> tuple[list[float], list[Tensor], list[Tensor]]:
    """Ratios, states and eps of Euler steps along the times to the clean image, in float64."""
    levels = [schedule.level(t) for t in times]
    ratios = [*(sigma / alpha for alpha, sigma in levels), 0.0]
    states, said = [y], []
    for here, there in pairwise(ratios):
        said.append(mixture_eps(states[-1], here))
        states.append(states[-1] + (there - here) * said[-1])
    return ratios, states, said


def from_the_line(first: Tensor, last: Tensor, point: Tensor) -> Tensor:
    """The distance of points from the lines between two others, (B,): by the angle at the last."""
    line, way = (first - last).flatten(1), (point - last).flatten(1)
    cosine = (line * way).sum(dim=1) / (line.norm(dim=1) * way.norm(dim=1)).clamp(min=1e-300)
    return way.norm(dim=1) * (1 - cosine.clamp(-1, 1) ** 2).sqrt()


def starts(schedule: Schedule, n: int) -> Tensor:
    alpha, _ = schedule.level(schedule.total_steps - 1)
    return Draws(3, 0, torch.arange(n)).start(SHAPE).double() / alpha


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.beta_schedule)
def test_the_cost_is_what_an_independent_computation_says(schedule: Schedule) -> None:
    """DDIM is Euler in this view; all pairs of 12 points, of trajectories in three blocks."""
    times, n = teacher_times(schedule, 12), 7
    found = cost_of(model_of(mixture(schedule)), Sampling(DDIM(), clip="none", seed=3), times, n, block=3)
    ratios, states, said = euler(schedule, times, starts(schedule, n))
    rounding = max(2e-4, 1e-6 * ratios[0])  # the walk is in float32, and x / alpha as large as the first ratio
    for i in range(len(times)):
        for j in range(i + 1, len(ratios)):
            landing = states[i] + (ratios[j] - ratios[i]) * said[i]
            bent = from_the_line(states[0], states[-1], landing).mean()
            lying = from_the_line(states[0], states[-1], states[j]).mean()
            assert float(found[i, j]) == pytest.approx(float(bent - lying), abs=rounding)
    assert found[:, 1:].diagonal().abs().max() < rounding  # a step of the teacher itself costs nothing


def test_deviations_are_distances_from_a_line() -> None:
    """In float64, of any states and predictions."""
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(6)]
    eps = [torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(5)]
    ratios = [80.0, 7.0, 3.0, 1.0, 0.2, 0.0]
    lying, landing = deviations(ratios, states, eps)
    for i in range(6):
        torch.testing.assert_close(
            lying[:, i], from_the_line(states[0], states[5], states[i]), atol=1e-6 * (i in (0, 5)), rtol=1e-9
        )
        for j in range(i + 1, 6):
            y = states[i] + (ratios[j] - ratios[i]) * eps[i]
            torch.testing.assert_close(landing[:, i, j], from_the_line(states[0], states[5], y), atol=0, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_way_is_the_cheapest_of_all(seed: int) -> None:
    """Costs may be negative; the later a step, the more it counts."""
    points = 8
    cost = torch.randn(points, points + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def price(inner: tuple[int, ...], later: float) -> float:
        legs = pairwise([0, *inner, points])
        return sum(later**k * float(cost[i, j]) for k, (i, j) in enumerate(legs))

    for later in (1.0, 1.15):
        for steps in range(1, points + 1):
            found = cheapest(cost, steps, later)
            assert len(found) == steps
            every = {inner: price(inner, later) for inner in combinations(range(1, points), steps - 1)}
            assert tuple(found[1:]) == min(every, key=every.__getitem__)
            assert found[0] == 0


def test_a_number_of_steps_that_cannot_be_had_is_refused() -> None:
    for steps in (0, 5):
        with pytest.raises(ConfigError, match=r"choose 1\.\.4"):
            cheapest(torch.zeros(4, 5, dtype=torch.float64), steps)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.beta_schedule)
def test_the_teachers_times_are_those_of_karras(schedule: Schedule) -> None:
    times = teacher_times(schedule)
    assert (len(times), times[0], times[-1]) == (60, 999.0, 0.0)
    roots = [math.exp(-schedule.half_log_snr(t) / 7) for t in times]
    steps = [a - b for a, b in pairwise(roots)]
    assert max(steps) == pytest.approx((roots[0] - roots[-1]) / 59, rel=2e-2)  # times have four decimals
    assert min(steps) == pytest.approx((roots[0] - roots[-1]) / 59, rel=2e-2)
    whole = teacher_times(schedule, whole=True)
    assert (whole[0], whole[-1]) == (999.0, 0.0)
    assert all(t.is_integer() and s < t for t, s in pairwise(whole))
    assert teacher_times(Schedule(1)) == [0.0]
    assert teacher_times(schedule, points=2) == [999.0]


def test_steps_along_the_found_times_end_closer_to_the_teacher() -> None:
    """Than along evenly spaced times, and than along Karras' own, with as many; Euler steps on the mixture."""
    schedule = Schedule()
    times = teacher_times(schedule)
    cost = cost_of(model_of(mixture(schedule)), Sampling(DPMSolver(), clip="none", seed=3), times, 32, block=32)
    y = starts(schedule, 32)
    fine = [schedule.time(-math.log(r)) for r in torch.logspace(math.log10(157), -2, 2000).tolist()]
    _, (*_, end), _ = euler(schedule, sorted({999.0, *fine}, reverse=True), y)

    def error(chosen: list[float]) -> float:
        return float((euler(schedule, chosen, y)[1][-1] - end).flatten(1).norm(dim=1).mean())

    for steps in (5, 8):
        found = [times[i] for i in cheapest(cost, steps)]
        even = [999 * (1 - i / (steps - 1)) for i in range(steps)]
        assert error(found) < error(teacher_times(schedule, steps + 1))
        assert error(found) < error(even)


def test_a_teacher_that_draws_noise_is_refused() -> None:
    model, schedule = model_of(mixture(Schedule())), Schedule()
    for sampler in (Ancestral(), DDIM(eta=0.5), Ancestral("learned_range")):
        with pytest.raises(ConfigError, match="draws noise"):
            cost_of(model, Sampling(sampler), teacher_times(schedule, 5), 2, block=2)
