"""The state is its parts: what a checkpoint holds, and what comes back."""

import json
from collections import Counter as Counts
from dataclasses import replace
from random import Random

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import (
    ROOT,
    manifest_of,
    resign,
    run,
    tiny,
    two_processes,
    weights,
)
from tests.train.parts import History, LossAware
from torch import nn

from ddpm_ip.config import from_dict
from ddpm_ip.ema import EMA
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import CheckpointError
from ddpm_ip.run import checkpoint
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.tensors import first_not_finite
from ddpm_ip.times import Uniform
from ddpm_ip.train.loop import build, fresh_state, train
from ddpm_ip.train.state import Moments, Part, Sums, TrainState, Weights, _is_scaler

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


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_time_sampler_learns_from_the_losses_of_all_processes(tmp_path):
    """Two processes have learned what one has."""
    settings = {"n_steps": 5, "save_freq": 5, "optim": {"lr": 1e-3, "eps": 1e-3}}
    still = {"dropout": 0.0}
    assert two_processes(lambda: train(aware(still, **settings), tmp_path / "two")) == [0, 0]
    run(aware(still, **settings), tmp_path / "one")
    one, two = (weights(tmp_path / name, 5, "times")["squares"] for name in ("one", "two"))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    assert (one != 1).sum() > 4 * 5, "more than one process can have seen"


