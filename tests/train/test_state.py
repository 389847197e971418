"""The state is its parts: what a checkpoint holds, and what comes back."""

from dataclasses import replace

import pytest
import torch
from tests.tiny import (
    ROOT,
    TORCHRUN,
    assert_same_state,
    finish,
    run,
    start,
    step_folder,
    tiny,
    weights,
    yaml_file,
)
from tests.train.parts import LossAware
from torch import nn

from ddpm_ip.config import from_dict
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import CheckpointError
from ddpm_ip.run import checkpoint
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.times import Uniform
from ddpm_ip.train.loop import build, fresh_state
from ddpm_ip.train.state import Moments, Part, Weights

LEGACY = ROOT / "tests/legacy/v0.1/run"


class Counter:
    """A part of one's own: counts, in a tensor."""

    def __init__(self):
        self.count = torch.zeros((), dtype=torch.int64)

    def tensors(self):
        return {"count": self.count}

    def load(self, tensors):
        if tensors:
            self.count.copy_(tensors["count"])


def state_of(config):
    return fresh_state(config, start_engine(None))


def test_the_parts_are_the_files_of_a_checkpoint(tmp_path):
    state = state_of(tiny())
    assert list(state.parts) == ["model", "ema", "optimizer"]
    assert all(isinstance(part, Part) for part in state.parts.values())
    saved = checkpoint.save(tmp_path, 1, state.tensors(), state.to_meta())
    assert checkpoint.read(saved).parts == ["model", "ema"], "an optimizer that has done nothing has no tensors"
    assert state.tensors()["model"].keys() == state.network.state_dict().keys()


def test_tensors_are_the_ones_that_a_step_changes():
    """Not copies: who holds them sees the step."""
    config = tiny()
    state, step = build(config, config.data.open(progress=False), start_engine(None))
    step()
    held = state.tensors()
    before = {(n, k): v.clone() for n, named in held.items() for k, v in named.items()}
    step()
    changed = {(n, k) for n, named in held.items() for k, v in named.items() if not torch.equal(v, before[n, k])}
    assert {("model", "conv_out.weight"), ("ema", "conv_out.weight"), ("optimizer", "0.step")} <= changed
    now = {(n, k): v for n, named in state.tensors().items() for k, v in named.items()}
    assert all(now[n, k].data_ptr() == v.data_ptr() for n, named in held.items() for k, v in named.items())


def test_a_part_of_ones_own_is_saved_and_comes_back(tmp_path):
    config = tiny()
    state, step = build(config, config.data.open(progress=False), start_engine(None))
    state.parts["counter"] = counter = Counter()
    step()
    counter.count += 3
    path = checkpoint.save(tmp_path, state.step, state.tensors(), state.to_meta())
    other = state_of(config)
    other.parts["counter"] = Counter()
    other.restore(checkpoint.read(path))
    assert int(other.parts["counter"].count) == 3
    for name, named in state.tensors().items():
        assert all(torch.equal(v, other.tensors()[name][k]) for k, v in named.items()), name
    counter.count += 1
    copies, _ = state.snapshot()
    counter.count += 1
    assert (int(copies["counter"]["count"]), int(counter.count)) == (4, 5)


def test_a_part_that_the_checkpoint_lacks_starts_from_scratch_and_a_network_does_not(tmp_path, caplog):
    state = state_of(tiny())
    state.parts["counter"] = Counter()
    tensors = {k: v for k, v in state.tensors().items() if k in ("model", "ema")}
    path = checkpoint.save(tmp_path, 4, tensors, {"sums": [0.0, 0.0], "count": 0})
    with caplog.at_level("INFO", "ddpm_ip.train"):
        state.restore(checkpoint.read(path))
    assert [w for w in caplog.messages if "starts from scratch" in w] == [
        f"{path} holds no optimizer: it starts from scratch",
        f"{path} holds no counter: it starts from scratch",
    ]
    del tensors["model"]
    path = checkpoint.save(tmp_path, 5, tensors, {"sums": [0.0, 0.0], "count": 0})
    with pytest.raises(CheckpointError, match=r"step00000005, model: the weights .* do not fit"):
        state.restore(checkpoint.read(path))


