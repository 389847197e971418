"""How a run starts: from which checkpoint, whether everything fits together, and what it says about itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ddpm_ip.config import Config, from_dict
from ddpm_ip.data import ImageSet
from ddpm_ip.ema import remaining
from ddpm_ip.errors import CheckpointError, ConfigError, DataError
from ddpm_ip.files import read_json, write_json, write_yaml
from ddpm_ip.perturbation import label
from ddpm_ip.run import checkpoint
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.log import Metrics
from ddpm_ip.run.provenance import earlier, provenance
from ddpm_ip.run.record import differences
from ddpm_ip.train.run import Run

log = logging.getLogger("ddpm_ip.train")


def find_start(folder: RunFolder, resume: str | None) -> checkpoint.Checkpoint | None:
    """The checkpoint that a run starts from, None at step 0; see ``resume`` of :func:`ddpm_ip.train.loop.train`.

    Raises:
        ConfigError: the folder holds another run.
        CheckpointError: there is no whole checkpoint where one should be.
    """
    if resume is None:
        folder.refuse_if_used()
        return None
    if resume == "latest":
        return checkpoint.newest(folder.checkpoints)
    if resume == "best":
        if best := checkpoint.newest(folder.best):
            return best
        raise CheckpointError(
            f"-r best: {folder.best} holds no checkpoint. The best is kept where train.eval measures: "
            "--train.eval.every N from the start, or continue with -r latest"
        )
    own = (*folder.checkpoints.resolve().glob("step*"), *folder.best.resolve().glob("step*"))
    if Path(resume).resolve() not in (folder.path.resolve(), *own):
        folder.refuse_if_used()
    return checkpoint.find(Path(resume))


def open_data(config: Config, accelerator: Accelerator) -> ImageSet:
    """The training set, opened on the main process first: it may download or decode, the others find what it left."""
    with accelerator.main_process_first():
        return config.data.open(progress=accelerator.is_main_process)


def set_backends(config: Config) -> None:
    """Bit-exact kernels, or the fastest ones."""
    if config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not config.train.deterministic


def check(config: Config, images: ImageSet, processes: int) -> None:
    """What no single section can see.

    Raises:
        DataError, ConfigError: data, model and processes do not fit together.
    """
    if images.channels != config.model.in_channels:
        mode = {1: "gray", 3: "rgb", 4: "rgba"}.get(config.model.in_channels)
        cure = f"set --data.mode {mode} to convert, or " if mode and hasattr(config.data, "mode") else ""
        raise DataError(
            f"the images of {images.name} have {images.channels} channels, model.in_channels is "
            f"{config.model.in_channels}: {cure}set --model.in_channels {images.channels}"
        )
    config.model.check(images.height, images.width)
    t, d = config.train, config.diffusion
    wanted = (("sample_steps", t.sample_freq, t.sample_steps), ("eval.steps", t.eval.every, t.eval.steps))
    for key, often, steps in wanted:
        try:
            if often:
                config.sampling_in_training(steps).check(d.schedule, d.learned_variance)
        except ConfigError as error:
            raise ConfigError(
                f"images during training (train.{key}: {steps}, and the section sampling): {error}"
            ) from None
    if config.train.batch_size % processes:
        raise ConfigError(
            f"train.batch_size {config.train.batch_size} is not divisible by the {processes} processes, and each takes "
            "an equal share"
        )


def check_same(config: Config, images: ImageSet, start: checkpoint.Checkpoint) -> None:
    """Refuses to continue with another network, diffusion or data; mentions what else has changed.

    Raises:
        CheckpointError: with the differences.
    """
    changed = differences(_settings(start.meta.get("config", {})), config.to_dict())
    harmless = ("model.dropout", "diffusion.var_type")  # whether the variance is learned shows in the network's shape
    fatal = [c for c in changed if c.startswith(("model.", "diffusion.")) and not c.startswith(harmless)]
    if start.meta.get("data_fingerprint") != images.fingerprint:
        fatal.append(f"data: other images (SHA-256 {start.meta.get('data_fingerprint')} -> {images.fingerprint})")
    if fatal:
        raise CheckpointError(
            f"cannot continue {start.path}, it was made with another configuration:\n"
            + "\n".join(f"  {f}" for f in fatal) + "\nUse the old values, or start a new run in another folder"
        )  # fmt: skip
    for change in changed:
        log.info("continuing with a changed setting, %s", change)


def _settings(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """A saved configuration; a setting that the version which saved it did not have has its default."""
    try:
        return from_dict(tree).to_dict()
    except ConfigError:
        return tree


def announce(run: Run) -> Metrics:
    """Writes what the run is made of, and says it; returns where its numbers go."""
    config, folder, images, state = run.config, run.folder, run.images, run.state
    parameters = sum(p.numel() for p in state.network.parameters())
    data = {"name": images.name, "fingerprint": images.fingerprint, "count": len(images)}
    data |= {"channels": images.channels, "height": images.height, "width": images.width}
    record = {**provenance(), "parameters": parameters, "data": data}
    if state.step and folder.provenance.exists():
        record["earlier"] = earlier(read_json(folder.provenance, advice="Move it away to continue without it"))
    write_yaml(folder.config, config.to_dict())
    write_json(folder.provenance, record)
    log.info("results go to %s", folder.path)
    log.info(
        "%s: %d images of %dx%dx%d; network with %s parameters; %s; %s",
        images.name, len(images), *images.shape, f"{parameters:,}",
        label(config.perturbation), record["hardware"],
    )  # fmt: skip
    untrained = remaining(config.train.ema_decay, config.train.ema_warmup, config.train.n_steps)
    if untrained > 0.01:
        log.warning(
            "after %d steps %.0f %% of the averaged network will still be its initial weights, which shows as noise in "
            "samples: lower train.ema_decay (%s)",
            config.train.n_steps, 100 * untrained, config.train.ema_decay,
        )  # fmt: skip
    return Metrics(folder, state.step)
