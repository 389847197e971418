"""Too little memory, however it shows, is told in one way; and nothing else is."""

import errno
import os

import numpy as np
import pytest
import torch

from ddpm_ip.errors import ConfigError, OutOfMemory
from ddpm_ip.memory import enough_memory, is_out_of_memory
from ddpm_ip.nn.fused.launch import MOST_BLOCKS, refuse_too_many

HUGE = 2**60


class OutOfMemoryError(RuntimeError):
    """Triton's and others' have that name."""


def caught(work):
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("there was enough memory")


REAL = {
    "PyTorch on the CPU": lambda: torch.empty(HUGE, dtype=torch.uint8),
    "PyTorch's arithmetic of sizes": lambda: torch.empty(HUGE, HUGE),
    "numpy": lambda: np.empty(HUGE, np.uint8),
    "numpy's arithmetic of sizes": lambda: np.empty((HUGE, HUGE)),
    "Python": lambda: bytearray(HUGE),
}
SAID = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GB"),
    OutOfMemoryError("something"),
    MemoryError(),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("Triton Error [CUDA]: invalid argument"),
    RuntimeError("CUDA error: invalid configuration argument"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("MPS backend out of memory"),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
]
OTHER = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ValueError("invalid argument"),
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    KeyError("out of memory"),
    ConfigError("out of memory"),
    OutOfMemory("told already"),
]


@pytest.mark.parametrize("kind", REAL)
def test_real_ones_are_known(kind):
    error = caught(REAL[kind])
    assert is_out_of_memory(error), repr(error)


@pytest.mark.parametrize("error", SAID, ids=str)
def test_those_of_libraries_are_known(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHER, ids=repr)
def test_others_are_left_alone(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as raised, enough_memory(lambda: "advice"):
        raise error
    assert raised.value is error


def test_the_message_has_the_advice_and_what_failed():
    words = r"^take fewer\. \(What failed: RuntimeError: std::bad_alloc\)$"
    with pytest.raises(OutOfMemory, match=words), enough_memory(lambda: "take fewer"):
        raise RuntimeError("std::bad_alloc")
    assert OutOfMemory.exit_code == 3


@pytest.mark.parametrize("grid", [(1, MOST_BLOCKS + 1), (1, 1, MOST_BLOCKS + 1), (2**31,)])
def test_a_launch_that_no_gpu_can_make_is_too_large(grid):
    assert is_out_of_memory(caught(lambda: refuse_too_many(grid)))


def test_sizes_that_kernels_cannot_count_are_too_large():
    assert is_out_of_memory(caught(lambda: refuse_too_many((1,), (4_000_000 * 32 * 32,))))
    refuse_too_many((2**31 - 1, MOST_BLOCKS, MOST_BLOCKS), (2**31 - 1, None, torch.zeros(1), 1e30))