def test_moments_keep_the_layout_of_their_parameters():
    """NHWC, as a fresh optimizer makes them: else the next step would compute other bits."""
    network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    saved = {k: v.clone(memory_format=torch.contiguous_format) for k, v in Moments(optimizer).tensors().items()}
    assert not saved["0.exp_avg"].is_contiguous(memory_format=torch.channels_last)
    fresh = torch.optim.Adam(network.parameters())
    Moments(fresh).load(saved)
    for k, v in Moments(optimizer).tensors().items():
        assert torch.equal(Moments(fresh).tensors()[k], v)
        assert Moments(fresh).tensors()[k].stride() == v.stride()


def test_weights_of_another_network_are_refused():
    with pytest.raises(CheckpointError, match="do not fit the network"):
        Weights(nn.Linear(2, 3)).load(nn.Linear(2, 4).state_dict())


def test_a_run_of_version_0_1_is_restored_and_continues(tmp_path):
    """Names, shapes and values; a setting that it did not know is not called a changed one."""
    found = checkpoint.find(LEGACY)
    state = state_of(from_dict(found.meta["config"]))
    state.restore(found)
    assert state.step == 60
    for name in ("model", "ema", "optimizer"):
        old, new = weights(LEGACY, 60, name), state.tensors()[name]
        assert old.keys() == new.keys()
        assert all(torch.equal(v, new[k]) for k, v in old.items())
    config = from_dict(found.meta["config"])
    longer = replace(
        config, train=replace(config.train, n_steps=62, sample_freq=0, eval=replace(config.train.eval, every=0))
    )
    assert run(longer, tmp_path / "run", str(LEGACY)).step == 62
    assert not torch.equal(weights(tmp_path / "run", 62)["conv_in.weight"], weights(LEGACY, 60)["conv_in.weight"])
    text = RunFolder(tmp_path / "run").text_log.read_text()
    assert "changed setting, train.n_steps: 60 -> 62" in text
    assert "train.times" not in text
    assert "train.weighting" not in text
    assert "from scratch" not in text


def test_a_time_sampler_that_learns_and_is_not_saved_is_refused():
    class Forgetful:
        def draw(self, draws, total_steps):
            return Uniform().draw(draws, total_steps)

        def observe(self, t, loss):
            pass

    state = state_of(tiny())
    with pytest.raises(TypeError, match=r"Forgetful learns from the losses, but has no tensors\(\)"):
        replace(state, times=Forgetful())


def aware(model=None, **settings):
    config = tiny(model, **settings)
    return replace(config, train=replace(config.train, times=LossAware()))


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the variant is not in the union
def test_what_a_time_sampler_has_learned_is_part_of_the_run(tmp_path):
    """It has its file, a run that continues is the run that never stopped, and the times depend on it."""
    run(aware(n_steps=8), tmp_path / "straight")
    run(aware(n_steps=4), tmp_path / "run")
    run(aware(n_steps=8), tmp_path / "run", "latest")
    assert_same_state(tmp_path / "run", tmp_path / "straight", 8)
    learned = weights(tmp_path / "straight", 8, "times")["squares"]
    assert torch.equal(weights(tmp_path / "run", 8, "times")["squares"], learned)
    assert (learned != 1).sum() > 20
    run(tiny(n_steps=8), tmp_path / "uniform")
    assert not (step_folder(tmp_path / "uniform", 8) / "times.safetensors").exists()
    assert not torch.equal(
        weights(tmp_path / "uniform", 8)["conv_in.weight"], weights(tmp_path / "run", 8)["conv_in.weight"]
    )


WORKER = """
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from parts import LossAware

from ddpm_ip.config import load
from ddpm_ip.engine import stop_engine
from ddpm_ip.train.loop import train

config = load(sys.argv[2])
train(replace(config, train=replace(config.train, times=LossAware())), Path(sys.argv[3]))
stop_engine()
"""


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_time_sampler_learns_from_the_losses_of_all_processes(tmp_path):
    """Two processes have learned what one has."""
    settings = {"n_steps": 5, "save_freq": 5, "optim": {"lr": 1e-3, "eps": 1e-3}}
    still = {"dropout": 0.0}
    (tmp_path / "worker.py").write_text(WORKER)
    config = yaml_file(tmp_path, still, **settings)
    code, output = finish(start(*TORCHRUN, tmp_path / "worker.py", ROOT / "tests/train", config, tmp_path / "two"))
    assert code == 0, output
    run(aware(still, **settings), tmp_path / "one")
    one, two = (weights(tmp_path / name, 5, "times")["squares"] for name in ("one", "two"))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    assert (one != 1).sum() > 4 * 5, "more than one process can have seen"
