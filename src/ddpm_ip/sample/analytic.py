r"""``Gamma_t`` of a network, measured on training images (:mod:`ddpm_ip.sampler.ancestral`, ``var_type: analytic``).

At times evenly spaced in ``lambda``, with ``x_t = alpha_t x_0 + sigma_t eps`` of training images (Bao et al. 2022,
arXiv 2201.06503, equation 8):

    norm:      Gamma_t = E ||eps(x_t, t)||^2 / d
    residual:  Gamma_t = 1 - E ||eps - eps(x_t, t)||^2 / d

At high noise the first is so close to 1 that its own noise, of about ``sqrt(2 / (n d))``, would drown what is wanted,
``1 - Gamma_t``. But ``E ||eps||^2 / d = 1`` is known, and the same draws say by how much they are off: it is a control
variate, with the coefficient of a regression over the images. The network is asked as it is, without the corrections of
a sampling (guidance among them) and without input perturbation; a class-conditional one with the images' own classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ddpm_ip.data.order import order
from ddpm_ip.draws import Draws
from ddpm_ip.images import to_unit
from ddpm_ip.precise import precise
from ddpm_ip.schedule import Schedule

TIMES = 100  # between which Gamma is linear in lambda
IMAGES = 1024  # a time
Kind = TypeVar("Kind", bound=np.generic)


class Gammas(NamedTuple):
    """What was measured: ``Gamma_t`` at ``times``, rising, by the norm and by the residual."""

    times: list[int]
    norm: list[float]
    residual: list[float]


def times_between(schedule: Schedule, count: int) -> list[int]:
    """At most ``count`` whole times from 0 to T - 1, evenly spaced in lambda as far as whole times are, rising."""
    ends = schedule.half_log_snr(0), schedule.half_log_snr(schedule.total_steps - 1)
    shares = [i / max(count - 1, 1) for i in range(count)]
    return sorted({round(schedule.time((1 - share) * ends[0] + share * ends[1])) for share in shares})


def chosen(values: npt.NDArray[Kind], n: int, seed: int) -> npt.NDArray[Kind]:
    """Those of ``n`` different images, or of all where there are fewer, by a seed.

    Args:
        values: of each image, (N, ...): its pixels, or its label.
        n: how many images.
        seed: chooses the same images, whatever the values are of.
    """
    return values[np.sort(order(seed, np.arange(min(n, len(values))), len(values)))]


def measure(
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    schedule: Schedule,
    images: Tensor,
    times: Sequence[int],
    seed: int,
    block: int,
) -> Gammas:
    """Measures ``Gamma_t``: as many network evaluations as images times times.

    Args:
        predict: ``(x_t (B, C, H, W), t (B,), which (B,)) -> eps``, the network, told which of the images they are.
        schedule: of the network.
        images: ``uint8`` (N, C, H, W), N >= 1, where the network is.
        times: at which, rising, in 0..T-1.
        seed: of the noise, which is another at every time.
        block: images at once.
    """
    starts = range(0, len(images), block)
    with torch.no_grad():
        sums = [
            torch.cat([_of_block(predict, schedule, images[i : i + block], i, t, seed) for i in starts], dim=1)
            for t in times
        ]
    norm, residual = _estimates(torch.stack(sums).cpu())  # of all times: the only wait for the device
    return Gammas(list(times), norm.tolist(), residual.tolist())


def _of_block(
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    schedule: Schedule,
    pixels: Tensor,
    first: int,
    t: int,
    seed: int,
) -> Tensor:
    """``||eps(x_t, t)||^2 / d``, ``||eps||^2 / d`` and ``||eps - eps(x_t, t)||^2 / d`` of images, float64 (3, B)."""
    x0 = to_unit(pixels)
    which = torch.arange(first, first + len(x0), device=x0.device)
    eps = Draws(seed, t, which).eps(x0.shape[1:])
    at = torch.full((len(x0),), t, device=x0.device)
    said = predict(schedule.alpha(at, x0) * x0 + schedule.sigma(at, x0) * eps, at, which)
    return torch.stack([precise(z).square().flatten(1).mean(dim=1) for z in (said, eps, eps - said)])


def _estimates(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Both estimates, (times,) each, of (times, 3, N)."""
    said, drawn, residual = sums.unbind(dim=1)
    centred = drawn - drawn.mean(dim=1, keepdim=True)
    variation = centred.square().sum(dim=1)
    slope = torch.where(variation > 0, (centred * said).sum(dim=1) / variation, 1.0)  # one image says no slope
    return said.mean(dim=1) + slope * (1 - drawn.mean(dim=1)), 1 - residual.mean(dim=1)


def everywhere(gammas: Sequence[float], times: Sequence[int], schedule: Schedule) -> tuple[float, ...]:
    """``Gamma_t`` at all of 0..T-1, linear in lambda between the times that were measured.

    Args:
        gammas: at ``times``.
        times: rising, from 0 to T - 1.
        schedule: of the model.
    """
    places = [-schedule.half_log_snr(t) for t in range(schedule.total_steps)]
    found: list[float] = np.interp(places, [places[t] for t in times], gammas).tolist()
    return tuple(found)
