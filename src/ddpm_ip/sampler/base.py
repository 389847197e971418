r"""A sampler is a table.

Every solver of the diffusion SDE or ODE is *linear* in the state, the remembered predictions, the new prediction and
the noise; what differs is numbers. So a sampler makes a :class:`Plan`, and touches no image. One row is one visit of
the network, so the number of network evaluations is the number of rows.

At a visit the network is asked at the level ``(t, alpha, sigma)``. Then the state ``x`` and the ``M`` memories ``m``
become weighted sums of what there is:

    (x, m_1 .. m_M)  <-  update (x, m_1 .. m_M, x_0, eps, noise)

Rows are written from linear forms, so that a method reads like its paper:

    rows = Rows(schedule, memories=1)
    rows.add(t, s, x=a * rows.x + b * rows.x0 + c * rows.noise, m=[rows.x0])
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ddpm_ip.denoiser import Prediction
from ddpm_ip.errors import ConfigError
from ddpm_ip.schedule import Schedule

MEMORIES = 3  # the most that a plan may have; a captured graph has room for as many
SHORTEST = 1e-9  # step, in lambda; below, its rounding decides
WORDS = 1 << 32  # counters of noise that there are


class Plan(NamedTuple):
    """The numbers of a walk, float64 on the CPU; one row a network evaluation ("visit"), V rows, M memories.

    Attributes:
        t: (V,) the time that the network is asked at, whole or fractional.
        alpha, sigma: (V,) the level that it is asked at.
        after: (V, 2) alpha and sigma of the state afterwards; (1, 0) is the clean image.
        update: (V, 1 + M, 4 + M) the new (x, memories) as weights of (x, memories, x0, eps, noise).
        carry: (V, 1 + M) 0 or 1: which components take on a change that is made after the visit
            (:meth:`ddpm_ip.sampler.correction.Correction.after`).
        state: (V,) bool: x is a state of the walk afterwards; False for an inner stage of a step.
        word: (V,) int64: the counter of the noise, ``floor(t) + 2^16 * (earlier rows with the same floor(t))``, so that
            image i draws the same noise at time t whatever the number of steps.
        log_bounds: (V, 2), or None: where the variance is learned, the logarithms of its bounds; the weight of the
            noise is then ``exp((f log_bounds[1] + (1 - f) log_bounds[0]) / 2)`` with the network's fraction f. Not
            finite in a row that adds no noise.
        start: the scale of ``x_T``.
        end: the time of the state after the last visit; -1 is the clean image.
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    after: Tensor
    update: Tensor
    carry: Tensor
    state: Tensor
    word: Tensor
    log_bounds: Tensor | None
    start: float
    end: float = -1.0

    @property
    def visits(self) -> int:
        """The number of network evaluations."""
        return len(self.t)

    @property
    def draws_noise(self) -> bool:
        """Whether noise is added on the way."""
        return self.log_bounds is not None or bool(self.update[:, :, -1].any())

    @property
    def memories(self) -> int:
        """M: how many tensors are remembered from one visit to the next, besides the state."""
        return self.update.shape[1] - 1

    def times(self) -> list[float]:
        """The time of the state before each visit and after the last, (V + 1); the clean image is -1.

        A walk that rises (:class:`ddpm_ip.sampler.inversion.DDIMInversion`) begins there, and asks at the time that it
        goes to.
        """
        asked: list[float] = self.t.tolist()
        return [-1.0, *asked] if self.end >= asked[0] else [*asked, self.end]


@runtime_checkable
class Sampler(Protocol):
    """A frozen dataclass that is its own configuration (``sampling.sampler``)."""

    @property
    def name(self) -> str:
        """What files and the command line call it."""
        ...

    def plan(self, schedule: Schedule, times: Sequence[float]) -> Plan:
        """The table of a walk.

        Args:
            schedule: the noise levels.
            times: the times on the grid, falling, in [0, T - 1]; the clean image follows them.

        Raises:
            ConfigError: the method cannot walk along these times.
        """
        ...


class State(NamedTuple):
    """A state on the way from noise to image.

    Attributes:
        row: the visits that have been made.
        t: its time; -1 is the finished image.
        xt: float32 (B, C, H, W).
        seen: what the denoiser said on the way here, after all corrections; None at the start.
        finished: False for an inner stage of a step.
    """

    row: int
    t: float
    xt: Tensor
    seen: Prediction | None
    finished: bool = True

    @property
    def x0(self) -> Tensor | None:
        """The clean images predicted on the way here, (B, C, H, W); None at the start."""
        return None if self.seen is None else self.seen.x0


