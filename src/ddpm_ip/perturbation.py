r"""What the network is fed in training instead of the true ``x_t``.

Sampling feeds the network its own, slightly wrong states; training feeds it exact ones. This gap is exposure bias.
DDPM-IP (Ning et al. 2023, arXiv 2301.11706, equation 8 and algorithm 3) closes part of it by *input perturbation*:

    y_t = alpha_t x_0 + sigma_t (eps + gamma xi),        xi ~ N(0, I)

The network sees ``(y_t, t)``, and its target stays the *clean* ``eps``. Sampling is unchanged.

Three methods are mistaken for it and have different optima (``tests/test_perturbation.py`` has them in closed
form): ``gamma xi`` without the factor ``sigma_t``, a constant that swamps small noise; ``eps + gamma xi`` in the
target, too ("DDPM-y" in the paper, worse than both); one ``xi`` for a whole channel ("offset noise").

The strength may change with the time, with the step of training, and from image to image:

    gamma_i = gamma(t) r(step) u_i c_i

``r`` falls from 1 to 0 over ``until`` steps (SimpleTuner's annealing), or ends there; ``u_i`` is uniform in [0, 1] with
``random`` (after kohya's ``ip_noise_gamma_random_strength``); ``c_i`` is 1 with ``probability``, else 0 (the mixture of
clean and perturbed inputs of "Bidirectional Noise Injection", AAAI 2026, where 0.8 is best, and on CelebA-HQ always
perturbing is worse than never). Where it is 0 every number is that of plain DDPM, to the bit.

What is known: gamma 0.1 is best in the paper's study of CIFAR-10 (FID at 100 steps: 2.70; 3.03 with 0.05, 2.82 with
0.2, 3.37 without); its released checkpoint was trained with 0.15. The optimal network is plain DDPM's, scaled by
``1 / sqrt(1 + gamma^2)`` and slightly shifted in time (docs/DDPM-IP.md).

**Targets.** With ``pred_eps`` the noise that a network finds shrinks by ``1 - k``, ``k = gamma^2 / (1 + gamma^2)``.
With the clean target of ``pred_x0`` and ``pred_v``, as others train them, it shrinks by 1 and ``1 - alpha_t^2 k``. With
``target: consistent`` the network is asked for what gives the same ``x_0`` as ``pred_eps`` does (derived here):

    x_0~ = x_0 + (sigma_t / alpha_t) gamma xi,        v~ = alpha_t eps - sigma_t x_0~

so that ``y_t = alpha_t x_0~ + sigma_t eps``. Its variance has no bound as ``alpha_t`` falls, so the squared error is
weighted by ``1 / (1 + (gamma(t) r sigma_t / alpha_t)^2)``, which moves no minimiser and is 1 at strength 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.draws import Draws, Stream
from ddpm_ip.precise import place, precise
from ddpm_ip.schedule import Schedule, expand_like
from ddpm_ip.variants import settle

MOST = 10_000  # numbers in a list of strengths


@dataclass(frozen=True)
class NoPerturbation:
    """Plain DDPM: the network is fed ``x_t = alpha_t x_0 + sigma_t eps``."""

    name: Literal["none"] = field(default="none", kw_only=True)

    def __call__(self, eps: Tensor, draws: Draws, t: Tensor, schedule: Schedule) -> Tensor:
        """Returns ``eps`` (B, ...) itself."""
        return eps


@dataclass(frozen=True)
class InputPerturbation:
    """DDPM-IP: ``eps`` becomes ``eps + gamma xi`` in the input, not in the target.

    Args:
        gamma: strength, >= 0; or a list of strengths by time, the first at t = 0 and the last at T - 1, linear between.
            The paper's CIFAR-10 study finds 0.1 best (its released checkpoint uses 0.15); above 0.2 it
            over-regularises. At 0 every number is bit-identical to plain DDPM.
        until: steps of training after which nothing is perturbed any more; None for never. Counted from step 0 of the
            run, so fine-tuning begins at 0 again.
        anneal: how the strength gets there: ``none`` keeps it until then, ``linear`` lowers it with each step.
        random: whether each image has a strength of its own, uniform between 0 and that one.
        probability: of an image to be perturbed at all, in [0, 1].
        target: what the network is asked for with ``pred_x0`` and ``pred_v``; see above. With ``pred_eps`` both are the
            clean ``eps``, and ``consistent`` is refused.
    """

    name: Literal["input"] = field(default="input", kw_only=True)
    gamma: float | tuple[float, ...] = 0.1
    until: int | None = None
    anneal: Literal["none", "linear"] = "none"
    random: bool = False
    probability: float = 1.0
    target: Literal["clean", "consistent"] = "clean"

    def __post_init__(self) -> None:
        settle(self)
        given = self.gamma if isinstance(self.gamma, tuple) else (self.gamma,)
        if not 1 <= len(given) <= MOST:
            raise ValueError(f"gamma must be a number or a list of 1 to {MOST} numbers, got {len(given)}")
        if wrong := [g for g in given if not 0 <= g < math.inf]:
            raise ValueError(f"gamma must be >= 0, got {wrong[0]}")
        if len(set(given)) == 1:
            object.__setattr__(self, "gamma", given[0])
        if self.until is not None and self.until < 1:
            raise ValueError(f"until must be at least 1, or null for never, got {self.until}")
        if self.until is None and self.anneal != "none":
            raise ValueError(f"anneal {self.anneal} needs until: the steps of training after which the strength is 0")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be in [0, 1], got {self.probability}")

    @property
    def is_off(self) -> bool:
        """Whether nothing is ever perturbed."""
        return self.gamma == 0 or self.probability == 0

    def __call__(self, eps: Tensor, draws: Draws, t: Tensor, schedule: Schedule) -> Tensor:
        """``eps + gamma_i xi``, of the shape of ``eps``; device work only.

        Args:
            eps: float32 (B, ...).
            draws: of the rows; their step is that of training.
            t: int64 (B,).
            schedule: says where in a list of strengths a time lies.
        """
        if self.is_off:
            return eps
        if isinstance(self.gamma, float | int) and self.until is None and not self.random and self.probability == 1:
            return eps + self.gamma * draws.xi(eps.shape[1:])
        strength = self.strength(draws, t, schedule)
        if self.random:
            strength = strength * (precise(draws.bits(Stream.STRENGTH, 1)[:, 0]) * 2.0**-32)
        if self.probability < 1:
            chance = draws.bits(Stream.CHANCE, 1)[:, 0] < round(self.probability * 2**32)
            strength = strength * chance.to(strength.device)
        each = expand_like(strength.float().to(eps.device), eps)
        return torch.where(each > 0, eps + each * draws.xi(eps.shape[1:]), eps)

    def strength(self, draws: Draws, t: Tensor, schedule: Schedule) -> Tensor:
        """``gamma(t) r(step)``, before the chance of an image: float64 (B,), on the CPU where ``t``'s device has none.

        Args:
            draws: which say the training step.
            t: int64 (B,), times.
            schedule: of the model, whose times there are.
        """
        if self.is_off:
            return torch.zeros(len(t), dtype=torch.float64, device=place(t.device))
        where = place(t.device)
        gamma = _by_time(self.gamma, schedule.total_steps, where)[t.to(where)]
        if self.until is None:
            return gamma
        step = draws.step.to(where) if isinstance(draws.step, Tensor) else torch.full((), draws.step, device=where)
        if self.anneal == "linear":
            return gamma * (1 - step.double() / self.until).clamp(min=0)
        return gamma * (step < self.until)

    def consistent(
        self, x0: Tensor, excess: Tensor, strength: Tensor, level: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The image that the consistent target is made of, and the weight of its error.

        Args:
            x0: clean images (B, C, H, W).
            excess: what the input has beyond ``eps``, (B, C, H, W).
            strength: :meth:`strength`, (B,).
            level: ``alpha`` and ``sigma``, of a shape that multiplies ``x0``.

        Returns:
            ``x_0~`` (B, C, H, W), float32, and the weights (B,), float32 in (0, 1].
        """
        alpha, sigma = level
        ratio = sigma / alpha.clamp(min=1e-12)  # a schedule may end in 0
        image = torch.where(excess == 0, x0, x0 + ratio * excess)
        return image, 1 / (1 + (strength.float().to(ratio.device) * ratio.flatten()) ** 2)


