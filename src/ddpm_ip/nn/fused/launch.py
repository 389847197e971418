"""Launching GPU kernels; and compiling the many kernels of a network together, before the first is launched."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import torch

THREADS = 16  # beyond that Python's lock is what they wait for

_compile_only: ContextVar[bool] = ContextVar("compile_only", default=False)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Launches a Triton kernel; within :func:`compile_together` it is compiled, and nothing is launched."""
    if _compile_only.get():
        kernel.warmup(*args, grid=grid, **options)
    else:
        kernel[grid](*args, **options)


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
