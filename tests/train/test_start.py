"""Several averages, those of power functions with snapshots, and schedules, in a run: saved, resumed, continued."""

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import Crash, contents, crash_at, numbers, run, step_folder, tiny, tree, two_processes, weights
from tests.train.parts import LossAware

from ddpm_ip.config import from_dict, merge
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import ConfigError
from ddpm_ip.settings import Wanted
from ddpm_ip.train import start
from ddpm_ip.train.loop import build

EVERYTHING = {
    "ema_decay": [0.9, 0.5, 0.99],
    "ema_power": [0.05, 0.2],
    "ema_snapshot_freq": 2,
    "ema_warmup": True,
    "lr_schedule": {"name": "cosine", "end": 0.1},
    "lr_warmup": 2,
    "n_steps": 8,
    "save_freq": 3,
    "optim": {"name": "adamw", "lr": 1e-2, "weight_decay": 0.01},
}


def everything(**settings):
    config = tiny(**EVERYTHING | settings)
    return replace(config, train=replace(config.train, times=LossAware()))


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_run_with_every_part_resumes_to_the_bit(tmp_path):
    """Killed between a snapshot and the next checkpoint: all files of both are those of a run that was not."""
    run(everything(), tmp_path / "straight")
    with pytest.raises(Crash):
        run(everything(), tmp_path / "killed", hooks=crash_at(5))
    run(everything(), tmp_path / "killed", "latest")
    assert (tmp_path / "killed/snapshots/superseded-step00000004").is_dir(), "made again from the checkpoint of step 3"
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "straight")
    parts = ["model", "ema", "optimizer", "ema_2", "ema_3", "power_1", "power_2", "times"]
    for name in parts:
        one, two = (weights(tmp_path / kind, 8, name) for kind in ("straight", "killed"))
        assert one
        assert all(torch.equal(value, two[key]) for key, value in one.items()), name
    for step in (2, 4, 6, 8):
        one, two = (tmp_path / kind / f"snapshots/step{step:08d}" for kind in ("straight", "killed"))
        assert sorted(contents(one)) == ["manifest.json", "meta.json", "power_1.safetensors", "power_2.safetensors"]
        for name in ("power_1.safetensors", "power_2.safetensors"):
            assert (one / name).read_bytes() == (two / name).read_bytes()
    at_the_end = weights(tmp_path / "straight", 8, "power_1")
    assert all(
        torch.equal(v, at_the_end[k])
        for k, v in load_file(tmp_path / "straight/snapshots/step00000008/power_1.safetensors").items()
    )


def test_further_averages_are_what_a_run_with_that_decay_alone_has(tmp_path):
    config = tiny(ema_decay=[0.9, 0.5], ema_power=[0.1])
    images = config.data.open(progress=False)
    states = [build(c, images, start_engine(None)) for c in (config, tiny(ema_decay=0.9), tiny(ema_decay=0.5))]
    seen = [[p.detach().double() for p in states[0][0].network.parameters()]]
    for _ in range(4):
        for _, step in states:
            step()
        seen.append([p.detach().double().clone() for p in states[0][0].network.parameters()])
    several, first, second = (state.tensors() for state, _ in states)
    assert all(torch.equal(v, first["ema"][k]) for k, v in several["ema"].items())
    assert all(torch.equal(v, second["ema"][k]) for k, v in several["ema_2"].items())
    gamma = next(a.gamma for a in states[0][0].averages if hasattr(a, "gamma"))
    for i, found in enumerate(
        states[0][0].more["power_1"].network.parameters()
    ):  # sum of (s/t)^(g+1) - ((s-1)/t)^(g+1)
        direct = sum(((s / 4) ** (gamma + 1) - ((s - 1) / 4) ** (gamma + 1)) * seen[s][i] for s in range(1, 5))
        torch.testing.assert_close(found.double(), direct, rtol=1e-5, atol=1e-7)


def test_an_average_that_joins_later_begins_with_the_network(tmp_path):
    run(tiny(n_steps=2), tmp_path)
    wanted = Wanted(options={"train.ema_decay": [0.9, 0.0], "train.n_steps": 4}, change=("train.ema_decay",))
    run(wanted, tmp_path, "latest")
    model, joined = weights(tmp_path, 4), weights(tmp_path, 4, "ema_2")
    assert all(torch.equal(v, joined[k]) for k, v in model.items()), "of decay 0 it is the network"
    assert weights(tmp_path, 4, "ema").keys() == joined.keys()


