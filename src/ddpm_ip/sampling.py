"""The program ``sample``: weights in, image files out; any number of processes, and an interrupted call continues.

A folder of samples says in ``sampling.json`` what its images are made of. The same call again makes only what is
missing; a call with other settings is refused rather than mixed in. While a block of images is made, threads write the
one before.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from ddpm_ip import generate
from ddpm_ip.config import Config
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import CheckpointError, ConfigError, OutOfMemory, UserError
from ddpm_ip.generate import Generator
from ddpm_ip.images import UInt8, grid, save_png, to_uint8
from ddpm_ip.sampler import Ancestral, VarType
from ddpm_ip.schedule import RespaceType, respace
from ddpm_ip.train.checkpoint import find, sha256
from ddpm_ip.train.log import clock, setup
from ddpm_ip.train.state import load_weights

log = logging.getLogger("ddpm_ip.sample")

Mode = Literal["sample", "denoise", "progressive"]

WRITERS = 4  # threads; on two cores, of 256x256 pixels 100 files/s on one and 196 on two, of 32x32 2,200 on any number


@dataclass(frozen=True)
class SampleOptions:
    """What to make.

    Args:
        n_samples: images, with indices 0 .. n_samples - 1.
        seed: image i of a seed is always the same image.
        var_type: variance of the reverse process; None takes the configuration's.
        batch_size: images that go through the network together, the block; None for that of the images that are there
            already, else for 64 on a CPU and on a GPU for what its free memory holds (:func:`default_block`).
        respace_type, respace_steps: which times are visited; all if ``respace_steps`` is None.
        mode: finished images, or for each a strip of its states (``denoise``) or of predicted clean images
            (``progressive``).
        n_denoise, n_progressive: pictures in a strip.
    """

    n_samples: int
    seed: int = 0
    var_type: VarType | None = None
    batch_size: int | None = None
    respace_type: RespaceType = "uniform-linspace"
    respace_steps: int | None = None
    mode: Mode = "sample"
    n_denoise: int = 20
    n_progressive: int = 20

    def __post_init__(self) -> None:
        for name in ("n_samples", "batch_size", "n_denoise", "n_progressive"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1, got {value}")
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"--seed must lie in 0..2^64-1, got {self.seed}")
        if self.mode not in get_args(Mode):
            raise ConfigError(f"--mode must be one of {', '.join(get_args(Mode))}, got {self.mode!r}")


def sample(
    config: Config,
    weights: Path,
    save_dir: Path,
    options: SampleOptions,
    on_block: Callable[[int], None] = lambda block: None,
) -> Path:
    """Makes images.

    Args:
        config: of the model.
        weights: folder of a run (its newest EMA), a checkpoint, or a safetensors file.
        save_dir: a folder, which gets ``000000.png``, ...; or a file that ends in ``.npz``, which gets one array
            ``images``, uint8 (N, H, W, C).
        options: what to make.
        on_block: called after each block is on the disk; for tests.

    Returns:
        ``save_dir``.

    Raises:
        UserError: anything that the user can put right; images that exist stay.
    """
    accelerator = start_engine(config.train.mixed_precision, fast=config.train.fast == "auto")
    setup(None, accelerator.is_main_process)
    tensors, digest = read_weights(weights)
    store = _Store.at(save_dir, options.mode)
    block = _agreed_block(config, options, store, accelerator)
    options = replace(options, batch_size=block)
    try:
        generator = make_generator(config, tensors, options, accelerator)
        made_of = {"weights": digest, "averaged": _averaged(weights)}
        store.claim(made_of | _identity(config, generator, options, accelerator.mixed_precision), accelerator)
        sampling, waiting = _fill(generator, store, options, accelerator, on_block)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"the GPU has too little memory to sample {block} images of {config.data.image_size} px. "
            f"Images that were made stay; choose another --save_dir and --batch_size {max(1, block // 2)}, "
            "or --train.mixed_precision bf16, or a GPU that nothing else is using"
        ) from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        store.finish(options.n_samples)
        log.info(
            "%d images in %s (sampling %.1f s, waiting for the disk %.1f s)",
            options.n_samples, save_dir, sampling, waiting,
        )  # fmt: skip
    accelerator.wait_for_everyone()
    return save_dir


def make_generator(
    config: Config, weights: dict[str, Tensor], options: SampleOptions, accelerator: Accelerator
) -> Generator:
    """The model with its weights, and how it is sampled."""
    d = config.diffusion
    var_type = options.var_type or d.var_type
    if var_type == "learned_range" and not d.learned_variance:
        raise ConfigError(
            "--var_type learned_range needs a model that was trained with diffusion.var_type: learned_range; "
            "choose fixed_large or fixed_small"
        )
    network = config.build_network().to(accelerator.device).eval().requires_grad_(False)
    load_weights(network, weights, "--weights")
    times = respace(d.total_steps, options.respace_steps, options.respace_type)
    block = options.batch_size or default_block(config, accelerator)
    return generate.make_generator(config, network, Ancestral(var_type), times, options.seed, block, accelerator)


def default_block(config: Config, accelerator: Accelerator) -> int:
    """Images that go through the network together where nobody says: 64 on a CPU, on a GPU what its memory holds."""
    if accelerator.device.type != "cuda":
        return 64
    free, _ = torch.cuda.mem_get_info(accelerator.device)
    return fitting_block(free, image_bytes(config, accelerator.mixed_precision))


def fitting_block(free: int, per_image: int) -> int:
    """The largest power of two in 64..1024 of which so many images fit into ``free`` bytes; 64 if none does."""
    return next((block for block in (1024, 512, 256, 128) if block * per_image <= free), 64)


def image_bytes(config: Config, precision: str) -> int:
    """An estimate, on the safe side, of the GPU memory that one image takes while the network is evaluated.

    What is alive at one time is about ten activations of full resolution and greatest width: the CIFAR-10 network
    takes 5 MB an image in bf16, an activation 32 * 32 * 256 * 2 bytes. The estimate is twice that.
    """
    size, model = config.data.image_size, config.model
    activation = size * size * model.dim * max(model.dim_mults) * (4 if precision == "no" else 2)
    return 2 * 10 * activation


def _agreed_block(config: Config, options: SampleOptions, store: _Store, accelerator: Accelerator) -> int:
    """The main process's choice of the block, since free memory differs."""
    chosen: list[int] = [0]
    if accelerator.is_main_process:
        chosen = [options.batch_size or store.block() or default_block(config, accelerator)]
    if accelerator.num_processes > 1:
        torch.distributed.broadcast_object_list(chosen)
    return chosen[0]


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The averaged network's tensors, and the SHA-256 of their file.

    Args:
        path: folder of a run (its newest whole checkpoint), a checkpoint, or a safetensors file.

    Raises:
        CheckpointError: there are no weights, or they are damaged.
    """
    if path.is_file():
        if path.suffix != ".safetensors":
            raise CheckpointError(
                f"--weights {path} is not a .safetensors file; nothing else is read, since it could run code"
            )
        try:
            return load_file(path), sha256(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"--weights {path} is damaged: {error}") from None
    if not path.exists():
        raise CheckpointError(
            f"--weights {path} does not exist: give the folder of a run, a checkpoint, or a .safetensors file"
        )
    found = find(path)
    log.info("weights: the average of %s", found.path)
    return found.tensors("ema"), found.hashes["ema.safetensors"]


def _averaged(path: Path) -> bool | str:
    """Whether weights are of the averaged network; of a file that somebody has renamed nobody knows."""
    return path.is_dir() or {"ema.safetensors": True, "model.safetensors": False}.get(path.name, "unknown")


def _missing(generator: Generator, store: _Store, n_samples: int, accelerator: Accelerator) -> dict[int, range]:
    """The blocks that this process has to make, each with its image indices; they are dealt out to all in turn."""
    size = generator.block
    starts = range(0, n_samples, size)
    wanted = {block: range(start, min(start + size, n_samples)) for block, start in enumerate(starts)}
    missing = [block for block, indices in wanted.items() if not store.has(indices)]
    accelerator.wait_for_everyone()  # whoever looks later must not find what another has made since
    if len(missing) < len(wanted):
        log.info("%d of %d blocks are there already", len(wanted) - len(missing), len(wanted))
    return {block: wanted[block] for block in missing[accelerator.process_index :: accelerator.num_processes]}


def _fill(
    generator: Generator,
    store: _Store,
    options: SampleOptions,
    accelerator: Accelerator,
    on_block: Callable[[int], None],
) -> tuple[float, float]:
    """Makes the blocks that are missing, and hands each to threads that write it while the next is made.

    At most two blocks are in memory, one that is being written and one that is being made. What was handed over is
    written even when an error or an interruption ends the loop.

    Returns:
        The seconds that this process spent on making images, and those that waiting for the disk added.
    """
    wanted = _missing(generator, store, options.n_samples, accelerator)
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
    count = options.n_denoise if options.mode == "denoise" else options.n_progressive
    frames = list(_frames(generator, block, options.mode, count))
    strips = []
    for row in np.stack(frames, axis=1):  # (frames, C, H, W) of one image
        strip = np.asarray(grid(row, columns=len(row), scale=1))
        strips.append(strip[None] if strip.ndim == 2 else strip.transpose(2, 0, 1))
    return strips


def _frames(generator: Generator, block: int, mode: Mode, count: int) -> Iterator[UInt8]:
    steps = len(generator.times)
    first = 0 if mode == "denoise" else 1  # nothing is predicted yet at the start
    keep = {steps - round(i * (steps - first) / max(count - 1, 1)) for i in range(count)}
    for i, state in enumerate(generator.states(block)):
        picture = state.xt if mode == "denoise" else state.x0
        if i in keep and picture is not None:
            array: UInt8 = to_uint8(picture).cpu().numpy()
            yield array


def _identity(config: Config, generator: Generator, options: SampleOptions, precision: str) -> dict[str, Any]:
    """What every image of a folder is made of, beside the weights."""
    frames = {"denoise": options.n_denoise, "progressive": options.n_progressive}.get(options.mode)
    return {
        "sampler": "ancestral",
        "var_type": generator.sampler.var_type,
        "respace_type": options.respace_type,
        "steps": len(generator.times),
        "seed": options.seed,
        "block": generator.block,
        "mode": options.mode,
        "frames": frames,
        "diffusion": config.to_dict()["diffusion"],
        "precision": precision,
        "fast": generator.replayed is not None,
        "device": generator.device.type,
    }


@dataclass(frozen=True)
class _Store:
    """Images on the disk: a folder of PNG files, which for an npz is beside it until all are there."""

    folder: Path
    npz: Path | None

    @classmethod
    def at(cls, save_dir: Path, mode: Mode) -> _Store:
        npz = save_dir if save_dir.suffix == ".npz" else None
        if npz is not None and mode != "sample":
            raise ConfigError(f"an npz takes finished images only: give a folder as --save_dir for --mode {mode}")
        return cls(npz.with_name(f"{npz.stem}.parts") if npz else save_dir, npz)

    @property
    def _mark(self) -> Path:
        return self.folder / "sampling.json"

    def block(self) -> int | None:
        """The block of the images that are there already; None if there are none, or their mark cannot be read."""
        try:
            block = json.loads(self._mark.read_text(encoding="utf-8"))["block"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None  # no mark; a damaged one is told by claim
        return block if isinstance(block, int) and block > 0 else None

    def claim(self, identity: dict[str, Any], accelerator: Accelerator) -> None:
        """Marks the folder with what its images are made of.

        Raises:
            ConfigError: it holds other images or other files, on every process.
        """
        refused = [self._claim(identity) if accelerator.is_main_process else None]
        if accelerator.num_processes > 1:
            torch.distributed.broadcast_object_list(refused)
        if refused[0]:
            raise ConfigError(refused[0])

    def _claim(self, identity: dict[str, Any]) -> str | None:
        """Marks the folder; a sentence if it cannot be had."""
        if self.npz is not None and self.npz.exists():
            return f"{self.npz} exists already, and was not touched: choose another --save_dir"
        mark = self._mark
        if mark.exists():
            try:
                old = dict(json.loads(mark.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError, RecursionError) as error:
                return (
                    f"{mark} cannot be read ({error}), so what is in the folder is unknown: choose another --save_dir"
                )
            # Whether weights are averaged is known by their hash, whatever their file is called.
            changed = [f"{k}: {old.get(k)} -> {v}" for k, v in identity.items() if k != "averaged" and old.get(k) != v]
            if changed:
                return f"{self.folder} holds images made otherwise ({'; '.join(changed)}): choose another --save_dir"
            return None
        if self.folder.is_dir() and any(self.folder.iterdir()):
            return f"{self.folder} holds other files: choose an empty or a new folder as --save_dir"
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = mark.with_suffix(".partial")
        partial.write_text(json.dumps(identity, indent=1), encoding="utf-8")
        os.replace(partial, mark)
        return None

    def has(self, indices: range) -> bool:
        # a file appears whole (save_png); an empty one is what a power failure leaves
        return all(self._file(i).exists() and self._file(i).stat().st_size > 0 for i in indices)

    def put(self, index: int, picture: UInt8) -> None:
        path = self._file(index)
        try:
            save_png(picture, path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written: {error.strerror or error}. Images that were written stay; put that right "
                "and give the same call again, which makes only what is missing"
            ) from error

    def finish(self, n: int) -> None:
        """Gathers the npz and removes its parts."""
        if self.npz is None:
            return
        images = [np.asarray(Image.open(self._file(i))) for i in range(n)]
        array = np.stack([image[..., None] if image.ndim == 2 else image for image in images])
        partial = self.npz.with_name(f".{self.npz.name}.partial.npz")
        np.savez(partial, images=array)
        os.replace(partial, self.npz)
        shutil.rmtree(self.folder)

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06d}.png"


def sample_files(folder: Path) -> list[Path]:
    """The images of a folder of samples, by index."""
    return sorted(p for p in folder.glob("*.png") if re.fullmatch(r"\d{6,}", p.stem))
