"""What is timed of this package; with ``train.fast: off`` it is the plain PyTorch path."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from ddpm_ip.bench.measure import Step
from ddpm_ip.config import Config
from ddpm_ip.cores import usable
from ddpm_ip.data import ImageSet
from ddpm_ip.draws import Draws
from ddpm_ip.images import to_unit
from ddpm_ip.sample.program import load_model
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.train import feed
from ddpm_ip.train.loop import build, make_feed
from ddpm_ip.train.step import TrainStep, own_rows

WORKERS = 4  # of the DataLoader


def train(config: Config, images: ImageSet, accelerator: Accelerator) -> Step:
    """One optimizer step with all that a run does in it: feed, perturbation, loss, clipping, optimizer, average."""
    _, step = build(config, images, accelerator)
    return _fast(step, not isinstance(step, TrainStep), config, accelerator)


def sample(config: Config, evaluations: int, accelerator: Accelerator) -> Step:
    """One batch of images (``train.batch_size`` over all processes), from noise to ``uint8`` in host memory."""
    share = config.train.batch_size // accelerator.num_processes
    model = load_model(config, _weights(config), accelerator)
    generator = model.generator(Sampling(block=share, steps=evaluations))
    step: Step = lambda: generator.images(accelerator.process_index)  # noqa: E731
    return _fast(step, generator.graph is not None, config, accelerator)


def _fast(step: Step, captured: bool, config: Config, accelerator: Accelerator) -> Step:
    """The step, unless it should have been a captured one: the plain one must not pass for it."""
    if config.train.fast == "auto" and accelerator.device.type == "cuda" and not captured:
        raise RuntimeError("the fast path could not be used, see the log")
    return step


def data(config: Config, images: ImageSet, accelerator: Accelerator, resident: bool) -> Step:
    """The next clean images on the device, from a set that lies there as a whole, or is streamed from the host."""
    return _endless(_feed(config, images, accelerator, resident), config, accelerator).__next__


def plain_data(config: Config, images: ImageSet, accelerator: Accelerator) -> Step:
    """The same by PyTorch's own means: a ``DataLoader`` with workers over the same pixels, and flips on the device.

    Its workers hand over ``uint8`` and decode nothing, so a loader of image files, such as that of diffusers' example,
    is slower.
    """
    share = config.train.batch_size // accelerator.num_processes
    dataset = _Pixels(images)
    loader = DataLoader(
        dataset,
        batch_size=share,
        sampler=RandomSampler(dataset, replacement=True, num_samples=share << 20),  # no end of an epoch while timing
        num_workers=min(WORKERS, usable()),
        pin_memory=accelerator.device.type == "cuda",
    )
    batches = iter(loader)

    def step() -> Tensor:
        x0 = to_unit(next(batches).to(accelerator.device, non_blocking=True))
        mirrored = torch.rand(share, 1, 1, 1, device=x0.device) < 0.5
        return torch.where(mirrored, x0.flip(-1), x0) if config.train.flip else x0

    return step


class _Pixels(Dataset[Tensor]):
    def __init__(self, images: ImageSet) -> None:
        self._pixels = images.pixels

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, i: int) -> Tensor:
        return torch.from_numpy(np.array(self._pixels[i]))


def _feed(config: Config, images: ImageSet, accelerator: Accelerator, resident: bool) -> feed.Feed:
    limit = feed.RESIDENT_BYTES
    feed.RESIDENT_BYTES = limit if resident else -1
    try:
        return make_feed(config, images, accelerator)
    finally:
        feed.RESIDENT_BYTES = limit


def _endless(images: feed.Feed, config: Config, accelerator: Accelerator) -> Iterator[Tensor]:
    """This process's images of step 0, 1, ..."""
    rows = own_rows(config, accelerator)
    on_device = torch.arange(rows.start, rows.stop, device=accelerator.device)
    for step in count():
        yield images.x0(images.stage(step).pixels, Draws(config.seed, step, on_device))


def _weights(config: Config) -> dict[str, Tensor]:
    """Of a fresh network; what is initialised to zero is random, so that nothing can be skipped."""
    torch.manual_seed(config.seed)
    network = config.build_network()
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim > 1 and not p.any():
                p.normal_(std=p[0].numel() ** -0.5)
    return network.state_dict()
