"""Tensors of files: read without trust, compared with what they are for, checked for numbers that are not finite."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ddpm_ip.errors import CheckpointError
from ddpm_ip.plain import reason
from ddpm_ip.run.header import LARGEST_HEADER

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
POINTER = b"version https://git-lfs"  # how the text begins that git leaves in place of a large file
LEFT_OUT = "is a pointer of git LFS and not the file itself: fetch that with `git lfs pull`, or download it by hand"
KINDS = (*FLOATS, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)  # of numbers in a state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name, on the CPU.

    Raises:
        CheckpointError: it is absent, damaged, or something else.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
        if start == POINTER:
            raise CheckpointError(f"{path} {LEFT_OUT}")
        header = int.from_bytes(start[:8], "little")
        if header > LARGEST_HEADER:
            raise ValueError(f"its header has {header} bytes, which none of a network has")
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if tensor.dtype not in KINDS:
                raise ValueError(f"{name} has dtype {_name(tensor.dtype)}, which no state has")
        return tensors
    except CheckpointError:
        raise
    except Exception as error:  # whatever bytes that anybody may have written make the reader raise
        raise CheckpointError(f"{path} is damaged: {reason(error) or type(error).__name__}") from None


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds an infinity or a NaN, None if there is none.

    One pass over the numbers, and one wait for a GPU. Whole numbers are always finite.

    Args:
        tensors: by name, of any shapes, on any devices.
    """
    by_device: defaultdict[torch.device, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        if tensor.dtype in FLOATS and tensor.numel():
            extremes = torch.stack(torch.aminmax(tensor.detach()))  # a NaN is both
            by_device[tensor.device][name] = extremes.isfinite().all()
    for flags in by_device.values():
        fine = torch.stack(list(flags.values())).tolist()
        if not all(fine):
            return list(flags)[fine.index(False)]
    return None


def refuse_not_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuses numbers that are not finite, which nothing can be made of.

    Args:
        tensors: of a file.
        path: the file.

    Raises:
        CheckpointError: one of them is infinite or no number; says which.
    """
    if (name := first_not_finite(tensors)) is not None:
        raise CheckpointError(
            f"{path} holds numbers that are not finite (in {name}), as a run that diverges computes them: give an "
            "earlier checkpoint, or train again with a lower train.optim.lr"
        )


def mismatches(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """How tensors differ from those that they are to be copied to, in words; nothing if they fit.

    Names and shapes must be the same. Floating-point numbers may be narrower, since their values are then kept.
    """
    wrong = [f"{k} is missing" for k in own.keys() - found.keys()]
    wrong += [f"{k} is not part of it" for k in found.keys() - own.keys()]
    for k in own.keys() & found.keys():
        mine, theirs = own[k], found[k]
        if mine.shape != theirs.shape:
            wrong.append(f"{k} has shape {tuple(theirs.shape)} instead of {tuple(mine.shape)}")
        elif not _keeps_values(theirs.dtype, mine.dtype):
            wrong.append(f"{k} has dtype {_name(theirs.dtype)} instead of {_name(mine.dtype)}")
    return sorted(wrong)


def some(wrong: list[str], most: int = 5) -> str:
    """The first few of what is wrong, each on a line of its own."""
    more = [f"and {len(wrong) - most} more"] if len(wrong) > most else []
    return "\n".join(f"  {line}" for line in wrong[:most] + more)


def is_number(value: object, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether a plain value is a finite number, no truth value, in [low, high]."""
    return type(value) in (int, float) and math.isfinite(value) and low <= value <= high  # type: ignore[arg-type, operator]


def _keeps_values(dtype: torch.dtype, into: torch.dtype) -> bool:
    if dtype in FLOATS and into in FLOATS:
        return torch.promote_types(dtype, into) == into
    return dtype == into


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
