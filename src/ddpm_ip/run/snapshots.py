"""Averages of any length, made after training from the snapshots of a run (:mod:`ddpm_ip.power`).

    EXP_DIR/snapshots/stepNNNNNNNN/     the averages by power functions at a step, as a checkpoint holds them
        power_1.safetensors ...         that of the first length of train.ema_power, ...
        meta.json, manifest.json        as of every checkpoint (:mod:`ddpm_ip.run.checkpoint`)

They are float32: of half precision, sums of factors of both signs would have the rounding alone, some times over.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from ddpm_ip.errors import CheckpointError, ConfigError
from ddpm_ip.power import LONGEST, Profile, combination
from ddpm_ip.run import checkpoint
from ddpm_ip.run.checkpoint import Checkpoint
from ddpm_ip.run.tensors import is_number, mismatches, refuse_not_finite, some

log = logging.getLogger("ddpm_ip.sample")

SHORTEST = 1e-4  # of all lengths: one or two steps of 10,000
FAR = 0.1  # of a profile from the wanted one, as a share of it
HEADER = "averaged"  # the only entry in the header of a file; of several the order would be another each time


@dataclass(frozen=True)
class Made:
    """An average that was made from snapshots.

    Attributes:
        tensors: by name, on the CPU.
        profile: its length and step.
        error: how far its profile is from the wanted one, as a share of it.
        used: the snapshots that it is made of.
    """

    tensors: dict[str, Tensor]
    profile: Profile
    error: float
    used: Sequence[Path]

    @property
    def name(self) -> str:
        """``sigma_rel=0.08, step 5000``: what files say of it."""
        return f"sigma_rel={self.profile.sigma_rel:g}, step {self.profile.step}"

    def to_bytes(self) -> bytes:
        """The safetensors file that holds it, the same bytes each time, with its name in the header."""
        return save(self.tensors, {HEADER: self.name})


@dataclass(frozen=True)
class _Kept:
    """One average in a snapshot."""

    profile: Profile
    snapshot: Checkpoint
    part: str

    def tensors(self) -> dict[str, Tensor]:
        found = self.snapshot.tensors(self.part)
        refuse_not_finite(found, self.snapshot.path / f"{self.part}.safetensors")
        return found


def make(run: Path, lengths: Sequence[float], step: int | None = None) -> list[Made]:
    """The averages of some lengths at a step.

    Args:
        run: the folder of a run.
        lengths: sigma_rel of each, in (0, 0.288).
        step: of a snapshot; None for the newest.

    Raises:
        ConfigError: there is no such length, or no snapshot of the step.
        CheckpointError: there are no snapshots, or they are damaged.
    """
    for length in lengths:
        if not is_number(length, SHORTEST, LONGEST):
            raise ConfigError(f"sigma_rel={length:g}: an average has a length of {SHORTEST:g} to {LONGEST:.3f}")
    kept = _kept(run / "snapshots", step)
    last = max(one.profile.step for one in kept)
    wanted = [Profile(length, last) for length in lengths]
    found = [combination([one.profile for one in kept], profile) for profile in wanted]
    for profile, (_, error) in zip(wanted, found, strict=True):
        if error > FAR:
            log.warning(
                "sigma_rel %g at step %d: of these snapshots only a profile that is %.0f %% off can be made. Choose a "
                "length nearer to those of train.ema_power, or train with a smaller --train.ema_snapshot_freq",
                profile.sigma_rel, last, 100 * error,
            )  # fmt: skip
    sums = _sums(kept, [factors for factors, _ in found])
    used = list(dict.fromkeys(one.snapshot.path for one in kept))
    return [Made(total, p, error, used) for total, p, (_, error) in zip(sums, wanted, found, strict=True)]


def last(run: Path) -> Path:
    """The newest snapshot of a run that is whole; see :func:`make`."""
    return _kept(run / "snapshots", None)[-1].snapshot.path


def _kept(folder: Path, step: int | None) -> list[_Kept]:
    """The averages in the snapshots up to a step; a damaged snapshot is passed over."""
    steps = checkpoint.steps(folder)
    if not folder.parent.is_dir():
        raise CheckpointError(f"{folder.parent} does not exist: give the folder of a run")
    if not steps:
        raise CheckpointError(
            f"{folder} holds no snapshots, of which averages are made: they are written in training, with "
            "--train.ema_power [0.05,0.10]"
        )
    if step is not None and step not in steps:
        raise ConfigError(f"there is no snapshot of step {step}, only of {', '.join(map(str, steps))}")
    kept = []
    for one in steps:
        if step is not None and one > step:
            continue
        path = folder / f"step{one:08d}"
        try:
            kept += _averages(checkpoint.read(path, needs=()))
        except CheckpointError as error:
            if one == step:
                raise
            log.warning("left out, since it is damaged: %s", error)
    if not kept:
        raise CheckpointError(f"no snapshot in {folder} is whole")
    return kept


def _averages(snapshot: Checkpoint) -> list[_Kept]:
    config: Any = snapshot.meta.get("config")
    lengths = config.get("train", {}).get("ema_power") if isinstance(config, Mapping) else None
    if not isinstance(lengths, list) or not lengths or not all(is_number(s, SHORTEST, LONGEST) for s in lengths):
        raise CheckpointError(f"{snapshot.path}: meta.json does not say of what lengths (train.ema_power) it is")
    parts = [f"power_{i}" for i in range(1, len(lengths) + 1)]
    if missing := [part for part in parts if part not in snapshot.parts]:
        raise CheckpointError(f"{snapshot.path} lacks {missing[0]}.safetensors")
    return [_Kept(Profile(s, snapshot.step), snapshot, part) for s, part in zip(lengths, parts, strict=True)]


def _sums(kept: Sequence[_Kept], factors: Sequence[Sequence[float]]) -> list[dict[str, Tensor]]:
    """The sums of the averages with each list of factors, in float64, one file after the other.

    Tensors that are not of floating-point numbers are taken from the newest.
    """
    sums: list[dict[str, Tensor]] = [{} for _ in factors]
    first: dict[str, Tensor] = {}
    for i, one in enumerate(kept):
        tensors = one.tensors()
        first = first or tensors
        if wrong := mismatches(first, tensors):
            raise CheckpointError(f"{one.snapshot.path} is of another network than the others:\n{some(wrong)}")
        for total, own in zip(sums, factors, strict=True):
            for name, value in tensors.items():
                if not value.is_floating_point():
                    total[name] = value
                elif name in total:
                    total[name].add_(value.double(), alpha=own[i])
                else:
                    total[name] = value.double() * own[i]
    return [{name: v.to(first[name].dtype) for name, v in total.items()} for total in sums]


def name_in(path: Path) -> str | None:
    """What the header of a file says that its average is; None if it says nothing."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        said = (file.metadata() or {}).get(HEADER, "")
    return said if 0 < len(said) <= 100 and said.isprintable() else None


def file_name(made: Made) -> str:
    """``ema-sigma_rel0.08-step00005000.safetensors``."""
    return f"ema-sigma_rel{made.profile.sigma_rel:g}-step{made.profile.step:08d}.safetensors"