class Rows:
    """Builds a plan from linear forms: float64 vectors over (x, memories, x0, eps, noise).

    Args:
        schedule: where the levels of times come from.
        memories: M, at most :data:`MEMORIES`.
    """

    def __init__(self, schedule: Schedule, memories: int = 0) -> None:
        if not 0 <= memories <= MEMORIES:
            raise ConfigError(f"a plan has at most {MEMORIES} memories, not {memories}")
        self.schedule = schedule
        forms = torch.eye(4 + memories, dtype=torch.float64)
        self.x, *self.m = forms[: 1 + memories]
        self.x0, self.eps, self.noise = forms[1 + memories :]
        self._rows: list[tuple[float, ...]] = []
        self._updates: list[Tensor] = []
        self._log_bounds: list[tuple[float, float]] = []
        self._carry: list[list[float]] = []
        self._words: list[int] = []
        self._visits_at: Counter[int] = Counter()
        self._states: list[bool] = []

    def add(
        self,
        t: float,
        s: float,
        x: Tensor,
        m: Sequence[Tensor] | None = None,
        *,
        log_bounds: tuple[float, float] | None = None,
        carry: Sequence[bool] | None = None,
    ) -> None:
        """Appends a visit, which ends a step.

        Args:
            t: the time that the network is asked at.
            s: the time afterwards, -1 for the clean image.
            x: the new state.
            m: the new memories; None keeps them as they are.
            log_bounds: of a learned variance, see :class:`Plan`; ``x`` then has the noise with weight 1.
            carry: for the state and each memory, whether it takes on a correction of the state; by default the state
                alone.
        """
        forms = [x, *(self.m if m is None else m)]
        if len(forms) != 1 + len(self.m):
            raise ValueError(f"{len(forms) - 1} memories were given, the plan has {len(self.m)}")
        asked, after = self.schedule.level(t), self.schedule.level(s)
        self._rows.append((t, *asked, *after))
        self._updates.append(torch.stack(forms))
        self._log_bounds.append(log_bounds or (math.nan, math.nan))
        self._carry.append([float(c) for c in carry or (True, *[False] * len(self.m))])
        whole = math.floor(t)
        self._words.append(whole + (self._visits_at[whole] << 16))
        self._visits_at[whole] += 1
        self._states.append(True)

    def stage(self, t: float, s: float, x: Tensor, m: Sequence[Tensor] | None = None) -> None:
        """Appends a visit that is an inner stage of a step: ``x`` is then no state of the walk.

        Args:
            t, s, x, m: as of :meth:`add`.
        """
        self.add(t, s, x, m)
        self._states[-1] = False

    def plan(self, start: float = 1.0) -> Plan:
        """The rows so far.

        Raises:
            ConfigError: two visits would add the same noise.
        """
        noisy = [word for word, update in zip(self._words, self._updates, strict=True) if update[:, -1].any()]
        if len(set(noisy)) < len(noisy) or max(noisy, default=0) >= WORDS:
            raise ConfigError("there is noise for 65536 whole times, with 65536 visits of each: take fewer times")
        t, alpha, sigma, *after = torch.tensor(self._rows, dtype=torch.float64).unbind(1)
        bounds = torch.tensor(self._log_bounds, dtype=torch.float64)
        return Plan(
            t,
            alpha,
            sigma,
            torch.stack(after, dim=1),
            torch.stack(self._updates),
            torch.tensor(self._carry, dtype=torch.float64),
            torch.tensor(self._states),
            torch.tensor(self._words),
            bounds if bounds.isfinite().any() else None,
            start,
        )


def steps(times: Sequence[float], schedule: Schedule | None = None) -> Iterator[tuple[float, float]]:
    """The steps along times: ``(t, s)``, the last to the clean image, -1.

    Args:
        times: falling, in [0, T - 1].
        schedule: if given, each step must lead to less noise, by :data:`SHORTEST` at least: what divides by the
            differences of levels then divides by no 0.

    Raises:
        ConfigError: there is no time, or they do not fall, or two have the same level.
    """
    following = [*times[1:], -1]
    if not times or any(s >= t for t, s in zip(times, following, strict=True)):
        raise ConfigError(f"times must fall, from at most T - 1 to at least 0; got {list(times)[:8]}")
    for t, s in zip(times, following, strict=True):
        if schedule is None:
            break
        before, after = (schedule.half_log_snr(u) for u in (t, s))
        if before == math.inf:
            raise ConfigError(f"at the time {t} this schedule has no noise (its betas are too small): leave it out")
        if not after - before > SHORTEST:
            raise ConfigError(
                f"the times {t!r} and {s!r} have the same noise level, log(alpha / sigma) = {after:.12g}: leave one out"
            )
    yield from zip(times, following, strict=True)