def trained_state(seed=0, scaler=False):
    """The state of a network of two numbers and a frozen one, with all that a state can have, after three steps."""
    torch.manual_seed(seed)
    network = nn.ModuleDict({"a": nn.Linear(2, 3), "still": nn.Linear(1, 1)}).requires_grad_(True)
    network["still"].requires_grad_(False)
    network.register_buffer("count", torch.tensor(seed))
    optimizer = torch.optim.Adam(network.parameters())
    times = History(torch.ones(4), 0.5)
    scale = torch.amp.GradScaler("cpu") if scaler else None
    state = TrainState(network, EMA(network, 0.9), optimizer, Sums.zero(torch.device("cpu")), scale, times)
    state.meta = {"config": {"seed": seed}, "data_fingerprint": "x"}
    for _ in range(3 if seed == 0 else 0):
        network["a"](torch.randn(4, 2)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        state.ema.update(network)
        times.observe(torch.tensor([1, 2]), torch.rand(2))
        state.sums.add(torch.tensor(0.25), torch.tensor(2.0))
        state.step += 1
    return state


def flat(state):
    return {(part, name): v.clone() for part, named in state.tensors().items() for name, v in named.items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(v, expected[k]) and v.dtype == expected[k].dtype for k, v in found.items())


def saved(folder, **how):
    state = trained_state(**how)
    return checkpoint.save(folder, state.step, state.tensors(), state.to_meta()), state


def change(path, part, edit):
    """Rewrites a part, and the manifest so that it fits."""
    tensors = load_file(path / f"{part}.safetensors")
    edit(tensors)
    save_file(tensors, path / f"{part}.safetensors")
    resign(path)


def change_meta(path, edit):
    meta = json.loads((path / "meta.json").read_text())
    edit(meta)
    (path / "meta.json").write_text(json.dumps(meta))
    resign(path)


def test_what_was_saved_comes_back_and_what_had_no_gradient_stays_without(tmp_path):
    path, state = saved(tmp_path, scaler=True)
    assert {"0.exp_avg", "2.unused", "3.unused"} <= state.tensors()["optimizer"].keys()
    other = trained_state(1, scaler=True)
    other.restore(checkpoint.read(path))
    assert_equal(flat(other), flat(state))
    assert other.to_meta() | {"config": 0} == state.to_meta() | {"config": 0}
    assert Moments(trained_state(1).optimizer).tensors() == {}
    frozen = list(other.network["still"].parameters())
    assert all(not other.optimizer.state[p] for p in frozen)


@pytest.mark.parametrize(
    ("part", "edit", "said"),
    [
        ("optimizer", lambda t: t.pop("0.exp_avg"), "0.exp_avg is missing"),
        ("optimizer", lambda t: t.pop("1.step"), "1.step is missing"),
        ("optimizer", lambda t: [t.pop(k) for k in list(t) if k.startswith("1.")], "1.exp_avg is missing"),
        ("optimizer", lambda t: t.pop("2.unused"), "2.step is missing"),
        ("optimizer", lambda t: t.update({"2.exp_avg": torch.zeros(1, 1)}), "2.exp_avg is not part of it"),
        ("optimizer", lambda t: t.update({"9.exp_avg": torch.zeros(1)}), "9.exp_avg is not part of it"),
        ("optimizer", lambda t: t.update({"0.max_exp_avg_sq": torch.zeros(3, 2)}), "is not part of it"),
        ("optimizer", lambda t: t.update({"-1.step": torch.zeros(())}), "is not part of it"),
        ("optimizer", lambda t: t.update({"00.step": t.pop("0.step")}), "0.step is missing"),
        ("optimizer", lambda t: t.update({"0.exp_avg": torch.zeros(2, 3)}), "0.exp_avg has shape"),
        ("optimizer", lambda t: t.update({"0.exp_avg": torch.zeros(3, 2, dtype=torch.int64)}), "dtype int64"),
        ("optimizer", lambda t: t.update({"0.exp_avg_sq": torch.zeros(3, 2, dtype=torch.bool)}), "dtype bool"),
        ("optimizer", lambda t: t.update({"0.exp_avg_sq": torch.full((3, 2), -1e-3)}), "exp_avg_sq is negative"),
        ("optimizer", lambda t: t.update({"0.step": torch.tensor(-1.0)}), "0.step is negative"),
        ("optimizer", lambda t: t.update({"0.step": torch.tensor([3.0])}), "0.step has shape"),
        ("optimizer", lambda t: t.update({"0.step": torch.tensor(3)}), "0.step has dtype int64"),
        ("model", lambda t: t.pop("a.bias"), "a.bias is missing"),
        ("model", lambda t: t.update({"b": torch.zeros(1)}), "b is not part of it"),
        ("model", lambda t: t.update({"a.bias": torch.zeros(0)}), r"a.bias has shape \(0,\) instead of \(3,\)"),
        ("model", lambda t: t.update({"count": torch.tensor(1.0)}), "count has dtype float32 instead of int64"),
        ("ema", lambda t: t.update({"a.weight": torch.zeros(3, 2, dtype=torch.int32)}), "a.weight has dtype int32"),
        ("times", lambda t: t.update({"squares": torch.zeros(5)}), "squares has shape"),
        ("times", lambda t: t.update({"more": torch.zeros(4)}), "more is not part of it"),
        ("times", lambda t: t.update({"cubes": t.pop("squares")}), "squares is missing"),
    ],
)
def test_a_consistent_but_forged_part_is_refused(tmp_path, part, edit, said):
    path, _ = saved(tmp_path)
    change(path, part, edit)
    with pytest.raises(CheckpointError, match=rf"step00000003, {part}: (.|\n)*{said}"):
        trained_state(1).restore(checkpoint.read(path))


@pytest.mark.parametrize("part", ["model", "ema", "optimizer", "times"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_forged_number_that_is_none_is_refused(tmp_path, part, bad):
    path, _ = saved(tmp_path)
    change(path, part, lambda t: next(v for k, v in t.items() if v.numel() and v.is_floating_point()).fill_(bad))
    with pytest.raises(CheckpointError, match=rf"{part}\.safetensors holds numbers that are not finite"):
        trained_state(1).restore(checkpoint.read(path))


def test_a_part_of_ones_own_that_raises_anything_is_a_checkpoint_error(tmp_path):
    class Odd(Counter):
        def load(self, tensors):
            raise ZeroDivisionError("odd")

    path, _ = saved(tmp_path)
    other = trained_state(1)
    other.parts["times"] = Odd()
    with pytest.raises(CheckpointError, match="step00000003, times: it is not what this run remembers"):
        other.restore(checkpoint.read(path))
    change(path, "times", lambda t: (t.clear(), t.update(count=torch.tensor(3))))
    with pytest.raises(CheckpointError, match=r"step00000003, times: it cannot be taken over \(ZeroDivisionError: odd"):
        other.restore(checkpoint.read(path))


SCALER = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 3}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("sums", [None, [], [1.0], [1.0, 2.0, 3.0], ["1", "2"], [True, 1.0], {"0": 1}, "ab", [1e400, 1.0], [[1.0], 2]]),
        ("sums", [[0.5, float("inf")], [float("nan"), 1.0], [10**400, 1.0], 3]),
        ("count", [None, -1, 4, 1.0, True, "1", [], 10**30, 10**400, float("nan")]),
        ("scaler", [[], 3, True, "x", {"scale": 1.0}, {**SCALER, "more": 1}, {**SCALER, "scale": 0.0}]),
        ("scaler", [{**SCALER, "scale": value} for value in (-1.0, 1e300, float("inf"), "1", None, True)]),
        ("scaler", [{**SCALER, "growth_interval": value} for value in (0, -1, 2.5, 2**40, None, True)]),
        ("scaler", [{**SCALER, "_growth_tracker": value} for value in (-1, 0.5, 10**12, [])]),
        ("scaler", [{**SCALER, "backoff_factor": 0}, {**SCALER, "backoff_factor": 2}, {**SCALER, "growth_factor": 0}]),
    ],
)  # fmt: skip
def test_numbers_that_no_run_has_written_are_refused(tmp_path, key, values):
    path, _ = saved(tmp_path)
    for scaler in (False, True):
        for value in values:
            change_meta(path, lambda meta, value=value: meta.update({key: value}))
            if (scaler, key) == (True, "scaler"):
                assert not _is_scaler(value)
            with pytest.raises(CheckpointError, match=rf"meta\.json has {key} that no run has written"):
                trained_state(1, scaler=scaler).restore(checkpoint.read(path))
    change_meta(path, lambda meta: meta.pop(key))
    if key != "scaler":
        with pytest.raises(CheckpointError, match=rf"meta\.json has {key} that no run has written"):
            trained_state(1).restore(checkpoint.read(path))


