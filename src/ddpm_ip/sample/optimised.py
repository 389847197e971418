"""The program ``times``: the best times of a few steps for given weights (:mod:`ddpm_ip.sampler.gits`).

A teacher walks from some noises to images in many steps; of its trajectories the times of few are found. They are kept
next to the weights (:mod:`ddpm_ip.run.measured`), where ``--spacing optimised`` looks them up.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_ip.config import Config
from ddpm_ip.errors import ConfigError
from ddpm_ip.files import write_json
from ddpm_ip.memory import enough_memory
from ddpm_ip.nn.network import Cond
from ddpm_ip.precise import place
from ddpm_ip.run.log import setup
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.weights import Weights
from ddpm_ip.sample.filled import times_name
from ddpm_ip.sample.generator import Model
from ddpm_ip.sample.program import default_block, load_model, sampling_engine
from ddpm_ip.sampler import Plan, walk
from ddpm_ip.sampler.correction import Auto
from ddpm_ip.sampler.gits import LATER, POINTS, cheapest, deviations, teacher_times
from ddpm_ip.sampler.sampling import Sampling

log = logging.getLogger("ddpm_ip.sample")


@dataclass(frozen=True)
class TimesOptions:
    """What is wanted.

    Args:
        steps: numbers of steps; the times of each are found.
        teacher: how the trajectories are made: sampler, corrections, clip, seed and block count; the times and the ends
            of the walk are the method's own.
        n: trajectories.
        whole: whole times only, for a network that takes no others.
        out: a JSON file instead of the store.
    """

    steps: Sequence[int]
    teacher: Sampling
    n: int = 256
    whole: bool = False
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"--n must be at least 1, got {self.n}")
        if not self.steps or min(self.steps) < 1:
            raise ConfigError("--steps must name numbers of steps of at least 1")
        if any(isinstance(c, Auto) for c in self.teacher.corrections):
            raise ConfigError(
                "the teacher walks along times of its own, which nobody calibrated (the correction auto): choose other "
                "--corrections, or none"
            )


def optimise(config: Config, weights: Weights, options: TimesOptions) -> dict[int, list[float]]:
    """Finds times, and keeps them.

    Args:
        config: of the model.
        weights: of it.
        options: what is wanted.

    Returns:
        By the number of steps, falling.

    Raises:
        ConfigError: the teacher draws noise, has too few points, or there is no place for the times.
    """
    engine = sampling_engine(config, options.teacher)
    setup(None, engine.is_main_process)
    store = Measured.of(weights.sha256, Path(weights.origin))
    if options.out is None and engine.is_main_process:
        for steps in options.steps:
            store.refuse_unwritable(times_name(steps))
    times = teacher_times(config.diffusion.schedule, POINTS, options.whole)
    for steps in options.steps:
        if steps > len(times):
            raise ConfigError(f"--steps {steps}: the teacher visits {len(times)} times, choose 1..{len(times)}")
    block = min(options.teacher.block or default_block(config, engine), options.n)
    advice = f"there is too little memory for {block} trajectories at once: take --batch_size {max(1, block // 2)}"
    with enough_memory(lambda: advice):
        model = load_model(config, weights.tensors, engine, weights.origin)
        cost = cost_of(model, options.teacher, times, options.n, block)
    found = {steps: [times[i] for i in cheapest(cost, steps)] for steps in options.steps}
    if engine.is_main_process:
        _keep(found, store, options)
    return found


def _keep(found: dict[int, list[float]], store: Measured, options: TimesOptions) -> None:
    settings: dict[str, Any] = {
        "teacher": {**replace(options.teacher, afs=False, denoise_to_zero=True).row(), "seed": options.teacher.seed},
        "n": options.n, "points": POINTS, "c": LATER, "whole": options.whole,
    }  # fmt: skip
    if options.out is not None:
        times = {str(steps): one for steps, one in found.items()}
        write_json(options.out, {"weights": store.weights, "settings": settings, "times": times})
        return
    for steps, one in found.items():
        log.info("kept in %s", store.write(times_name(steps), {"times": one}, settings))


def cost_of(model: Model, teacher: Sampling, times: Sequence[float], n: int, block: int) -> Tensor:
    """What one step from each point of a teacher's trajectory to each later one costs, float64 (P, P + 1).

    Args:
        model: the network.
        teacher: sampler, corrections, clip and seed.
        times: of the P points before the clean image, falling.
        n: trajectories.
        block: of them at once.

    Raises:
        ConfigError: the teacher draws noise, or does not stop at each of the times.
    """
    schedule = model.denoiser.schedule
    teacher.check_classes(model.classes)
    plan = teacher.filled("fixed_small").sampler.plan(schedule, times)
    if plan.draws_noise:
        raise ConfigError("the teacher draws noise, and a trajectory is that of an ODE: choose --sampler ipndm")
    levels = [schedule.level(t) for t in times]
    ratios = [*(sigma / alpha for alpha, sigma in levels), 0.0]
    where = place(model.device)
    landed = torch.zeros(len(times), len(ratios), dtype=torch.float64, device=where)
    lying = torch.zeros(len(ratios), dtype=torch.float64, device=where)
    log.info("the teacher walks %d times from noise to image, in %d network evaluations", n, teacher.evaluations(plan))
    for first in range(0, n, block):
        indices = torch.arange(first, min(first + block, n), device=model.device)
        states, eps = _trajectories(model, teacher, plan, indices)
        if len(states) != len(ratios):
            raise ConfigError(
                f"the teacher stops {len(states)} times on a grid of {len(ratios)} points: choose --sampler ipndm"
            )
        seen = [x / alpha for x, (alpha, _) in zip(states, levels, strict=False)]
        of_states, of_steps = deviations(ratios, [*seen, states[-1]], eps)
        lying += of_states.sum(dim=0)
        landed += of_steps.sum(dim=0)
    return (landed - lying) / n


def _trajectories(model: Model, teacher: Sampling, plan: Plan, indices: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The states of the teacher's walks, and what the network says at each but the last; in float32."""
    states, eps = [], []
    labels = teacher.labels(indices, model.classes)
    denoiser = replace(model.denoiser, cond=None if labels is None else Cond(labels))
    made = walk(plan, denoiser, teacher.seed, indices, model.shape, teacher.all_corrections())
    for before, after in pairwise(made):
        if before.row == 0:
            states.append(before.xt)
        if before.finished:
            assert after.seen is not None, "a visit has a prediction"
            eps.append(after.seen.eps)
        if after.finished:
            states.append(after.xt)
    return states, eps
