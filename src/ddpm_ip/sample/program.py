"""The program ``sample``: weights in, image files out; any number of processes, and an interrupted call continues.

A folder of samples says in ``sampling.json`` what its images are made of. The same call again makes only what is
missing; a call with other settings is refused rather than mixed in. While a block of images is made, threads write the
one before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from ddpm_ip.config import Config, from_dict, load
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import ConfigError
from ddpm_ip.images import UInt8, grid
from ddpm_ip.memory import enough_memory
from ddpm_ip.run.log import clock, setup
from ddpm_ip.run.row import row_label
from ddpm_ip.run.weights import Weights, find_weights, load_weights
from ddpm_ip.sample.generator import Generator, Model, image_bytes
from ddpm_ip.sample.store import Mode, Store
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.settings import check_as_trained

log = logging.getLogger("ddpm_ip.sample")

WRITERS = 4  # threads; on two cores, of 256x256 pixels 100 files/s on one and 196 on two, of 32x32 2,200 on any number


@dataclass(frozen=True)
class SampleOptions:
    """What to make.

    Args:
        n_samples: images, with indices 0 .. n_samples - 1.
        sampling: how; where its block is open, that of the images that are there already is taken, else 64 on a CPU and
            on a GPU what its free memory holds (:func:`default_block`).
        mode: finished images, or for each a strip of its states (``denoise``) or of predicted clean images
            (``progressive``).
        n_denoise, n_progressive: pictures in a strip.
    """

    n_samples: int
    sampling: Sampling = field(default_factory=Sampling)
    mode: Mode = "sample"
    n_denoise: int = 20
    n_progressive: int = 20

    def __post_init__(self) -> None:
        for name in ("n_samples", "n_denoise", "n_progressive"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if self.mode not in get_args(Mode):
            raise ConfigError(f"--mode must be one of {', '.join(get_args(Mode))}, got {self.mode!r}")


def configured(weights: Weights, path: Path, file: Path | None, overrides: Mapping[str, Any]) -> Config:
    """The configuration with which weights are sampled: their run's, or a file that says the same of the network.

    Args:
        weights: of a network.
        path: where they were found.
        file: a YAML file; needed where nothing says how the weights were trained.
        overrides: by dotted path.

    Raises:
        ConfigError: there is no configuration, it cannot be used, or it is of another network or diffusion.
    """
    try:
        own = weights.trained(path)
    except ConfigError as error:
        if file is None:
            raise ConfigError(f"{error}; or give the configuration with -c") from None
        return load(file, overrides)
    if file is None:
        config = from_dict(own.config, f"the configuration in {own.origin}", overrides)
    else:
        config = load(file, overrides)
    if own.step is not None:  # said together with the weights
        check_as_trained(config, own.config, own.origin)
    return config


def sample(
    config: Config,
    weights: Path | Weights,
    save_dir: Path,
    options: SampleOptions,
    on_block: Callable[[int], None] = lambda block: None,
) -> Path:
    """Makes images.

    Args:
        config: of the model.
        weights: folder of a run (its newest EMA), a checkpoint, or a safetensors file; or what was found there.
        save_dir: a folder, which gets ``000000.png``, ... (of 1, 3 or 4 channels, RGBA); or a file that ends in
            ``.npz``, which gets one array ``images``, uint8 (N, H, W, C), of any number of channels.
        options: what to make.
        on_block: called after each block is on the disk; for tests.

    Returns:
        ``save_dir``.

    Raises:
        UserError: anything that the user can put right; images that exist stay.
    """
    accelerator = sampling_engine(config, options.sampling)
    setup(None, accelerator.is_main_process)
    found = weights if isinstance(weights, Weights) else find_weights(weights)
    store = Store.at(save_dir, options.mode, config.model.in_channels)
    block = _agreed_block(config, options, store, accelerator)
    _, height, width = config.shape
    advice = (
        f"there is too little memory to sample {block} images of {height} x {width} px at once. "
        f"Images that were made stay; choose another --save_dir and --batch_size {max(1, block // 2)}, "
        "or --train.mixed_precision bf16, or a device that nothing else is using"
    )
    with enough_memory(lambda: advice):
        model = load_model(config, found.tensors, accelerator, found.origin)
        generator = model.generator(replace(options.sampling, block=block))
        write_samples(generator, found.facts(), save_dir, options, on_block)
    return save_dir


def write_samples(
    generator: Generator,
    weights: Mapping[str, Any],
    save_dir: Path,
    options: SampleOptions,
    on_block: Callable[[int], None] = lambda block: None,
) -> None:
    """Makes the images of a generator that are not there yet.

    Args:
        generator: makes them.
        weights: what is known of its weights, for ``sampling.json``.
        save_dir, options, on_block: see :func:`sample`.

    Raises:
        UserError: the folder holds other images, or cannot be written.
    """
    engine, channels = generator.model.engine, generator.model.shape[0]
    store = Store.at(save_dir, options.mode, channels)
    pictures: dict[str, Any] = {"mode": options.mode, "frames": _frame_count(options)}
    if channels not in (1, 3):  # or an alpha channel would be taken for transparency
        pictures["channels"] = channels
    identity = {**weights, **generator.facts(), **pictures}
    if _agree(engine.is_main_process and store.is_finished(identity, options.n_samples), engine):
        if engine.is_main_process:
            store.remove_parts()
            log.info("%d images of the same call are in %s already", options.n_samples, save_dir)
        return
    with store.claimed(identity, engine):
        sampling, waiting = _fill(generator, store, options, on_block)
        engine.wait_for_everyone()
        if engine.is_main_process:
            store.finish(options.n_samples)
            log.info(
                "%d images in %s: %s, %d network evaluations each (sampling %.1f s, waiting for the disk %.1f s)",
                options.n_samples, save_dir, row_label(generator.facts()), generator.plan.visits, sampling, waiting,
            )  # fmt: skip
    engine.wait_for_everyone()


def sampling_engine(config: Config, sampling: Sampling) -> Accelerator:
    """Device, processes and precision of sampling."""
    return start_engine(sampling.precision or config.train.mixed_precision, fast=config.train.fast == "auto")


def load_model(
    config: Config, weights: dict[str, Tensor], accelerator: Accelerator, origin: str = "--weights"
) -> Model:
    """The model with its weights, ready to be sampled; ``origin`` says in messages where they came from.

    Raises:
        CheckpointError: the weights do not fit the network of this configuration.
    """
    network = config.build_network().to(accelerator.device).eval().requires_grad_(False)
    load_weights(network, weights, origin)
    return Model(config, network, accelerator, origin)


def default_block(config: Config, accelerator: Accelerator) -> int:
    """Images that go through the network together where nobody says: 64 on a CPU, on a GPU what its memory holds."""
    if accelerator.device.type != "cuda":
        return 64
    free, _ = torch.cuda.mem_get_info(accelerator.device)
    return fitting_block(free, image_bytes(config, accelerator.mixed_precision))


def fitting_block(free: int, per_image: int) -> int:
    """The largest power of two in 64..1024 of which so many images fit into ``free`` bytes; 64 if none does."""
    return next((block for block in (1024, 512, 256, 128) if block * per_image <= free), 64)


def _agreed_block(config: Config, options: SampleOptions, store: Store, accelerator: Accelerator) -> int:
    """The main process's choice of the block, since free memory differs."""
    if not accelerator.is_main_process:
        return _agree(0, accelerator)
    return _agree(options.sampling.block or store.block() or default_block(config, accelerator), accelerator)


