"""A run whose numbers are no longer finite stops before it is saved, and says what is left of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ddpm_ip.errors import CheckpointError, Diverged
from ddpm_ip.run.checkpoint import Checkpoint, newest, read, steps

CURE = "a lower train.optim.lr, a longer train.lr_warmup, or train.mixed_precision bf16 instead of fp16"


def check_finite(loss: Tensor, norm: Tensor, step: int) -> None:
    """Stops a run that has diverged, before it is saved.

    Raises:
        Diverged: loss or gradient norm is not finite.
    """
    if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
        raise Diverged(
            f"the loss ({float(loss):.4g}) or the gradient norm ({float(norm):.4g}) is not finite at step {step}"
        )


@contextmanager
def saying_what_is_left(checkpoints: Path, start: int = 0) -> Iterator[None]:
    """Adds to the error of a run that has diverged where it can continue from, and how.

    Args:
        checkpoints: the folder of the run's checkpoints. It is looked at then, so that what is said is true.
        start: the step at which this process began. A run that diverges again before its next checkpoint may have
            ruined weights, though they are finite.

    Raises:
        Diverged: with that.
    """
    try:
        yield
    except Diverged as error:
        raise Diverged(f"{error}. {_what_is_left(checkpoints, start)}") from error


def _what_is_left(checkpoints: Path, start: int) -> str:
    try:
        found = newest(checkpoints)
    except CheckpointError:
        return f"No checkpoint in {checkpoints} is whole and finite: start again in another folder (-e) with {CURE}"
    if found is None:
        return f"There is no checkpoint in {checkpoints} yet: start again in another folder (-e) with {CURE}"
    if found.step == start:
        return _earlier(found)
    return (
        f"The newest checkpoint whose numbers are all finite is {found.path} (step {found.step}): continue from it "
        f"(-r latest -e {checkpoints.parent}) with {CURE}; or from an earlier one, if it diverges again at once"
    )


def _earlier(again: Checkpoint) -> str:
    """What to do where a run that continued from a checkpoint diverged before it made the next."""
    folder = again.path.parent
    said = (
        f"It continued from {again.path} and made no other: continue again (-r latest -e {folder.parent}) with {CURE}. "
        "Should it diverge at once, that one is ruined, though its numbers are finite"
    )
    for step in reversed([step for step in steps(folder) if step < again.step]):
        path = folder / f"step{step:08d}"
        try:
            read(path)
        except CheckpointError:
            continue
        return f"{said}; then continue from the one before it (-r {path} -e {folder.parent})"
    return f"{said}, and there is none before it; then start again in another folder (-e)"
