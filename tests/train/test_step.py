"""One step, plain and as it is captured: labels reach the network, and a time sampler hears the losses."""

from dataclasses import replace

import pytest
import torch
from tests.tiny import tiny
from tests.train.parts import ByLabel, LossAware

from ddpm_ip.data.order import order
from ddpm_ip.draws import Draws
from ddpm_ip.engine import start_engine
from ddpm_ip.learning_rate import CosineRate
from ddpm_ip.nn.ops import Operations
from ddpm_ip.train.loop import build, fresh_state, make_feed
from ddpm_ip.train.step import TrainStep

BATCH = 8


def labels_of(images, config, step):
    return torch.from_numpy(images.labels[order(config.seed, step * BATCH + torch.arange(BATCH).numpy(), len(images))])


@pytest.mark.parametrize("micro", [0, 3])
def test_labels_reach_the_network_with_their_images(micro):
    """Each class learns from its own images alone: the gradient of a class that is not in the batch is zero."""
    config = replace(tiny(micro_batch=micro, optim={"lr": 1e-2}), model=ByLabel())
    images = config.data.open(progress=False)
    state, step = build(config, images, start_engine(None))
    step()
    seen = labels_of(images, config, 0)
    assert torch.equal(torch.cat(state.network.seen), seen)
    moved = state.network.images.detach().flatten(1).abs().amax(1) > 0
    assert moved.nonzero().flatten().tolist() == seen.unique().tolist() != list(range(10))


def test_a_set_without_labels_gives_no_condition():
    config = replace(tiny(), model=ByLabel())
    state, step = build(config, replace(config.data.open(progress=False), labels=None), start_engine(None))
    step()
    assert state.network.seen == [None]


def test_labels_change_nothing_for_a_network_without_classes():
    """With the set's labels or without: the same weights to the bit."""
    config = tiny()
    images = config.data.open(progress=False)
    assert images.labels is not None
    found = []
    for one in (images, replace(images, labels=None)):
        state, step = build(config, one, start_engine(None))
        for _ in range(3):
            step()
        found.append(state.tensors())
    assert all(torch.equal(v, found[1][n][k]) for n, named in found[0].items() for k, v in named.items())


@pytest.mark.parametrize("micro", [0, 3])
def test_a_time_sampler_hears_the_losses_of_the_whole_batch_once_a_step(micro):
    """Before importance weighting, after all micro-batches: what it learns does not depend on their size."""
    config = tiny({"dropout": 0.0}, micro_batch=micro)
    config = replace(config, train=replace(config.train, times=LossAware()))
    state, step = build(config, config.data.open(progress=False), start_engine(None))
    for k in range(3):
        p = state.times.squares.sqrt() / state.times.squares.sqrt().sum()
        loss, _ = step()
        assert len(state.times.seen) == k + 1
        t, each = state.times.seen[-1]
        expected, importance = t, 1 / (1000 * p[t])
        u = Draws(config.seed, k, torch.arange(BATCH)).bits(0, 1)[:, 0].double() / 2**32
        assert ((p.double().cumsum(0)[expected] - u) > -1e-6).all()
        assert not each.requires_grad
        torch.testing.assert_close((importance * each).mean(), loss)
    assert (importance != 1).any()


class Replayed:
    """In place of a CUDA graph: does the work again, and puts its results where a graph would."""

    def __init__(self, step):
        self.step = step
        self.loss, self.norm = torch.zeros(()), torch.zeros(())

    def replay(self):
        for into, value in zip((self.loss, self.norm), self.step._work(), strict=True):
            into.copy_(value)


