"""Which form of the training step a run takes: the captured one where that is possible, and else the plain one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch
from accelerate import Accelerator

from ddpm_ip.config import Config
from ddpm_ip.engine import agreed, in_one_line, why_not_fast
from ddpm_ip.memory import is_out_of_memory
from ddpm_ip.train.feed import Feed
from ddpm_ip.train.state import TrainState
from ddpm_ip.train.step import TrainStep

log = logging.getLogger("ddpm_ip.train")

Step = Callable[[], tuple[torch.Tensor, torch.Tensor]]  # takes the next step; its loss and gradient norm


def make_step(config: Config, accelerator: Accelerator, feed: Feed, state: TrainState) -> Step:
    """The step: captured where that is possible, and else plain, with one line that says why."""
    start = time.monotonic()
    reason, errors = _compared(config, accelerator, state)
    if reason is None:
        try:
            step = _captured(config, accelerator, feed, state)
        except Exception as error:  # whatever a compiler or a driver comes up with: the plain path needs neither
            if is_out_of_memory(error) or accelerator.num_processes > 1:  # the others are waiting in the fast path
                raise
            reason = in_one_line(error)
        else:
            log.info(
                "fast path (%s): fused kernels, each step one CUDA graph; against the plain network in float32 outputs "
                "differ by %.1e, gradients by %.1e; ready in %.1f s",
                "bf16" if accelerator.mixed_precision == "bf16" else "float32", *errors, time.monotonic() - start,
            )  # fmt: skip
            return step
    if accelerator.device.type == "cuda":
        log.warning("fast path off (%s); the plain path is used", reason)
    network, optimizer = accelerator.prepare(state.network, state.optimizer)
    return TrainStep(config, accelerator, network, optimizer, feed, state)


def _compared(config: Config, accelerator: Accelerator, state: TrainState) -> tuple[str | None, tuple[float, float]]:
    """Why some process cannot take the fast path, or None and the errors of the fused network on the actual weights."""
    reason, errors = why_not_fast(config.train.fast, accelerator), (0.0, 0.0)
    if reason is None:
        try:
            from ddpm_ip.nn.fused.check import compare
            from ddpm_ip.train.graph import compute_type

            errors = compare(state.network, compute_type(accelerator), config.shape[1:])
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = in_one_line(error)
    return agreed(accelerator, reason), errors


def _captured(config: Config, accelerator: Accelerator, feed: Feed, state: TrainState) -> Step:
    from ddpm_ip.train.graph import CapturedStep

    plain = [group["lr"] for group in state.optimizer.param_groups]
    try:
        return CapturedStep(config, accelerator, feed, state)
    except Exception:
        for group, rate in zip(state.optimizer.param_groups, plain, strict=True):
            group.update(lr=rate, capturable=False)
        raise
