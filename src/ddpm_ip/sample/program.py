"""The program ``sample``: weights in, image files out; any number of processes, and an interrupted call continues.

A folder of samples says in ``sampling.json`` what its images are made of. The same call again makes only what is
missing; a call with other settings is refused rather than mixed in. While a block of images is made, threads write the
one before.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from ddpm_ip.config import Config, from_dict, load
from ddpm_ip.cores import nodes
from ddpm_ip.engine import from_main, refuse_different, slowest, start_engine
from ddpm_ip.errors import ConfigError
from ddpm_ip.memory import enough_memory
from ddpm_ip.run.log import clock, setup
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.row import row_label
from ddpm_ip.run.weights import Weights, find_weights, load_weights
from ddpm_ip.sample.calibrated import there
from ddpm_ip.sample.filled import filled
from ddpm_ip.sample.generator import Generator, Model, image_bytes
from ddpm_ip.sample.grids import count, write_grid
from ddpm_ip.sample.modes import Interpolations, Pictures, Strips, reconstructions
from ddpm_ip.sample.store import LATE, Mode, Store
from ddpm_ip.sampler.correction import Auto
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.sampler.spacing import listed, shown
from ddpm_ip.schedule import Schedule, too_little_noise
from ddpm_ip.settings import check_as_trained

log = logging.getLogger("ddpm_ip.sample")

WRITERS = 4  # threads; on two cores, of 256x256 pixels 100 files/s on one and 196 on two, of 32x32 2,200 on any number


NOISY = {  # what noise on the way does to a mode
    "interpolate": "that of image 2i all along strip i, whose right end is then not image 2i + 1: for that choose a "
    "deterministic one, as in --sampler ddim",
    "reconstruction": "which makes another image than the given one: choose a deterministic one, as in --sampler ddim",
}


@dataclass(frozen=True)
class SampleOptions:
    """What to make.

    Args:
        n_samples: images, with indices 0 .. n_samples - 1.
        sampling: how; where its block is open, that of the images that are there already is taken, else 64 on a CPU and
            on a GPU what its free memory holds (:func:`default_block`).
        mode: finished images, or for each a strip of its states (``denoise``) or of predicted clean images
            (``progressive``); strips between two images (``interpolate``); or images that are given and what their
            noise gives again (``reconstruction``). See :mod:`ddpm_ip.sample.modes`.
        n_denoise, n_progressive, n_interpolate: pictures in a strip.
        input_dir: a folder of images, for ``reconstruction`` alone, which takes the first ``n_samples`` of them.
    """

    n_samples: int
    sampling: Sampling = field(default_factory=Sampling)
    mode: Mode = "sample"
    n_denoise: int = 20
    n_progressive: int = 20
    n_interpolate: int = 16
    input_dir: Path | None = None

    def __post_init__(self) -> None:
        for name in ("n_samples", "n_denoise", "n_progressive", "n_interpolate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if self.mode not in get_args(Mode):
            raise ConfigError(f"--mode must be one of {', '.join(get_args(Mode))}, got {self.mode!r}")
        if self.mode == "reconstruction" and any(isinstance(c, Auto) for c in self.sampling.corrections):
            raise ConfigError(
                "--mode reconstruction: a calibration (the correction auto) is of walks that begin with noise that was "
                "drawn, and this one begins with noise that was found for an image: choose other --corrections, or none"
            )
        if (self.mode == "reconstruction") != (self.input_dir is not None):
            raise ConfigError("--mode reconstruction and --input_dir, a folder of images, need each other: give both")

    @property
    def frames(self) -> int | None:
        """Pictures in a strip; None for finished images."""
        return {
            "denoise": self.n_denoise,
            "progressive": self.n_progressive,
            "interpolate": self.n_interpolate,
            "reconstruction": 2,
        }.get(self.mode)

    def pictures(self, generator: Generator) -> Pictures:
        """What makes the pictures; all processes call this together.

        Raises:
            UserError: the images of ``input_dir`` cannot be used.
        """
        if self.mode == "denoise" or self.mode == "progressive":
            return Strips(generator, self.mode, self.n_denoise if self.mode == "denoise" else self.n_progressive)
        if self.mode == "interpolate":
            return Interpolations(generator, self.n_interpolate)
        return Pictures(generator) if self.input_dir is None else reconstructions(generator, self.input_dir)


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
    if file is None or weights.own is not None:  # a foreign network's was made with the file
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
            ``.npz``, which gets an array ``images``, uint8 (N, H, W, C), of any number of channels. Of a
            class-conditional model also ``labels.csv``, or an array ``labels``. The first images as one picture are
            in ``grid.png``, of an npz in ``NAME.grid.png`` next to it.
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
        sampling = replace(options.sampling, block=block)
        kept = Measured.of(found.sha256, Path(found.origin))
        sampling = filled(sampling, config, kept, model)
        if accelerator.is_main_process:
            _warn_of(config.diffusion.schedule)
        generator = model.generator(sampling)
        if accelerator.is_main_process and not sampling.corrections and options.mode != "reconstruction":
            _offer(there(kept.at_home(), generator.sampling, config.diffusion.schedule))
        write_samples(generator, found.facts(), save_dir, options, on_block)
    return save_dir


def _offer(calibration: Path | None) -> None:
    if calibration is not None:
        log.info("a calibration for this sampling exists, %s: --corrections auto does what it found", calibration)


@cache
def _warn_of(schedule: Schedule) -> None:
    """Says once if a schedule does not end in noise."""
    if said := too_little_noise(schedule):
        log.warning("%s", said)


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
    pictures = options.pictures(generator)
    generator = pictures.generator
    shown: dict[str, Any] = {"mode": options.mode, "frames": options.frames}
    if channels not in (1, 3):  # or an alpha channel would be taken for transparency
        shown["channels"] = channels
    identity = {**weights, **generator.facts(), **shown, **pictures.facts()}
    if engine.is_main_process and options.mode in NOISY and generator.plan.draws_noise:
        log.warning("--mode %s: this sampler adds noise on the way, %s", options.mode, NOISY[options.mode])
    n = options.n_samples if pictures.most is None else min(options.n_samples, pictures.most)
    if from_main(engine, engine.is_main_process and store.is_finished(identity, n)):
        if engine.is_main_process:
            store.remove_parts()
            if not os.path.lexists(store.grid):
                write_grid(store, store.first(count(n, False)), generator.period)
            log.info("%d images of the same call are in %s already, and the grid is %s", n, save_dir, store.grid)
        return
    with store.claimed(identity, engine):
        sampling, waiting = slowest(engine, *_fill(pictures, store, n, on_block))
        if engine.is_main_process:
            store.check_all_there(n, patience=LATE if nodes() > 1 else 0)
            if said := pictures.told(store.picture(i) for i in range(n)):
                log.info(said)
            finished = options.mode == "sample"
            shown_first = store.first(count(n, not finished))
            store.finish(n, generator.classes if finished else None)
            grid = write_grid(store, shown_first, generator.period if finished else None)
            log.info(
                "%d images in %s: %s, %d network evaluations each (sampling %.1f s, waiting for the disk %.1f s)",
                n, save_dir, _row(generator, options), pictures.evaluations, sampling, waiting,
            )  # fmt: skip
            log.info("as one picture: %s", grid)
    engine.wait_for_everyone()


def _row(generator: Generator, options: SampleOptions) -> str:
    """How the images were made, as ``--rows`` of a table reads it, with the times if they are not all."""
    steps, spacing = options.sampling.steps, options.sampling.spacing
    times = None if isinstance(steps, str) or (steps is None and listed(spacing) is None) else shown(spacing)
    return row_label(generator.facts()) + ("" if times is None else f"@{times.replace(' ', '')}")


def sampling_engine(config: Config, sampling: Sampling) -> Accelerator:
    """Device, processes and precision of sampling."""
    return start_engine(sampling.precision or config.train.mixed_precision, fast=config.train.fast == "auto")


def load_model(
    config: Config, weights: dict[str, Tensor], accelerator: Accelerator, origin: str = "--weights"
) -> Model:
    """The model with its weights, ready to be sampled; ``origin`` says in messages where they came from.

    Raises:
        CheckpointError: the weights do not fit the network of this configuration.
        ConfigError: the processes have different ones.
    """
    network = config.build_network().to(accelerator.device).eval().requires_grad_(False)
    load_weights(network, weights, origin)
    if accelerator.num_processes > 1:
        sums = {name: float(tensor.double().sum()) for name, tensor in sorted(weights.items())}
        refuse_different(accelerator, f"weights ({origin})", "others", sums)
    return Model(config, network, accelerator, origin)


def default_block(config: Config, accelerator: Accelerator) -> int:
    """Images that go through the network together by default: 64 on a CPU, on a GPU what its memory holds."""
    if accelerator.device.type != "cuda":
        return 64
    free, _ = torch.cuda.mem_get_info(accelerator.device)
    return fitting_block(free, image_bytes(config, accelerator.mixed_precision))


def fitting_block(free: int, per_image: int) -> int:
    """The largest power of two in 64..1024 such that this many images fit into ``free`` bytes; 64 if none does."""
    return next((block for block in (1024, 512, 256, 128) if block * per_image <= free), 64)


def _agreed_block(config: Config, options: SampleOptions, store: Store, accelerator: Accelerator) -> int:
    """The main process's choice of the block, since free memory differs."""
    if not accelerator.is_main_process:
        return from_main(accelerator, 0)
    return from_main(accelerator, options.sampling.block or store.block() or default_block(config, accelerator))


