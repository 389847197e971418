"""A training run, from the configuration to the last checkpoint. Reads top to bottom."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from ddpm_ip.config import Config
from ddpm_ip.data import ImageSet
from ddpm_ip.ema import EMA
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import CheckpointError, ConfigError, DataError, OutOfMemory
from ddpm_ip.images import grid, save_png
from ddpm_ip.nn.unet import UNet
from ddpm_ip.run import checkpoint
from ddpm_ip.run.folder import Lock, RunFolder, default_path
from ddpm_ip.run.log import Metrics, Rate, clock, setup
from ddpm_ip.run.provenance import provenance
from ddpm_ip.sample.generator import preview
from ddpm_ip.train.feed import Feed
from ddpm_ip.train.monitor import Watch
from ddpm_ip.train.path import Step, make_step
from ddpm_ip.train.signals import StopRequest
from ddpm_ip.train.state import Sums, TrainState
from ddpm_ip.train.step import check_finite, learning_rate, own_rows

log = logging.getLogger("ddpm_ip.train")


@dataclass(frozen=True)
class Hooks:
    """Where a test can look in, or let something fail."""

    on_step: Callable[[int], None] = lambda step: None
    on_write: Callable[[str], None] = lambda name: None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its folder, the steps done, and the signal that stopped it early, if one did."""

    folder: Path
    step: int
    signal: int | None = None


NO_HOOKS = Hooks()


# Judges the averaged network of a run: all processes together take the samples; what it gives the main process, and no
# other, works out the evaluation. ddpm_ip.evaluate.during.Judge is one. (Evaluation knows training, not the other way
# round.)
Judge = Callable[[UNet], Callable[[], Any] | None]
MakeJudge = Callable[[Config, ImageSet, Accelerator], Judge]


def train(
    config: Config,
    exp_dir: Path | None = None,
    resume: str | None = None,
    hooks: Hooks = NO_HOOKS,
    make_judge: MakeJudge | None = None,
) -> Outcome:
    """Trains a model.

    Args:
        config: everything that the run is made of.
        exp_dir: where results go; ``runs/exp-{current time}`` if None.
        resume: "latest" continues the newest whole checkpoint of ``exp_dir``; or a checkpoint, or the folder of a run.
        hooks: for tests.
        make_judge: :class:`ddpm_ip.evaluate.during.Judge`, for ``train.eval``.

    Returns:
        How it ended. After SIGTERM or SIGINT the state is saved first.

    Raises:
        UserError: anything that the user can put right; what was saved before is untouched.
    """
    if resume == "latest" and exp_dir is None:
        raise ConfigError("-r latest continues the run in a folder: give that folder with -e")
    accelerator = start_engine(config.train.mixed_precision, fast=config.train.fast == "auto")
    setup(None, accelerator.is_main_process)
    folder = RunFolder(_agree(exp_dir or default_path()))
    start = _find_start(folder, resume)
    folder.path.mkdir(parents=True, exist_ok=True)
    with Lock(folder.lock) if accelerator.is_main_process else nullcontext():
        setup(folder, accelerator.is_main_process)
        try:
            return _train(config, folder, start, resume, accelerator, hooks, make_judge)
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(config, accelerator) from error


def _train(
    config: Config,
    folder: RunFolder,
    start: checkpoint.Checkpoint | None,
    resume: str | None,
    accelerator: Accelerator,
    hooks: Hooks,
    make_judge: MakeJudge | None,
) -> Outcome:
    images = _open_data(config, accelerator)
    _set_backends(config)
    _check(config, images, accelerator.num_processes)
    state = fresh_state(config, accelerator)
    state.meta = {"config": config.to_dict(), "data_fingerprint": images.fingerprint}
    if start is not None:
        _check_same(config, images, start)
        state.restore(start)
        log.info("continuing from %s at step %d", start.path, state.step)
    elif resume is not None:
        log.info("-r %s: there is no checkpoint in %s yet, starting at step 0", resume, folder.checkpoints)
    if accelerator.is_main_process and state.step < config.train.n_steps:
        checkpoint.set_aside(folder.checkpoints, state.step)
    judge = _judge(config, images, accelerator, make_judge)
    metrics = _announce(config, folder, images, state) if accelerator.is_main_process else None
    feed = make_feed(config, images, accelerator)
    try:
        if state.step >= config.train.n_steps:
            log.info("the run is already at step %d of %d: nothing to do", state.step, config.train.n_steps)
            return Outcome(folder.path, state.step)
        step = make_step(config, accelerator, feed, state)
        return _steps(config, folder, accelerator, state, step, judge, metrics, hooks)
    finally:
        feed.close()
        if metrics is not None:
            metrics.close()


