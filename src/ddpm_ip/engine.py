"""Device, processes and precision: Accelerate, set up in one place for training and sampling."""

from __future__ import annotations

import os
from typing import Literal

import torch
from accelerate import Accelerator


def start_engine(mixed_precision: Literal["no", "fp16", "bf16"] | None) -> Accelerator:
    """An Accelerator for this process.

    On the CPU the processes of a machine share its cores evenly. (Launchers set ``OMP_NUM_THREADS=1``, which would
    leave a single process with one core.)

    Args:
        mixed_precision: None takes what the launcher says, else full precision.
    """
    # Accelerate joins processes on the CPU only if it is told that the CPU is meant.
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    accelerator = Accelerator(mixed_precision=mixed_precision, cpu=several and not torch.accelerator.is_available())
    if accelerator.device.type == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    return accelerator
