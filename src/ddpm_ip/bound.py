r"""The variational bound, term by term (Ho et al. 2020, arXiv 2006.11239, equations 5 and 13).

    L_t = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))  for t > 0,        L_0 = -log p(x_0 | x_1) of an 8-bit image

in bits per dimension. A learned variance lies between the posterior variance and beta on a logarithmic scale (Nichol &
Dhariwal 2021, arXiv 2102.09672, equation 15).

Compared with the authors' code, terms of t > 0 agree to 4e-7 bits in float32. That of t = 0 has the normal distribution
function here, where they approximate it by a tanh, and differs by a few percent. (In float32 it is, like theirs, a
difference of numbers near one or zero: from 4 deviations on it loses digits, and from 6 on it is the bound of 10^-12,
with no gradient left.)
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from ddpm_ip.denoiser import Prediction
from ddpm_ip.schedule import Schedule, expand_like, posterior


def bound_term(
    schedule: Schedule, prediction: Prediction, x0: Tensor, xt: Tensor, t: Tensor, mean_learns: bool = False
) -> Tensor:
    """One term of the variational bound, in bits per dimension, (B,).

    ``KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))`` for ``t > 0``, the negative log-likelihood of the 8-bit image for
    ``t = 0``.

    Args:
        schedule: the noise schedule.
        prediction: of the network at ``(xt, t)``, with a variance fraction.
        x0: clean images (B, C, H, W) in [-1, 1].
        xt: what the network was fed, (B, C, H, W).
        t: int64 (B,).
        mean_learns: whether the gradient reaches the mean, too, and not the variance alone.
    """
    assert prediction.variance_fraction is not None
    c0, ct, log_small, log_large = (expand_like(c[t], x0) for c in _posterior_tables(schedule, x0.device))
    true_mean = c0 * x0 + ct * xt
    mean = c0 * prediction.x0 + ct * xt
    mean = mean if mean_learns else mean.detach()
    log_variance = prediction.variance_fraction * log_large + (1 - prediction.variance_fraction) * log_small
    kl = gaussian_kl(true_mean, log_small, mean, log_variance)
    nll = -discretized_log_likelihood(x0, mean, 0.5 * log_variance)
    return torch.where(t == 0, mean_of_each(nll), mean_of_each(kl)) / math.log(2.0)


def gaussian_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """``KL(N(mean1, variance1) || N(mean2, variance2))`` elementwise, in nats."""
    return 0.5 * (
        log_variance2
        - log_variance1
        - 1.0
        + torch.exp(log_variance1 - log_variance2)
        + (mean1 - mean2) ** 2 * torch.exp(-log_variance2)
    )


def discretized_log_likelihood(x: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Log-probability of 8-bit images under a Gaussian, elementwise, in nats (Ho et al. 2020, equation 13).

    Args:
        x: images in [-1, 1] on the grid of 256 levels.
        mean, log_deviation: of the Gaussian, broadcastable to ``x``.
    """
    scale = torch.exp(-log_deviation)
    upper = torch.special.ndtr((x - mean + 1 / 255) * scale)
    lower = torch.special.ndtr((x - mean - 1 / 255) * scale)
    upper = torch.where(x > 0.999, torch.ones_like(upper), upper)
    lower = torch.where(x < -0.999, torch.zeros_like(lower), lower)
    return torch.log((upper - lower).clamp(min=1e-12))


def mean_of_each(x: Tensor) -> Tensor:
    """(B, ...) -> (B,), over all but the first."""
    return x.flatten(1).mean(dim=1)


@cache  # never let go: a captured graph may read them
def _posterior_tables(schedule: Schedule, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """float32 (T,): the posterior's coefficients, its log-variance (at t = 0 that of t = 1), log beta."""
    alpha_bars = [1.0, *schedule.alpha_bars().tolist()]
    q = [posterior(alpha_bars[t + 1], alpha_bars[t]) for t in range(schedule.total_steps)]
    small = [p.variance for p in q]
    small[0] = small[1] if len(small) > 1 else q[0].beta
    rows = [[p.c0 for p in q], [p.ct for p in q], [math.log(v) for v in small], [math.log(p.beta) for p in q]]
    c0, ct, log_small, log_large = torch.tensor(rows, dtype=torch.float64).float().to(device).unbind(0)
    return c0, ct, log_small, log_large
