"""A plan as one float32 table, which a captured graph looks its rows up in: one layout for every sampler.

A row holds, one after the other,

    weights   (1 + M) x (4 + M)   the update; a plan with fewer memories leaves the others as they are
    changes   1 + M               whether a component changes
    used      4 + M               whether (x, memories, x0, eps, noise) has a weight in a component that changes
    learned   3                   whether the variance is learned, and the logarithms of its bounds
    level     3                   t, alpha, sigma
    carry     1 + M               which components take on a change made after the visit
    numbers   P                   what each correction works with

with ``M`` = :data:`ddpm_ip.sampler.base.MEMORIES`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ddpm_ip.sampler.base import MEMORIES, Plan

COMPONENTS, COLUMNS = 1 + MEMORIES, 4 + MEMORIES
CHANGES = COMPONENTS * COLUMNS
USED = CHANGES + COMPONENTS
LEARNED = USED + COLUMNS
LEVEL = LEARNED + 3
CARRY = LEVEL + 3
NUMBERS = CARRY + COMPONENTS


def packed(plan: Plan, numbers: Mapping[str, Tensor]) -> Tensor:
    """The table, float32 (V, NUMBERS + P) on the CPU.

    Args:
        plan: of a sampler.
        numbers: of the corrections, float64 (V, P) each, in their order.
    """
    update = _widened(plan)
    changes = (update != torch.eye(COMPONENTS, COLUMNS, dtype=torch.float64)).any(dim=2)
    used = (changes[:, :, None] & (update != 0)).any(dim=1)
    bounds = torch.full((plan.visits, 2), torch.nan) if plan.log_bounds is None else plan.log_bounds
    learned = bounds.isfinite().all(dim=1, keepdim=True)
    carry = torch.zeros(plan.visits, COMPONENTS, dtype=torch.float64)
    carry[:, : 1 + plan.memories] = plan.carry
    parts = [
        update.flatten(1),
        changes,
        used,
        learned,
        bounds.nan_to_num(),
        torch.stack((plan.t, plan.alpha, plan.sigma), dim=1),
        carry,
        *numbers.values(),
    ]
    return torch.cat([part.double() for part in parts], dim=1).float()


def _widened(plan: Plan) -> Tensor:
    """The update with all memories, (V, COMPONENTS, COLUMNS)."""
    m = plan.memories
    update = torch.eye(COMPONENTS, COLUMNS, dtype=torch.float64).repeat(plan.visits, 1, 1)
    update[:, : 1 + m] = 0
    update[:, : 1 + m, : 1 + m] = plan.update[:, :, : 1 + m]
    update[:, : 1 + m, COMPONENTS:] = plan.update[:, :, 1 + m :]
    return update
