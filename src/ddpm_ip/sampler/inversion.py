r"""DDIM inversion: from an image up to the noise ``x_T`` of which DDIM makes that image.

At ``eta = 0`` a step of DDIM is an Euler step of an ODE in ``x / alpha`` over ``sigma / alpha``, which can be walked
the other way (Song et al. 2021, arXiv 2010.02502, section 4.3, equations 13 and 14). From ``s`` up to the next time
``t > s``, the first ``s`` being the clean image, -1:

    x_t / alpha_t = x_s / alpha_s + (sigma_t / alpha_t - sigma_s / alpha_s) eps(x_s, t)

That is DDIM's step from ``t`` to ``s``, solved for ``x_t``, except that the noise is predicted from ``x_s``.
Each time on the grid is asked once, as by diffusers' ``DDIMInverseScheduler``. The noise is the denoiser's at ``t`` for
every prediction type; ``x_0`` is not used, and what is clipped could not be walked back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ddpm_ip.sampler.base import Plan, Rows, steps
from ddpm_ip.schedule import Schedule


@dataclass(frozen=True)
class DDIMInversion:
    """A sampler whose walk begins with images and ends with their noise; to be used without clipping."""

    name: Literal["ddim_inversion"] = field(default="ddim_inversion", kw_only=True)

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """One row a time, from the lowest to the highest; no memory."""
        rows = Rows(schedule)
        for t, s in reversed(list(steps(times, schedule))):
            (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.level(t), schedule.level(s)
            ratio = alpha_t / alpha_s
            rows.add(t, t, ratio * rows.x + (sigma_t - ratio * sigma_s) * rows.eps)
        return rows.plan()._replace(end=float(times[0]))
