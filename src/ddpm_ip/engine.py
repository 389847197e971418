"""Device, processes and precision: Accelerate, set up in one place for training and sampling."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import GradientAccumulationPlugin, gather_object

from ddpm_ip.apple import refused
from ddpm_ip.cores import main_memory, threads
from ddpm_ip.errors import ConfigError, UserError

T = TypeVar("T")

PRECISIONS = ("no", "fp16", "bf16")
_OTHER_ENGINES = {"DEEPSPEED": "DeepSpeed", "FSDP": "FSDP", "MEGATRON_LM": "Megatron-LM"}


def start_engine(mixed_precision: Literal["no", "fp16", "bf16"] | None, fast: bool = False) -> Accelerator:
    """An Accelerator for this process.

    On the CPU the processes of a machine share its cores evenly, unless ``OMP_NUM_THREADS`` says how many threads each
    has; see :mod:`ddpm_ip.cores`. From Accelerate's own configuration only the number of processes, the device and the
    precision are used; its accumulation of gradients and its compiler would change what a run computes without any
    record of it.

    Args:
        mixed_precision: None takes what the launcher says, else full precision.
        fast: if neither says anything, bf16 on a GPU that has it. (Launchers write "no" if nothing was said.)

    Raises:
        ConfigError: the launcher asks for something that is not available here; or this process computes in another
            precision already, and Accelerate allows only one.
    """
    said = _said() if mixed_precision is None else mixed_precision
    precision = "bf16" if mixed_precision is None and said == "no" and fast and has_bf16() else said
    _refuse_another(precision)
    with _launched():
        accelerator = Accelerator(
            mixed_precision=precision,
            cpu=_on_cpu(),
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # else the environment's
            dynamo_backend="no",
        )
    _share_cores(accelerator.device)
    return accelerator


def start_device() -> torch.device:
    """The device of this process, for work in which no precision is chosen: a later engine may have any."""
    with _launched():
        device: torch.device = PartialState(cpu=_on_cpu()).device
    _share_cores(device)
    return device


def _said() -> str:
    """The precision that the launcher's configuration, or the environment, asks for."""
    said = os.environ.get("ACCELERATE_MIXED_PRECISION", "").strip().lower() or "no"
    if said not in PRECISIONS:
        raise ConfigError(
            f"ACCELERATE_MIXED_PRECISION, which the configuration of Accelerate sets, is {said:.80}: here it is one of "
            f"{', '.join(PRECISIONS)}. Run `accelerate config` again, or give --train.mixed_precision"
        )
    return said


@contextmanager
def _launched() -> Iterator[None]:
    """Turns what goes wrong with the environment of a launcher into an error for people."""
    for variable, name in _OTHER_ENGINES.items():
        if os.environ.get(f"ACCELERATE_USE_{variable}", "").lower() in ("true", "1", "yes"):
            raise ConfigError(
                f"the configuration of Accelerate asks for {name} (ACCELERATE_USE_{variable}), which is not used here: "
                "choose plain processes in `accelerate config`, or launch with torchrun"
            )
    try:
        yield
    except (ValueError, ImportError, torch.distributed.DistError) as error:
        raise ConfigError(
            f"the processes cannot be started as the environment says: {in_one_line(error)}. Look at the variables "
            "WORLD_SIZE, RANK, MASTER_ADDR and ACCELERATE_..., which launchers set, and at `accelerate config`"
        ) from error


def _refuse_another(precision: str) -> None:
    now = AcceleratorState().mixed_precision if is_initialized() else precision
    if now != precision:
        raise ConfigError(
            f"this process computes in mixed_precision {now} since its first run or samples, and {precision} is asked "
            f"for now: restart it (in a notebook, the kernel), or set train.mixed_precision: {now}"
        )


def _on_cpu() -> bool:
    """Whether Accelerate must be told that the CPU is meant: to join processes there, or to leave a GPU alone."""
    apple = torch.backends.mps.is_available()  # whose tensors no backend takes from process to process
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return (several and (apple or not torch.accelerator.is_available())) or refused()


def _share_cores(device: torch.device) -> None:
    if device.type == "cpu":
        torch.set_num_threads(threads())


