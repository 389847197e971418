r"""What a network says of true states ``x_t = alpha x_0 + sigma eps``, at the levels that a sampling visits.

    slope    lambda_t = E|eps_hat|^2 / E<eps_hat, eps>

An optimal network's error is orthogonal to what it says, so its slope is 1. A factor on all that it says shows as the
slope: the optimal network of input perturbation of strength gamma has ``1 / (1 + gamma^2)`` where the image can be told
from the noise or there is only noise, and up to 1 where it cannot; one that is not trained to the end has less than 1.
Dividing by the slope (``epsilon_scaling``) undoes the factor; whether that helps a sampling is another question, since
its steps have errors of their own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_ip.draws import Draws
from ddpm_ip.exposure.bands import products, split
from ddpm_ip.exposure.curves import HAAR
from ddpm_ip.exposure.fit import norms
from ddpm_ip.images import to_unit
from ddpm_ip.precise import place
from ddpm_ip.sample.generator import Generator


class Truth(NamedTuple):
    """Of each visit of a sampling, on the CPU.

    Attributes:
        predicted: the mean energy of ``x_0`` as predicted, in each band, float64 (V, 4).
        slope: ``lambda_t``, (V,).
        norm: the mean Euclidean norm of the predicted noise, (V,).
    """

    predicted: Tensor
    slope: Tensor
    norm: Tensor


def truth(generator: Generator, pixels: Tensor, labels: Tensor | None, seed: int) -> Truth:
    """Asks the network, within the corrections of its sampling, about real images. All processes call this together.

    Args:
        generator: model and sampling.
        pixels: ``uint8`` (N, C, H, W), real images, the same on all processes; whole blocks of them are used, each
            process its own.
        labels: their classes, int64 (N,); None for an unconditional model.
        seed: of the noise.

    Raises:
        Diverged: what the network says is not finite.
    """
    engine, size, plan, device = generator.model.engine, generator.block, generator.plan, generator.model.device
    sums = torch.zeros(plan.visits, 4, HAAR, dtype=torch.float64, device=place(device))
    count = torch.zeros_like(sums[0, 0, :1])
    for start in range(engine.process_index * size, len(pixels) - size + 1, engine.num_processes * size):
        indices = torch.arange(start, start + size, device=device)
        x0 = to_unit(pixels[start : start + size].to(device))
        told = None if labels is None else labels[start : start + size].to(device)
        drawn = [Draws(seed, word, indices).eps(x0.shape[1:]) for word in plan.word.tolist()]
        states = ((i, float(plan.alpha[i]) * x0 + float(plan.sigma[i]) * eps) for i, eps in enumerate(drawn))
        for i, seen in enumerate(generator.visits(states, indices, told)):
            parts, noise = split(seen.eps), split(drawn[i])
            norm = norms(seen)[:, None].expand(-1, HAAR)
            x0_parts = split(seen.x0)
            each = [products(x0_parts, x0_parts), products(parts, parts), products(parts, noise), norm]
            sums[i] += torch.stack(each).sum(dim=1)
        count += size
    found = (engine.reduce(sums, "sum") / engine.reduce(count, "sum")).cpu()
    if not found.isfinite().all():
        raise generator.model.diverged()
    predicted, said, along, norm = found.unbind(dim=1)
    slope = (said.sum(dim=1) / along.sum(dim=1)).nan_to_num(1.0, 1.0, 1.0)  # of a network that says nothing
    return Truth(predicted, slope, norm[:, 0])
