"""A stand-in for a device without float64: its tensors lie on the CPU, but nobody is told.

PyTorch takes them for tensors of a device of type :data:`NAME`. As on a GPU, what is computed together must be there
together, and as on Apple's no tensor of float64 can be there: not made, not converted to, not moved. Numbers are the
CPU's, to the bit. Only where this is entered is there such a device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from sys import modules
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ddpm_ip import precise

NAME = "lazy"  # of PyTorch's types of device one whose backward pass is run by the thread that asks for it
DEVICE = torch.device(NAME)
WIDE = (torch.float64, torch.complex128)
aten = torch.ops.aten
# What may mix devices: copies, and indices, which PyTorch takes from the CPU.
MIXED = {aten.copy_.default, aten._to_copy.default, aten.index.Tensor, aten.index_put_.default}


class There(Tensor):
    """A tensor of the stand-in; ``held`` is where its numbers are."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        like: dict[str, Any] = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made: There = Tensor._make_wrapper_subclass(cls, held.size(), dtype=held.dtype, device=DEVICE, **like)
        return made

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def tolist(self) -> Any:
        return self.cpu().tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operation gives, on the stand-in if its tensors are there, or if it is asked for there."""
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there, wanted = [x for x in given if isinstance(x, There)], kwargs.get("device")
    if wanted is not None:
        goes_there = torch.device(wanted).type == NAME
    else:
        goes_there = isinstance(args[0], There) if func is aten.copy_.default else bool(there)
    if not there and not goes_there:
        return func(*args, **kwargs)
    if there and func not in MIXED and any(x.ndim and not isinstance(x, There) for x in given):
        raise RuntimeError(f"{func}: tensors of two devices")
    if goes_there and wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu"), **({"pin_memory": False} if "pin_memory" in kwargs else {})}
    known = {id(x.held): x for x in there}

    def placed(x: Any) -> Any:
        if not goes_there or not isinstance(x, Tensor):
            return x
        if x.dtype in WIDE:
            raise TypeError(f"{func}: there is no {x.dtype} on this device")
        return known[id(x)] if id(x) in known else There(x)

    args, kwargs = tree_map(lambda x: x.held if isinstance(x, There) else x, (args, kwargs))
    return tree_map(placed, func(*args, **kwargs))


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class _Made(TorchFunctionMode):
    """``torch.tensor`` on a device is a tensor of the CPU that is moved, as it is for other devices within PyTorch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


@contextmanager
def standing_in() -> Iterator[torch.device]:
    """While entered there is such a device, and the engine takes it."""
    optimizers: Any = modules[torch.optim.Optimizer.__module__]
    fused = optimizers._get_fused_kernels_supported_devices()
    with pytest.MonkeyPatch.context() as patch, _Operations(), _Made():
        patch.setattr(precise, "WITHOUT_FLOAT64", {NAME})
        patch.setattr(PartialState, "set_device", lambda self: setattr(self, "device", DEVICE))
        patch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: [*fused, NAME])
        AcceleratorState._reset_state(True)
        try:
            yield DEVICE
        finally:
            AcceleratorState._reset_state(True)
