"""How the learning rate changes over training: a factor of ``train.optim.lr``, as is the warm-up.

``constant`` is what DDPM, guided-diffusion and DDPM-IP train with. The others let the weights come to rest, which an
average of the weights otherwise has to do; with a long average the gain is small, and with ``linear`` and ``cosine``
it holds only for the last steps: a run that is stopped earlier, or continued to another ``train.n_steps``, is another
run. ``inverse_sqrt`` needs no end and is what post-hoc averages were published with.

A variant of ``train.lr_schedule`` is a frozen dataclass whose ``factor(step, warmup, n_steps)`` gives the multiplier of
the step that follows ``step`` finished ones, in [0, 1]; ``falls_to_end`` says whether ``n_steps`` plays a part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le, Lt

Share = Annotated[float, Ge(0), Le(1)]
Steps = Annotated[int, Ge(1), Lt(2**31)]


@dataclass(frozen=True)
class ConstantRate:
    """The same rate in every step (Ho et al. 2020, arXiv 2006.11239, appendix B)."""

    falls_to_end: ClassVar[bool] = False
    name: Literal["constant"] = field(default="constant", kw_only=True)

    def factor(self, step: int, warmup: int, n_steps: int) -> float:
        """One."""
        return 1.0


@dataclass(frozen=True)
class LinearRate:
    """A straight line from the rate at the end of the warm-up to ``end`` times the rate after the last step.

    Args:
        end: share of the rate that is left after the last step, in [0, 1].
    """

    falls_to_end: ClassVar[bool] = True
    end: Share = 0.0
    name: Literal["linear"] = field(default="linear", kw_only=True)

    def factor(self, step: int, warmup: int, n_steps: int) -> float:
        """``1 - (1 - end) u`` with the share ``u`` of the steps after the warm-up that are done."""
        return 1.0 - (1.0 - self.end) * _done(step, warmup, n_steps)


@dataclass(frozen=True)
class CosineRate:
    """Half a cosine from the rate at the end of the warm-up to ``end`` times the rate after the last step.

    Loshchilov & Hutter 2017 (arXiv 1608.03983, equation 5) without restarts.

    Args:
        end: share of the rate that is left after the last step, in [0, 1].
    """

    falls_to_end: ClassVar[bool] = True
    end: Share = 0.0
    name: Literal["cosine"] = field(default="cosine", kw_only=True)

    def factor(self, step: int, warmup: int, n_steps: int) -> float:
        """``end + (1 - end) (1 + cos(pi u)) / 2`` with the share ``u`` of the steps after the warm-up that are done."""
        return self.end + (1.0 - self.end) * (1.0 + math.cos(math.pi * _done(step, warmup, n_steps))) / 2


@dataclass(frozen=True)
class InverseSqrtRate:
    """Constant until ``reference`` steps, then falling as one over the square root of the step.

    Karras et al. 2024 (arXiv 2312.02696): ``1 / sqrt(max(t / t_ref, 1))``. Steps are counted from the
    beginning, warm-up included, and there is no last one.

    Args:
        reference: steps until it begins to fall; published were 35,000 to 70,000, of 2,048 images each.
    """

    falls_to_end: ClassVar[bool] = False
    reference: Steps = 70_000
    name: Literal["inverse_sqrt"] = field(default="inverse_sqrt", kw_only=True)

    def factor(self, step: int, warmup: int, n_steps: int) -> float:
        """``1 / sqrt(max(step / reference, 1))``."""
        return 1.0 / math.sqrt(max(step / self.reference, 1.0))


RateConfig = ConstantRate | LinearRate | CosineRate | InverseSqrtRate  # what `train.lr_schedule` can be


def _done(step: int, warmup: int, n_steps: int) -> float:
    """The share of the steps after the warm-up that are done, in [0, 1]."""
    return min(max(step - warmup, 0) / max(n_steps - warmup, 1), 1.0)
