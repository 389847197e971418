r"""Linear multistep methods in the EDM view: slopes that are remembered, extrapolated, and integrated.

With ``x_bar = x / alpha``, ``rho = sigma / alpha`` and the slope ``d`` (:mod:`ddpm_ip.sampler.edm`), ``d'``, ``d''``
of earlier visits, one step from ``t`` to ``s < t`` is

    x_bar_s = x_bar_t + (rho_s - rho_t) (w_0 d + w_1 d' + w_2 d'' + ...),    w_0 + w_1 + ... = 1

Methods differ in the weights alone (:mod:`ddpm_ip.sampler.ipndm`, :mod:`ddpm_ip.sampler.deis`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.sampler.edm import euler, rho, slope
from ddpm_ip.schedule import Schedule

Weights = Callable[[Sequence[float], float], Sequence[float]]


def multistep(
    schedule: Schedule, times: Sequence[float], order: int, weights: Weights, lower_order_final: bool = False
) -> Plan:
    """One row a step; ``order - 1`` memories, which hold earlier slopes. The step to the clean image is Euler's.

    Args:
        schedule, times: of the walk.
        order: how many slopes a step uses, once there are that many: 1 to 4.
        weights: ``(times, s) -> w``, with the times of the slopes, the newest (``t``) first.
        lower_order_final: whether a step uses no more slopes than steps are left.
    """
    rows = Rows(schedule, memories=order - 1)
    known: list[float] = []
    for i, (t, s) in enumerate(steps(times, schedule)):
        known = [t, *known][:order]
        d, earlier, x = slope(rows, t), rows.m[: len(known) - 1], euler(rows, t, s)
        if s >= 0:
            used = min(len(known), len(times) - i) if lower_order_final else len(known)
            h = schedule.level(s).alpha * (rho(schedule, s) - rho(schedule, t))
            for w, d_before in zip(weights(known[:used], s)[1:], earlier, strict=False):
                x = x + h * w * (d_before - d)
        unset = [d] * (order - 1 - len(earlier))  # a memory that nothing has been put into
        rows.add(t, s, x, m=[d, *earlier, *unset][: order - 1])
    return rows.plan()


def lagrange(nodes: Tensor, u: Tensor) -> list[Tensor]:
    """The polynomials that are 1 at one of the nodes (k,) and 0 at the others, each at ``u`` (...)."""
    found = []
    for j, node in enumerate(nodes):
        others = torch.cat((nodes[:j], nodes[j + 1 :]))
        found.append(((u[..., None] - others) / (node - others)).prod(-1))
    return found