def refuse_too_much(device: torch.device, needed: int) -> None:
    """Fails before the work begins if it would certainly fail on the way.

    (A system that promises more memory than it has kills the process when that memory is used.)

    Args:
        device: that computes.
        needed: bytes that are in use at one time, at least.

    Raises:
        MemoryError: the device does not have that many.
    """
    there = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else main_memory()
    if there is not None and needed > there:
        raise MemoryError(f"it takes at least {needed / 1e9:,.0f} GB, and there are {there / 1e9:,.0f} GB")


def stop_engine() -> None:
    """Parts the processes at the end of a program, all together.

    If that is left to the end of the interpreter, Gloo's threads abort a process now and then, and the launcher reports
    a finished job as failed.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def has_bf16() -> bool:
    """Whether there is a GPU with bfloat16 units."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def why_not_fast(fast: Literal["auto", "off"], accelerator: Accelerator) -> str | None:
    """The reason why the fused kernels cannot be used here, or None if they can."""
    if fast == "off":
        return "train.fast is off"
    if accelerator.device.type != "cuda":
        return "it needs a CUDA GPU"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install triton"
    if not has_bf16():
        return "the GPU is older than compute capability 8.0"
    if accelerator.mixed_precision not in ("no", "bf16"):
        return f"mixed_precision {accelerator.mixed_precision} needs a loss scaler, which is not captured"
    return None


def in_turns(accelerator: Accelerator, prepare: Callable[[], T]) -> T:
    """What a call gives on each process: the main one makes it first, then the first of each other node, then the rest.

    What it downloads or decodes is then done once for each node, or once in all if the nodes share a disk, and the
    others find it.

    Raises:
        UserError: what the call raised here, or, in one sentence, what it raised on another process.
    """
    turn = 0 if accelerator.is_main_process else 1 if accelerator.is_local_main_process else 2
    made: list[T] = []
    failed: UserError | None = None
    for now in range(3):
        if now == turn:
            try:
                made.append(prepare())
            except UserError as error:
                failed = error
        accelerator.wait_for_everyone()
    elsewhere = agreed(accelerator, None if failed is None else f"process {accelerator.process_index}: {failed}")
    if failed is not None:
        raise failed
    if elsewhere is not None:
        raise ConfigError(elsewhere)
    return made[0]


def refuse_different(accelerator: Accelerator, what: str, said: str, content: object) -> None:
    """Refuses to work together on different things, as processes of nodes that do not share a folder may try to.

    Args:
        accelerator: the processes; all call this together.
        what: the thing, and where it was looked for.
        said: that of this process, in words.
        content: what it holds, as a JSON value; only its hash travels.

    Raises:
        ConfigError: another process has another one; on every process.
    """
    if accelerator.num_processes == 1:
        return
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    found: list[str] = gather_object([f"{said} ({digest[:8]})"])
    other = next((i for i, one in enumerate(found) if one != found[0]), None)
    if other is not None:
        raise ConfigError(
            f"the processes do not find the same {what}: process 0 has {found[0]}, process {other} has {found[other]}. "
            "On several nodes it must be on a file system that all of them share, or be copied to each"
        )


def from_main(accelerator: Accelerator, value: T) -> T:
    """The main process's value, on every process."""
    box = [value]
    if accelerator.num_processes > 1:
        torch.distributed.broadcast_object_list(box)
    return box[0]


def slowest(accelerator: Accelerator, *seconds: float) -> list[float]:
    """The longest over all processes of each of some durations; waits for all processes."""
    everyone: list[tuple[float, ...]] = gather_object([seconds]) if accelerator.num_processes > 1 else [seconds]
    return [max(each) for each in zip(*everyone, strict=True)]


def agreed(accelerator: Accelerator, reason: str | None) -> str | None:
    """The first reason that any process has, or None: all take the same path."""
    reasons: list[str | None] = gather_object([reason]) if accelerator.num_processes > 1 else [reason]
    return next((r for r in reasons if r is not None), None)


def in_one_line(error: Exception) -> str:
    """An error as the reason of something else, without its line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
