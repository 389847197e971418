"""The program ``sample``: weights in, image files out; any number of processes, and an interrupted call continues.

A folder of samples says in ``sampling.json`` what its images are made of. The same call again makes only what is
missing; a call with other settings is refused rather than mixed in.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from ddpm_ip.errors import CheckpointError, ConfigError, OutOfMemory
from ddpm_ip.generate import Generator
from ddpm_ip.images import UInt8, grid, save_png, to_uint8
from ddpm_ip.sampler import Ancestral, VarType
from ddpm_ip.schedule import RespaceType, respace
from ddpm_ip.train.checkpoint import find, sha256
from ddpm_ip.train.log import clock, setup
from ddpm_ip.train.state import load_weights

log = logging.getLogger("ddpm_ip.sample")

Mode = Literal["sample", "denoise", "progressive"]


@dataclass(frozen=True)
class SampleOptions:
    """What to make.

    Args:
        n_samples: images, with indices 0 .. n_samples - 1.
        seed: image i of a seed is always the same image.
        var_type: variance of the reverse process; None takes the configuration's.
        batch_size: images that go through the network together, the block; None for 64 on a CPU and 512 on a GPU.
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
    generator = make_generator(config, tensors, options, accelerator)
    identity = _identity(config, generator, options, digest, accelerator.mixed_precision)
    store = _Store.open(save_dir, options, identity, accelerator)
    try:
        _fill(generator, store, options, accelerator, on_block)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"the GPU has too little memory to sample {generator.block} images of {generator.shape[1]} px. "
            f"Images that were made stay; choose another --save_dir and --batch_size {max(1, generator.block // 2)}, "
            "or --train.mixed_precision bf16, or a GPU that nothing else is using"
        ) from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        store.finish(options.n_samples)
        log.info("%d images in %s", options.n_samples, save_dir)
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
    block = options.batch_size or (512 if accelerator.device.type == "cuda" else 64)
    return generate.make_generator(config, network, Ancestral(var_type), times, options.seed, block, accelerator)


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


def _fill(
    generator: Generator,
    store: _Store,
    options: SampleOptions,
    accelerator: Accelerator,
    on_block: Callable[[int], None],
) -> None:
    """Makes the blocks that are missing; block b is made by process b modulo the number of processes."""
    size = generator.block
    blocks = range(-(-options.n_samples // size))
    wanted = {b: range(b * size, min((b + 1) * size, options.n_samples)) for b in blocks}
    missing = [b for b in blocks if not store.has(wanted[b])]
    if len(missing) < len(blocks):
        log.info("%d of %d blocks are there already", len(blocks) - len(missing), len(blocks))
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    total = sum(len(wanted[b]) for b in mine)
    made, start = 0, time.monotonic()
    with tqdm(total=total, unit="img", disable=None if accelerator.is_main_process else True) as bar:
        for block in mine:
            pictures = _pictures(generator, block, options)[: len(wanted[block])]
            store.put(wanted[block], pictures)
            made += len(pictures)
            bar.update(len(pictures))
            rate = made / (time.monotonic() - start)
            if bar.disable:
                log.info("%d/%d images  %.1f images/s  ETA %s", made, total, rate, clock((total - made) / rate))
            on_block(block)


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


def _identity(
    config: Config, generator: Generator, options: SampleOptions, weights: str, precision: str
) -> dict[str, Any]:
    """What every image of a folder is made of."""
    frames = {"denoise": options.n_denoise, "progressive": options.n_progressive}.get(options.mode)
    return {
        "weights": weights,
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
    def open(cls, save_dir: Path, options: SampleOptions, identity: dict[str, Any], accelerator: Accelerator) -> _Store:
        npz = save_dir if save_dir.suffix == ".npz" else None
        if npz is not None and options.mode != "sample":
            raise ConfigError(
                f"an npz takes finished images only: give a folder as --save_dir for --mode {options.mode}"
            )
        store = cls(npz.with_name(f"{npz.stem}.parts") if npz else save_dir, npz)
        refused = [store._claim(identity) if accelerator.is_main_process else None]
        if accelerator.num_processes > 1:
            torch.distributed.broadcast_object_list(refused)
        if refused[0]:
            raise ConfigError(refused[0])
        return store

    def _claim(self, identity: dict[str, Any]) -> str | None:
        """Marks the folder with what its images are made of; a sentence if it already holds others."""
        if self.npz is not None and self.npz.exists():
            return f"{self.npz} exists already, and was not touched: choose another --save_dir"
        mark = self.folder / "sampling.json"
        if mark.exists():
            try:
                old = dict(json.loads(mark.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError, RecursionError) as error:
                return (
                    f"{mark} cannot be read ({error}), so what is in the folder is unknown: choose another --save_dir"
                )
            changed = [f"{k}: {old.get(k)} -> {v}" for k, v in identity.items() if old.get(k) != v]
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

    def put(self, indices: range, pictures: list[UInt8]) -> None:
        for i, picture in zip(indices, pictures, strict=True):
            save_png(picture, self._file(i))

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
