r"""Spherical interpolation between two noises: what lies between is as likely to be drawn as they are.

With the angle ``theta`` between ``a`` and ``b`` (Shoemake 1985; of diffusion models Song et al. 2021, arXiv 2010.02502,
appendix D.5)

    slerp(a, b, u) = sin((1 - u) theta) / sin(theta) a + sin(u theta) / sin(theta) b
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddpm_ip.precise import precise


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """A point on the arc from ``a`` to ``b``, for each of a batch; at 0 and 1 exactly ``a`` and ``b``.

    Args:
        a, b: (B, ...), of the same shape. Where both have one direction, the arc is the line between them.
        share: of the way, in [0, 1].

    Returns:
        (B, ...), of their kind of number.
    """
    ends = precise(torch.stack((a, b))).flatten(2)
    cosine = ends.prod(dim=0).sum(dim=1) / ends.norm(dim=2).prod(dim=0)
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    weights = [
        torch.where(sine > 1e-6, (part * angle).sin() / sine, part).to(a).reshape(-1, *(1,) * (a.ndim - 1))
        for part in (1 - share, share)
    ]
    return weights[0] * a + weights[1] * b
