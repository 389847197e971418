"""The training step as one CUDA graph: the same arithmetic as :class:`ddpm_ip.train.step.TrainStep`, without Python.

A step reads everything that changes from tensors that stay where they are: its number, the learning rate, the
weights of the averages, the images and their labels.
The graph of one step can then be replayed for every other. The network runs as a
:class:`ddpm_ip.nn.fused.operations.Shadow` of the float32 parameters, which the optimizer works on.

Several processes share the gradients by one all-reduce inside the graph.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from ddpm_ip.config import Config
from ddpm_ip.draws import Draws
from ddpm_ip.errors import FastPathError
from ddpm_ip.nn.fused.launch import compile_together
from ddpm_ip.nn.fused.operations import Shadow
from ddpm_ip.times import Observer
from ddpm_ip.train.feed import Feed
from ddpm_ip.train.state import TrainState
from ddpm_ip.train.step import learning_rate, own_rows


class CapturedStep:
    """Loss, gradients, clipping, optimizer, average, replayed.

    Making one takes the time to compile the kernels (once a machine; Triton keeps them), and leaves the state as it
    was.

    Args:
        config: the run's.
        accelerator: device, processes and precision ("no" or "bf16").
        feed: the images.
        state: what a step changes; it and everything else that the graph reads is held on to.

    Raises:
        FastPathError: the recorded step does not give what the same step gave before.
    """

    def __init__(self, config: Config, accelerator: Accelerator, feed: Feed, state: TrainState) -> None:
        device = accelerator.device
        self.config, self.state, self.feed = config, state, feed
        self._world = accelerator.num_processes
        rows = own_rows(config, accelerator)
        self._rows = torch.arange(rows.start, rows.stop, device=device)
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._learning_rate = torch.zeros((), device=device)
        # Of each average; None where it is a constant.
        self._weights = [torch.zeros((), device=device) if average.varies else None for average in state.averages]
        self._batch = feed.stage(state.step).empty_like()
        self._shadow = Shadow(state.network, compute_type(accelerator))
        self._shadow.module.train()
        self._denoiser, self._objective = config.denoiser(self._shadow), config.objective(state.times)
        self._parameters = [p for p, _ in self._shadow.pairs if p.requires_grad]
        self._flat = torch.zeros(sum(p.numel() for p in self._parameters), device=device)
        self._gradients = _views(self._flat, self._parameters)
        for group in state.optimizer.param_groups:
            group.update(lr=self._learning_rate, capturable=True)
        self._graph, self._loss, self._norm = self._capture()

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Takes the next step; returns this process's mean loss and the gradient norm, on the device."""
        self._set_inputs()
        self._graph.replay()
        self.state.step += 1
        return self._loss, self._norm

    def _set_inputs(self) -> None:
        step = self.state.step
        self._batch.copy_(self.feed.stage(step))
        self._step.fill_(step)
        self._learning_rate.fill_(_float32(learning_rate(self.config, step)))
        for average, weight in zip(self.state.averages, self._weights, strict=True):
            if weight is not None:
                weight.fill_(average.weight(step))

    def _work(self) -> tuple[Tensor, Tensor]:
        """One step, in device work only."""
        t, rows = self.config.train, len(self._rows)
        loss, seen = torch.zeros((), device=self._rows.device), []
        size = t.micro_batch or rows
        for start in range(0, rows, size):
            chunk = slice(start, start + size)
            draws = Draws(self.config.seed, self._step, self._rows[chunk])
            self._shadow.masks.keys = draws.keys()
            some = self._batch.rows(chunk)
            losses = self._objective(self._denoiser, self.feed.x0(some.pixels, draws), draws, some.cond)
            part = losses.per_sample.sum() / rows
            part.backward()
            self._collect(add=start > 0)
            seen.append((losses.t, losses.unweighted.detach()))
            loss += part.detach()
        if self._world > 1:
            torch.distributed.all_reduce(self._flat, op=torch.distributed.ReduceOp.AVG)
        norm = torch.linalg.vector_norm(self._flat)
        if t.clip_grad_norm is not None:
            self._flat *= (t.clip_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        self.state.optimizer.step()
        for parameter in self._parameters:
            parameter.grad = None
        for average, weight in zip(self.state.averages, self._weights, strict=True):
            average.update(self.state.network, weight)
        self._shadow.refresh()
        if isinstance(self.state.times, Observer):
            times, each = (self._of_all(torch.cat(some)) for some in zip(*seen, strict=True))
            self.state.times.observe(times, each)
        return loss, norm

    def _of_all(self, mine: Tensor) -> Tensor:
        """The values of all processes, in order, of as many of each (B,)."""
        if self._world == 1:
            return mine
        everyone = mine.new_empty(self._world * len(mine))
        torch.distributed.all_gather_into_tensor(everyone, mine)
        return everyone

    def _collect(self, add: bool) -> None:
        """Moves the gradients of the parameters that were run into one float32 vector."""
        for dtype in {run.dtype for _, run in self._shadow.pairs}:
            chosen = [
                (gradient, run)
                for gradient, (parameter, run) in zip(self._gradients, self._run_parameters(), strict=True)
                if run.dtype == dtype
            ]
            into, new = [g for g, _ in chosen], [run.grad for _, run in chosen if run.grad is not None]
            if add:
                torch._foreach_add_(into, [n.float() for n in new])
            else:
                torch._foreach_copy_(into, new)
        for _, run in self._shadow.pairs:
            run.grad = None

    def _run_parameters(self) -> list[tuple[Tensor, Tensor]]:
        return [(p, run) for p, run in self._shadow.pairs if p.requires_grad]

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        """Runs the step until everything is compiled and chosen, records it, and puts the state back."""
        before = {name: t.clone() for name, t in self._changing().items()}
        self._set_inputs()
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                compile_together(self._work)
                self._put_back(before)
                for _ in range(2):
                    expected = torch.stack(self._work())
                    self._put_back(before)
            torch.cuda.current_stream().wait_stream(stream)
            # NCCL's watchdog asks for events meanwhile, which only the mode "thread_local" lets other threads do.
            mode = "thread_local" if self._world > 1 else "global"
            with torch.cuda.graph(graph, stream=stream, capture_error_mode=mode):
                loss, norm = self._work()
            graph.replay()
            replayed = torch.stack((loss, norm))
        finally:
            self._put_back(before)
        if not torch.allclose(expected, replayed, rtol=1e-2):
            raise FastPathError(
                f"the captured step does not give what the same step gave before (loss, gradient norm "
                f"{expected.tolist()}, then {replayed.tolist()}): train with --train.fast off, and please report it"
            )
        return graph, loss, norm

    def _changing(self) -> dict[tuple[str, str], Tensor]:
        """Everything that a step changes, by part of the state and name."""
        return {(part, name): t for part, named in self.state.tensors().items() for name, t in named.items()}

    @torch.no_grad()
    def _put_back(self, before: dict[tuple[str, str], Tensor]) -> None:
        for name, tensor in self._changing().items():
            if name in before:
                tensor.copy_(before[name])
            else:  # Adam made its moments just now; they begin at zero
                tensor.zero_()
        for parameter in self._parameters:
            parameter.grad = None
        self._shadow.refresh()


def compute_type(accelerator: Accelerator) -> torch.dtype:
    """What the matrix arithmetic of the fast path works in."""
    return torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32


def _views(flat: Tensor, parameters: list[torch.nn.Parameter]) -> list[Tensor]:
    """One vector seen as tensors that lie in memory as the parameters do."""
    sizes = [p.numel() for p in parameters]
    return [
        part.as_strided(p.shape, p.stride(), part.storage_offset())
        for part, p in zip(flat.split(sizes), parameters, strict=True)
    ]


def _float32(value: float) -> float:
    """A number as float32 has it: too large a one is infinite, where ``fill_`` would refuse it."""
    return float(torch.tensor(value, dtype=torch.float32))
