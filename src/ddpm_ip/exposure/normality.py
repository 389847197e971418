r"""Whether numbers are normal, by their skewness and kurtosis: D'Agostino and Pearson's K^2.

    K^2 = Z_1^2 + Z_2^2,     p = exp(-K^2 / 2)

``Z_1`` is the skewness, transformed so that it is nearly standard normal for normal numbers (D'Agostino 1970,
Biometrika 57), ``Z_2`` the kurtosis (Anscombe & Glynn 1983, Biometrika 70); together D'Agostino & Pearson 1973
(Biometrika 60). DDPM-IP tests with Shapiro and Wilk's test, which needs the numbers in their order; this one needs four
moments.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddpm_ip.precise import precise

LEAST = 20  # numbers, for the transformations to hold


def p_values(numbers: Tensor) -> Tensor:
    """How likely numbers this far from normal are, if they are normal: (K,) for each column of (N, K), N >= 20.

    A column without any spread has NaN.
    """
    numbers = precise(numbers)
    n, centred = len(numbers), numbers - numbers.mean(dim=0)
    m2, m3, m4 = (centred.pow(k).mean(dim=0) for k in (2, 3, 4))
    flat = m2 <= torch.finfo(torch.float32).eps ** 2
    m2 = m2.where(~flat, 1.0)
    k2 = _of_skewness(m3 / m2**1.5, n).square() + _of_kurtosis(m4 / m2**2, n).square()
    return torch.exp(-k2 / 2).where(~flat, torch.nan)


def _of_skewness(skewness: Tensor, n: int) -> Tensor:
    y = skewness * math.sqrt((n + 1) * (n + 3) / (6.0 * (n - 2)))
    beta = 3.0 * (n * n + 27 * n - 70) * (n + 1) * (n + 3) / ((n - 2.0) * (n + 5) * (n + 7) * (n + 9))
    w2 = math.sqrt(2 * (beta - 1)) - 1
    delta = 1 / math.sqrt(0.5 * math.log(w2))
    return delta * torch.asinh(y * math.sqrt((w2 - 1) / 2))


def _of_kurtosis(kurtosis: Tensor, n: int) -> Tensor:
    mean = 3.0 * (n - 1) / (n + 1)
    variance = 24.0 * n * (n - 2) * (n - 3) / ((n + 1) * (n + 1) * (n + 3) * (n + 5))
    x = (kurtosis - mean) / math.sqrt(variance)
    third = (
        6.0 * (n * n - 5 * n + 2) / ((n + 7) * (n + 9)) * math.sqrt(6.0 * (n + 3) * (n + 5) / (n * (n - 2) * (n - 3)))
    )
    a = 6 + 8 / third * (2 / third + math.sqrt(1 + 4 / third**2))
    denominator = 1 + x * math.sqrt(2 / (a - 4))
    share = (1 - 2 / a) / denominator.where(denominator != 0, 1.0)
    root = share.sign() * share.abs().pow(1 / 3)
    return (1 - 2 / (9 * a) - root) / math.sqrt(2 / (9 * a))
