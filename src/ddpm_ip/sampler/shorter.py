r"""Any plan with one network evaluation fewer: at its end, or at its beginning.

Without the clean step (``denoise_to_zero: false``) a walk ends at the last time on the grid, and the little noise of
that level stays (diffusers: ``final_sigmas_type="sigma_min"``; DPM-Solver's code has it the other way round, as an
evaluation more with ``denoise_to_zero=True``).

AFS, "analytical first step" (Dockhorn et al. 2022, GENIE, arXiv 2210.05475; in Karras' coordinates
``d = x / sqrt(1 + sigma^2)``): at the noisiest time there is hardly anything but noise in ``x``, so that

    eps = x_T,    x_0 = (1 - sigma) / alpha x_T

needs no network. What the first visit makes is then a multiple of ``x_T``, and the plan begins with the second visit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler.base import Plan
from ddpm_ip.schedule import Schedule


def without_clean_step(plan: Plan, schedule: Schedule, last: float) -> Plan:
    """The plan up to the last time on the grid; orders of its steps are those of the whole plan.

    Args:
        plan: of a walk to the clean image.
        schedule: of the model.
        last: that time. What raises the state above it (churn) belongs to the step that is left out.

    Raises:
        ConfigError: it has no other step.
    """
    finished = plan.state.nonzero().flatten().tolist()
    if len(finished) < 2:
        raise ConfigError("denoise_to_zero false leaves no step: ask for at least two times")
    kept = finished[-2] + 1
    shorter = _rows(plan, 0, kept)
    if plan.t[kept] <= last:
        return shorter._replace(end=float(plan.t[kept]))
    level = torch.tensor(schedule.level(last), dtype=torch.float64)
    update, after = shorter.update.clone(), shorter.after.clone()
    update[-1, 0] *= level[0] / after[-1, 0]
    update[-1, 0, -1] = 0
    after[-1] = level
    return shorter._replace(update=update, after=after, end=last)


def without_first_evaluation(plan: Plan) -> Plan:
    """The plan from its second visit, the first being made without the network (AFS).

    Raises:
        ConfigError: there is no second visit, or the first adds noise.
    """
    if plan.visits < 2:
        raise ConfigError("afs saves the first of at least two network evaluations, and here is one: take more steps")
    if plan.update[0, :, -1].any():
        raise ConfigError(
            "afs needs a first step without noise, and this sampler adds some: choose a deterministic one, such as "
            "ddim, dpm_solver or ipndm"
        )
    alpha, sigma = float(plan.alpha[0]), float(plan.sigma[0])
    m, u = plan.memories, plan.update[0]
    made = u[:, 0] + u[:, 1 + m] * (1 - sigma) / alpha + u[:, 2 + m]  # state and memories, as multiples of x_T
    rest = _rows(plan, 1, plan.visits)
    update = rest.update.clone()
    update[0, :, 0] += update[0, :, 1 : 1 + m] @ (made[1:] / made[0])
    update[0, :, 1 : 1 + m] = 0
    return rest._replace(update=update, start=plan.start * float(made[0]))


def _rows(plan: Plan, begin: int, end: int) -> Plan:
    rows: dict[str, Any] = {k: v[begin:end] for k, v in plan._asdict().items() if isinstance(v, Tensor)}
    shorter = plan._replace(**rows)
    bounds = shorter.log_bounds
    return shorter if bounds is None or bounds.isfinite().any() else shorter._replace(log_bounds=None)
