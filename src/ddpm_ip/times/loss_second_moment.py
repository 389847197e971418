r"""Times in proportion to the root mean square of their last losses (Nichol & Dhariwal 2021, arXiv 2102.09672, 3.3).

    p(t) = (1 - u) sqrt(mean of the last 10 loss_t^2) / (sum over all times) + u / T,        u = 0.001
    each loss is multiplied by 1 / (T p(t))

Of all distributions this one has the least variance of the importance-weighted loss, and its expectation is that of
uniform times. Until every time has been seen 10 times, times are uniform. ``u`` keeps every time alive.

Source: section 3.3, equation 18; ``u`` and what is done with several losses of one time in a batch (in the order of the
rows, the last 10 count) are as in the authors' code, which calls it "loss-second-moment". As there, a loss is taken
before importance weighting, and that of a step which fp16's scaler skips is remembered, too, if it is finite.

What is known: the paper needs it to train the bound alone (``train.loss: vlb``), whose terms differ by orders of
magnitude, and finds no gain for the hybrid loss; the commands of DDPM-IP's authors use it with the hybrid loss all the
same. With T = 1000 and a batch of 128, 10 losses of every time take some 200 steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ddpm_ip.draws import Draws
from ddpm_ip.errors import CheckpointError
from ddpm_ip.precise import precise
from ddpm_ip.schedule import Schedule
from ddpm_ip.times.base import cumulative, drawn


@dataclass(frozen=True)
class LossSecondMoment:
    """Importance sampling of times by their losses.

    Args:
        history: losses of each time that are remembered, >= 1.
        uniform_prob: share of the uniform distribution, in (0, 1].
    """

    name: Literal["loss_second_moment"] = field(default="loss_second_moment", kw_only=True)
    history: int = 10
    uniform_prob: float = 0.001

    def __post_init__(self) -> None:
        if not 1 <= self.history <= 10_000:
            raise ValueError(f"history must be a whole number in 1..10000, got {self.history}")
        if not 0 < self.uniform_prob <= 1:
            raise ValueError(f"uniform_prob must be above 0 and at most 1, got {self.uniform_prob}")

    def start(self, schedule: Schedule, device: torch.device) -> History:
        """A history in which nothing has been seen."""
        return History(schedule.total_steps, self, device)


class History:
    """The last losses of each time, a part of the training state.

    Args:
        total_steps: T.
        settings: how much is remembered.
        device: where training runs.
    """

    def __init__(self, total_steps: int, settings: LossSecondMoment, device: torch.device) -> None:
        self.settings = settings
        self.losses = torch.zeros(total_steps, settings.history, device=device)  # a ring for each time
        self.seen = torch.zeros(total_steps, dtype=torch.int64, device=device)  # losses of each time so far

    def draw(self, draws: Draws, total_steps: int) -> tuple[Tensor, Tensor]:
        """See :meth:`ddpm_ip.times.base.TimeSampler.draw`; exactly the uniform times until all have their history."""
        p, ready = self.probabilities(), self._ready()
        t = torch.where(ready, drawn(draws, cumulative(p)), draws.times(total_steps))
        importance = (1 / (total_steps * p[t.to(p.device)])).float().to(t.device)
        return t, torch.where(ready, importance, torch.ones_like(importance))

    def probabilities(self) -> Tensor:
        """``p(t)``, float64 (T,), where there is such."""
        root = precise(self.losses).square().mean(dim=1).sqrt()
        share = self.settings.uniform_prob
        uniform = torch.full_like(root, 1 / len(root))
        p = (1 - share) * root / root.sum().clamp(min=1e-300) + share * uniform
        return torch.where(self._ready().to(p.device), p, uniform)

    def observe(self, t: Tensor, loss: Tensor) -> None:
        """Adds losses in the order of the rows; the newest of each time stay. What is not finite is passed over.

        Each loss that stays has a place of its own in the rings, so the result is the same in whatever order a device
        writes.

        Args:
            t: int64 (B,).
            loss: float32 (B,).
        """
        fine = loss.isfinite()
        same = (t[:, None] == t) & fine
        before, together = same.tril(-1).sum(1), same.sum(1)
        size = self.losses.shape[1]
        stays = fine & (together - before <= size)
        place = t * size + (self.seen[t] + before) % size
        rings = torch.cat((self.losses.flatten(), loss.new_zeros(1)))  # the last is for what does not stay
        rings[torch.where(stays, place, self.losses.numel())] = loss
        self.losses.copy_(rings[:-1].view_as(self.losses))
        every = torch.arange(len(self.seen), device=t.device)
        self.seen += ((t[:, None] == every) & fine[:, None]).sum(0)

    def tensors(self) -> dict[str, Tensor]:
        return {"losses": self.losses, "seen": self.seen}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """See :meth:`ddpm_ip.train.state.Part.load`; no tensors at all are an empty history.

        Raises:
            CheckpointError: a number of losses is negative.
        """
        if not tensors:
            return
        if bool((tensors["seen"] < 0).any()):
            raise CheckpointError("seen, how many losses of each time there were, is negative")
        self.losses.copy_(tensors["losses"])
        self.seen.copy_(tensors["seen"])

    def _ready(self) -> Tensor:
        return (self.seen >= self.losses.shape[1]).all()
