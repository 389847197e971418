"""Apple's GPUs (mps): whether the one that is here computes what is needed, and what PyTorch leaves to others there.

They have no float64, as PyTorch documents (:mod:`ddpm_ip.precise`). Random numbers, times and labels need products of
64 bits that wrap around, and a seed must mean the same everywhere; so this is tried, once a process. What PyTorch has
not written for them yet runs on the CPU, and PyTorch warns of it (``PYTORCH_ENABLE_MPS_FALLBACK``, which ``ddpm_ip``
sets).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from ddpm_ip.draws import Draws, Stream

log = logging.getLogger("ddpm_ip.apple")

NORMAL = 1e-4  # how far normal numbers may be from the CPU's: they are rounded elsewhere


@cache
def refused() -> bool:
    """Whether there is an Apple GPU that cannot be used; a line says why."""
    if not torch.backends.mps.is_available():
        return False
    if reason := fault(torch.device("mps")):
        log.warning("the Apple GPU is not used, and everything runs on the CPU: %s", reason)
    return reason is not None


def fault(device: torch.device) -> str | None:
    """What a device computes otherwise than the CPU, or not at all; None if nothing."""
    for what, compute in TRIED.items():
        try:
            wanted, found = compute(torch.device("cpu")), compute(device).cpu()
        except Exception as error:  # whatever a backend raises
            return f"{what}: {' '.join(f'{type(error).__name__}: {error}'.split())[:300]}"
        whole = not wanted.is_floating_point()
        if not (torch.equal(wanted, found) if whole else torch.allclose(wanted, found, atol=NORMAL)):
            return f"{what} come out otherwise than on the CPU (a newer macOS or PyTorch may cure that)"
    return None


def _words(device: torch.device) -> Tensor:
    rows = torch.tensor([0, 1, 2**31, 2**32 - 1], device=device)
    return Draws(2**63 + 12345, 2**31 + 7, rows).bits(Stream.EPS, 32)


def _normal(device: torch.device) -> Tensor:
    return Draws(1, 2, torch.arange(4, device=device)).normal(Stream.EPS, (64,))


def _labels(device: torch.device) -> Tensor:
    rows = Draws(3, 4, torch.arange(64, device=device))
    return torch.stack((rows.times(1000), rows.hidden(torch.arange(64, device=device), 0.5)))


def _gradients(device: torch.device) -> Tensor:
    """Of a convolution, a norm and an attention, after a step of the optimizer."""
    x = _normal(device).reshape(1, 4, 8, 8)
    weight = (_normal(device)[:, :36] / 8).reshape(4, 4, 3, 3).requires_grad_()
    y = torch.nn.functional.conv2d(x, weight, padding=1)
    y = torch.nn.functional.group_norm(torch.nn.functional.silu(y), 2).flatten(2).transpose(1, 2)
    y = torch.nn.functional.scaled_dot_product_attention(y, y, y)
    optimizer = torch.optim.Adam([weight], lr=1e-2, eps=1e-3, fused=True)
    y.square().mean().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return weight.detach()


TRIED: dict[str, Callable[[torch.device], Tensor]] = {
    "random words": _words,
    "normal numbers": _normal,
    "times and labels": _labels,
    "a training step's weights": _gradients,
}
