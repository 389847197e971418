"""The sections of a configuration that are no method's own: diffusion, classes, training, evaluation.

Every key of theirs has a kind in :mod:`ddpm_ip.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ddpm_ip.denoiser import PredictionType
from ddpm_ip.extras import TRACKERS
from ddpm_ip.learning_rate import ConstantRate, RateConfig
from ddpm_ip.metric import METRICS
from ddpm_ip.objective import BoundInput, LossKind
from ddpm_ip.power import LONGEST
from ddpm_ip.sampler import VarType
from ddpm_ip.schedule import BetaSchedule, Schedule
from ddpm_ip.times import TimesConfig, Uniform
from ddpm_ip.variants import ByName, OneOrSeveral, Read, one_or_more, word_or_more
from ddpm_ip.weighting import Constant, WeightingConfig

PositiveInt = Annotated[int, Field(ge=1, lt=2**31)]
NaturalInt = Annotated[int, Field(ge=0, lt=2**31)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MOST_AVERAGES = 16  # each is a copy of the network
Fraction = Annotated[float, Field(ge=0, lt=1)]
Length = Annotated[float, Field(gt=0, le=LONGEST)]  # sigma_rel
if TYPE_CHECKING:
    MetricName = str
    TrackerName = str
else:
    MetricName = Literal[tuple(METRICS)]
    TrackerName = Literal[tuple(TRACKERS)]


@dataclass(frozen=True)
class Diffusion:
    """The noise schedule, what the network predicts, and the variance of the reverse process.

    With ``var_type: learned_range`` the network also learns the variance (twice the output channels, hybrid loss).

    Args:
        total_steps: T, the number of times.
        beta_schedule: how beta rises from ``beta_start`` to ``beta_end``: linear; quad, linear in its square root;
            const, ``beta_end`` at all times; or cosine, Nichol & Dhariwal's, which uses neither.
        beta_start: beta at t = 0.
        beta_end: beta at t = T - 1.
        objective: what the network predicts: the noise, the clean image, or ``v = alpha eps - sigma x_0``.
        var_type: the variance of a step of the ancestral sampler: beta_t (fixed_large), that of the posterior
            (fixed_small), or one that the network learns (learned_range).
    """

    total_steps: Annotated[int, Field(ge=2, lt=2**31)] = 1000
    beta_schedule: BetaSchedule = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    objective: PredictionType = "pred_eps"
    var_type: VarType = "fixed_large"

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.total_steps, self.beta_schedule, self.beta_start, self.beta_end)

    @property
    def learned_variance(self) -> bool:
        return self.var_type == "learned_range"


@dataclass(frozen=True)
class Classes:
    """What a class-conditional network is told about an image.

    Args:
        count: number of classes; labels are 0 .. count - 1.
        dropout: probability that a label is hidden in training, so that the network also learns to do without, which
            guidance needs (Ho & Salimans 2022, arXiv 2207.12598, algorithm 1).
    """

    count: PositiveInt
    dropout: Fraction = 0.1


@dataclass(frozen=True)
class Optim:
    """The optimizer, as in ``torch.optim``.

    Args:
        name: adam, or adamw, whose weight decay is decoupled from the gradient.
        lr: the learning rate after the warm-up, before ``train.lr_schedule``.
        betas: the decays of the running means of the gradient and of its square.
        eps: what is added to the root of the latter.
        weight_decay: of all weights; in adam it is added to the gradient, in adamw subtracted from the weights.
    """

    name: Literal["adam", "adamw"] = "adam"
    lr: PositiveFloat = 2e-4
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True)
class Eval:
    """Evaluation during training, of the averaged network.

    Args:
        every: steps between two evaluations; 0 for none.
        n_samples: samples of each.
        steps: sampling steps spent on one.
        metrics: as for ``ddpm-ip evaluate``; the first decides which weights are the best.
        extractor: whose features; ``pixels`` needs no weights.
    """

    every: NaturalInt = 0
    n_samples: Annotated[int, Field(ge=2, lt=2**31)] = 2048
    steps: PositiveInt = 50
    metrics: Annotated[tuple[MetricName, ...], Field(min_length=1)] = ("fid",)
    extractor: str = "pixels"


@dataclass(frozen=True)
class Train:
    """The training run.

    Args:
        n_steps: optimizer steps.
        batch_size: images a step, over all processes.
        micro_batch: images that a process puts through the network at once; 0 for its whole share.
        gradient_checkpointing: computes the activations inside each block of the network again in the backward pass
            instead of keeping them: less memory for about a third more time, and the same gradients.
        flip: mirror images at random.
        loss: simple is the squared error, to which a learned variance adds its term of the variational bound (the
            hybrid loss); vlb is the bound alone.
        vb_input: what that term of a learned variance sees of a perturbed input: perturbed, as published, or clean, for
            another evaluation of the network.
        times: how often each time is trained.
        weighting: how much the squared error at each time counts.
        clip_grad_norm: largest gradient norm; null for no limit.
        lr_warmup: steps over which the learning rate rises linearly.
        lr_schedule: how the learning rate changes after that.
        ema_decay: decay of the averaged network. Or of several: the first is sampled and judged in training.
        ema_warmup: whether that decay rises at first, as min(ema_decay, (1 + n) / (10 + n)) in step n, counted from 1.
        ema_power: lengths (sigma_rel) of averages by power functions that are kept as well; ``ddpm-ip ema`` makes one
            of any length from their snapshots. Null for none.
        ema_snapshot_freq: steps between two snapshots of these.
        print_freq: steps between log lines.
        save_freq: steps between checkpoints.
        sample_freq: steps between sample grids; 0 for none.
        n_samples: images of a grid.
        sample_steps: sampling steps spent on a grid.
        keep_last: newest checkpoints that are kept (at least 2, since the newest may turn out damaged).
        keep_every: every checkpoint at a multiple of this many steps is kept as well; 0 for none.
        mixed_precision: "no", fp16 or bf16; null takes what `accelerate-launch` says, else bf16 under ``fast: auto`` on
            a GPU that has it, else "no".
        fast: auto runs fused kernels and replays each step as one CUDA graph where that is possible; off never does.
        trackers: what else shows numbers, samples, settings and alerts: tensorboard, wandb, trackio, mlflow, one or a
            list. Null is TensorBoard where it is installed; an empty list is none.
        alert_command: a shell command that is run at each alert. It counts only as an option of the command that starts
            the training, and no file of a run keeps it.
        deterministic: bit-exact GPU kernels, slower. (The CPU is always exact.)
        eval: a distance measured every so often.
        optim: the optimizer.
    """

    n_steps: PositiveInt = 800_000
    batch_size: PositiveInt = 128
    micro_batch: NaturalInt = 0
    gradient_checkpointing: bool = False
    flip: bool = True
    loss: LossKind = "simple"
    vb_input: BoundInput = "perturbed"
    times: Annotated[TimesConfig, ByName()] = field(default_factory=Uniform)
    weighting: Annotated[WeightingConfig, ByName()] = field(default_factory=Constant)
    clip_grad_norm: PositiveFloat | None = 1.0
    lr_warmup: NaturalInt = 0
    lr_schedule: Annotated[RateConfig, ByName()] = field(default_factory=ConstantRate)
    ema_decay: Annotated[Fraction | tuple[Fraction, ...], OneOrSeveral()] = 0.9999
    ema_warmup: bool = False
    ema_power: Annotated[tuple[Length, ...] | None, Read(one_or_more)] = None
    ema_snapshot_freq: PositiveInt = 5000
    print_freq: PositiveInt = 400
    save_freq: PositiveInt = 5000
    sample_freq: NaturalInt = 5000
    n_samples: PositiveInt = 64
    sample_steps: PositiveInt = 100
    keep_last: Annotated[int, Field(ge=2, lt=2**31)] = 2
    keep_every: NaturalInt = 0
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    fast: Literal["auto", "off"] = "auto"
    deterministic: bool = False
    trackers: Annotated[tuple[TrackerName, ...] | None, Read(word_or_more)] = None
    alert_command: Annotated[str, Field(min_length=1)] | None = None
    eval: Eval = field(default_factory=Eval)
    optim: Optim = field(default_factory=Optim)

    def __post_init__(self) -> None:
        """A list of one decay is that decay, so that two configurations that say the same are equal."""
        for name in ("ema_decay", "ema_power"):
            given = getattr(self, name)
            if isinstance(given, tuple) and not 1 <= len(given) == len(set(given)) <= MOST_AVERAGES:
                raise ValueError(f"{name} must name 1 to {MOST_AVERAGES}, and none twice, got {list(given)[:20]}")
        if isinstance(self.ema_decay, tuple) and len(self.ema_decay) == 1:
            object.__setattr__(self, "ema_decay", self.ema_decay[0])

    @property
    def ema_decays(self) -> tuple[float, ...]:
        """All of ``ema_decay``, the one that is sampled first."""
        return self.ema_decay if isinstance(self.ema_decay, tuple) else (self.ema_decay,)
