"""What each of several processes is given at each step, and the gradients that they make of it together."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import run
from torch import Tensor

from ddpm_ip.config import Config
from ddpm_ip.objective import Objective
from ddpm_ip.train.step import TrainStep


def train_and_record(config: Config, folder: Path, into: Path, resume: str | None = None) -> None:
    """Trains in this process, one of one or two, and writes clean images, times and noise of its rows of each step."""
    ordinary, clip = Objective.__call__, TrainStep._clip
    into.mkdir(exist_ok=True)

    def call(self, denoiser, x0, draws, cond=None):
        loss = ordinary(self, denoiser, x0, draws, cond)
        shape = x0.shape[1:]
        given = {"rows": draws.rows, "x0": x0, "t": loss.t, "eps": draws.eps(shape), "xi": draws.xi(shape)}
        first = int(draws.rows[0])
        save_file({k: v.detach().contiguous() for k, v in given.items()}, into / f"given-{draws.step:03d}-{first:03d}")
        return loss

    def clipped(self):
        if self.state.step == 0 and os.environ.get("RANK", "0") == "0":
            named = self.state.network.named_parameters()
            save_file({k: p.grad.clone().contiguous() for k, p in named}, into / "gradients")
        return clip(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Objective, "__call__", call)
        patch.setattr(TrainStep, "_clip", clipped)
        run(config, folder, resume)


def given(into: Path, step: int) -> dict[str, Tensor]:
    """What all rows of a step were given, in their order."""
    parts = [load_file(path) for path in sorted(into.glob(f"given-{step:03d}-*"))]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def gradients(into: Path) -> dict[str, Tensor]:
    """Of the first step, before they are clipped."""
    return load_file(into / "gradients")


def assert_same_given(a: Path, b: Path, steps: int, rows: int) -> None:
    """Every row of every step was given the same, bit for bit."""
    for step in range(steps):
        first, second = given(a, step), given(b, step)
        assert first["rows"].tolist() == second["rows"].tolist() == list(range(rows))
        assert [key for key in first if not torch.equal(first[key], second[key])] == [], step
