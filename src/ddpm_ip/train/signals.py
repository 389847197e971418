"""Being asked to stop: finish the step, save, leave."""

from __future__ import annotations

import signal
from types import FrameType

import torch
from accelerate import Accelerator

# With several processes the question "was anyone asked to stop?" is put only so often: it makes the hosts wait for
# each other (not the GPUs).
ASK_EVERY = 10


class StopRequest:
    """While entered, SIGTERM and SIGINT (Ctrl-C) only set :attr:`signal`; a second SIGINT stops at once."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.signal: int | None = None
        self._world = accelerator.num_processes
        self._group = torch.distributed.new_group(backend="gloo") if self._world > 1 else None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: whoever runs us there handles signals
                break
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

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
