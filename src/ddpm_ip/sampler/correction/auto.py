r"""The correction ``auto``: what a calibration found for these weights, this sampler and these times takes its place.

How much the error of a network grows along its own walk, and even in which direction, differs between networks,
samplers and numbers of steps (exposure bias), so the numbers of a correction are no property of the method.
``ddpm-ip calibrate`` measures them and keeps a chain of corrections next to the weights
(:mod:`ddpm_ip.sample.calibrated`). ``auto`` is that chain, looked up when the weights are known
(:mod:`ddpm_ip.sample.filled`); an empty one means that nothing needs to be corrected.

A calibration is of everything else about the sampling: ``guidance,scale=2 auto`` is that of the walk with this
guidance.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from torch import Tensor

from ddpm_ip.errors import ConfigError
from ddpm_ip.sampler.base import Plan
from ddpm_ip.sampler.correction.base import Correction
from ddpm_ip.sampler.facts import UNSAID, canonical
from ddpm_ip.schedule import Schedule
from ddpm_ip.variants import FilledIn

OWN = FilledIn("auto has no settings of its own, they come from the calibration of the weights: leave this out")


@dataclass(frozen=True)
class Auto(Correction):
    """The corrections that were calibrated for the weights; neither setting is typed.

    Args:
        chain: what it stands for; filled in (:func:`ddpm_ip.sample.filled.filled`).
        calibration: the beginning of a hash of ``chain``, by which files tell calibrations apart.
    """

    name: Literal["auto"] = field(default="auto", kw_only=True)
    chain: Annotated[tuple[Correction, ...] | None, OWN] = field(default=None, metadata=UNSAID)
    calibration: Annotated[str | None, OWN] = None

    def __post_init__(self) -> None:
        if self.chain is not None and any(isinstance(c, Auto) for c in self.chain):
            raise ValueError("a calibration is of corrections, and auto is none that it can hold")
        object.__setattr__(self, "calibration", None if self.chain is None else digest(self.chain))

    def numbers(self, plan: Plan, schedule: Schedule) -> Tensor:
        """None: what it stands for has them (:func:`expanded`).

        Raises:
            ConfigError: always; says how a calibration is made.
        """
        raise ConfigError(
            "the correction auto stands for what was calibrated for finished weights, a sampler and its times: run "
            "`ddpm-ip calibrate --weights ... --sampler ... --steps N` and sample these weights so, or leave auto out"
        )


def digest(chain: Sequence[Correction]) -> str:
    """``sha256:0123456789ab``, of all settings of a chain."""
    settings = canonical([items(c) for c in chain])
    return f"sha256:{hashlib.sha256(settings.encode()).hexdigest()[:12]}"


def items(correction: Correction) -> dict[str, Any]:
    """All settings of a correction as an item of ``sampling.corrections``; those that are None are left out."""
    plain: dict[str, Any] = dataclasses.asdict(correction)  # type: ignore[call-overload]  # a Protocol, of dataclasses
    return {key: value for key, value in plain.items() if value is not None}


def expanded(corrections: Sequence[Correction]) -> tuple[Correction, ...]:
    """The corrections, with what ``auto`` stands for in its place; one that is not filled in stays.

    Raises:
        ConfigError: ``auto`` is given twice, or together with a correction that it has itself.
    """
    autos = [c for c in corrections if isinstance(c, Auto)]
    if len(autos) > 1:
        raise ConfigError("the correction auto is given twice: give each once")
    chain = [c for auto in autos for c in auto.chain or ()]
    if both := sorted({c.name for c in chain} & {c.name for c in corrections}):
        raise ConfigError(
            f"the correction {', '.join(both)} is given, and the calibration that auto stands for has it, too: leave "
            "one of the two out"
        )
    found: list[Correction] = []
    for c in corrections:
        found += c.chain if isinstance(c, Auto) and c.chain is not None else [c]
    return tuple(found)