def _steps(
    config: Config,
    folder: RunFolder,
    accelerator: Accelerator,
    state: TrainState,
    step: Step,
    judge: Judge | None,
    metrics: Metrics | None,
    hooks: Hooks,
) -> Outcome:
    t = config.train
    watch = Watch(folder, state.step, metrics) if judge is not None and accelerator.is_main_process else None
    saved = state.step
    rate = Rate(t.n_steps, t.batch_size, state.step)
    bar = tqdm(total=t.n_steps, initial=state.step, unit="step", disable=None if accelerator.is_main_process else True)
    with bar, StopRequest(accelerator) as stop, watch or nullcontext():
        while state.step < t.n_steps:
            state.sums.add(*step())
            bar.update()
            hooks.on_step(state.step)
            if watch is not None:
                watch.poll()
            done, stopping = state.step, stop.agreed(state.step)
            last = done == t.n_steps or stopping is not None
            if done % t.print_freq == 0 or done == t.n_steps:
                _report(config, accelerator, state, rate, metrics)
            if done % t.save_freq == 0 or last:
                _save(config, folder, accelerator, state, hooks, must_succeed=last)
                saved = done
            if t.sample_freq and (done % t.sample_freq == 0 or done == t.n_steps):
                _sample(config, folder, accelerator, state, metrics)
            if judge is not None and (done % t.eval.every == 0 or done == t.n_steps):
                _evaluate(state, judge, watch)
            if stopping is not None:
                log.info("stopped by signal %d at step %d; continue with -r latest -e %s", stopping, done, folder.path)
                return Outcome(folder.path, done, stopping)
    log.info("finished: %d steps, checkpoint of step %d in %s", state.step, saved, folder.checkpoints)
    return Outcome(folder.path, state.step)


def _report(config: Config, accelerator: Accelerator, state: TrainState, rate: Rate, metrics: Metrics | None) -> None:
    """One log line: the means since the last one, over all processes."""
    means = accelerator.reduce(state.sums.total / max(state.sums.count, 1), reduction="mean").float()
    state.sums = Sums.zero(accelerator.device)
    check_finite(means[0], means[0] if state.scaler is not None else means[1], state.step)
    if metrics is None:
        return
    images_per_s, left, seconds = rate.look(state.step)
    loss, norm = means.tolist()
    numbers = {"loss": loss, "grad_norm": norm, "lr": learning_rate(config, state.step - 1)}
    metrics.write(state.step, {**numbers, "images_per_s": round(images_per_s, 1), "seconds": round(seconds, 2)})
    log.info(
        "step %d/%d  loss %.5f  grad norm %.3f  %.0f images/s  ETA %s",
        state.step, config.train.n_steps, loss, norm, images_per_s, clock(left),
    )  # fmt: skip


def _save(
    config: Config, folder: RunFolder, accelerator: Accelerator, state: TrainState, hooks: Hooks, must_succeed: bool
) -> None:
    """Saves on the main process. Should the disk be full, training goes on and the next time may succeed."""
    check_finite(state.sums.total[0], state.sums.total[0], state.step)
    if accelerator.is_main_process:
        try:
            checkpoint.save(folder.checkpoints, state.step, state.tensors(), state.to_meta(), hooks.on_write)
        except CheckpointError as error:
            if must_succeed:
                raise
            log.error("%s. Training goes on; the next attempt is in %d steps", error, config.train.save_freq)
        else:
            checkpoint.prune(folder.checkpoints, config.train.keep_last, config.train.keep_every)
    accelerator.wait_for_everyone()


def _sample(
    config: Config, folder: RunFolder, accelerator: Accelerator, state: TrainState, metrics: Metrics | None
) -> None:
    """A grid of samples of the averaged network: always the same starting noise, so that grids can be compared."""
    images = preview(config, state.ema.network, accelerator)
    if metrics is not None:
        folder.samples.mkdir(exist_ok=True)
        path = folder.samples / f"step{state.step:08d}.png"
        save_png(grid(images), path)
        metrics.image(state.step, path)


def _judge(config: Config, images: ImageSet, accelerator: Accelerator, make_judge: MakeJudge | None) -> Judge | None:
    if not config.train.eval.every:
        return None
    if make_judge is None:
        raise ConfigError("train.eval.every is set: give train(..., make_judge=ddpm_ip.evaluate.during.Judge)")
    return make_judge(config, images, accelerator)


def _evaluate(state: TrainState, judge: Judge, watch: Watch | None) -> None:
    """Takes samples of the averaged network; what they are worth is worked out beside the steps that follow."""
    if watch is not None:
        watch.make_room()
    conclude = judge(state.ema.network)
    if watch is not None and conclude is not None:
        watch.begin(state, conclude)


def _find_start(folder: RunFolder, resume: str | None) -> checkpoint.Checkpoint | None:
    if resume is None:
        folder.refuse_if_used()
        return None
    if resume == "latest":
        return checkpoint.newest(folder.checkpoints)
    if Path(resume).resolve() not in (folder.path.resolve(), *folder.checkpoints.resolve().glob("step*")):
        folder.refuse_if_used()
    return checkpoint.find(Path(resume))


