"""A run whose numbers are no longer finite stops before it is saved, and says what is left of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ddpm_ip.errors import CheckpointError, Diverged
from ddpm_ip.run.checkpoint import newest

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
def saying_what_is_left(checkpoints: Path) -> Iterator[None]:
    """Adds to the error of a run that has diverged from where, and how, it can continue.

    Args:
        checkpoints: the folder of the run's checkpoints. It is looked at then, so that what is said is true.

    Raises:
        Diverged: with that.
    """
    try:
        yield
    except Diverged as error:
        raise Diverged(f"{error}. {_what_is_left(checkpoints)}") from error


def _what_is_left(checkpoints: Path) -> str:
    try:
        found = newest(checkpoints)
    except CheckpointError:
        return f"No checkpoint in {checkpoints} is whole and finite: start again in another folder (-e) with {CURE}"
    if found is None:
        return f"There is no checkpoint in {checkpoints} yet: start again in another folder (-e) with {CURE}"
    return (
        f"The newest checkpoint whose numbers are all finite is {found.path} (step {found.step}): continue from it "
        f"(-r latest -e {checkpoints.parent}) with {CURE}; or from an earlier one, if it diverges again at once"
    )
