"""One step, plain and as it is captured: labels reach the network, and a time sampler hears the losses."""

from dataclasses import replace

import pytest
import torch
from tests.tiny import tiny, tree
from tests.train.parts import ByLabel, LossAware

from ddpm_ip.config import from_dict
from ddpm_ip.data.order import order
from ddpm_ip.draws import Draws
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import DataError
from ddpm_ip.images import to_unit
from ddpm_ip.learning_rate import CosineRate
from ddpm_ip.perturbation import InputPerturbation
from ddpm_ip.sections import Classes
from ddpm_ip.times import Lognormal, LossSecondMoment, Skewed
from ddpm_ip.train.loop import build, make_feed
from ddpm_ip.train.step import TrainStep
from ddpm_ip.weighting import P2, MinSNR

BATCH = 8


def labels_of(images, config, step):
    return torch.from_numpy(images.labels[order(config.seed, step * BATCH + torch.arange(BATCH).numpy(), len(images))])


@pytest.mark.parametrize("micro", [0, 3])
def test_labels_reach_the_network_with_their_images(micro):
    """Each class learns from its own images alone: the gradient of a class that is not in the batch is zero."""
    config = replace(tiny(micro_batch=micro, optim={"lr": 1e-2}), model=ByLabel(), classes=Classes(10, 0.0))
    images = config.data.open(progress=False)
    state, step = build(config, images, start_engine(None))
    step()
    seen = labels_of(images, config, 0)
    assert torch.equal(torch.cat(state.network.seen), seen)
    moved = state.network.images.detach().flatten(1).abs().amax(1) > 0
    assert moved.nonzero().flatten().tolist() == seen.unique().tolist() != list(range(10))


def test_a_network_without_classes_is_told_none_and_the_labels_stay_on_the_host():
    config = replace(tiny(), model=ByLabel())
    images = config.data.open(progress=False)
    state, step = build(config, images, start_engine(None))
    step()
    assert images.labels is not None
    assert state.network.seen == [None]
    assert make_feed(config, images, start_engine(None)).stage(0).labels is None


@pytest.mark.parametrize("path", ["plain", "captured"])
def test_labels_are_hidden_by_a_stream_of_their_own(captured, path):
    """Each row by itself, in each step: the same in micro-batches, and whatever else is drawn."""
    found = []
    for micro in (0, 3):
        config = replace(tiny(micro_batch=micro, batch_size=BATCH), model=ByLabel(), classes=Classes(10, 0.3))
        images = config.data.open(progress=False)
        state, step = (plain if path == "plain" else captured)(config, images)
        network = state.network if path == "plain" else step._shadow.module
        network.seen.clear()
        for k in range(4):
            step()
            hidden = Draws(config.seed, k, torch.arange(BATCH)).bits(7, 1)[:, 0] < 0.3 * 2**32
            expected = torch.where(hidden, -1, labels_of(images, config, k))
            assert torch.equal(torch.cat(network.seen), expected)
            found.append(torch.cat(network.seen))
            network.seen.clear()
    assert torch.equal(torch.cat(found[:4]), torch.cat(found[4:]))
    assert -1 in found[0] or -1 in found[1]


def test_as_many_labels_are_hidden_as_are_to_be():
    labels = torch.arange(20_000) % 10
    for probability in (0.0, 0.1, 0.5):
        hidden = Draws(3, 5, torch.arange(20_000)).hidden(labels, probability)
        share = (hidden < 0).float().mean()
        assert abs(float(share) - probability) < 4 * (probability * (1 - probability) / 20_000) ** 0.5 + 1e-9
        assert torch.equal(hidden[hidden >= 0], labels[hidden >= 0])
    assert Draws(3, 5, torch.arange(20_000)).hidden(labels, 0.0) is labels


def test_a_conditional_training_learns_what_each_class_looks_like():
    """The network that puts out an image a class learns the classes' mean images; hidden labels teach it nothing."""
    config = from_dict(
        tree(batch_size=64, optim={"lr": 0.05}) | {"classes": {"count": 10}, "diffusion": {"objective": "pred_x0"}}
    )
    config = replace(config, model=ByLabel())
    images = config.data.open(progress=False)
    state, step = plain(config, images)
    for _ in range(150):
        step()
    means = torch.stack([to_unit(torch.tensor(images.pixels[images.labels == c])).mean(0) for c in range(10)])
    distance = (state.network.images.detach()[:, None] - means).square().flatten(2).mean(2)
    assert distance.argmin(1).tolist() == list(range(10))
    assert float(distance.diagonal().max()) < 0.03


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda labels: None, "no labels"),
        (lambda labels: labels + 1, "labels up to 10.*--classes.count 11"),
        (lambda labels: labels - 1, "the label -1"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_the_first_step(change, told):
    config = replace(tiny(), model=ByLabel(), classes=Classes(10))
    images = config.data.open(progress=False)
    with pytest.raises(DataError, match=told):
        build(config, replace(images, labels=change(images.labels)), start_engine(None))


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
    found = two.tensors()
    for name, named in one.tensors().items():
        for k, v in named.items():
            torch.testing.assert_close(found[name][k], v, rtol=1e-4, atol=1e-5, msg=lambda m, k=k: f"{k}: {m}")


OPTIONS = {
    "learned": {
        "perturbation": InputPerturbation((0.3, 0.1), 3, "linear", probability=0.7),
        "train": {"vb_input": "clean", "times": LossSecondMoment(1), "weighting": MinSNR()},
    },
    "bound": {"perturbation": InputPerturbation(0.3, 1), "train": {"loss": "vlb", "times": Lognormal()}},
    "consistent": {
        "diffusion": {"objective": "pred_v"},
        "perturbation": InputPerturbation(0.2, random=True, target="consistent"),
        "train": {"times": Skewed(reweigh=True), "weighting": P2()},
    },
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_captured_step_does_the_work_of_the_plain_one_with_every_option(captured, name):
    """Of the objective, with a number of the step that lies on the device; two micro-batches."""
    change, config = OPTIONS[name], tiny({"dropout": 0.0}, micro_batch=4, optim={"lr": 1e-3, "eps": 1e-3})
    learned = {"var_type": "learned_range"} if name in ("learned", "bound") else {}
    diffusion = replace(config.diffusion, total_steps=3, **learned, **change.get("diffusion", {}))
    train = replace(config.train, **change["train"])
    config = replace(config, train=train, diffusion=diffusion, perturbation=change["perturbation"])
    images = config.data.open(progress=False)
    (one, step), (two, same) = plain(config, images), captured(config, images)
    for _ in range(4):
        torch.testing.assert_close(torch.stack(same()), torch.stack(step()), rtol=1e-4, atol=1e-5)
    found = two.tensors()
    for part, named in one.tensors().items():
        for k, v in named.items():
            torch.testing.assert_close(found[part][k], v, rtol=1e-3, atol=1e-5, msg=lambda m, k=k: f"{k}: {m}")
    if "times" in one.parts:
        assert (one.times.seen > 2).all()


def test_the_captured_step_reads_its_labels_where_they_stay(captured):
    """The network sees the same memory at each step, with the labels of that step."""
    config = replace(tiny(), model=ByLabel(), classes=Classes(10, 0.0))
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
