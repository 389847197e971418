"""What measurements are held against: Gaussian data, of which every state of a walk is a known linear form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from torch import Tensor

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.exposure.curves import Curve
from ddpm_ip.exposure.estimates import curves
from ddpm_ip.exposure.measure import MEASURES, Measurement, Real
from ddpm_ip.sample.generator import Generator
from ddpm_ip.sampler import Plan
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.schedule import Schedule

SCHEDULE = Schedule()
SHAPE = (3, 8, 8)
SIZE = math.prod(SHAPE)
DEVIATION = 0.25


def denoiser(factor: float = 1.0, prediction_type: str = "pred_eps") -> Denoiser:
    """The exact one of data N(0, DEVIATION^2), whose eps is multiplied by a factor."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        a, s = SCHEDULE.level(float(t[0]))
        eps = factor * s * x / (a**2 * DEVIATION**2 + s**2)
        x0 = (x - s * eps) / a
        return {"pred_eps": eps, "pred_x0": x0, "pred_v": a * eps - s * x0}[prediction_type]

    return Denoiser(network, SCHEDULE, prediction_type)


def generator(sampling: Sampling, known: Denoiser, rank: int = 0, world: int = 1) -> Generator:
    """A generator of a network that is a function, on one process of several."""
    engine = SimpleNamespace(process_index=rank, num_processes=world, mixed_precision="no")
    named = {"denoiser": known, "shape": SHAPE, "classes": None, "device": torch.device("cpu"), "engine": engine}
    return Generator(SimpleNamespace(**named, autocast=nullcontext), sampling, sampling.plan(SCHEDULE))


def real(n: int, seed: int = 0) -> Real:
    """Images of N(0, DEVIATION^2)."""
    return Real(DEVIATION * torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1000 + seed)))


def measured(sampling: Sampling, known: Denoiser, n: int, measures: tuple[str, ...] = MEASURES) -> dict[str, Curve]:
    """The curves of a generator."""
    measurement = Measurement(generator(sampling, known), real(n, sampling.seed), n, measures)
    return curves(measurement, measurement.sums())


@dataclass(frozen=True)
class Walked:
    """The states of a walk before each visit and at its end, as forms over (x0, the noise of x_T, each later noise)."""

    plan: Plan
    factor: float
    start: tuple[float, float]

    def states(self) -> Tensor:
        """(V + 1, 2 + V), float64."""
        plan, m = self.plan, self.plan.memories
        z = torch.zeros(1 + m, 2 + plan.visits, dtype=torch.float64)
        z[0, 0], z[0, 1] = self.start
        found = [z[0]]
        for i in range(plan.visits):
            x0, eps = self.said(i, z[0])
            noise = torch.zeros_like(x0)
            noise[2 + i] = 1.0
            z = plan.update[i] @ torch.stack((*z, x0, eps, noise))
            found.append(z[0])
        return torch.stack(found)

    def said(self, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the denoiser says of a state at a row."""
        a, s = float(self.plan.alpha[i]), float(self.plan.sigma[i])
        eps = self.factor * s * x / (a**2 * DEVIATION**2 + s**2)
        return (x - s * eps) / a, eps

    @property
    def clean(self) -> Tensor:
        """x0 as a form."""
        form = torch.zeros(2 + self.plan.visits, dtype=torch.float64)
        form[0] = 1.0
        return form


def deviation(form: Tensor) -> float:
    """Of a linear form over x0 and noises."""
    return math.sqrt(float(form[0] ** 2 * DEVIATION**2 + (form[1:] ** 2).sum()))


def norm(deviation: float) -> float:
    """The mean length of SIZE normal numbers (chi distribution)."""
    return deviation * math.sqrt(2) * math.exp(math.lgamma((SIZE + 1) / 2) - math.lgamma(SIZE / 2))


def expected(sampling: Sampling, factor: float = 1.0) -> dict[str, dict[float, float]]:
    """The closed form of every curve, by name and time."""
    plan = sampling.plan(SCHEDULE)
    times, rows, after = plan.times(), range(plan.visits), range(1, plan.visits + 1)
    levels = [*zip(plan.alpha.tolist(), plan.sigma.tolist(), strict=True), tuple(plan.after[-1].tolist())]
    spread = [math.hypot(a * DEVIATION, s) for a, s in levels]
    free, paired = Walked(plan, factor, (0.0, 1.0)), Walked(plan, factor, levels[0])
    x, y = free.states(), paired.states()
    said = [free.said(i, x[i]) for i in rows]
    unit = [free.said(i, free.clean * spread[i] / DEVIATION) for i in rows]  # of a true state's deviation
    found = {
        "eps_norm.sampling": {times[i]: norm(deviation(said[i][1])) for i in rows},
        "eps_norm.training": {times[i]: norm(deviation(unit[i][1])) for i in rows},
        "eps_norm.ratio": {times[i]: deviation(said[i][1]) / deviation(unit[i][1]) for i in rows},
        "delta": {times[i]: (deviation(y[i] - levels[i][0] * free.clean) - levels[i][1]) ** 2 for i in after},
        "drift": {times[i]: deviation(y[i]) - spread[i] for i in after},
        "coupled_time": {times[i]: coupled(deviation(x[i])) - times[i] for i in rows},
    }
    of_xt = {times[i]: (deviation(x[i]) / spread[i]) ** 2 for i in range(plan.visits + 1)}
    of_x0 = {times[i]: (deviation(said[i][0]) / deviation(unit[i][0])) ** 2 for i in rows}
    for band in ("haar0", "haar1", "haar2", "haar3", "ring0", "ring1", "ring2", "ring3"):
        found |= {f"energy.xt.{band}.ratio": of_xt, f"energy.x0.{band}.ratio": of_x0}
    return found | _errors(sampling, factor, times[:-1])


def _errors(sampling: Sampling, factor: float, times: Sequence[float]) -> dict[str, dict[float, float]]:
    found: dict[str, dict[float, float]] = {"x0_error.one_step": {}, "x0_error.accumulated": {}, "nu": {}}
    for t in times:
        own = replace(sampling, steps=None, spacing=tuple(s for s in times if s <= t))
        walked = Walked(own.plan(SCHEDULE), factor, tuple(SCHEDULE.level(t)))
        states = walked.states()
        found["x0_error.one_step"][t] = deviation(walked.clean - walked.said(0, states[0])[0])
        found["x0_error.accumulated"][t] = found["nu"][t] = deviation(walked.clean - states[-1])
    return found


def coupled(deviation: float) -> float:
    """The time of true states of a standard deviation."""
    alpha_bar = (1 - deviation**2) / (1 - DEVIATION**2)
    return (
        -1.0
        if alpha_bar >= 1
        else 999.0
        if alpha_bar <= 0
        else SCHEDULE.time(0.5 * math.log(alpha_bar / (1 - alpha_bar)))
    )
