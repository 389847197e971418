"""A device without float64 trains, samples, measures and judges, and its numbers are those of the CPU."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.sampler.test_everything import IMAGES, SHAPE, combination
from tests.standin import DEVICE, There, standing_in
from tests.tiny import FILES, run, step_folder, tree
from torch import Tensor, nn

from ddpm_ip.cli import main
from ddpm_ip.config import from_dict
from ddpm_ip.denoiser import Denoiser
from ddpm_ip.errors import ConfigError
from ddpm_ip.nn.network import Cond
from ddpm_ip.precise import place, precise
from ddpm_ip.sample import optimised
from ddpm_ip.sampler import slerp, walk

CASES: dict[str, dict[str, Any]] = {
    "plain": {"train": {"eval": {"every": 2, "n_samples": 16, "steps": 2}, "sample_freq": 2, "flip": True}},
    "every strength": {
        "perturbation": {"gamma": [0.1, 0.3], "until": 4, "anneal": "linear", "random": True, "probability": 0.7},
        "train": {"times": {"name": "loss_second_moment", "history": 1, "uniform_prob": 1.0}, "micro_batch": 4},
        "diffusion": {"total_steps": 2},
    },
    "consistent": {
        "perturbation": {"gamma": 0.2, "until": 1, "target": "consistent"},
        "train": {"times": {"name": "lognormal"}, "weighting": {"name": "min_snr"}},
        "diffusion": {"objective": "pred_v", "var_type": "learned_range"},
        "classes": {"count": 10, "dropout": 0.3},
    },
}


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return {**base, **{k: {**base.get(k, {}), **v} for k, v in more.items()}}


@pytest.mark.parametrize("case", CASES)
def test_a_run_there_has_the_checkpoint_of_one_on_the_cpu(case: str, tmp_path: Path) -> None:
    """But for rounding. (PyTorch draws dropout masks in another way for each type of device, so there is none.)"""
    small = {"dropout": 0.0, **({} if case == "plain" else {"dim_mults": [1], "use_attn": [False]})}
    config = from_dict(merged(tree(small, n_steps=2, save_freq=2, print_freq=9), CASES[case]))
    run(config, tmp_path / "cpu")
    with standing_in():
        run(config, tmp_path / "there")
    folders = [step_folder(tmp_path / where, 2) for where in ("cpu", "there")]
    for file in FILES[:3]:
        wanted, found = (load_file(folder / file) for folder in folders)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


class Net(nn.Module):
    """A network of no parameter, whose output has the variance's channels if those are learned."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        far = 0.0 if cond is None or cond.labels is None else 0.01 * cond.labels.reshape(-1, 1, 1, 1)
        return (torch.sin(x) + far).repeat(1, self.channels, 1, 1)


def states(batch: int, number: int, device: torch.device) -> list[list[Any]] | None:
    """Of a combination of sampler, corrections and spacing all states; None where it is refused."""
    asked = combination(batch, number)
    try:
        sampling = asked.sampling()
        asked.check(sampling)
        plan = sampling.plan(asked.schedule)
    except (ConfigError, ValueError):
        return None
    indices = torch.arange(IMAGES, device=device)
    labels = sampling.labels(indices, asked.classes)
    net, cond = Net(1 + asked.learned_variance), None if labels is None else Cond(labels)
    denoiser = Denoiser(net, asked.schedule, asked.prediction_type, asked.learned_variance, cond=cond)
    walked = walk(plan, denoiser, 3, indices, SHAPE, sampling.all_corrections())
    return [state.xt.tolist() for state in walked]


@pytest.mark.large
@pytest.mark.parametrize("batch", range(20))
def test_every_walk_there_is_that_on_the_cpu(batch: int) -> None:
    wanted = [states(batch, number, torch.device("cpu")) for number in range(20)]
    with standing_in() as device:
        assert [states(batch, number, device) for number in range(20)] == wanted


def test_commands_there_sample_measure_and_judge(trained: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(optimised, "POINTS", 4)
    weights = shutil.copytree(trained, tmp_path / "run")  # beside which measurements are kept
    sample = ["sample", "--weights", weights, "--n_samples", "4", "--steps", "2", "--batch_size", "2"]
    steps = ["--weights", weights, "--sampler", "ddim", "--steps", "2"]
    commands = [
        [*sample, "--save_dir", "there"],
        ["exposure", *steps, "--n", "20", "--batch_size", "20", "--measure", "eps_norm", "delta", "errors", "energy"],
        ["calibrate", *steps, "--n", "10", "--batch_size", "10"],
        ["times", "--weights", weights, "--steps", "2", "--n", "2"],
        ["evaluate", "there", "--reference", "digits", "--extractor", "pixels", "--metrics", "fid", "prc"],
    ]
    with standing_in():
        assert [main([*map(str, words)]) for words in commands] == [0] * len(commands)
    assert main([*map(str, sample), "--save_dir", "cpu"]) == 0
    pictures = [sorted((tmp_path / where).glob("*.png")) for where in ("cpu", "there")]
    assert len(pictures[0]) >= 4
    assert [p.read_bytes() for p in pictures[0]] == [p.read_bytes() for p in pictures[1]]


def test_what_is_precise_there_is_done_on_the_cpu() -> None:
    a = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    wanted = slerp(a[:1], a[1:], 0.3)
    with standing_in() as device:
        there = a.to(device)
        assert isinstance(there, There)
        assert place(device).type == "cpu"
        assert precise(there).dtype == torch.float64
        assert type(precise(there)) is Tensor
        assert slerp(there[:1], there[1:], 0.3).tolist() == wanted.tolist()
    assert place(torch.device("cpu")) == torch.device("cpu")
    assert place(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert place(torch.device("mps")) == torch.device("cpu")


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2, dtype=torch.float64, device=DEVICE),
        lambda: torch.tensor([1.0], dtype=torch.float64, device=DEVICE),
        lambda: torch.ones(2, device=DEVICE).double(),
        lambda: torch.ones(2, dtype=torch.float64).to(DEVICE),
        lambda: torch.ones(2, device=DEVICE) * torch.tensor(1.0, dtype=torch.float64).to(DEVICE),
        lambda: torch.ones(2, device=DEVICE) + torch.ones(2),
    ],
)
def test_the_stand_in_refuses_float64_and_tensors_of_two_devices(make: Any) -> None:
    with standing_in(), pytest.raises((TypeError, RuntimeError), match=r"no torch.float64|two devices"):
        make()
