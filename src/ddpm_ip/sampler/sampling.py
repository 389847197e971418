"""How images are made: sampler, corrections, times, seed; one object says it, wherever it has to be said.

It is the section ``sampling`` of the configuration, the options of the command line, and, as :meth:`Sampling.facts`,
what samples, tables, evaluations and reports say of images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from torch import Tensor

from ddpm_ip.denoiser import PredictionType
from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler import Ancestral, AnySampler, Plan, VarType
from ddpm_ip.sampler.classes import BALANCED, ChosenClasses, KnownClasses, class_of, in_numbers, refuse_classes
from ddpm_ip.sampler.correction import AnyCorrection, Clip, ClipMode, Correction, Guidance
from ddpm_ip.sampler.correction.auto import expanded
from ddpm_ip.sampler.facts import facts_of
from ddpm_ip.sampler.shorter import without_clean_step, without_first_evaluation
from ddpm_ip.sampler.spacing import check, shown, times_of
from ddpm_ip.sampler.walk import evaluations, numbers_of
from ddpm_ip.schedule import LEAST_LEFT, Schedule
from ddpm_ip.variants import ByName, Read


class Computed(NamedTuple):
    """What changes an image by rounding, besides the block.

    Attributes:
        precision: no (float32), fp16 or bf16.
        fast: whether the fused kernels ran.
        device: its type, such as cpu or cuda.
    """

    precision: str
    fast: bool
    device: str


@dataclass(frozen=True)
class Sampling:
    """How images are made from a model.

    Args:
        sampler: the method and its own settings.
        corrections: changes of what the network says or of the state, in this order, the first next to the network.
        clip: what is done to a predicted ``x_0`` outside [-1, 1], after the corrections.
        steps: times on the grid; null for all of ``diffusion.total_steps``. Or one of guided-diffusion's strings:
            "10,10,5", "ddim50".
        spacing: which times they are, if ``steps`` is a number: uniform-linspace, uniform-leading (uniform),
            uniform-trailing, quad, logsnr (exponential), "karras,rho=7", beta, optimised (by ``ddpm-ip times``); or the
            times themselves, falling, whole or fractional, with ``steps`` null.
        seed: image i of a seed is always the same image.
        block: images that go through the network together; part of what makes the image. Null for 64 on a CPU, and on a
            GPU for what its free memory holds.
        precision: no, fp16 or bf16; null takes what ``train.mixed_precision`` gives.
        afs: saves the first network evaluation: the network is taken to say what it would say of pure noise.
        denoise_to_zero: take the last step, from the last time on the grid to the clean image; false saves its
            evaluation and leaves a little noise.
        classes: of a class-conditional model, those that images are of, in turn: image i is of class i modulo their
            number. Null is all of them, 0, 1, 2, ...; 3 is this one alone, [0, 5] are two, and -1 (none)
            asks without a class.
    """

    sampler: Annotated[AnySampler, ByName()] = dataclasses.field(default_factory=Ancestral)
    corrections: tuple[Annotated[AnyCorrection, ByName()], ...] = ()
    clip: ClipMode = "rederive"
    steps: int | str | None = None
    spacing: str | tuple[float, ...] = "uniform-linspace"
    seed: int = 0
    block: int | None = None
    precision: Literal["no", "fp16", "bf16"] | None = None
    afs: bool = False
    denoise_to_zero: bool = True
    classes: Annotated[ChosenClasses | None, Read(in_numbers)] = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must lie in 0..2^64-1, got {self.seed}")
        for name, value in (("block (batch_size)", self.block), ("steps", self.steps)):
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        check(self.spacing)
        if self.classes is not None and (not self.classes or min(self.classes) < -1):
            raise ValueError(f"classes are numbers from 0, or -1 (none), got {self.classes}")

    def filled(self, var_type: VarType) -> Sampling:
        """The same with the variance that a sampler leaves to the model.

        Args:
            var_type: of the model.
        """
        if isinstance(self.sampler, Ancestral) and self.sampler.var_type is None:
            return dataclasses.replace(self, sampler=dataclasses.replace(self.sampler, var_type=var_type))
        return self

    def times(self, schedule: Schedule) -> list[float]:
        """The times on the grid, falling (:func:`ddpm_ip.sampler.spacing.times_of`).

        Args:
            schedule: of the model.

        Raises:
            ConfigError: there are no such times.
        """
        return times_of(schedule, self.steps, self.spacing)

    def plan(self, schedule: Schedule) -> Plan:
        """The table of the walk.

        Args:
            schedule: of the model.

        Raises:
            ConfigError: there are no such times, or the sampler cannot walk along them.
        """
        times = self.times(schedule)
        plan = self.sampler.plan(schedule, times)
        if not self.denoise_to_zero:
            plan = without_clean_step(plan, schedule, times[-1])
        return without_first_evaluation(plan) if self.afs else plan

    def guided(self, scale: float) -> Sampling:
        """The same with guidance of this scale, next to the network; in an interval, if it has one.

        Raises:
            ConfigError: there is no such scale.
        """
        found = next((c for c in self.corrections if isinstance(c, Guidance)), Guidance())
        rest = [c for c in self.corrections if not isinstance(c, Guidance)]
        try:
            return dataclasses.replace(self, corrections=(dataclasses.replace(found, scale=scale), *rest))
        except ValueError as error:
            raise ConfigError(f"--guidance: {error}") from None

    def labels(self, indices: Tensor, classes: KnownClasses | None) -> Tensor | None:
        """The classes of images, int64 (B,), -1 for none; a function of their indices, int64 (B,).

        Args:
            indices: of the images.
            classes: of the model; None for an unconditional one, of which images have no labels.
        """
        return None if classes is None else class_of(indices, self.classes or range(classes.count))

    def period(self, classes: KnownClasses | None) -> int:
        """After how many images their classes begin again; 1 for an unconditional model."""
        return 1 if classes is None else len(self.classes or range(classes.count))

    def check(
        self,
        schedule: Schedule,
        learned_variance: bool,
        classes: KnownClasses | None = None,
        prediction_type: PredictionType | None = None,
    ) -> None:
        """Raises the errors that sampling would raise, before anything is made.

        Args:
            schedule: of the model.
            learned_variance: whether the model has one.
            classes: of the model; None for an unconditional one.
            prediction_type: what its network puts out; None where nobody knows.

        Raises:
            ConfigError: this model cannot be sampled so.
        """
        self.check_classes(classes)
        plan = self.plan(schedule)
        numbers_of(plan, schedule, learned_variance, self.all_corrections())
        least, when = plan.alpha.min(0)
        divided = self.all_corrections()[:-1] or (prediction_type == "pred_eps" and self.clip == "none")
        if (divided and least**2 < LEAST_LEFT) or not plan.update.float().isfinite().all():
            raise ConfigError(
                f"at the time {plan.t[when]:g} alpha_bar is {least**2:.2g}, and what is divided by its root (x_0 of "
                "pred_eps or of a corrected eps, or a state of this sampler) is more than float32 holds. Leave the "
                "corrections out, set sampling.clip to rederive or keep_eps, take ancestral or ddim for a sampler, or "
                "choose a sampling.spacing without this time"
            )

    def check_classes(self, classes: KnownClasses | None) -> None:
        """The part of :meth:`check` that is about classes.

        Raises:
            ConfigError: this model does not have these classes, or cannot be guided.
        """
        refuse_classes(self.classes, any(isinstance(c, Guidance) for c in self.all_corrections()), classes)

    def all_corrections(self) -> tuple[Correction, ...]:
        """The corrections, with those that ``auto`` stands for in its place; clipping is the last, and always there.

        Raises:
            ConfigError: ``auto`` clashes with the others (:func:`ddpm_ip.sampler.correction.auto.expanded`).
        """
        return (*expanded(self.corrections), Clip(self.clip))

    def row(self) -> dict[str, Any]:
        """What makes the row of a results table, as plain values: sampler, corrections, clip, and what is unusual."""
        unusual = {
            "afs": self.afs or None,
            "denoise_to_zero": None if self.denoise_to_zero else False,
            "classes": None if self.classes is None else list(self.classes),
        }
        return {
            "sampler": facts_of(self.sampler),
            "corrections": [facts_of(c) for c in self.corrections],
            "clip": self.clip,
            **{key: value for key, value in unusual.items() if value is not None},
        }

    def evaluations(self, plan: Plan) -> int:
        """Network evaluations for an image, along the plan of this sampling."""
        return evaluations(plan, self.all_corrections())

    def facts(
        self, diffusion: Mapping[str, Any], computed: Computed, classes: KnownClasses | None = None
    ) -> dict[str, Any]:
        """All that an image depends on besides the weights and its index, as plain values for JSON.

        Args:
            diffusion: the section of the model's configuration, as plain values.
            computed: what computed it.
            classes: of the model; None for an unconditional one, whose images have none.

        Raises:
            ConfigError: there is no such walk, or ``block`` is still open.
        """
        if self.block is None:
            raise ConfigError("the block of images (batch_size) is not known yet")
        model = {key: value for key, value in diffusion.items() if key != "var_type"}
        total = int(diffusion["total_steps"])
        schedule = Schedule(total, *(diffusion[key] for key in ("beta_schedule", "beta_start", "beta_end")))
        balanced = {} if classes is None or self.classes is not None else {"classes": BALANCED}
        return {
            **self.row(),
            **balanced,
            "steps": len(self.times(schedule)),
            "spacing": self.steps if isinstance(self.steps, str) else shown(self.spacing),
            "evaluations": self.evaluations(self.plan(schedule)),
            "seed": self.seed,
            "block": self.block,
            "diffusion": model,
            **computed._asdict(),
        }
