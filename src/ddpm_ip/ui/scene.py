"""One network sampled in two ways from the same noise, seen while it happens; without a browser, and without gradio.

What is asked for is checked as a whole before anything is made, and is limited: a browser that asks for a million
images, or for a walk without end, is told so.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ddpm_ip.config import from_dict
from ddpm_ip.denoiser import Prediction, PredictionType
from ddpm_ip.errors import ConfigError, Diverged
from ddpm_ip.images import UInt8, to_uint8
from ddpm_ip.notebook import Run
from ddpm_ip.run.row import row_label
from ddpm_ip.run.tensors import first_not_finite
from ddpm_ip.sample.samples import Samples
from ddpm_ip.sampler import Ancestral, Plan
from ddpm_ip.sampler.ancestral import ANALYTIC
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.texts import chain_overrides, sampler_overrides

MOST_IMAGES = 16
MOST_PIXELS = 1 << 18  # of all images of a setting, without their channels
MOST_EVALUATIONS = 1000
MOST_ROWS = 50 * MOST_EVALUATIONS  # of a sampler's table, by the product of its whole numbers, as Restart has them
MOST_LETTERS = 300  # of a text
FRAMES = (6, 24)  # that are kept of a chain: of large images few, of small ones many
FILM_PIXELS = 1 << 20  # of all frames of a chain, about


@dataclass(frozen=True)
class Setting:
    """How one side is sampled, as it is typed on the command line.

    Args:
        sampler: as of ``--sampler``: ``ddim,eta=0.5``.
        steps: as of ``--steps``.
        corrections: as of ``--corrections`` of ``ddpm-ip table``: ``epsilon_scaling,scale=1.01+clip=none``, or none.
    """

    sampler: str = "ddim"
    steps: int = 10
    corrections: str = "none"


@dataclass(frozen=True)
class Frame:
    """A state of a chain.

    Attributes:
        t: its time; -1 is the finished image.
        xt: ``uint8`` (N, C, H, W), the noisy images.
        x0: the clean images that were predicted on the way here; of the noise itself, none yet.
    """

    t: float
    xt: UInt8
    x0: UInt8 | None


@dataclass
class Side:
    """What has been seen of one setting so far.

    Attributes:
        label: as a row of a table is called, with the number of steps.
        evaluations: of the network, for an image.
        times: that the network was asked at, falling.
        norms: at each, the mean over images of the Euclidean norm of the noise that the network itself predicted.
        frames: some states of the chain, the first and the last among them.
        finished: the last state has been reached.
    """

    label: str
    evaluations: int
    times: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    finished: bool = False


class Scene:
    """Several settings for the same network, images and noise.

    Args:
        run: the network.
        n: images, the first ``n`` of the seed.
        seed: of the noise.
        settings: one for each side.

    Raises:
        ConfigError: something cannot be read, cannot be, or is too much; says on which side.
    """

    def __init__(self, run: Run, n: int, seed: int, settings: Sequence[Setting]) -> None:
        _refuse_too_many(n, run.config.shape)
        self.samples: list[Samples] = []
        for name, setting in zip("ABCDEFGH", settings, strict=False):
            try:
                self.samples.append(_samples(run, n, seed, setting))
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}" if len(settings) > 1 else str(error)) from None
        self._schedule, self._predicts = run.schedule, run.config.diffusion.objective

    def play(self) -> Iterator[list[Side]]:
        """Samples one side after the other.

        Yields:
            All sides as far as they are, each time that another frame is there: always the same objects, which grow.

        Raises:
            Diverged: what comes out is not finite.
        """
        sides = [Side(_label(samples), samples.evaluations) for samples in self.samples]
        for samples, side in zip(self.samples, sides, strict=True):
            for _ in self._walk(samples, side):
                yield sides

    def _walk(self, samples: Samples, side: Side) -> Iterator[Frame]:
        """Adds to a side what happens along its walk; yields each frame."""
        plan = samples.sampling.plan(self._schedule)
        kept, xt = _kept(plan, samples.shape), torch.empty(0)
        for state in samples.states():
            seen = {} if state.seen is None else {"output": state.seen.output}
            if first_not_finite({"images": state.xt, **seen}) is not None:
                raise Diverged(f"{side.label}: what comes out is not finite. Take other settings or other weights")
            if state.seen is not None:
                row = state.row - 1
                noise = _noise(self._predicts, state.seen, xt, (float(plan.alpha[row]), float(plan.sigma[row])))
                side.times.append(float(plan.t[row]))
                side.norms.append(float(noise.flatten(1).norm(dim=1).mean()))
            xt = state.xt
            if state.row in kept:
                x0 = None if state.x0 is None else _bytes(state.x0)
                side.frames.append(Frame(state.t, _bytes(state.xt), x0))
                side.finished = state.row == plan.visits
                yield side.frames[-1]


def _kept(plan: Plan, shape: Sequence[int]) -> set[int]:
    """The states that become frames, by the visits before them: evenly spaced; inner stages of a step are none."""
    finished = [0, *(i + 1 for i, state in enumerate(plan.state.tolist()) if state)]
    n, _, height, width = shape
    wanted = min(max(FILM_PIXELS // (n * height * width), FRAMES[0]), FRAMES[1])
    last = len(finished) - 1
    return {finished[round(i * last / (wanted - 1))] for i in range(wanted)}


def _noise(predicts: PredictionType, seen: Prediction, xt: torch.Tensor, level: tuple[Any, Any]) -> torch.Tensor:
    """The noise that the network itself says is in states, before any correction of it and before clipping.

    Args:
        predicts: what it puts out.
        seen: what was said of the states.
        xt: the states that it was asked about.
        level: their alpha and sigma, unless a correction asked at another level.
    """
    alpha, sigma = level if seen.level is None else seen.level
    if predicts == "pred_x0":
        return (xt - alpha * seen.output) / sigma
    return seen.output if predicts == "pred_eps" else sigma * xt + alpha * seen.output


def difference(sides: Sequence[Side]) -> float:
    """How far the finished images of the first two sides are apart: root mean square, in levels of 0..255."""
    first, second = (side.frames[-1].xt.astype(np.float64) for side in sides[:2])
    return float(np.sqrt(np.square(first - second).mean()))


def whole(value: object, name: str, most: int) -> int:
    """A whole number from outside, 1 to ``most`` (a seed: 0 to ``most``).

    Raises:
        ConfigError: it is none.
    """
    least = 0 if name == "seed" else 1
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not least <= number <= most or number != int(number):
        raise ConfigError(f"{name} must be a whole number from {least} to {most}")
    return int(number)


def _refuse_too_many(n: int, shape: Sequence[int]) -> None:
    most = min(MOST_IMAGES, MOST_PIXELS // (shape[1] * shape[2]))
    if most < 1:
        raise ConfigError(f"images of {shape[1]} x {shape[2]} pixels are too large for this page: use ddpm-ip sample")
    if n > most:
        raise ConfigError(f"of images of {shape[1]} x {shape[2]} pixels {most} are the most here, not {n}")


def _samples(run: Run, n: int, seed: int, setting: Setting) -> Samples:
    """The images of a setting; nothing is made yet, and all is known to be possible."""
    sampling = _sampling(run, seed, setting)
    _refuse_endless(sampling)
    settings = {f.name: getattr(sampling, f.name) for f in dataclasses.fields(sampling)}
    samples = run.sample(n, **{**settings, "block": n})
    if samples.evaluations > MOST_EVALUATIONS:
        raise ConfigError(
            f"{samples.evaluations} network evaluations for an image are too many: {MOST_EVALUATIONS} are the most here"
        )
    return samples


def _sampling(run: Run, seed: int, setting: Setting) -> Sampling:
    """A setting as the section ``sampling`` of the run's own configuration, changed as the command line changes it."""
    for text in (setting.sampler, setting.corrections):
        if not isinstance(text, str) or len(text) > MOST_LETTERS:
            raise ConfigError(f"a sampler and its corrections are texts of at most {MOST_LETTERS} letters")
    config = run.config
    overrides: dict[str, Any] = {
        **sampler_overrides(setting.sampler.strip() or "ddim", "sampler"),
        **chain_overrides(setting.corrections.strip() or "none", "corrections"),
        "sampling.steps": whole(setting.steps, "steps", MOST_EVALUATIONS),
        "sampling.seed": seed,
    }
    if isinstance(config.sampling.spacing, tuple):  # of times, which say their number themselves
        overrides["sampling.spacing"] = Sampling().spacing
    found = from_dict(config.to_dict(), "what was chosen", overrides).sampling
    return found.filled(config.diffusion.var_type)


def _refuse_endless(sampling: Sampling) -> None:
    """Refuses what would take long before the first evaluation: large tables, and what is measured on real images."""
    sampler = sampling.sampler
    if isinstance(sampler, Ancestral) and sampler.var_type in ANALYTIC:
        raise ConfigError(
            f"var_type {sampler.var_type} is measured on the training images, which this page does not read. Choose "
            "fixed_small, or use ddpm-ip sample"
        )
    numbers = [getattr(sampler, f.name) for f in dataclasses.fields(sampler)]
    rows = int(sampling.steps or 1) * math.prod(max(1, number) for number in numbers if type(number) is int)
    if rows > MOST_ROWS:
        raise ConfigError(f"{sampler.name} with these settings makes too long a walk for this page: take smaller ones")


def _label(samples: Samples) -> str:
    facts = samples.facts
    return f"{row_label(facts)}, {facts['steps']} steps"


def _bytes(images: torch.Tensor) -> UInt8:
    array: UInt8 = to_uint8(images).cpu().numpy()
    return array
