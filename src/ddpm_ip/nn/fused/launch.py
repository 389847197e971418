"""Launching GPU kernels; and compiling the many kernels of a network together, before the first is launched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import torch

MOST_BLOCKS = 65_535  # along the second and third direction of a launch
THREADS = 16  # beyond that Python's lock is what they wait for

_compile_only: ContextVar[bool] = ContextVar("compile_only", default=False)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Launches a Triton kernel; within :func:`compile_together` it is compiled, and nothing is launched.

    Raises:
        MemoryError: the launch is larger than a GPU can count.
    """
    refuse_too_many(grid, args)
    if _compile_only.get():
        kernel.warmup(*args, grid=grid, **options)
    else:
        kernel[grid](*args, **options)


def refuse_too_many(grid: tuple[int, ...], sizes: Iterable[object] = ()) -> None:
    """Refuses what a GPU answers with "invalid argument", or with the wrong place in memory.

    Args:
        grid: of a launch; CUDA counts 2^31 - 1 blocks along the first direction and 65,535 along the others.
        sizes: the other arguments of the kernel, whose integers have 32 bits.

    Raises:
        MemoryError: that is exceeded.
    """
    many = [n for n in grid[1:] if n > MOST_BLOCKS]
    many += [n for n in (*grid[:1], *sizes) if isinstance(n, int) and n >= 2**31]
    if many:
        raise MemoryError(f"a GPU kernel takes {MOST_BLOCKS:,} images and 2^31 places at most, and got {many[0]:,}")


def compile_together(work: Callable[[], object]) -> None:
    """Compiles the kernels that ``work`` will launch, by several threads at once.

    A network needs some ninety of them. Compiled one after the other, each when it is met, they took a minute on some
    machines (docs/performance.md). So ``work`` is run ahead, with kernels that are only compiled: what it computes is
    memory that nobody has written, and the caller puts back what it changes. Where a kernel does not compile, the
    launch that wants it says so later.

    Does nothing with a Triton before 3.6: launches compile, as ever.
    """
    import triton

    with ThreadPoolExecutor(THREADS) as pool:
        try:
            together = triton.AsyncCompileMode(pool, ignore_errors=True)
        except (AttributeError, TypeError):
            return
        ahead = _compile_only.set(True)
        try:
            # Backward in this thread, too, since each thread has its own context
            with together, torch.autograd.set_multithreading_enabled(False):
                work()
        finally:
            _compile_only.reset(ahead)