def test_a_step_that_the_scaler_skipped_has_an_infinite_norm_and_is_no_damage(tmp_path):
    state = trained_state(scaler=True)
    state.sums.add(torch.tensor(0.5), torch.tensor(float("inf")))
    state.step += 1
    path = checkpoint.save(tmp_path, state.step, state.tensors(), state.to_meta())
    other = trained_state(1, scaler=True)
    other.restore(checkpoint.read(path))
    assert other.sums.total.tolist() == [1.25, float("inf")]
    assert other.scaler.state_dict() == state.scaler.state_dict()


def mutated(random, data):
    """Other bytes, by one of the things that happen to files."""
    at, n = random.randrange(len(data) + 1), random.choice([1, 2, 8, 200])
    garbage = random.randbytes(n)
    return random.choice(
        [
            bytes(b ^ (1 << random.randrange(8)) if i == at else b for i, b in enumerate(data)),
            data[:at],
            data[at:],
            b"",
            data + garbage,
            data[:at] + garbage + data[at + n :],
            data[:at] + data[at + n :],
            b"\0" * len(data),
            data + data,
        ]
    )


def is_sane(state, expected):
    """Whether a state is one that a run may have: as many numbers, all finite."""
    found = flat(state)
    same = found.keys() == expected.keys() and all(v.shape == expected[k].shape for k, v in found.items())
    numbers = first_not_finite({str(k): v for k, v in found.items()}) is None and state.sums.total.isfinite().all()
    return same and numbers and 0 <= state.sums.count <= state.step == 3


@pytest.mark.parametrize("forged", [False, True], ids=["damaged", "forged"])
def test_whatever_is_done_to_a_checkpoint_it_is_read_rightly_or_refused(tmp_path, forged):
    """Every file, cut, flipped, emptied, removed or swapped for another; then with a manifest that fits."""
    random = Random(5)
    path, state = saved(tmp_path / "whole", scaler=True)
    expected, names = flat(state), sorted(p.name for p in path.iterdir())
    whole = {name: (path / name).read_bytes() for name in names}
    outcomes = Counts()
    for case in range(60 * len(names)):
        name, other = names[case % len(names)], random.choice(names)
        kind = random.choice(["change", "change", "change", "change", "remove", "swap"])
        files = dict(whole)
        if kind == "change":
            files[name] = mutated(random, whole[name])
        elif kind == "remove":
            del files[name]
        else:
            files[name], files[other] = whole[other], whole[name]
        if forged:
            files["manifest.json"] = manifest_of(files)
        for old in path.iterdir():
            old.unlink()
        for file, content in files.items():
            (path / file).write_bytes(content)
        taken = trained_state(1, scaler=True)
        try:
            taken.restore(checkpoint.read(path))
        except CheckpointError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        if not forged:
            assert_equal(flat(taken), expected)
        assert is_sane(taken, expected) or (forged and kind == "remove"), (case, name, kind)
    assert outcomes["refused"] > 5 * outcomes["read"] if not forged else outcomes["refused"] > 100, outcomes
