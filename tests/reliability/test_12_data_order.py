"""Each image is seen once an epoch, in an order that is a function of (seed, counter) and of nothing else.

Not of the number of processes, of micro-batches, of whether the set lies in memory or is read beside the training, nor
of where a run was stopped. The order as a function is in tests/data/test_order.py, the feed in
tests/train/test_feed.py.
"""

import numpy as np
import pytest
import torch

from ddpm_ip.data.imageset import ImageSet
from ddpm_ip.data.order import order
from ddpm_ip.train import feed as module
from ddpm_ip.train.feed import Feed

N, BATCH, STEPS = 43, 12, 18  # five epochs, none of which ends with a batch


@pytest.fixture(params=["resident", "streamed"])
def seen(request, monkeypatch, tmp_path):
    """The images that so many processes see, in the order of the rows, from a step on."""
    monkeypatch.setattr(module, "RESIDENT_BYTES", 4 << 30 if request.param == "resident" else 0)
    np.save(tmp_path / "pixels.npy", np.arange(N, dtype=np.uint8).reshape(N, 1, 1, 1))

    def of(seed=0, world=1, first=0) -> list[int]:
        images = ImageSet(np.load(tmp_path / "pixels.npy", mmap_mode="r"), None, "numbered", "0" * 64)
        size = BATCH // world
        shares = [range(rank * size, (rank + 1) * size) for rank in range(world)]
        feeds = [Feed(images, seed, BATCH, rows, False, torch.device("cpu")) for rows in shares]
        found = [feed.stage(step).pixels.flatten().tolist() for step in range(first, STEPS) for feed in feeds]
        for feed in feeds:
            feed.close()
        return [index for rows in found for index in rows]

    return of


def test_every_epoch_has_every_image_once(seen):
    found = seen()
    epochs = [found[start : start + N] for start in range(0, N * (len(found) // N), N)]
    assert len(epochs) == 5
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


@pytest.mark.parametrize("world", [2, 3, 4, 12])
def test_the_number_of_processes_plays_no_part(seen, world):
    assert seen(world=world) == seen()


def test_it_is_a_function_of_seed_and_counter(seen):
    assert seen() == seen() == order(0, np.arange(BATCH * STEPS), N).tolist() != seen(seed=1)
    for first in (1, 7, STEPS - 1):
        assert seen(first=first) == seen()[first * BATCH :]