def _agree(value: int, accelerator: Accelerator) -> int:
    """The main process's value."""
    values = [value]
    if accelerator.num_processes > 1:
        torch.distributed.broadcast_object_list(values)
    return values[0]


def _missing(generator: Generator, store: Store, options: SampleOptions, accelerator: Accelerator) -> dict[int, range]:
    """The blocks that this process has to make, each with its image indices; they are dealt out to all in turn."""
    size, n_samples = generator.block, options.n_samples
    starts = range(0, n_samples, size)
    wanted = {block: range(start, min(start + size, n_samples)) for block, start in enumerate(starts)}
    whole, damaged = store.look(n_samples, _picture_shape(generator, options))
    missing = [block for block, indices in wanted.items() if not whole.issuperset(indices)]
    accelerator.wait_for_everyone()  # whoever looks later must not find what another has made since
    if damaged:
        some = ", ".join(path.name for path in damaged[:3])
        log.warning("%d damaged images in %s (%s ...) are made again", len(damaged), store.folder, some)
    if len(missing) < len(wanted):
        log.info("%d of %d blocks are there already", len(wanted) - len(missing), len(wanted))
    return {block: wanted[block] for block in missing[accelerator.process_index :: accelerator.num_processes]}


def _fill(
    generator: Generator, store: Store, options: SampleOptions, on_block: Callable[[int], None]
) -> tuple[float, float]:
    """Makes the blocks that are missing, and hands each to threads that write it while the next is made.

    At most two blocks are in memory, one that is being written and one that is being made. What was handed over is
    written even when an error or an interruption ends the loop.

    Returns:
        The seconds that this process spent on making images, and those that waiting for the disk added.
    """
    accelerator = generator.model.engine
    wanted = _missing(generator, store, options, accelerator)
    total = sum(map(len, wanted.values()))
    done, sampling, waiting = 0, 0.0, 0.0
    hidden = None if accelerator.is_main_process else True
    with ThreadPoolExecutor(WRITERS, "write") as pool, tqdm(total=total, unit="img", disable=hidden) as bar:
        writing: list[Future[None]] = []
        for before, block in pairwise([None, *wanted, None]):
            start = time.monotonic()
            pictures = [] if block is None else _pictures(generator, block, options)[: len(wanted[block])]
            made = time.monotonic()
            for file in writing:
                file.result()
            sampling, waiting = sampling + made - start, waiting + time.monotonic() - made
            if before is not None:
                done += len(writing)
                bar.update(len(writing))
                rate = done / (sampling + waiting)
                if bar.disable:
                    log.info("%d/%d images  %.1f images/s  ETA %s", done, total, rate, clock((total - done) / rate))
                on_block(before)
            if block is not None:
                writing = [pool.submit(store.put, i, p) for i, p in zip(wanted[block], pictures, strict=True)]
    return sampling, waiting


