"""A run that continues is, bit for bit, the run that never stopped: weights, average, optimizer, time sampler, log.

Not promised: that numbers of another kind of machine, of other versions of packages or of another number of processes
are the same bits (theme 10 has what is promised then).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import alone, assert_same_state, numbers, run, step_folder, stop_at, tree, weights
from tests.train.parts import LossAware

from ddpm_ip.config import from_dict

STEPS, IMAGES, BATCH = 60, 43, 8  # an epoch has 5.4 steps, so most stops lie in one, and some steps in two
SETTINGS = {
    "n_steps": STEPS,
    "batch_size": BATCH,
    "save_freq": STEPS,
    "lr_warmup": 40,
    "ema_warmup": True,
    "flip": True,
}
KINDS = {"plain": {}, "micro": {"micro_batch": 5}, "learned times": {}}
EVERY_SEVENTH = list(range(7, STEPS, 7))

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # LossAware is not in the union


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, 1), dtype=np.uint8))
    return path


def config(images: Path, kind: str, model=None, **settings):
    data = {"name": "npz", "root": str(images), "image_size": 8}
    made = from_dict({**tree(model, **{**SETTINGS, **KINDS[kind], **settings}), "data": data})
    return replace(made, train=replace(made.train, times=LossAware())) if kind == "learned times" else made


@pytest.fixture(scope="module")
def straight(tmp_path_factory, images) -> dict[str, Path]:
    """Runs without interruption, by kind, each in a process of its own."""
    folders = {kind: tmp_path_factory.mktemp("straight") / "run" for kind in KINDS}
    for kind, folder in folders.items():
        assert alone(lambda kind=kind, folder=folder: run(config(images, kind), folder)) == 0
    return folders


@pytest.mark.parametrize(
    ("kind", "stops"),
    [
        ("plain", [30]),
        ("plain", EVERY_SEVENTH),
        ("plain", [1, 5, 6, 11, 27, 43, 59]),  # before, in and after the steps that lie in two epochs
        ("micro", [3, 43]),
        ("learned times", [30]),
        ("learned times", EVERY_SEVENTH),
    ],
    ids=str,
)
def test_a_run_that_goes_on_is_the_run_that_never_stopped(tmp_path, images, straight, kind, stops):
    """Each part in a new process."""
    folder = tmp_path / "run"
    for at in stops:
        assert alone(lambda at=at: run(config(images, kind), folder, "latest", stop_at(at))) == 0
    assert alone(lambda: run(config(images, kind), folder, "latest")) == 0
    assert_same_state(folder, straight[kind], STEPS)
    assert numbers(folder) == numbers(straight[kind])
    assert [n[0] for n in numbers(folder)] == list(range(1, STEPS + 1))
    if kind == "learned times":
        learned, expected = (weights(f, STEPS, "times")["squares"] for f in (folder, straight[kind]))
        assert torch.equal(learned, expected)
        assert (expected != 1).sum() > 20


def test_what_could_differ_is_at_work(tmp_path, images, straight):
    """Else the test above would not notice: dropout (which zeros hide at first), and a time sampler that learns."""
    run(config(images, "plain", {"dropout": 0.0}, n_steps=20), tmp_path / "still")
    still, plain, learned = (
        numbers(f)[:20] for f in (tmp_path / "still", straight["plain"], straight["learned times"])
    )
    assert [n[1] for n in still] != [n[1] for n in plain] != [n[1] for n in learned]
    assert not (step_folder(straight["plain"], STEPS) / "times.safetensors").exists()
