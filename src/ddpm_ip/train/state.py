"""Everything that a training run changes, and how it goes to a checkpoint and back, bit for bit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ddpm_ip.config import Config
from ddpm_ip.ema import EMA, PowerEMA
from ddpm_ip.errors import CheckpointError
from ddpm_ip.plain import reason
from ddpm_ip.precise import place, precise
from ddpm_ip.run.checkpoint import Checkpoint
from ddpm_ip.run.tensors import is_number, mismatches, some
from ddpm_ip.run.weights import load_weights
from ddpm_ip.times import Observer, TimeSampler, Uniform

log = logging.getLogger("ddpm_ip.train")

UNUSED = "unused"


@runtime_checkable
class Part(Protocol):
    """A part of the state: those of its tensors that a step changes, by name."""

    def tensors(self) -> dict[str, Tensor]:
        """The tensors themselves, no copies; a step changes them in place. There may be none, or none yet."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what ``tensors`` gave, from the CPU.

        If the part has tensors already, the new ones have the same names, shapes and kinds of numbers; all are finite.

        Raises:
            CheckpointError: they belong to something else.
        """
        ...


@dataclass(frozen=True)
class Weights:
    """Parameters and buffers of a network, as a part of the state."""

    network: nn.Module

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        load_weights(self.network, tensors, "this checkpoint")


@dataclass(frozen=True)
class Averaged(Weights):
    """An average besides the one that is sampled; one that a checkpoint lacks begins with the network as it stands."""

    trained: nn.Module

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        super().load(tensors or dict(self.trained.state_dict()))


@dataclass(frozen=True)
class Moments:
    """What Adam or AdamW remembers, as a part of the state: named by the index of the parameter.

    A parameter that had no gradient yet while others had has an empty tensor ``unused``, so that what is missing is
    known to be missing.
    """

    optimizer: torch.optim.Optimizer

    def tensors(self) -> dict[str, Tensor]:
        if not any(self.optimizer.state.values()):
            return {}
        each = [self.optimizer.state.get(p) or {UNUSED: torch.zeros(0)} for p in self._parameters()]
        return {f"{i}.{k}": v for i, own in enumerate(each) for k, v in own.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """See :meth:`Part.load`; no tensors at all mean that the optimizer has taken no step."""
        if tensors:
            self._check(tensors)
        for i, p in enumerate(self._parameters()):
            prefix = f"{i}."
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            own.pop(UNUSED, None)
            # A moment lies in memory as its parameter does (NHWC), so that the next step computes the same.
            self.optimizer.state[p] = {
                k: v.to(p.device) if k == "step" else torch.empty_like(p).copy_(v) for k, v in own.items()
            }

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        expected: dict[str, Tensor] = {}
        for i, p in enumerate(self._parameters()):
            if f"{i}.{UNUSED}" in tensors:
                expected[f"{i}.{UNUSED}"] = torch.zeros(0)
            else:
                expected |= {f"{i}.step": torch.zeros(()), f"{i}.exp_avg": p, f"{i}.exp_avg_sq": p}
        wrong = mismatches(expected, tensors)
        negative = [k for k, v in tensors.items() if k.endswith((".step", ".exp_avg_sq")) and bool((v < 0).any())]
        if wrong := wrong or [f"{k} is negative" for k in negative]:
            raise CheckpointError(f"it does not fit the optimizer of this network:\n{some(wrong)}")

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


@dataclass
class Sums:
    """What is averaged between two log lines; float64 on the training device, so that no step waits for it.

    (A device without float64 is waited for, and the sums lie on the CPU.)
    """

    total: Tensor  # (2,): loss, gradient norm
    count: int = 0

    @classmethod
    def zero(cls, device: torch.device) -> Sums:
        return cls(torch.zeros(2, dtype=torch.float64, device=place(device)))

    def add(self, loss: Tensor, grad_norm: Tensor) -> None:
        self.total += precise(torch.stack((loss.detach(), grad_norm.detach())))
        self.count += 1


@dataclass
class TrainState:
    """The state of a run after ``step`` optimizer steps. There is no random state: draws are functions of the step.

    Attributes:
        parts: everything that a step changes in tensors: what a checkpoint holds, each under its name, and what the
            captured step puts back. A part of one's own is one more entry, made before the first step.
    """

    network: nn.Module
    ema: EMA[nn.Module]
    optimizer: torch.optim.Optimizer
    sums: Sums
    scaler: torch.amp.GradScaler | None = None
    times: TimeSampler = field(default_factory=Uniform)
    more: Mapping[str, EMA[nn.Module]] = field(default_factory=dict)  # further averages, by the name of their part
    step: int = 0
    meta: dict[str, Any] = field(default_factory=dict)  # configuration, data, versions: written, not read back
    parts: dict[str, Part] = field(init=False)

    def __post_init__(self) -> None:
        self.parts = {
            "model": Weights(self.network),
            "ema": Weights(self.ema.network),
            "optimizer": Moments(self.optimizer),
            **{name: Averaged(average.network, self.network) for name, average in self.more.items()},
        }
        if isinstance(self.times, Part):
            self.parts["times"] = self.times
        elif isinstance(self.times, Observer):
            raise TypeError(
                f"{type(self.times).__name__} learns from the losses, but has no tensors() and load(): a run could not "
                "continue where it stopped (see ddpm_ip.train.state.Part)"
            )

    @property
    def averages(self) -> list[EMA[nn.Module]]:
        """All that a step updates, the one that is sampled first."""
        return [self.ema, *self.more.values()]

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of a checkpoint, by part."""
        return {name: part.tensors() for name, part in self.parts.items()}

    def to_meta(self) -> dict[str, Any]:
        """The numbers of a checkpoint; JSON keeps a float64 exactly."""
        scaler = self.scaler.state_dict() if self.scaler is not None else None
        return {**self.meta, "sums": self.sums.total.tolist(), "count": self.sums.count, "scaler": scaler}

    def snapshot(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """The tensors and numbers of a checkpoint as they are now, in memory that no later step changes.

        The copy lies on the CPU and is as large as a checkpoint: network, average, two moments; 16 bytes a parameter.
        """
        copies = {
            name: {k: v.detach().to("cpu", copy=True) for k, v in tensors.items()}
            for name, tensors in self.tensors().items()
        }
        return copies, self.to_meta()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes over a checkpoint. A part that it does not hold, since it had no tensors then, starts from scratch.

        Raises:
            CheckpointError: it belongs to another network, or says what no run has written.
        """
        for name, part in self.parts.items():
            if name not in checkpoint.parts:
                log.info("%s holds no %s: it starts from scratch", checkpoint.path, name)
            tensors = checkpoint.tensors(name) if name in checkpoint.parts else {}
            try:
                _load(part, tensors)
            except CheckpointError as error:
                raise CheckpointError(f"{checkpoint.path}, {name}: {error}") from error
        meta, step = checkpoint.meta, checkpoint.step
        if wrong := [key for key, fine in _numbers_are_fine(meta, step).items() if not fine]:
            raise CheckpointError(
                f"{checkpoint.path / 'meta.json'} has {' and '.join(wrong)} that no run has written: give another "
                "checkpoint"
            )
        sums = [float(one) for one in meta["sums"]]
        self.sums = Sums(torch.tensor(sums, dtype=torch.float64, device=self.sums.total.device), meta["count"])
        if self.scaler is not None and meta.get("scaler"):
            self.scaler.load_state_dict(meta["scaler"])
        self.step = step


def further_averages(config: Config, network: nn.Module) -> dict[str, EMA[nn.Module]]:
    """The averages after the first, by the name of their part: ``ema_2``, ...; ``power_1``, ..."""
    t = config.train
    decays: dict[str, EMA[nn.Module]] = {
        f"ema_{i}": EMA(network, decay, t.ema_warmup) for i, decay in enumerate(t.ema_decays[1:], 2)
    }
    return decays | {f"power_{i}": PowerEMA(network, length) for i, length in enumerate(t.ema_power or (), 1)}


def _load(part: Part, tensors: Mapping[str, Tensor]) -> None:
    """Has a part take over tensors, if they are like those that it has; a part of one's own can then trust them."""
    own = {} if isinstance(part, Weights | Moments) else part.tensors()
    if own and tensors and (wrong := mismatches(own, tensors)):
        raise CheckpointError(f"it is not what this run remembers:\n{some(wrong)}")
    try:
        part.load(tensors)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a part of one's own makes of what it does not know
        raise CheckpointError(f"it cannot be taken over ({type(error).__name__}: {reason(error)})") from error


def _numbers_are_fine(meta: Mapping[str, Any], step: int) -> dict[str, bool]:
    """Whether the numbers of a checkpoint are such as :meth:`TrainState.to_meta` writes, by key."""
    sums, count, scaler = meta.get("sums"), meta.get("count"), meta.get("scaler")
    if isinstance(sums, list) and len(sums) == 2:  # a step that the scaler skipped has a gradient norm that is infinite
        summed = is_number(sums[0]) and (is_number(sums[1]) or (bool(scaler) and type(sums[1]) is float))
    else:
        summed = False
    return {
        "sums": summed,
        "count": type(count) is int and 0 <= count <= step,
        "scaler": scaler is None or _is_scaler(scaler),
    }


def _is_scaler(found: Any) -> bool:
    if found == {}:  # one that is off
        return True
    limits = {"scale": (1e-30, 1e30), "growth_factor": (1, 1e9), "backoff_factor": (1e-9, 1)}
    limits |= {"growth_interval": (1, 2**31 - 1), "_growth_tracker": (0, 2**31 - 1)}
    return (
        isinstance(found, dict)
        and found.keys() == limits.keys()
        and all(is_number(found[key], *limit) for key, limit in limits.items())
        and all(type(found[key]) is int for key in ("growth_interval", "_growth_tracker"))
    )
