r"""DCW: the state is moved away from the prediction after each step, more in its low frequencies or in its high ones.

    low band:    x_s <- x_s + low s(t) (x_s - x_0)
    high bands:  x_s <- x_s + high (1 - s(t)) (x_s - x_0)        (Haar, one level)

"Differential correction in wavelet domain", Yu et al., "Elucidating the SNR-t bias of diffusion probabilistic models"
(CVPR 2026, arXiv 2604.16044, equations 18 and 20); ``x_0`` is the last prediction of the step from t to s. The state of
a walk has less noise than its time says; this puts some back. ``s(t)`` in [0, 1] is

    std:       the deviation of the reverse process, sqrt(beta (1 - alpha_bar_s) / (1 - alpha_bar_t)), over its largest
               value in the walk (the paper's words; of which chain is not said: here it is the one that is walked)
    ratio:     sigma_t / alpha_t, over its largest value in the walk (the released code, for EDM)
    constant:  low and high as they are

With ``constant`` and ``low == high`` it is the paper's form in pixels (equation 17), see :meth:`DCW.pixels`. The clean
image, which no prediction follows, and inner stages of a step are left as they are. (In EDM's coordinates, where the
state is ``x_s / alpha_s``, the difference is the noise alone: ``band_gains`` with ``eps`` above 1.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.sampler.base import Plan
from ddpm_ip.sampler.correction.bands import first_visits, low_band, noisy_ends
from ddpm_ip.sampler.correction.base import Correction, Row
from ddpm_ip.schedule import Schedule, posterior

Weights = Literal["std", "ratio", "constant"]


@dataclass(frozen=True)
class DCW(Correction):
    """Moves the state away from the prediction, band by band.

    Args:
        low: of the low band; the paper's values lie between 0.005 (EDM, 13 evaluations) and 0.05 (25 ancestral steps).
            Best found first, and ``high`` after it. Negative values move the state towards the prediction.
        high: of the high bands; 0.01 in the paper's example with 25 ancestral steps.
        weights: how both change along the walk, see above.
    """

    name: Literal["dcw"] = field(default="dcw", kw_only=True)
    low: float = 0.005
    high: float = 0.0
    weights: Weights = "std"

    def __post_init__(self) -> None:
        for name, value in (("low", self.low), ("high", self.high)):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, such as 0.005, got {value}")

    @classmethod
    def pixels(cls, strength: float) -> DCW:
        """The form in pixels: ``x_s + strength (x_s - x_0)``."""
        return cls(strength, strength, "constant")

    def numbers(self, plan: Plan, schedule: Schedule) -> Tensor:
        """(V, 2): what the difference in the low band and that in the high bands counts."""
        if self.weights == "constant":
            weights = torch.tensor([[self.low, self.high]], dtype=torch.float64).expand(plan.visits, 2)
        else:
            s = self._along(plan)
            weights = torch.stack((self.low * s, self.high * (1 - s)), dim=1)
        return weights * noisy_ends(plan)[:, None]

    def _along(self, plan: Plan) -> Tensor:
        """``s(t)``, (V,), of the time where the step of each row begins."""
        first = first_visits(plan)
        alpha, sigma = plan.alpha[first], plan.sigma[first]
        if self.weights == "ratio":
            found = sigma / alpha
        else:
            levels = zip((alpha**2).tolist(), (plan.after[:, 0] ** 2).tolist(), strict=True)
            variances = [posterior(a_t, a_s).variance if a_t < a_s < 1 else 0.0 for a_t, a_s in levels]
            found = torch.tensor(variances, dtype=torch.float64).sqrt()
        largest = float(found.max())
        return found / largest if largest > 0 else found

    def after(self, x: Tensor, x0: Tensor, row: Row) -> Tensor:
        low, high = row.numbers[self.name].unbind()
        difference = x - x0
        return high * difference + (low - high) * low_band(difference)