def _missing(pictures: Pictures, store: Store, n_samples: int) -> dict[int, range]:
    """The blocks that this process has to make, each with its image indices; they are dealt out to all in turn."""
    size, accelerator = pictures.size, pictures.generator.model.engine
    starts = range(0, n_samples, size)
    wanted = {block: range(start, min(start + size, n_samples)) for block, start in enumerate(starts)}
    whole, damaged = store.look(n_samples, pictures.shape)
    missing = [block for block, indices in wanted.items() if not whole.issuperset(indices)]
    accelerator.wait_for_everyone()  # whoever looks later must not find what another has made since
    if damaged:
        some = ", ".join(path.name for path in damaged[:3])
        log.warning("%d damaged images in %s (%s ...) are made again", len(damaged), store.folder, some)
    if len(missing) < len(wanted):
        log.info("%d of %d blocks are there already", len(wanted) - len(missing), len(wanted))
    return {block: wanted[block] for block in missing[accelerator.process_index :: accelerator.num_processes]}


def _fill(pictures: Pictures, store: Store, n: int, on_block: Callable[[int], None]) -> tuple[float, float]:
    """Makes the blocks that are missing, and hands each to threads that write it while the next is made.

    At most two blocks are in memory, one that is being written and one that is being made. What was handed over is
    written even when an error or an interruption ends the loop.

    Returns:
        The seconds that this process spent on making images, and those that waiting for the disk added.
    """
    accelerator = pictures.generator.model.engine
    wanted = _missing(pictures, store, n)
    total = sum(map(len, wanted.values()))
    done, sampling, waiting = 0, 0.0, 0.0
    hidden = None if accelerator.is_main_process else True
    with ThreadPoolExecutor(WRITERS, "write") as pool, tqdm(total=total, unit="img", disable=hidden) as bar:
        writing: list[Future[None]] = []
        for before, block in pairwise([None, *wanted, None]):
            start = time.monotonic()
            ready = [] if block is None else pictures.block(block)[: len(wanted[block])]
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
                writing = [pool.submit(store.put, i, p) for i, p in zip(wanted[block], ready, strict=True)]
    return sampling, waiting
