"""Averages of weights whose length is chosen after training.

Karras et al. 2024 (arXiv 2312.02696, section 3 and appendix C).

An exponential average forgets at one speed for ever; one of a power function has a length that is a share of the
training so far. After ``t`` steps the weights of step ``s`` count by the profile::

    p_t(s) = (gamma + 1) s^gamma / t^(gamma + 1)        0 < s <= t

Its length is called by the standard deviation of ``s / t``::

    sigma_rel = sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)

The average needs no more than the last one: ``a_t = beta_t a_(t-1) + (1 - beta_t) theta_t`` with
``beta_t = (1 - 1/t)^(gamma + 1)``. It has no share of the initial weights, since ``beta_1 = 0``.

From averages of a few lengths that were kept now and then (snapshots), that of any other length is made: the
combination ``sum_i x_i p_i`` of their profiles that is nearest to the wanted profile in the mean square, of which all
integrals are known. What is ours: the weights ``x`` must sum to one, so that weights that did not change stay as they
are even with few snapshots; and they are kept small where that costs next to nothing, since an average in float32 is
known to some 10^-5 of it (measured over 100,000 steps), which large weights of both signs would magnify.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LONGEST = 12**-0.5  # sigma_rel of gamma 0, the plain mean of all steps
ROUNDING = 1e-5  # how exactly an average is known, as a share of it


@dataclass(frozen=True)
class Profile:
    """How much the weights of each step count in a power-function average.

    Args:
        sigma_rel: its length, in (0, 0.288).
        step: at which it was taken, at least 1.
    """

    sigma_rel: float
    step: int


def sigma_rel_of(gamma: float) -> float:
    """The length of an average, from its exponent ``gamma`` >= 0."""
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def gamma_of(sigma_rel: float) -> float:
    """The exponent of an average, from its length.

    Raises:
        ValueError: the length is not in (0, 12^-1/2], which are those of an exponent that is not negative.
    """
    if not 0 < sigma_rel <= LONGEST:
        raise ValueError(f"sigma_rel must be above 0 and at most {LONGEST:.3f}, the plain mean, got {sigma_rel:g}")
    low, high = 0.0, 1 / sigma_rel  # the length falls with the exponent, and is below 1 / (gamma + 2)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sigma_rel_of(middle) > sigma_rel else (low, middle)
    return (low + high) / 2


def weight_at(gamma: float, n: int) -> float:
    """How much the weights of the n-th step count in the n-th update, ``1 - beta_n``, n >= 1; the first is 1."""
    return 1.0 if n == 1 else -math.expm1((gamma + 1) * math.log1p(-1 / n))


def combination(profiles: Sequence[Profile], wanted: Profile) -> tuple[list[float], float]:
    """How an average is made from others.

    Args:
        profiles: of those that are there, no two the same.
        wanted: that of the one to make.

    Returns:
        The factor of each, whose sum is 1; and how far the profile that they make is from the wanted one, as a share of
        it (both in the mean square over all steps).
    """
    scale = float(wanted.step)
    sigmas = [p.sigma_rel for p in (*profiles, wanted)]
    gamma = torch.tensor([gamma_of(sigma) for sigma in sigmas], dtype=torch.float64)
    time = torch.tensor([p.step / scale for p in (*profiles, wanted)], dtype=torch.float64)
    products = _products(gamma, time)
    n = len(profiles)
    among, with_wanted, own = products[:n, :n], products[:n, n], products[n, n]
    system = torch.ones(n + 1, n + 1, dtype=torch.float64)  # of Lagrange: the last row says that the sum is 1
    system[:n, :n], system[n, n] = among + ROUNDING**2 * torch.diag(among.diag()), 0.0
    right = torch.cat([with_wanted, torch.ones(1, dtype=torch.float64)])
    x = torch.linalg.solve(system, right)[:n]
    square = x @ among @ x - 2 * x @ with_wanted + own
    return x.tolist(), math.sqrt(max(float(square / own), 0.0))


def _products(gamma: Tensor, time: Tensor) -> Tensor:
    """The integral of the product of each two profiles, float64 (N, N).

    With ``a`` the earlier and ``b`` the later of the two,
    ``(gamma_a + 1) (gamma_b + 1) / (gamma_a + gamma_b + 1) (t_a / t_b)^gamma_b / t_b``.
    """
    first, second, a, b = gamma[:, None], gamma[None, :], time[:, None], time[None, :]
    later = torch.where(a <= b, second, first)
    ratio, latest = torch.minimum(a, b) / torch.maximum(a, b), torch.maximum(a, b)
    return (first + 1) * (second + 1) / (first + second + 1) * ratio**later / latest