@pytest.fixture
def captured(monkeypatch):
    """Makes the step that would be captured; here its work is done each time, with plain operations (those of a GPU are
    compared with them in tests/nn)."""
    pytest.importorskip("triton")
    from ddpm_ip.nn.fused import operations
    from ddpm_ip.train.graph import CapturedStep

    monkeypatch.setattr(operations, "FusedOperations", lambda masks, layer: Operations())

    def capture(self):
        graph = Replayed(self)
        before = {name: t.clone() for name, t in self._changing().items()}
        self._set_inputs()
        self._work()
        self._put_back(before)
        return graph, graph.loss, graph.norm

    def make(config, images):
        monkeypatch.setattr(CapturedStep, "_capture", capture)
        engine = start_engine(None)
        state = fresh_state(config, engine)
        return state, CapturedStep(config, engine, make_feed(config, images, engine), state)

    return make


def plain(config, images):
    state, step = build(config, images, start_engine(None))
    assert isinstance(step, TrainStep)
    return state, step


@pytest.mark.parametrize("micro", [0, 3])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"times": LossAware()},
        {"ema_warmup": True},
        {"ema_decay": (0.9, 0.5), "ema_power": (0.1, 0.05), "lr_schedule": CosineRate()},
    ],
    ids=["uniform", "loss-aware", "warm-up", "averages"],
)
def test_the_captured_step_does_the_work_of_the_plain_one(captured, change, micro):
    """Every part of the state after three steps, whatever capturing has done meanwhile; labels change each time."""
    config = tiny({"dropout": 0.0}, micro_batch=micro, optim={"lr": 1e-3, "eps": 1e-3})
    config = replace(config, train=replace(config.train, **change))
    images = config.data.open(progress=False)
    (one, step), (two, same) = plain(config, images), captured(config, images)
    for _ in range(3):
        torch.testing.assert_close(torch.stack(same()), torch.stack(step()), rtol=1e-4, atol=1e-5)
    assert one.step == two.step == 3
    assert list(one.parts) == list(two.parts)
    assert ("times" in one.parts) is ("times" in change)
    for name, named in one.tensors().items():
        for k, v in named.items():
            torch.testing.assert_close(two.tensors()[name][k], v, rtol=1e-4, atol=1e-5, msg=lambda m, k=k: f"{k}: {m}")


def test_the_captured_step_reads_its_labels_where_they_stay(captured):
    """The network sees the same memory at each step, with the labels of that step."""
    config = replace(tiny(), model=ByLabel())
    images = config.data.open(progress=False)
    _, step = captured(config, images)
    network = step._shadow.module
    network.seen.clear()
    for k in range(3):
        step()
        (seen,) = network.seen
        network.seen.clear()
        assert seen.data_ptr() == step._batch.labels.data_ptr()
        assert torch.equal(seen, labels_of(images, config, k))


def test_what_capturing_does_to_the_state_is_undone(captured):
    """All parts, an adaptive time sampler's included; moments that were made begin at zero."""
    config = tiny()
    config = replace(config, train=replace(config.train, times=LossAware()))
    images = config.data.open(progress=False)
    before, now = plain(config, images)[0].tensors(), captured(config, images)[0].tensors()
    for name in ("model", "ema", "times"):
        assert all(torch.equal(v, before[name][k]) for k, v in now[name].items())
    assert now["optimizer"]
    assert not any(v.any() for v in now["optimizer"].values())


@pytest.mark.parametrize("path", ["plain", "captured"])
@pytest.mark.parametrize("decay", [0.9999, 0.3])
def test_the_average_warms_up_with_the_steps(captured, path, decay):
    """Against float64 from the weights of each step; the same whether the run began at 0 or at a later step."""
    config = tiny({"dropout": 0.0}, ema_decay=decay, ema_warmup=True, optim={"lr": 1e-2})
    state, step = (plain if path == "plain" else captured)(config, config.data.open(progress=False))
    state.step = first = 4  # as after a resume
    expected = [p.detach().double() for p in state.ema.network.parameters()]
    for n in range(first + 1, first + 5):
        step()
        kept = min(decay, (1 + n) / (10 + n))
        moved = zip(expected, state.network.parameters(), strict=True)
        expected = [kept * old + (1 - kept) * new.detach().double() for old, new in moved]
    for found, wanted in zip(state.ema.network.parameters(), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