Perturbation = NoPerturbation | InputPerturbation


def label(perturbation: Perturbation) -> str:
    """What a method is called: ``DDPM``, ``DDPM-IP, gamma 0.1``, or the name of another perturbation."""
    if isinstance(perturbation, NoPerturbation):
        return "DDPM"
    if not isinstance(perturbation, InputPerturbation):
        return f"DDPM with perturbation {perturbation.name}"
    if perturbation.is_off:
        return "DDPM"
    p, words = perturbation, ["DDPM-IP"]
    if isinstance(p.gamma, tuple):
        shown = [f"{g:g}" for g in p.gamma]
        words.append(f"gamma {', '.join(shown if len(shown) < 6 else [*shown[:2], '...', *shown[-2:]])} by t")
    else:
        words.append(f"gamma {p.gamma:g}")
    if p.until is not None:
        words.append(f"falling to 0 at step {p.until}" if p.anneal == "linear" else f"until step {p.until}")
    words += ["random strength"] if p.random else []
    words += [f"probability {p.probability:g}"] if p.probability < 1 else []
    words += [f"{p.target} target"] if p.target != "clean" else []
    return ", ".join(words)


@cache  # never let go: a captured graph may read them
def _by_time(gamma: float | tuple[float, ...], total_steps: int, device: torch.device) -> Tensor:
    """The strength at each time, float64 (T,)."""
    given = torch.tensor(gamma if isinstance(gamma, tuple) else (gamma,), dtype=torch.float64)
    place = torch.arange(total_steps, dtype=torch.float64) * ((len(given) - 1) / max(total_steps - 1, 1))
    below = place.floor().long()
    share = place - below
    between = (1 - share) * given[below] + share * given[(below + 1).clamp(max=len(given) - 1)]
    return between.to(device)
