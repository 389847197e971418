"""The feed: however it gets them to the device, the images of a step are those that the order names."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm_ip.data.imageset import ImageSet
from ddpm_ip.data.order import order
from ddpm_ip.draws import Draws
from ddpm_ip.images import to_unit
from ddpm_ip.train import feed as module
from ddpm_ip.train.feed import Feed

N, BATCH = 50, 16
STEPS = {
    "in order, over the ends of epochs": [0, 1, 2, 3, 4, 5, 6],
    "repeated": [3, 3, 4, 4],
    "back and forth": [7, 2, 3, 100_000, 0],
}


@pytest.fixture(params=["resident", "mapped", "channels last"])
def images(request, tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (N, 3, 8, 8), dtype=np.uint8)
    if request.param != "resident":
        monkeypatch.setattr(module, "RESIDENT_BYTES", 0)
        last = request.param == "channels last"
        np.save(tmp_path / "pixels.npy", pixels.transpose(0, 2, 3, 1) if last else pixels)
        pixels = np.load(tmp_path / "pixels.npy", mmap_mode="r")
        pixels = pixels.transpose(0, 3, 1, 2) if last else pixels
    return ImageSet(pixels, None, "random", "0" * 64)


@pytest.fixture
def make(images):
    made = []

    def make(rows=range(BATCH), flip=True, batch_size=BATCH, labels=None):
        given = replace(images, labels=labels)
        made.append(Feed(given, 5, batch_size, rows, flip, torch.device("cpu")))
        return made[-1]

    yield make
    for one in made:
        one.close()


def wanted(images, step, rows, batch_size=BATCH):
    return torch.from_numpy(np.array(images.pixels[order(5, step * batch_size + np.array(rows), N)]))


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("rows", [range(BATCH), range(4, 9)], ids=["all", "a share"])
def test_a_step_has_the_images_of_its_rows(make, images, steps, rows):
    feed = make(rows)
    staged = [feed.stage(step) for step in steps]  # compared afterwards: a later batch must not overwrite an earlier
    for step, batch in zip(steps, staged, strict=True):
        assert batch.pixels.dtype == torch.uint8
        assert torch.equal(batch.pixels, wanted(images, step, rows))
        assert batch.labels is None


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("rows", [range(BATCH), range(4, 9)], ids=["all", "a share"])
def test_labels_are_those_of_the_images(make, images, steps, rows):
    """The label is that of the image, wherever it lands; the pixels are those of the set without labels."""
    unlabelled = make(rows)
    labelled = make(rows, labels=np.arange(N) * 7)
    found = {bytes(image.numpy()): i for i, image in enumerate(torch.from_numpy(np.array(images.pixels)))}
    for step, batch in [(step, labelled.stage(step)) for step in steps]:
        assert torch.equal(batch.pixels, unlabelled.stage(step).pixels)
        assert batch.labels.dtype == torch.int64
        assert batch.labels.tolist() == [7 * found[bytes(image.numpy())] for image in batch.pixels]


def test_rows_of_a_batch_and_memory_for_the_next(make):
    """A captured step copies each batch into the same memory."""
    feed = make(labels=np.arange(N))
    first, second = feed.stage(0), feed.stage(1)
    kept = first.empty_like()
    address = kept.pixels.data_ptr(), kept.labels.data_ptr()
    for batch in (first, second):
        kept.copy_(batch)
        some = kept.rows(slice(3, 7))
        assert torch.equal(some.pixels, batch.pixels[3:7])
        assert torch.equal(some.labels, batch.labels[3:7])
    assert (kept.pixels.data_ptr(), kept.labels.data_ptr()) == address
    plain = make().stage(0)
    none = plain.empty_like()
    none.copy_(plain)
    assert torch.equal(none.pixels, plain.pixels)
    assert none.rows(slice(0, 2)).labels is None


def test_a_batch_may_be_larger_than_the_set(make, images):
    feed = make(range(120), batch_size=120)
    for step in range(3):
        assert torch.equal(feed.stage(step).pixels, wanted(images, step, range(120), 120))


@pytest.mark.parametrize("flip", [True, False])
def test_some_rows_of_a_step_become_clean_images(make, images, flip):
    feed = make(flip=flip)
    draws = Draws(5, 2, torch.arange(3, 11))
    x0 = feed.x0(feed.stage(2).pixels[3:11], draws)
    plain = to_unit(wanted(images, 2, range(3, 11)))
    mirrored = draws.flips()
    assert mirrored.any()
    assert not mirrored.all()
    assert x0.dtype == torch.float32
    for image, expected, mirror in zip(x0, plain, mirrored, strict=True):
        assert torch.equal(image, expected.flip(-1) if flip and mirror else expected)


def feeding():
    return [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


def test_closing_twice_ends_the_thread_once(make):
    before = feeding()
    feed = make()
    feed.stage(0)
    feed.close()
    feed.close()
    assert feeding() == before


class Broken:
    """Pixels of which reading fails once the first batch is there."""

    shape, nbytes, reads = (N, 3, 8, 8), 1, 0

    def __array__(self, *_, **__):
        raise AssertionError("the set was copied as a whole")

    def __getitem__(self, indices):
        self.reads += 1
        if self.reads == 2:
            raise OSError(5, "Input/output error")
        return np.zeros((len(indices), 3, 8, 8), np.uint8)


def test_an_error_in_the_thread_comes_out_of_stage_and_is_not_sticky(monkeypatch):
    streamed = module._Streamed(Broken(), lambda step: np.arange(4), torch.device("cpu"))
    streamed.batch(0)
    with pytest.raises(OSError, match="Input/output error"):
        streamed.batch(1)
    assert torch.equal(streamed.batch(1), torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    streamed.close()
