"""A trajectory whose step is one CUDA graph, replayed for every time: no Python and no waiting between the steps.

What changes from step to step, the time and its coefficients, is looked up on the device by the number of the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.sampler.ancestral import Ancestral, Coefficients
from ddpm_ip.sampler.state import State


class Replayed:
    """The same walk as :func:`ddpm_ip.sampler.trajectory`, for blocks of one size.

    It holds on to the denoiser, since a graph does not keep the weights alive that it reads.

    Args:
        sampler: the algorithm.
        denoiser: the model, without anything in it that waits for the device.
        times: the times to visit, falling.
        seed: of the random numbers.
        block: images that are made together.
        shape: (C, H, W).
        device: a CUDA device.
    """

    def __init__(
        self,
        sampler: Ancestral,
        denoiser: Denoiser,
        times: Sequence[int],
        seed: int,
        block: int,
        shape: Sequence[int],
        device: torch.device,
    ) -> None:
        self.sampler, self.denoiser, self.times, self.seed, self.shape = sampler, denoiser, times, seed, shape
        self._next = [*times[1:], -1]
        rows = [sampler.coefficients(denoiser.schedule, t, s) for t, s in zip(times, self._next, strict=True)]
        self._table = torch.tensor(rows, dtype=torch.float64).float().t().contiguous().to(device)  # (5, steps)
        self._times = torch.tensor(times, device=device)
        self._number = torch.zeros(1, dtype=torch.int64, device=device)
        self._indices = torch.arange(block, device=device)
        self._xt = torch.zeros(block, *shape, device=device)
        self._x0, self._output = torch.zeros_like(self._xt), torch.zeros_like(self._xt)
        self._graph = self._capture()

    def __call__(self, indices: Tensor) -> Iterator[State]:
        """Walks from noise to the images ``indices`` (block,); a state is overwritten when the next is asked for."""
        self._start(indices)
        yield State(self.times[0], self._xt, None)
        for s in self._next:
            self._graph.replay()
            yield State(s, self._xt, self._x0)

    def first_step(self) -> tuple[Tensor, Tensor, Tensor]:
        """The start of the first block: ``x_T`` (B, C, H, W), its times (B,), and what the network put out there."""
        self._start(torch.arange(len(self._indices), device=self._indices.device))
        xt = self._xt.clone()
        self._graph.replay()
        return xt, self._times[0].expand(len(xt)), self._output

    def _start(self, indices: Tensor) -> None:
        self._indices.copy_(indices)
        self._xt.copy_(Draws(self.seed, 0, self._indices).start(self.shape))
        self._number.zero_()

    @torch.no_grad()
    def _step(self) -> None:
        t = self._times.index_select(0, self._number)
        k = Coefficients(*self._table.index_select(1, self._number).unbind(0))
        prediction = self.denoiser(self._xt, t.expand(len(self._xt)))
        noise = Draws(self.seed, t, self._indices).noise(self.shape)
        xs, x0 = self.sampler.update(prediction, self._xt, k, noise)
        self._xt.copy_(xs)
        self._x0.copy_(x0)
        self._output.copy_(prediction.output)
        self._number += 1

    def _capture(self) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # compiles kernels and chooses algorithms, which cannot be done while recording
                self._start(self._indices)
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self._start(self._indices)
        with torch.cuda.graph(graph, stream=stream):
            self._step()
        return graph