def _pictures(generator: Generator, block: int, options: SampleOptions) -> list[UInt8]:
    """One ``uint8`` (C, H, W) picture an image: the image, or the strip of how it came about."""
    if options.mode == "sample":
        return list(generator.images(block))
    frames = np.stack(list(_frames(generator, block, options)), axis=1)
    return [_strip(row) for row in frames]


def _strip(frames: UInt8) -> UInt8:
    """Pictures (frames, C, H, W) side by side, (C, H, W)."""
    strip = np.asarray(grid(frames, columns=len(frames), scale=1))
    return strip[None] if strip.ndim == 2 else strip.transpose(2, 0, 1)


def _picture_shape(generator: Generator, options: SampleOptions) -> tuple[int, int, int]:
    """(C, H, W) of what :func:`_pictures` makes."""
    if options.mode == "sample":
        channels, height, width = generator.model.shape
    else:
        count = len(_kept(generator, options))
        channels, height, width = _strip(np.zeros((count, *generator.model.shape), np.uint8)).shape
    return channels, height, width


def _frames(generator: Generator, block: int, options: SampleOptions) -> Iterator[UInt8]:
    keep = _kept(generator, options)
    for state in generator.states(block):
        picture = state.xt if options.mode == "denoise" else state.x0
        if state.row in keep and picture is not None:
            yield generator.pixels(state, picture)


def _kept(generator: Generator, options: SampleOptions) -> set[int]:
    """The rows of the states that go into a strip."""
    visits, count = generator.plan.visits, _frame_count(options) or 1
    first = 0 if options.mode == "denoise" else 1  # nothing is predicted yet at the start
    return {visits - round(i * (visits - first) / max(count - 1, 1)) for i in range(count)}


def _frame_count(options: SampleOptions) -> int | None:
    """Pictures in a strip; None for finished images."""
    return {"denoise": options.n_denoise, "progressive": options.n_progressive}.get(options.mode)
