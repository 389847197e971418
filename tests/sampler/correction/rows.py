"""Rows of a plan in float64, so that a correction can be held against formulas to more than float32 has."""

from __future__ import annotations

import torch
from tests.sampler.tables import Function, predicted
from torch import Tensor

from ddpm_ip.denoiser import Prediction
from ddpm_ip.sampler import DDIM
from ddpm_ip.sampler.correction import Correction, Denoise, Row
from ddpm_ip.schedule import Schedule


def row_at(schedule: Schedule, t: float, batch: int, *corrections: Correction, before: tuple[float, ...] = ()) -> Row:
    """The row of a visit at ``t``, which the times ``before`` precede."""
    plan = DDIM().plan(schedule, [*before, t])
    level = (v[-1].reshape(1, 1, 1, 1) for v in (plan.alpha, plan.sigma))
    return Row(plan.t[-1].expand(batch), *level, {c.name: c.numbers(plan, schedule)[-1] for c in corrections})


def asks(function: Function, kind: str = "pred_eps") -> Denoise:
    """A network in float64, a function of the image and of each sample's time."""

    def denoise(xt: Tensor, row: Row) -> Prediction:
        output = torch.stack([function(x, float(t)) for x, t in zip(xt, row.t, strict=True)])
        x0, eps = predicted(output, xt, row.alpha, row.sigma, kind)
        return Prediction(x0, eps, output, None)

    return denoise
