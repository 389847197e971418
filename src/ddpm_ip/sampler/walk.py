"""The walk along a plan, from noise to images: plain PyTorch, and the reference for the captured one.

It is a generator, so that every intermediate state can be looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ddpm_ip.denoiser import Denoiser, Prediction
from ddpm_ip.draws import Draws
from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler.base import Plan, State
from ddpm_ip.sampler.correction.base import Correction, Denoise, Row
from ddpm_ip.schedule import Schedule


def walk(
    plan: Plan,
    denoiser: Denoiser,
    seed: int,
    indices: Tensor,
    start: Sequence[int] | Tensor,
    corrections: Sequence[Correction] = (),
) -> Iterator[State]:
    """Walks from noise to images; yields the starting point, and then the state after each visit.

    Args:
        plan: of a sampler.
        denoiser: the model; its ``cond`` has the labels of the images, (B,).
        seed: of the random numbers.
        indices: int64 (B,), which images of that seed; its device is where the work is done.
        start: the shape (C, H, W) of images whose ``x_T`` is drawn; or the state to begin with, float32 (B, C, H, W).
        corrections: applied in this order, the first next to the network.

    Raises:
        ConfigError: the plan needs a learned variance and the network has none.
    """
    visits = Visits(plan, denoiser, seed, corrections)
    if isinstance(start, Tensor):
        x = start
    else:
        x = Draws(seed, 0, indices).start(start)
        x = x if plan.start == 1 else plan.start * x
    memories: Sequence[Tensor | None] = [None] * plan.memories
    times = plan.times()
    yield State(0, times[0], x, None)
    for i in range(plan.visits):
        x, memories, seen = visits(i, x, memories, indices)
        yield State(i + 1, times[i + 1], x, seen, bool(plan.state[i]))


class Visits:
    """The visits of a plan, one at a time, of states that the caller keeps; see :func:`walk` for the arguments."""

    def __init__(self, plan: Plan, denoiser: Denoiser, seed: int, corrections: Sequence[Correction] = ()) -> None:
        self.plan, self.denoiser, self.seed, self.corrections = plan, denoiser, seed, tuple(corrections)
        self._denoise = corrected(denoiser, corrections)
        self._numbers = numbers_of(plan, denoiser.schedule, denoiser.learned_variance, corrections)

    @torch.no_grad()
    def __call__(
        self, i: int, x: Tensor, memories: Sequence[Tensor | None], indices: Tensor
    ) -> tuple[Tensor, list[Tensor | None], Prediction]:
        """State, memories and what the denoiser said, after visit ``i``.

        Args:
            i: the row of the plan.
            x: the state before it, float32 (B, C, H, W).
            memories: M of the same shape; None where a memory is not set.
            indices: int64 (B,), which images of the seed.
        """
        plan, row = self.plan, self.row(i, x)
        seen = self._denoise(x, row)
        noise = _noise(plan, i, seen, Draws(self.seed, int(plan.word[i]), indices), x.shape[1:])
        before = [x, *memories, seen.x0, seen.eps, noise]
        new = [_combined(weights, before) for weights in plan.update[i].tolist()]
        x, kept = _there(new[0]), new[1:]
        for correction in self.corrections:
            x, kept = changed(correction.after(x, seen.x0, row), plan.carry[i].tolist(), x, kept)
        return x, kept, seen

    def row(self, i: int, x: Tensor) -> Row:
        """Row ``i`` of the plan as denoisers and corrections read it, for states (B, C, H, W)."""
        return _row(self.plan, i, self._numbers, x)._replace(cond=self.denoiser.cond)

    def said(self, i: int, x: Tensor) -> Prediction:
        """What the denoiser says, within all corrections, of states (B, C, H, W) at row ``i``; no step is taken."""
        with torch.no_grad():
            return self._denoise(x, self.row(i, x))


def corrected(denoiser: Denoiser, corrections: Sequence[Correction]) -> Denoise:
    """The denoiser as a plan's rows ask it, within all corrections."""

    def network(xt: Tensor, row: Row) -> Prediction:
        return denoiser.at(xt, row.t, row.alpha, row.sigma, row.cond)

    return _wrapped(network, corrections)


