"""How many operations a network takes, and how many its device can do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import torch
from torch.utils.flop_counter import FlopCounterMode

from ddpm_ip.config import Config

MATMUL = {"cuda": (8192, torch.bfloat16), "cpu": (2048, torch.float32)}  # size and type of the peak's matrices


def gflop_per_image(config: Config) -> tuple[float, float]:
    """10^9 operations (2 a multiply-add) for one image: one evaluation of the network, one training step.

    Counted on the plain network without data, so that every system with this network is credited with the same work.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = config.build_network()
        x = torch.empty(1, *config.shape)
        t = torch.empty(1)
    with FlopCounterMode(display=False) as forward:
        y = network(x, t)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    evaluation = forward.get_total_flops()
    return evaluation / 1e9, (evaluation + backward.get_total_flops()) / 1e9


def matrix_product(device: torch.device) -> tuple[Callable[[], object], int]:
    """A large product of random matrices and its operations."""
    n, dtype = MATMUL[device.type]
    small = torch.ones(16, 16, device=device, dtype=dtype)
    small @ small  # cuBLAS takes memory that it keeps: it must not be a piece of what the large matrices give back
    chance = torch.Generator(device).manual_seed(0)  # that of the device may be training's
    a, b = (torch.randn(n, n, device=device, generator=chance).to(dtype) for _ in range(2))
    return lambda: a @ b, 2 * n**3


@cache
def peak_tflops(device: torch.device) -> float | None:
    """10^12 operations a second of one large matrix product in bf16 on a GPU: the most that it was seen to do.

    Measured once in a process, in a fraction of a second, with half a GB that is free again afterwards. Nothing is
    drawn from the generators that training may use.

    Returns:
        None where it cannot be measured: no CUDA GPU, one without bf16, or too little memory.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return None
    try:
        return _matmul_tflops(device)
    except torch.cuda.OutOfMemoryError:
        return None
    finally:
        torch.cuda.empty_cache()


def _matmul_tflops(device: torch.device) -> float:
    product, flop = matrix_product(device)
    for _ in range(3):
        product()
    return flop / statistics.median(by_events(product, 10)) / 1e9


def by_events(step: Callable[[], object], steps: int) -> list[float]:
    """Milliseconds of each step by the GPU's own clock, which is not waited for in between."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]  # type: ignore[no-untyped-call]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in pairwise(events)]


def by_wall(step: Callable[[], object], steps: int) -> list[float]:
    """Milliseconds of each step by this process's clock."""
    ms = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        ms.append(1000 * (time.perf_counter() - start))
    return ms
