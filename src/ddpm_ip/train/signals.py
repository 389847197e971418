"""Being asked to stop: finish the step, save, leave."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from types import FrameType

import torch
from accelerate import Accelerator

from ddpm_ip.signals import PREEMPTION, handled

# With several processes the question "was anyone asked to stop?" is put only so often: it makes the hosts wait for
# each other (not the GPUs).
ASK_EVERY = 10


class StopRequest:
    """While entered, SIGINT (Ctrl-C) and the signals of :data:`ddpm_ip.signals.PREEMPTION` only set :attr:`signal`.

    A second SIGINT stops at once.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.signal: int | None = None
        self._world = accelerator.num_processes
        self._group = torch.distributed.new_group(backend="gloo") if self._world > 1 else None
        self._handlers = ExitStack()

    def __enter__(self) -> StopRequest:
        self._handlers.enter_context(handled([*PREEMPTION, signal.SIGINT], self._note))
        return self

    def __exit__(self, *exc: object) -> None:
        self._handlers.close()

    def agreed(self, step: int) -> int | None:
        """The signal that makes all processes stop after this step, or None."""
        if self._group is None:
            return self.signal
        if step % ASK_EVERY:
            return None
        highest = torch.tensor([self.signal or 0])
        torch.distributed.all_reduce(highest, op=torch.distributed.ReduceOp.MAX, group=self._group)
        return int(highest) or None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.signal = number