def asked(corrections: Sequence[Correction], xt: Tensor, row: Row) -> tuple[Tensor, Row]:
    """What corrections ask the network first for a state ``xt``, (B, C, H, W), and at which row; it is not run."""
    found = []

    def network(xt: Tensor, row: Row) -> Prediction:
        found.append((xt, row))
        nothing = torch.zeros_like(xt)
        return Prediction(nothing, nothing, nothing, nothing)

    _wrapped(network, corrections)(xt, row)
    return found[0]


def _wrapped(denoise: Denoise, corrections: Sequence[Correction]) -> Denoise:
    for correction in corrections:
        denoise = correction.wrap(denoise)
    return denoise


def numbers_of(
    plan: Plan, schedule: Schedule, learned_variance: bool, corrections: Sequence[Correction]
) -> dict[str, Tensor]:
    """The numbers of each correction, float64 (V, P), by name.

    Args:
        plan: of a sampler.
        schedule: of the model.
        learned_variance: whether the model has one.
        corrections: in their order.

    Raises:
        ConfigError: a correction is named twice, or stands where it cannot, or the plan needs a learned variance and
            the network has none.
    """
    names = [c.name for c in corrections]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"the correction {', '.join(sorted(twice))} is given twice: give each once")
    if late := [c.name for c in corrections[1:] if c.asks > 1]:
        raise ConfigError(
            f"the correction {late[0]} asks the network more than once, next to it: name it first, before {names[0]}"
        )
    if plan.log_bounds is not None and not learned_variance:
        raise ConfigError(
            "var_type learned_range needs a network with learned variance (trained with "
            "diffusion.var_type: learned_range); for this one choose fixed_large or fixed_small"
        )
    return {c.name: c.numbers(plan, schedule) for c in corrections}


def evaluations(plan: Plan, corrections: Sequence[Correction]) -> int:
    """Network evaluations for an image: one a visit, or as many as a correction asks for."""
    return plan.visits * math.prod(c.asks for c in corrections)


def _row(plan: Plan, i: int, numbers: Mapping[str, Tensor], x: Tensor) -> Row:
    t = float(plan.t[i])
    times = torch.full((len(x),), int(t) if t.is_integer() else t, device=x.device)
    alpha, sigma = (v[i].to(x.device, torch.float32).reshape(1, 1, 1, 1) for v in (plan.alpha, plan.sigma))
    return Row(times, alpha, sigma, {name: n[i].to(x.device, torch.float32) for name, n in numbers.items()})


def _noise(plan: Plan, i: int, seen: Prediction, draws: Draws, shape: Sequence[int]) -> Tensor | None:
    """The noise of a visit, scaled by the learned variance if there is one. None where no row asks for any."""
    if not plan.update[i, :, -1].any():
        return None
    noise = draws.noise(shape)
    if plan.log_bounds is None:
        return noise
    log_small, log_large = plan.log_bounds[i].tolist()
    fraction = seen.variance_fraction
    if fraction is None or math.isnan(log_small):
        return noise
    return torch.exp(0.5 * (fraction * log_large + (1 - fraction) * log_small)) * noise


def _combined(weights: Sequence[float], before: Sequence[Tensor | None]) -> Tensor | None:
    """A weighted sum, term by term in float32, the noise last. What has no weight is not looked at: it may be unset."""
    terms = [(w, z) for w, z in zip(weights, before, strict=True) if w != 0]
    if not terms:
        return torch.zeros_like(_there(before[0]))
    if len(terms) == 1 and terms[0][0] == 1:
        return terms[0][1]
    total: Tensor | None = None
    for w, z in terms:
        term = _there(z) if w == 1 else w * _there(z)
        total = term if total is None else total + term
    return total


def _there(z: Tensor | None) -> Tensor:
    assert z is not None, "a memory is used before it is set"
    return z


def changed(
    change: Tensor | None, carry: Sequence[float], x: Tensor, memories: Sequence[Tensor | None]
) -> tuple[Tensor, list[Tensor | None]]:
    """State and memories with a correction that was made after the visit.

    Args:
        change: what is added, (B, C, H, W); None for nothing.
        carry: of the visit's row of the plan.
        x: the state.
        memories: None where one is not set.
    """
    if change is None:
        return x, list(memories)
    moved = [z + change if c and z is not None else z for c, z in zip(carry, [x, *memories], strict=True)]
    return _there(moved[0]), moved[1:]