def test_averages_by_power_functions_end_but_neither_begin_nor_change(tmp_path):
    run(tiny(n_steps=2, ema_power=0.1), tmp_path)
    options = {"train.ema_power": [0.1, 0.2], "train.n_steps": 4}
    with pytest.raises(ConfigError, match=r"train\.ema_power cannot change at step 2.*--init-from"):
        run(Wanted(options=options, change=("train.ema_power",)), tmp_path, "latest")
    run(Wanted(options={**options, "train.ema_power": None}, change=("train.ema_power",)), tmp_path, "latest")
    assert not (step_folder(tmp_path, 4) / "power_1.safetensors").exists()
    with pytest.raises(ConfigError, match="cannot change at step 4"):
        run(Wanted(options={**options, "train.n_steps": 6}, change=("train.ema_power",)), tmp_path, "latest")


@pytest.mark.parametrize(("name", "warned"), [("cosine", True), ("linear", True), ("inverse_sqrt", False)])
def test_another_last_step_is_told_where_the_rate_falls_to_it(tmp_path, name, warned):
    run(tiny(n_steps=2, lr_schedule={"name": name}), tmp_path)
    run(Wanted(options={"train.n_steps": 4}), tmp_path, "latest")
    assert ("the learning rate falls until train.n_steps" in (tmp_path / "log.txt").read_text()) is warned
    meta = json.loads((step_folder(tmp_path, 4) / "meta.json").read_text())
    assert meta["history"][-1]["changes"] == ["train.n_steps: 2 -> 4"]


@pytest.mark.parametrize("reweigh", [False, True])
def test_importance_weights_that_leap_are_told_of_once(tmp_path, reweigh):
    config = merge(
        tree(n_steps=1, times={"name": "lognormal", "reweigh": reweigh}), {"diffusion.beta_schedule": "cosine"}
    )
    run(from_dict(config), tmp_path)
    assert (tmp_path / "log.txt").read_text().count("The loss will leap there") == reweigh


@pytest.mark.parametrize(("gamma", "told"), [(0.1, True), (0.0, False)])
def test_the_bound_alone_of_a_perturbed_input_is_told_to_be_another_method(tmp_path, gamma, told):
    run(from_dict(merge(tree(n_steps=1, loss="vlb"), {"perturbation.gamma": gamma})), tmp_path)
    assert ("this is not DDPM-IP" in (tmp_path / "log.txt").read_text()) is told


def test_a_full_disk_costs_a_snapshot_and_no_run(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/snapshots").write_text("a file where the folder should be")
    assert run(tiny(n_steps=2, ema_power=0.1), tmp_path / "run").step == 2
    assert "Training continues without this snapshot" in (tmp_path / "run/log.txt").read_text()


def test_old_settings_are_the_same_settings():
    """A number stays one in what is saved, and a list of one is that number."""
    plain = from_dict(tree())
    assert plain.to_dict()["train"]["ema_decay"] == 0.9
    assert from_dict(merge(tree(), {"train.ema_decay": [0.9]})) == plain
    assert from_dict(merge(tree(), {"train.ema_decay": [0.9, 0.5]})).to_dict()["train"]["ema_decay"] == [0.9, 0.5]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ema_decay": [0.9, 1.5]}, r"train\.ema_decay\.1: input should be less than 1"),
        ({"ema_decay": "high"}, r"train\.ema_decay: input should be a valid number"),
        ({"ema_decay": [0.9, 0.9]}, "ema_decay must name 1 to 16, and none twice"),
        ({"ema_decay": []}, "ema_decay must name 1 to 16"),
        ({"ema_power": [0.05, 0.3]}, r"train\.ema_power\.1: input should be less than or equal to 0\.288"),
        ({"lr_schedule": {"name": "cosine", "reference": 5}}, r"train\.lr_schedule\.reference: unknown key"),
        ({"lr_schedule": {"name": "step"}}, r"train\.lr_schedule\.name: unknown name 'step'"),
    ],
)
def test_what_cannot_be_is_told_by_its_key(settings, said):
    with pytest.raises(ConfigError, match=said):
        tiny(**settings)


def test_processes_that_would_start_from_different_checkpoints_do_not(tmp_path, monkeypatch):
    """As on nodes that do not share the folder of the run."""
    assert two_processes(lambda: run(tiny(n_steps=2, save_freq=1), tmp_path / "run")) == [0, 0]
    before = contents(tmp_path / "run")
    find = start.find_start
    nothing = lambda *given: None if os.environ["RANK"] == "1" else find(*given)  # noqa: E731
    monkeypatch.setattr(start, "find_start", nothing)

    def together():
        with pytest.raises(ConfigError, match=r"same run in .*process 0 has step 2 .*process 1 has no checkpoint"):
            run(tiny(n_steps=4, save_freq=1), tmp_path / "run", "latest")

    assert two_processes(together) == [0, 0]
    assert contents(tmp_path / "run") == before
