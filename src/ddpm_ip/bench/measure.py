"""The clock, and what the device can do at best."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ddpm_ip.flops import MATMUL as MATMUL
from ddpm_ip.flops import by_events, by_wall, matrix_product
from ddpm_ip.flops import gflop_per_image as gflop_per_image

Step = Callable[[], object]  # what is timed

COPY_BYTES = 1 << 30


@dataclass(frozen=True)
class Plan:
    """How often a step is taken: first untimed, then timed."""

    warmup: int
    steps: int


@dataclass(frozen=True)
class Timing:
    """What the clock said.

    Attributes:
        ms: milliseconds of each timed step.
        warmup_s: seconds from nothing to the first timed step: building, compiling, warming up, capturing.
        memory_gib: the most GPU memory that was allocated and reserved at any time, in GiB; None on the CPU.
    """

    ms: list[float]
    warmup_s: float
    memory_gib: dict[str, float] | None


def measure(build: Callable[[], Step], plan: Plan, device: torch.device) -> Timing:
    """Builds a step and times it, in a process that has forgotten the steps before.

    A GPU is timed by its own clock, from the end of one step to the end of the next, without ever waiting for it: what
    counts is the rate of a run, not the time to launch a step.
    """
    forget(device)
    start = time.perf_counter()
    step = build()
    for _ in range(plan.warmup):
        step()
    synchronize(device)
    warmup_s = time.perf_counter() - start
    ms = by_events(step, plan.steps) if device.type == "cuda" else by_wall(step, plan.steps)
    return Timing(ms, warmup_s, _memory(device))


def forget(device: torch.device) -> None:
    """Frees the memory of the last step, and undoes what it may have set for the whole process."""
    if "torch._dynamo" in sys.modules:  # else nothing was compiled, and loading it takes seconds
        torch.compiler.reset()  # or the second batch size would be compiled for every size, and run slower
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def synchronize(device: torch.device) -> None:
    """Waits for the GPU, if there is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device) -> dict[str, float | None]:
    """The device's measured ceilings.

    Returns:
        ``matmul_tflops``: 10^12 operations a second of one large matrix product of random numbers (bf16 on a GPU,
        float32 on the CPU), a few in a row; ``matmul_sustained_tflops``: of the last of a thousand in a row, when a GPU
        has come to its power limit and lowered its clock; ``copy_tb_s``: 10^12 bytes read and written a second by a
        copy on the GPU. The last two are None on the CPU.
    """
    product, flop = matrix_product(device)
    ms = statistics.median(measure(lambda: product, Plan(3, 10 if device.type == "cuda" else 5), device).ms)
    ceilings: dict[str, float | None] = dict.fromkeys(("matmul_tflops", "matmul_sustained_tflops", "copy_tb_s"))
    ceilings["matmul_tflops"] = flop / ms / 1e9
    if device.type == "cuda":
        ms = statistics.median(measure(lambda: product, Plan(800, 200), device).ms)
        ceilings["matmul_sustained_tflops"] = flop / ms / 1e9
        source = torch.ones(COPY_BYTES, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        ms = statistics.median(measure(lambda: lambda: target.copy_(source), Plan(3, 10), device).ms)
        ceilings["copy_tb_s"] = 2 * COPY_BYTES / ms / 1e9
    return ceilings


def _memory(device: torch.device) -> dict[str, float] | None:
    if device.type != "cuda":
        return None
    most = {"allocated": torch.cuda.max_memory_allocated(device), "reserved": torch.cuda.max_memory_reserved(device)}
    return {name: size / 2**30 for name, size in most.items()}
