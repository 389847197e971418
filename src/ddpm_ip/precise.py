"""Float64 for any device: where it has none, as Apple's GPUs (mps), on the CPU.

What is summed over many images, and what numbers of 52 bits decide, needs float64. A device that has it does this work
itself, so that nothing waits for it; the work of another is handed to the CPU, with the same numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

WITHOUT_FLOAT64 = {"mps"}  # types of device; PyTorch raises TypeError there


def place(device: torch.device) -> torch.device:
    """Where float64 is at hand for what a device computes: the device, or the CPU."""
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


def precise(x: Tensor) -> Tensor:
    """``x`` in float64, at the :func:`place` of its device."""
    return x.to(place(x.device)).double()
