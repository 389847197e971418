"""One optimizer step, in one place."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ddpm_ip.config import Config
from ddpm_ip.draws import Draws, dropout_seed
from ddpm_ip.nn.network import Cond
from ddpm_ip.times import Observer
from ddpm_ip.train.diverged import check_finite
from ddpm_ip.train.feed import Batch, Feed
from ddpm_ip.train.state import TrainState


@dataclass(frozen=True)
class TrainStep:
    """Loss, gradients, clipping, optimizer, average.

    Args:
        config: the run's.
        accelerator: device, processes and precision.
        network: the network as Accelerate wrapped it (DDP, autocast).
        optimizer: the optimizer as Accelerate wrapped it (gradient scaling).
        feed: the images.
        state: what a step changes.
    """

    config: Config
    accelerator: Accelerator
    network: nn.Module
    optimizer: torch.optim.Optimizer
    feed: Feed
    state: TrainState

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Takes the next step; returns this process's mean loss and the gradient norm, on the device."""
        config, state = self.config, self.state
        torch.manual_seed(dropout_seed(config.seed, state.step, self.accelerator.process_index))
        denoiser, objective = config.denoiser(self.network), config.objective(state.times)
        device, rows = self.accelerator.device, own_rows(config, self.accelerator)
        batch, seen = self.feed.stage(state.step), []
        loss = torch.zeros((), device=device)
        size = config.train.micro_batch or len(rows)
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            draws = Draws(config.seed, state.step, torch.arange(chunk.start, chunk.stop, device=device))
            last = chunk.stop == rows.stop
            with nullcontext() if last else self.accelerator.no_sync(self.network):
                some = batch.rows(slice(start, start + size))
                losses = objective(denoiser, self.feed.x0(some.pixels, draws), draws, condition(config, some, draws))
                part = losses.per_sample.sum() / len(rows)
                self.accelerator.backward(part)
            seen.append((losses.t, losses.unweighted.detach()))
            loss += part.detach()
        norm = self._clip()
        if not loss.is_cuda:  # a look costs nothing on the CPU; a GPU is looked at when a line is logged
            check_finite(loss, norm if state.scaler is None else loss, state.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, state.step)
        if self._optimize():
            for average in state.averages:
                average.update(state.network, average.weight(state.step))
        if isinstance(state.times, Observer):
            times, each = (self.accelerator.gather(torch.cat(some)) for some in zip(*seen, strict=True))
            state.times.observe(times, each)
        state.step += 1
        return loss, norm

    def _optimize(self) -> bool:
        """Whether the optimizer's step was taken: fp16's scaler skips one whose gradients overflow.

        Accelerate does not notice that of a fused optimizer, which is called and does nothing.
        """
        scaler = self.state.scaler
        before = 0.0 if scaler is None else scaler.get_scale()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return scaler is None or scaler.get_scale() >= before

    def _clip(self) -> Tensor:
        limit = self.config.train.clip_grad_norm
        norm = self.accelerator.clip_grad_norm_(self.state.network.parameters(), limit or float("inf"))
        return torch.as_tensor(norm, device=self.accelerator.device).detach()


def condition(config: Config, batch: Batch, draws: Draws) -> Cond | None:
    """What the network is told about images: their labels, some of them hidden; None if it is unconditional.

    Ho & Salimans 2022 (arXiv 2207.12598, algorithm 1). Looks at nothing on the host, so it can be part of a CUDA graph.

    Args:
        config: the run's.
        batch: some rows of a step.
        draws: of the same rows.
    """
    if config.classes is None or batch.labels is None:
        return None
    return Cond(draws.hidden(batch.labels, config.classes.dropout))


def own_rows(config: Config, accelerator: Accelerator) -> range:
    """This process's rows of the global batch."""
    size = config.train.batch_size // accelerator.num_processes
    return range(accelerator.process_index * size, (accelerator.process_index + 1) * size)


def at_once(config: Config, accelerator: Accelerator) -> int:
    """Images that a process puts through the network at once."""
    share = config.train.batch_size // int(accelerator.num_processes)
    return min(config.train.micro_batch or share, share)


def learning_rate(config: Config, step: int) -> float:
    """The learning rate of the step that follows ``step`` finished ones: a linear rise, times ``train.lr_schedule``."""
    t = config.train
    rising = t.optim.lr * min(1.0, (step + 1) / t.lr_warmup if t.lr_warmup else 1.0)
    return rising * t.lr_schedule.factor(step, t.lr_warmup, t.n_steps)