def fresh_state(config: Config, accelerator: Accelerator) -> TrainState:
    """The state at step 0: network, average and optimizer, on the device."""
    torch.manual_seed(config.seed)
    network = config.build_network().to(accelerator.device)
    o = config.train.optim
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[o.name]
    optimizer = kind(network.parameters(), lr=o.lr, betas=o.betas, eps=o.eps, weight_decay=o.weight_decay, fused=True)
    average = EMA(network, config.train.ema_decay)
    return TrainState(network, average, optimizer, Sums.zero(accelerator.device), accelerator.scaler)


def build(config: Config, images: ImageSet, accelerator: Accelerator) -> tuple[TrainState, Step]:
    """A fresh state, and the step that changes it, as a run would have them.

    Raises:
        DataError, ConfigError: data, model and processes do not fit together.
    """
    _set_backends(config)
    _check(config, images, accelerator.num_processes)
    state = fresh_state(config, accelerator)
    return state, make_step(config, accelerator, make_feed(config, images, accelerator), state)


def make_feed(config: Config, images: ImageSet, accelerator: Accelerator) -> Feed:
    """This process's share of the images of each step."""
    t = config.train
    return Feed(images, config.seed, t.batch_size, own_rows(config, accelerator), t.flip, accelerator.device)


def _open_data(config: Config, accelerator: Accelerator) -> ImageSet:
    """Opened on the main process first: it may download or decode, the others find what it left."""
    with accelerator.main_process_first():
        return config.data.open(progress=accelerator.is_main_process)


def _check(config: Config, images: ImageSet, processes: int) -> None:
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
    halvings = len(config.model.dim_mults) - 1
    if images.height % 2**halvings or images.width % 2**halvings:
        raise ConfigError(
            f"images of {images.height}x{images.width} cannot be halved {halvings} times (model.dim_mults): choose a "
            f"data.image_size divisible by {2**halvings}, or fewer model.dim_mults"
        )
    if config.train.batch_size % processes:
        raise ConfigError(
            f"train.batch_size {config.train.batch_size} is not divisible by the {processes} processes, and each takes "
            "an equal share"
        )


def _check_same(config: Config, images: ImageSet, start: checkpoint.Checkpoint) -> None:
    """Refuses to continue with another network, diffusion or data; mentions what else has changed.

    Raises:
        CheckpointError: with the differences.
    """
    old, new = _flat(start.meta.get("config", {})), _flat(config.to_dict())
    changed = [
        f"{k}: {old.get(k)} -> {new.get(k)}" for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)
    ]
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


def _announce(config: Config, folder: RunFolder, images: ImageSet, state: TrainState) -> Metrics:
    """Writes what the run is made of, and says it."""
    parameters = sum(p.numel() for p in state.network.parameters())
    data = {"name": images.name, "fingerprint": images.fingerprint, "count": len(images)}
    data |= {"channels": images.channels, "height": images.height, "width": images.width}
    record = {**provenance(), "parameters": parameters, "data": data}
    if state.step and folder.provenance.exists():
        record["earlier"] = json.loads(folder.provenance.read_text())
    folder.config.write_text(config.to_yaml(), encoding="utf-8")
    folder.provenance.write_text(json.dumps(record, indent=1), encoding="utf-8")
    log.info("results go to %s", folder.path)
    log.info(
        "%s: %d images of %dx%dx%d; network with %s parameters; %s; %s",
        images.name, len(images), *images.shape, f"{parameters:,}",
        _describe(config), record["hardware"],
    )  # fmt: skip
    untrained = config.train.ema_decay**config.train.n_steps
    if untrained > 0.01:
        log.warning(
            "after %d steps %.0f %% of the averaged network will still be its initial weights, which shows as noise in "
            "samples: lower train.ema_decay (%s)",
            config.train.n_steps, 100 * untrained, config.train.ema_decay,
        )  # fmt: skip
    return Metrics(folder, state.step)


def _describe(config: Config) -> str:
    gamma = getattr(config.perturbation, "gamma", 0)
    return f"input perturbation gamma {gamma}" if gamma else "plain DDPM"


def _set_backends(config: Config) -> None:
    if config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not config.train.deterministic


def _agree(path: Path) -> Path:
    """The main process's path, since clocks differ."""
    paths = [str(path)]
    broadcast_object_list(paths)
    return Path(paths[0])


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def _out_of_memory(config: Config, accelerator: Accelerator) -> OutOfMemory:
    micro = config.train.micro_batch or config.train.batch_size // accelerator.num_processes
    _, height, width = config.shape
    return OutOfMemory(
        f"the GPU has too little memory to train with {micro} images of {height} x {width} pixels at once. What was "
        f"saved is intact; continue with -r latest and one of: --train.micro_batch {max(1, micro // 2)} (the same "
        "batch, in more passes), --train.mixed_precision bf16, or a smaller --train.batch_size"
    )
